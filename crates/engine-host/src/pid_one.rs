//! Talks to pid 1 of a sandbox: one task reads its replies and hands them to whoever waits.
//!
//! ```text
//! spawn ─▶ REQUEST_SPAWN ─▶ SPAWNED (pidfd, terminal) ─▶ [gate opens] ─▶ EXECUTED ─▶ … ─▶ EXITED
//!                      └──▶ FAILED (stage, errno)               └──────▶ FAILED
//! the socket closes: pid 1 is gone, every process counts as killed
//! ```

use cofferdam_engine::{EngineError, ExitStatus, Process};
use cofferdam_sys::init_wire::{
    REPLY_EXECUTED, REPLY_EXITED, REPLY_FAILED, REPLY_SPAWNED, REQUEST_SIGNAL, REQUEST_SPAWN, SIGNAL_EVERYTHING, SIGNAL_GROUP,
    STAGE_CREDENTIALS, STAGE_DIRECTORY, STAGE_EXECUTE, STAGE_FORK, STAGE_GATE, STAGE_LIMITS, STAGE_TERMINAL,
};
use cofferdam_sys::plan::stage_name;
use cofferdam_sys::plan_wire::{REPLY_SETUP_FAILED, SETUP_STEP};
use cofferdam_sys::{channel, spec};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

/// A process that pid 1 has made and that waits, or runs already.
#[derive(Debug)]
pub struct Spawned {
    /// Its number.
    pub id: u32,
    /// Its descriptor.
    pub pidfd: OwnedFd,
    /// Its terminal, if it asked for one.
    pub terminal: Option<OwnedFd>,
    executed: oneshot::Receiver<Result<(), EngineError>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// Pidfd and terminal of a new process.
type SpawnReply = Result<(OwnedFd, Option<OwnedFd>), EngineError>;

struct Entry {
    spawned: Option<oneshot::Sender<SpawnReply>>,
    executed: Option<oneshot::Sender<Result<(), EngineError>>>,
    exit: watch::Sender<Option<ExitStatus>>,
    program: String,
    directory: String,
}

#[derive(Default)]
struct State {
    entries: HashMap<u32, Entry>,
    next: u32,
    gone: Option<String>,
}

/// The connection.
pub struct PidOne {
    socket: Arc<AsyncFd<OwnedFd>>,
    state: Arc<Mutex<State>>,
    gone: watch::Receiver<bool>,
    reader: tokio::task::AbortHandle,
}

impl PidOne {
    /// Takes the supervisor's end of the control socket. `places` names the mount steps.
    pub fn connect(socket: OwnedFd, places: Vec<String>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = Arc::new(cofferdam_sys::readiness::register(socket)?);
        let state = Arc::new(Mutex::new(State::default()));
        let (gone_sender, gone) = watch::channel(false);
        let reader = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&state), gone_sender, places)).abort_handle();
        Ok(Self { socket, state, gone, reader })
    }

    /// Asks for a process. It waits for its gate pipe if the spec says so.
    pub async fn spawn(&self, process: &spec::ProcessSpec, fds: &[BorrowedFd<'_>]) -> Result<Spawned, EngineError> {
        let file = process.to_file().map_err(|e| EngineError::host(e.call, e.source))?;
        let (spawned_sender, spawned) = oneshot::channel();
        let (executed_sender, executed) = oneshot::channel();
        let (exit_sender, exit) = watch::channel(None);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entry = Entry {
            spawned: Some(spawned_sender),
            executed: Some(executed_sender),
            exit: exit_sender,
            program: process.arguments.first().map(|word| text(word)).unwrap_or_default(),
            directory: text(&process.directory),
        };
        let id = self.enter(entry)?;
        let mut all = vec![file.as_fd()];
        all.extend(fds);
        self.send([REQUEST_SPAWN, id, 0, 0], &all).await?;
        let (pidfd, terminal) = spawned.await.unwrap_or(Err(EngineError::Gone))?;
        Ok(Spawned { id, pidfd, terminal, executed, exit })
    }

    fn enter(&self, entry: Entry) -> Result<u32, EngineError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &state.gone {
            return Err(gone(why));
        }
        state.next += 1;
        let id = state.next;
        state.entries.insert(id, entry);
        Ok(id)
    }

    /// Signals a process; nothing happens if it has ended.
    pub async fn signal(&self, id: u32, number: i32) {
        // An ended sandbox takes no signal.
        let _ = self.send([REQUEST_SIGNAL, id, number as u32, 0], &[]).await;
    }

    /// Signals a process and those that it has not set apart from itself.
    pub async fn signal_group(&self, id: u32, number: i32) {
        let _ = self.send([REQUEST_SIGNAL, id, number as u32, SIGNAL_GROUP], &[]).await;
    }

    /// Signals everything but pid 1.
    pub async fn signal_everything(&self, number: i32) {
        let _ = self.send([REQUEST_SIGNAL, 0, number as u32, SIGNAL_EVERYTHING], &[]).await;
    }

    /// Whether pid 1 is gone.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Waits until pid 1 is gone.
    pub async fn wait_gone(&self) {
        let mut gone = self.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// It has ended; what it said last may still have to be read.
    async fn why_gone(&self) -> EngineError {
        self.wait_gone().await;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gone.as_deref().map_or(EngineError::Gone, gone)
    }

    async fn send(&self, words: [u32; 4], fds: &[BorrowedFd<'_>]) -> Result<(), EngineError> {
        loop {
            let mut ready = self.socket.writable().await.map_err(|e| EngineError::host("control socket", e))?;
            let sent = ready.try_io(|socket| channel::send_words(socket.get_ref(), words, fds).map_err(|error| error.source));
            match sent {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(self.why_gone().await),
                Err(_would_block) => {}
            }
        }
    }
}

impl Drop for PidOne {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Spawned {
    /// Waits until its program is executed.
    pub async fn executed(self) -> Result<Process, EngineError> {
        self.executed.await.unwrap_or(Err(EngineError::Gone))?;
        Ok(Process::new(self.id, self.terminal, self.exit))
    }
}

async fn read(socket: Arc<AsyncFd<OwnedFd>>, state: Arc<Mutex<State>>, gone_sender: watch::Sender<bool>, places: Vec<String>) {
    let mut why = String::new();
    loop {
        let Ok(mut ready) = socket.readable().await else { break };
        match ready.try_io(|socket| channel::receive_words(socket.get_ref()).map_err(|error| error.source)) {
            Ok(Ok(Some((words, _)))) if words[0] == REPLY_SETUP_FAILED => why = setup_failure(words, &places),
            Ok(Ok(Some((words, fds)))) => take(&state, words, fds),
            Ok(Ok(None) | Err(_)) => break,
            Err(_would_block) => {}
        }
    }
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    for entry in state.entries.values_mut() {
        if let Some(spawned) = entry.spawned.take() {
            let _ = spawned.send(Err(gone(&why)));
        }
    }
    state.gone = Some(why);
    state.entries.clear();
    gone_sender.send_replace(true);
}

fn setup_failure(words: [u32; 4], places: &[String]) -> String {
    let error = io::Error::from_raw_os_error(words[3] as i32);
    match places.get(words[1] as usize).filter(|_| words[2] == SETUP_STEP) {
        Some(place) => {
            format!("nothing can be mounted at /{place}: {error}; choose a place that the image has, or one that is not read-only")
        }
        None => format!("{}: {error}", stage_name(words[2])),
    }
}

fn gone(why: &str) -> EngineError {
    if why.is_empty() { EngineError::Gone } else { EngineError::host("set up the sandbox", io::Error::other(why.to_owned())) }
}

fn take(state: &Mutex<State>, words: [u32; 4], fds: Vec<OwnedFd>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let [kind, id, a, b] = words;
    let Some(entry) = state.entries.get_mut(&id) else { return };
    match kind {
        REPLY_SPAWNED => {
            let mut fds = fds.into_iter();
            if let (Some(spawned), Some(pidfd)) = (entry.spawned.take(), fds.next()) {
                let _ = spawned.send(Ok((pidfd, fds.next())));
            }
        }
        REPLY_EXECUTED => {
            if let Some(executed) = entry.executed.take() {
                let _ = executed.send(Ok(()));
            }
        }
        REPLY_FAILED => {
            let error = failure(entry, a, b as i32);
            if let Some(spawned) = entry.spawned.take() {
                let _ = spawned.send(Err(error));
            } else if let Some(executed) = entry.executed.take() {
                let _ = executed.send(Err(error));
            }
            state.entries.remove(&id);
        }
        REPLY_EXITED => {
            entry.exit.send_replace(Some(ExitStatus::from_wait(a)));
            state.entries.remove(&id);
        }
        _ => {}
    }
}

fn failure(entry: &Entry, stage: u32, errno: i32) -> EngineError {
    const ENOENT: i32 = 2;
    const ENOTDIR: i32 = 20;
    let source = io::Error::from_raw_os_error(errno);
    let what = match stage {
        STAGE_EXECUTE if errno == ENOENT || errno == ENOTDIR => return EngineError::NotFound { program: entry.program.clone() },
        STAGE_EXECUTE => return EngineError::NotExecutable { program: entry.program.clone(), source },
        STAGE_DIRECTORY => return EngineError::Directory { directory: entry.directory.clone(), source },
        STAGE_TERMINAL => "open a terminal in the sandbox",
        STAGE_FORK => "create a process in the sandbox",
        STAGE_CREDENTIALS => "switch users in the sandbox",
        STAGE_LIMITS => "set resource limits in the sandbox",
        STAGE_GATE => "wait for the process's cgroup",
        _ => "read the process's description",
    };
    EngineError::host(what, source)
}

#[cfg(test)]
mod tests;
