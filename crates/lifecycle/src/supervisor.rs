//! One sandbox from its creation to its end, by one owner.
//!
//! ```text
//! lock directory ─▶ engine creates ─▶ intent committed ─▶ main process starts ─▶ … ─▶ it ends ─▶ exit committed ─▶ unlock
//!        │                 │                 │                    │              ▲
//!        └── error: what exists is undone, what was recorded becomes `failed` ───┤
//!                                          stop, kill, time limit, signals ──────┘
//! ```
//! The first reason that ends the sandbox is the one on record; the commit of the exit is durable before `run` returns.

use crate::control::{self, Command, Defaults};
use crate::data::{DataDir, DataError, now};
use crate::log::{LogWriter, MOST_BYTES, Stream};
use crate::pump::{self, Output, Source};
use crate::records::Records;
use cofferdam_engine::{
    Control, Engine, EngineError, EngineEvent, ExitStatus, Mount, Observation, Process, ProcessSpec, Sandbox, SandboxSpec, Stdio,
    UnpluggedControl,
};
use cofferdam_engine::{Directory, File};
use cofferdam_model::{ImageRef, Limits, Name, NetworkLevel, NewEvent, Phase, Reason, SandboxId, SandboxRecord, Timestamp};
use cofferdam_store::{Durability, Store, StoreError};
use cofferdam_trust::{User, VerifiedImage};
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, sleep_until};

/// How long a sandbox has to end by itself after TERM, where nothing else is said.
pub const GRACE: Duration = Duration::from_secs(10);
/// What lives shorter gets neither a control socket nor a record of running.
const SETTLED: Duration = Duration::from_millis(5);

/// A sandbox to run.
#[derive(Debug)]
pub struct Request {
    /// Its id.
    pub id: SandboxId,
    /// Its name.
    pub name: Option<Name>,
    /// Whether its bytes stay after its end.
    pub kept: bool,
    /// Who asked for it.
    pub actor: String,
    /// The image as it was named.
    pub image_name: ImageRef,
    /// The image.
    pub image: VerifiedImage,
    /// Program and arguments.
    pub command: Vec<Vec<u8>>,
    /// `NAME=value` entries: the whole environment.
    pub environment: Vec<Vec<u8>>,
    /// Working directory inside.
    pub directory: String,
    /// User inside.
    pub user: User,
    /// What it may use.
    pub limits: Limits,
    /// What it may reach.
    pub network: NetworkLevel,
    /// Trees of the host.
    pub mounts: Vec<Mount>,
    /// Directories to make inside.
    pub directories: Vec<Directory>,
    /// Files to make inside.
    pub files: Vec<File>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Most bytes of output that are kept.
    pub log_bytes: u64,
    /// Its standard streams.
    pub streams: Streams,
    /// Controls left out, by tests only.
    pub unplugged: BTreeSet<UnpluggedControl>,
}

/// Where the standard streams of the main process come from and go to.
#[derive(Debug)]
pub struct Streams {
    /// Rows and columns of a terminal of its own.
    pub terminal: Option<(u16, u16)>,
    /// Handed to the process as it is: a pipe, or the null device.
    pub input: Option<OwnedFd>,
    /// Copied into the process's input as it comes.
    pub feed: Option<OwnedFd>,
    /// The caller's output and error output.
    pub foreground: Option<(OwnedFd, OwnedFd)>,
}

impl Streams {
    /// No input, output to the log only.
    pub const fn detached() -> Self {
        Self { terminal: None, input: None, feed: None, foreground: None }
    }
}

/// How a sandbox ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is recorded.
    pub record: SandboxRecord,
    /// What was seen of it at its end.
    pub observation: Observation,
}

/// Why a sandbox could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The sandbox's own files or streams.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Runs sandboxes of one data directory on one engine.
pub struct Supervisor<'a> {
    data: &'a DataDir,
    engine: &'a dyn Engine,
    ready: Option<Box<dyn FnOnce() + 'a>>,
    prepare: Option<Inspect<'a>>,
    keep_root: Option<Inspect<'a>>,
}

/// Does something with a sandbox before it runs, or when it has ended and is not deleted yet.
pub type Inspect<'a> = Box<dyn FnOnce(Arc<dyn Sandbox>) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> + 'a>;

impl<'a> Supervisor<'a> {
    /// For this data directory and engine.
    pub fn new(data: &'a DataDir, engine: &'a dyn Engine) -> Self {
        Self { data, engine, ready: None, prepare: None, keep_root: None }
    }

    /// Calls this once the main process runs and the control socket listens.
    #[must_use]
    pub fn on_ready(mut self, ready: impl FnOnce() + 'a) -> Self {
        self.ready = Some(Box::new(ready));
        self
    }

    /// Calls this when the sandbox exists and nothing runs in it yet.
    #[must_use]
    pub fn on_created(mut self, prepare: Inspect<'a>) -> Self {
        self.prepare = Some(prepare);
        self
    }

    /// Calls this when the main process has ended, before the sandbox is deleted.
    #[must_use]
    pub fn on_end(mut self, inspect: Inspect<'a>) -> Self {
        self.keep_root = Some(inspect);
        self
    }

    /// Runs a sandbox to its end. Commands come through `commands`, whose sender the control socket shares.
    pub async fn run(
        mut self,
        request: Request,
        commands: (UnboundedSender<Command>, UnboundedReceiver<Command>),
    ) -> Result<(Outcome, Records), SupervisorError> {
        let (directory, lock) = self.data.make_sandbox(request.id)?;
        let result = self.run_locked(request, directory.clone(), commands).await;
        let keep = matches!(&result, Ok((outcome, _)) if outcome.record.removed_at.is_none());
        if !keep {
            // What cannot be removed now is found by the next sweep.
            let _ = std::fs::remove_dir_all(&directory);
        }
        drop(lock);
        result
    }

    async fn run_locked(
        &mut self,
        mut request: Request,
        directory: PathBuf,
        (sender, receiver): (UnboundedSender<Command>, UnboundedReceiver<Command>),
    ) -> Result<(Outcome, Records), SupervisorError> {
        let mut record = first_record(&request, self.engine.capabilities().name);
        let (event_sender, events) = unbounded_channel();
        let sandbox = self.engine.create(sandbox_spec(&request, &directory, self.data), event_sender).await?;
        // In a thread: the sandbox sets itself up meanwhile.
        let intent = (self.data.database(), record.clone(), event(&record, &request.actor, "sandbox.created", None));
        let records = Records::open(move || open_with_intent(&intent.0, &intent.1, intent.2))?;
        let store = match records.opened().await {
            Ok(store) => store,
            Err(error) => {
                sandbox.delete().await?;
                return Err(error);
            }
        };
        if let Some(prepare) = self.prepare.take() {
            prepare(Arc::clone(&sandbox)).await;
        }
        let output = Arc::new(Output::new(LogWriter::new(&directory.join("logs"), request.log_bytes)));
        let started = start(&*sandbox, &mut request, &output).await;
        let (process, pumps) = match started {
            Ok(started) => started,
            Err(error) => {
                fail_start(&mut record, &request.actor, &error, &store).await?;
                sandbox.delete().await?;
                return Err(error);
            }
        };
        record.phase = Phase::Running;
        record.started_at = Some(now());
        let defaults = Defaults::of(&request);
        let mut running = Running { sandbox, process, output, pumps, events, receiver, sender, directory, defaults, actor: request.actor };
        let reason = running.supervise(&mut record, &store, self.ready.take()).await?;
        running.finish(record, reason, store, self.keep_root.take()).await
    }
}

fn first_record(request: &Request, engine: &str) -> SandboxRecord {
    SandboxRecord {
        id: request.id,
        name: request.name.clone(),
        engine: engine.to_owned(),
        image: request.image_name.clone(),
        command: request.command.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
        network: request.network,
        limits: request.limits,
        kept: request.kept,
        labels: request.labels.clone(),
        phase: Phase::Creating,
        reason: None,
        detail: None,
        exit_code: None,
        created_at: now(),
        started_at: None,
        ended_at: None,
        removed_at: None,
    }
}

fn sandbox_spec(request: &Request, directory: &std::path::Path, data: &DataDir) -> SandboxSpec {
    let hostname = request.name.as_ref().map_or_else(|| request.id.short(), ToString::to_string);
    SandboxSpec {
        id: request.id,
        install: data.install(),
        directory: directory.to_owned(),
        hostname,
        image: request.image.clone(),
        limits: request.limits,
        user: request.user.clone(),
        mounts: request.mounts.clone(),
        directories: request.directories.clone(),
        files: request.files.clone(),
        unplugged: request.unplugged.clone(),
    }
}

fn open_with_intent(database: &std::path::Path, record: &SandboxRecord, created: NewEvent) -> Result<Store, StoreError> {
    let mut store = Store::open(database)?;
    store.sandbox_insert(record, &[created], Durability::Normal)?;
    Ok(store)
}

/// An event about a sandbox.
pub fn event(record: &SandboxRecord, actor: &str, kind: &str, reason: Option<String>) -> NewEvent {
    let data = serde_json::Value::Null;
    NewEvent {
        time: now(),
        actor: actor.to_owned(),
        subject: format!("sandbox:{}", record.id),
        kind: kind.to_owned(),
        rule: None,
        reason,
        data,
    }
}

async fn fail_start(record: &mut SandboxRecord, actor: &str, error: &SupervisorError, store: &Records) -> Result<(), SupervisorError> {
    record.phase = Phase::Failed;
    record.reason = Some(Reason::StartFailed);
    record.detail = Some(error.to_string());
    record.ended_at = Some(now());
    record.removed_at = record.ended_at;
    let event = event(record, actor, "sandbox.failed", record.detail.clone());
    let failed = record.clone();
    store.run(move |store| store.sandbox_update(&failed, &[event], Durability::Full)).await.map(|_| ())
}

type Pumps = Vec<JoinHandle<()>>;

/// Starts the main process with its streams connected.
async fn start(sandbox: &dyn Sandbox, request: &mut Request, output: &Arc<Output>) -> Result<(Process, Pumps), SupervisorError> {
    let io = |what| move |source: std::io::Error| SupervisorError::Io { what, source };
    let spec = ProcessSpec {
        command: request.command.clone(),
        environment: request.environment.clone(),
        directory: request.directory.clone(),
        user: request.user.clone(),
        terminal: request.streams.terminal,
    };
    let streams = &mut request.streams;
    if streams.terminal.is_some() {
        let mut process = sandbox.start(spec, Stdio::Terminal).await?;
        let Some(master) = process.terminal.take() else { return Ok((process, Vec::new())) };
        let copy = master.try_clone().map_err(io("duplicate the terminal"))?;
        process.terminal = Some(master.try_clone().map_err(io("duplicate the terminal"))?);
        let foreground = streams.foreground.take().map(|(out, _)| out);
        let source = Source { from: copy, stream: Stream::Out, foreground };
        let pumps = vec![pump::from_sandbox(vec![source], Arc::clone(output)).map_err(io("start a thread"))?];
        if let Some(feed) = streams.feed.take() {
            // It ends with the process: nobody waits for a keyboard.
            pump::into_sandbox(feed, master).map_err(io("start a thread"))?;
        }
        return Ok((process, pumps));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| io("make a pipe")(e.into()));
    let ((out_read, out_write), (error_read, error_write)) = (pipe()?, pipe()?);
    let (input, feed) = match (streams.input.take(), streams.feed.take()) {
        (Some(input), _) => (input, None),
        (None, Some(feed)) => {
            let (read, write) = pipe()?;
            (read, Some((feed, write)))
        }
        (None, None) => (std::fs::File::open("/dev/null").map_err(io("open /dev/null"))?.into(), None),
    };
    let process = sandbox.start(spec, Stdio::Fds([input, out_write, error_write])).await?;
    if let Some((feed, write)) = feed {
        pump::into_sandbox(feed, write).map_err(io("start a thread"))?;
    }
    let (out, error) = streams.foreground.take().map_or((None, None), |(out, error)| (Some(out), Some(error)));
    let sources = vec![
        Source { from: out_read, stream: Stream::Out, foreground: out },
        Source { from: error_read, stream: Stream::Err, foreground: error },
    ];
    let pump = pump::from_sandbox(sources, Arc::clone(output)).map_err(io("start a thread"))?;
    Ok((process, vec![pump]))
}

/// A sandbox whose main process runs.
struct Running {
    sandbox: Arc<dyn Sandbox>,
    process: Process,
    output: Arc<Output>,
    pumps: Pumps,
    events: UnboundedReceiver<EngineEvent>,
    receiver: UnboundedReceiver<Command>,
    sender: UnboundedSender<Command>,
    directory: PathBuf,
    defaults: Defaults,
    actor: String,
}

impl Running {
    /// Until the main process has ended; returns why if something else than itself ended it.
    async fn supervise(
        &mut self,
        record: &mut SandboxRecord,
        store: &Records,
        ready: Option<Box<dyn FnOnce() + '_>>,
    ) -> Result<Option<Reason>, SupervisorError> {
        let deadline = record.limits.timeout.map(|timeout| Instant::now() + timeout.duration());
        let mut why = None;
        if ready.is_none() {
            tokio::select! {
                biased;
                _ = self.process.wait() => return Ok(why),
                () = sleep(SETTLED) => {}
            }
        }
        let _server =
            control::serve(&self.directory, &self.sandbox, &self.process, &self.output, self.defaults.clone(), self.sender.clone())
                .map_err(|source| SupervisorError::Io { what: "open the control socket", source })?;
        let started = event(record, &self.actor, "sandbox.started", None);
        let recorded = record.clone();
        store.run(move |store| store.sandbox_update(&recorded, &[started], Durability::Normal)).await?;
        if let Some(ready) = ready {
            ready();
        }
        loop {
            let time_out = async {
                match deadline.filter(|_| why.is_none()) {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = self.process.wait() => return Ok(why),
                Some(command) = self.receiver.recv() => self.obey(command, &mut why).await?,
                () = time_out => {
                    why = Some(Reason::TimeLimit);
                    self.sandbox.control(Control::Kill).await?;
                }
                Some(EngineEvent::Refused(refused)) = self.events.recv() => {
                    let mut event = event(record, "cofferdam", "network.refused", Some("no policy allows it".into()));
                    event.data = serde_json::to_value(&refused).unwrap_or_default();
                    store.run(move |store| store.event_insert(&[event])).await?;
                }
            }
        }
    }

    async fn obey(&self, command: Command, why: &mut Option<Reason>) -> Result<(), EngineError> {
        match command {
            Command::Stop { grace } => {
                if why.is_none() {
                    *why = Some(Reason::Stopped);
                    // Commands are obeyed while it takes its time: a kill must not wait.
                    let sandbox = Arc::clone(&self.sandbox);
                    tokio::spawn(async move { sandbox.control(Control::Stop { grace }).await });
                }
            }
            Command::Kill => {
                why.get_or_insert(Reason::Killed);
                self.sandbox.control(Control::Kill).await?;
            }
            Command::Signal(number) => self.sandbox.control(Control::Signal { process: self.process.id, number }).await?,
            Command::Resize(rows, columns) => {
                if let Some(terminal) = &self.process.terminal {
                    resize(terminal.as_fd(), rows, columns);
                }
            }
            Command::Pause => self.sandbox.control(Control::Pause).await?,
            Command::Resume => self.sandbox.control(Control::Resume).await?,
        }
        Ok(())
    }

    async fn finish(
        mut self,
        mut record: SandboxRecord,
        why: Option<Reason>,
        store: Records,
        inspect: Option<Inspect<'_>>,
    ) -> Result<(Outcome, Records), SupervisorError> {
        let status = self.process.wait().await;
        drop(self.process.terminal.take());
        if let Some(inspect) = inspect {
            inspect(Arc::clone(&self.sandbox)).await;
        }
        let observation = self.sandbox.observe().await?;
        for pump in self.pumps {
            // A panicked pump has lost output, not the exit.
            let _ = pump.join();
        }
        self.output.close();
        settle(&mut record, why, status, &observation);
        let mut events =
            vec![event(&record, &self.actor, &format!("sandbox.{}", record.phase), record.reason.map(|r| r.name().to_owned()))];
        events.extend(refusals(&record, &observation));
        let exit = record.clone();
        let commit = store.run(move |store| store.sandbox_update(&exit, &events, Durability::Full));
        let (committed, deleted) = tokio::join!(commit, self.sandbox.delete());
        committed?;
        deleted?;
        Ok((Outcome { record, observation }, store))
    }
}

/// Sets a terminal's size; a terminal that is gone has none.
pub fn resize(terminal: std::os::fd::BorrowedFd<'_>, rows: u16, columns: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

/// Works out how it ended from what was seen.
fn settle(record: &mut SandboxRecord, why: Option<Reason>, status: ExitStatus, observation: &Observation) {
    const SIGKILL: i32 = 9;
    let killed = status == ExitStatus::Signal(SIGKILL);
    let reason = match why {
        Some(why) => why,
        None if killed && observation.out_of_memory_kills > 0 => Reason::OutOfMemory,
        None if killed => Reason::Killed,
        None => Reason::Exited,
    };
    record.phase = reason.phase();
    record.reason = Some(reason);
    record.exit_code = Some(status.shell_code());
    record.detail = match reason {
        Reason::OutOfMemory => Some(format!("the memory limit of {} was reached", record.limits.memory)),
        Reason::TimeLimit => record.limits.timeout.map(|timeout| format!("the time limit of {timeout} was reached")),
        _ => None,
    };
    let time: Timestamp = now();
    record.ended_at = Some(time);
    record.removed_at = (!record.kept).then_some(time);
}

/// One event for each refused destination, with its count.
fn refusals(record: &SandboxRecord, observation: &Observation) -> Vec<NewEvent> {
    let repeated = observation.refused.iter().filter(|refused| refused.count > 1 || record.started_at.is_some());
    let mut events: Vec<NewEvent> = repeated
        .map(|refused| {
            let mut event = event(record, "cofferdam", "network.refused_total", Some("no policy allows it".into()));
            event.data = serde_json::to_value(refused).unwrap_or_default();
            event
        })
        .collect();
    if observation.refused_unnamed > 0 {
        let mut event = event(record, "cofferdam", "network.refused_total", Some("more destinations than are kept one by one".into()));
        event.data = serde_json::json!({ "count": observation.refused_unnamed });
        events.push(event);
    }
    events
}

/// The bytes of output that are kept where nothing else is said.
pub const LOG_BYTES: u64 = MOST_BYTES;

#[cfg(test)]
mod tests;
