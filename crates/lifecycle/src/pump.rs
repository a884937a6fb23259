//! Moves a sandbox's output to whoever wants it: the foreground, the log, attached clients.
//!
//! One thread a stream, so that a slow foreground stops only its own workload; an attached client that does not keep
//! up is cut off rather than waited for.

use crate::data::now;
use crate::log::{LogWriter, Stream};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

const CHUNK_BYTES: usize = 64 << 10;
const STACK_BYTES: usize = 192 << 10;

/// A piece of output on its way to an attached client.
pub type Piece = (Stream, Arc<[u8]>);

/// Where output goes besides the foreground.
#[derive(Debug)]
pub struct Output {
    log: Mutex<LogWriter>,
    clients: Mutex<Vec<SyncSender<Piece>>>,
}

impl Output {
    /// To a log, and to clients as they come.
    pub fn new(log: LogWriter) -> Self {
        Self { log: Mutex::new(log), clients: Mutex::default() }
    }

    /// Adds an attached client.
    pub fn attach(&self, client: SyncSender<Piece>) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    }

    /// Ends every client's stream.
    pub fn close(&self) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Bytes that the log did not keep.
    pub fn dropped(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).dropped()
    }

    fn take(&self, stream: Stream, bytes: &[u8]) {
        // A full disk must not stop the workload: the chunk is then missing from the log.
        let _ = self.log.lock().unwrap_or_else(PoisonError::into_inner).write(stream, now().as_millisecond(), bytes);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if !clients.is_empty() {
            let piece: Arc<[u8]> = bytes.into();
            clients.retain(|client| !matches!(client.try_send((stream, Arc::clone(&piece))), Err(TrySendError::Full(_) | TrySendError::Disconnected(_))));
        }
    }
}

/// Reads a stream to its end, in a thread. `foreground` gets everything as it comes.
pub fn from_sandbox(source: OwnedFd, stream: Stream, foreground: Option<OwnedFd>, output: Arc<Output>) -> std::io::Result<JoinHandle<()>> {
    let name = format!("output-{stream:?}").to_lowercase();
    Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
        let mut source = File::from(source);
        let mut foreground = foreground.map(File::from);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // EIO: the last process with the terminal has ended.
                Err(_) => return,
            };
            let bytes = &buffer[..length];
            if foreground.as_mut().is_some_and(|file| file.write_all(bytes).is_err()) {
                // Nobody reads the foreground any more. The workload learns it the usual way: its next write fails.
                return;
            }
            output.take(stream, bytes);
        }
    })
}

/// Copies the caller's input into the sandbox, in a thread that ends with its source or its target.
pub fn into_sandbox(source: OwnedFd, target: OwnedFd) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name("input".into()).stack_size(STACK_BYTES).spawn(move || {
        let (mut source, mut target) = (File::from(source), File::from(target));
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if target.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    })
}
