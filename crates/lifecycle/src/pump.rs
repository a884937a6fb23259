//! Moves a sandbox's output to whoever wants it: the foreground, the log, attached clients.
//!
//! One thread a sandbox, so that a slow foreground stops only its own workload; an attached client that does not keep
//! up is cut off rather than waited for.

use crate::data::now;
use crate::log::{LogWriter, Stream};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
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
            clients.retain(|client| {
                !matches!(client.try_send((stream, Arc::clone(&piece))), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
            });
        }
    }
}

/// One stream of a sandbox on its way out.
#[derive(Debug)]
pub struct Source {
    /// Where it is read.
    pub from: OwnedFd,
    /// Which stream it is.
    pub stream: Stream,
    /// Who sees it as it comes.
    pub foreground: Option<OwnedFd>,
}

/// Reads streams to their ends, in one thread.
pub fn from_sandbox(sources: Vec<Source>, output: Arc<Output>) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name("output".into()).stack_size(STACK_BYTES).spawn(move || {
        let mut sources = sources;
        let mut buffer = vec![0; CHUNK_BYTES];
        while !sources.is_empty() {
            let ready = wait_readable(&sources);
            let mut index = 0;
            sources.retain(|source| {
                index += 1;
                !ready.get(index - 1).copied().unwrap_or(true) || move_chunk(source, &mut buffer, &output)
            });
        }
    })
}

/// Which sources can be read without waiting (or have ended).
fn wait_readable(sources: &[Source]) -> Vec<bool> {
    let mut polled: Vec<PollFd<'_>> = sources.iter().map(|source| PollFd::new(&source.from, PollFlags::IN)).collect();
    match poll(&mut polled, None) {
        Ok(_) => polled.iter().map(|fd| !fd.revents().is_empty()).collect(),
        Err(_) => vec![false; sources.len()],
    }
}

/// False when the stream has ended, or nobody reads the foreground any more: the workload learns that the usual way,
/// its next write fails.
fn move_chunk(source: &Source, buffer: &mut [u8], output: &Output) -> bool {
    let length = match rustix::io::read(&source.from, &mut *buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        // EIO: the last process with the terminal has ended.
        Err(_) => return false,
    };
    let bytes = &buffer[..length];
    if source.foreground.as_ref().is_some_and(|fd| write_all(fd, bytes).is_err()) {
        return false;
    }
    output.take(source.stream, bytes);
    true
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // The caller's own descriptor may be non-blocking.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(fd, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
