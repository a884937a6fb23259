//! One sandbox from its creation to its end, by one owner.
//!
//! ```text
//! lock directory ─▶ engine creates ─▶ intent committed ─▶ main process starts ─▶ … ─▶ it ends ─▶ exit committed ─▶ unlock
//!        │                 │                 │                    │              ▲
//!        └── error: what exists is undone, what was recorded becomes `failed` ───┤
//!                                          stop, kill, time limit, signals ──────┘
//! ```
//! The first reason that ends the sandbox is the one on record; the commit of the exit is durable before `run` returns.

mod running;
mod streams;

pub use running::resize;
pub use streams::Streams;

use crate::control::{Command, Defaults};
use crate::data::{DataDir, DataError, now};
use crate::gating::{GateRequest, Gating, Seen};
use crate::log::{LogWriter, MOST_BYTES};
use crate::publish::{Publish, Published};
use crate::pump::Output;
use crate::records::Records;
use cofferdam_engine::{
    Capabilities, Directory, Engine, EngineError, EngineEvent, File, Mount, Observation, Sandbox, SandboxSpec, UnpluggedControl, View,
    Wiring,
};
use cofferdam_model::{
    ImageRef, Limits, Name, NetworkLevel, NewEvent, Phase, PublishedPort, Reason, SandboxId, SandboxRecord, ViewOf, VolumeUse,
};
use cofferdam_store::StoreError;
use cofferdam_trust::{User, VerifiedImage};
pub use running::CHANGES;
use running::Running;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long a sandbox has to end by itself after TERM, where nothing else is said.
pub const GRACE: Duration = Duration::from_secs(10);
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
    /// The policy of a network that is not isolated.
    pub gate: Option<GateRequest>,
    /// Ports of the host's loopback that lead inside.
    pub publish: Vec<Publish>,
    /// Trees of the host.
    pub mounts: Vec<Mount>,
    /// Which of the mounts are named volumes.
    pub volumes: Vec<VolumeUse>,
    /// A tree of the host that the sandbox changes a copy of. What it changed is in `changes.tar` of its directory when it has ended.
    pub view: Option<View>,
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
    /// Kept for one owner: its main process does nothing, its work comes as further processes. It ends when nobody has used it for so long, or only
    /// when it is released.
    pub kept_for: Option<Kept>,
    /// How its health is told; None: by nothing but its main process.
    pub health: Option<Health>,
    /// Controls left out, by tests only.
    pub unplugged: BTreeSet<UnpluggedControl>,
    /// The image as it is, with nothing added: for building images.
    pub bare: bool,
}

/// How long a sandbox is kept for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Unused for so long, it ends. None: only a release ends it.
    pub idle: Option<Duration>,
}

/// A file that the engine put inside and that nothing inside can remove: where it is gone several times in a row, the sandbox is not what was
/// started any more.
#[derive(Clone, Debug)]
pub struct Health {
    /// The file.
    pub file: PathBuf,
    /// Between two looks.
    pub every: Duration,
    /// So many times in a row.
    pub tries: u32,
}

/// How a sandbox ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What is recorded.
    pub record: SandboxRecord,
    /// What was seen of it at its end.
    pub observation: Observation,
    /// What the gate decided.
    pub decisions: Vec<Seen>,
    /// Bytes that left through the gate, and that came in.
    pub traffic: (u64, u64),
    /// Whether the records hold others that have not ended: some of them may need sweeping.
    pub others: bool,
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
    /// It could not be made ready.
    #[error("{0}")]
    NotReady(String),
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
    prepare: Option<Prepare<'a>>,
    keep_root: Option<Inspect<'a>>,
}

/// Makes a sandbox ready before its main process starts; after an error that never does.
pub type Prepare<'a> = Box<dyn FnOnce(Arc<dyn Sandbox>) -> std::pin::Pin<Box<dyn Future<Output = Result<(), SupervisorError>> + 'a>> + 'a>;

/// Does something with a sandbox that has ended and is not deleted yet.
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
    pub fn on_created(mut self, prepare: Prepare<'a>) -> Self {
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
        // What cannot be removed now is found by the next sweep.
        let gone = keep || std::fs::remove_dir_all(&directory).is_ok();
        drop(lock);
        if !gone {
            // On NFS the lock was in the way.
            let _ = std::fs::remove_dir_all(&directory);
        }
        result
    }

    async fn run_locked(
        &mut self,
        mut request: Request,
        directory: PathBuf,
        (sender, receiver): (UnboundedSender<Command>, UnboundedReceiver<Command>),
    ) -> Result<(Outcome, Records), SupervisorError> {
        let mut record = first_record(&request, &self.engine.capabilities());
        let (event_sender, events) = unbounded_channel();
        let mut published = Published::bind(&request.publish).map_err(|source| SupervisorError::Io { what: "publish a port", source })?;
        let gating = match request.gate.take() {
            Some(wanted) => {
                let begun = Gating::begin(self.data, &directory, wanted, self.engine.brings_gate());
                Some(begun.map_err(|source| SupervisorError::Io { what: "connect to the gate", source })?)
            }
            None => None,
        };
        let mut spec = sandbox_spec(&request, &directory, self.data);
        spec.wiring = gating.as_ref().map_or(Wiring::Nothing, Gating::wiring);
        let (sandbox, store) = self.make(spec, &mut record, &request.actor, event_sender).await?;
        if let Some(prepare) = self.prepare.take()
            && let Err(error) = prepare(Arc::clone(&sandbox)).await
        {
            fail_start(&mut record, &request.actor, &error, &store).await?;
            sandbox.delete().await?;
            return Err(error);
        }
        let output = Arc::new(Output::new(LogWriter::new(&directory.join("logs"), request.log_bytes)));
        let serving = published.serve(&sandbox).map_err(|source| SupervisorError::Io { what: "publish a port", source });
        let started = match serving {
            Ok(()) => streams::start(&*sandbox, &mut request, &output).await,
            Err(error) => Err(error),
        };
        let (process, pumps) = match started {
            Ok(started) => started,
            Err(error) => {
                fail_start(&mut record, &request.actor, &error, &store).await?;
                sandbox.delete().await?;
                return Err(error);
            }
        };
        record.phase = Phase::Running;
        record.ports = published.list().into_iter().map(|(host, port)| PublishedPort { host, port }).collect();
        record.started_at = Some(now());
        let defaults = Defaults::of(&request);
        let kept_for = request.kept_for.map(|kept| (kept, Arc::default()));
        let mut running = Running {
            kept_for,
            gating,
            published,
            sandbox,
            process,
            output,
            pumps,
            events,
            receiver,
            sender,
            directory,
            defaults,
            health: request.health,
            actor: request.actor,
        };
        match running.supervise(&mut record, &store, self.ready.take()).await {
            Ok(reason) => running.finish(record, reason, store, self.keep_root.take()).await,
            // It cannot be recorded, or not be controlled: nothing of it stays, and the next sweep records that it was lost.
            Err(error) => running.sandbox.delete().await.map_err(Into::into).and(Err(error)),
        }
    }

    /// Makes the sandbox and commits the intent; after an error neither is there, or the record says that it failed.
    async fn make(
        &self,
        spec: SandboxSpec,
        record: &mut SandboxRecord,
        actor: &str,
        events: UnboundedSender<EngineEvent>,
    ) -> Result<(Arc<dyn Sandbox>, Records), SupervisorError> {
        let records = Records::of(self.data.database());
        // A name must not be in use, and who waits until the sandbox is ready waits for the database in any case.
        let journal = record.name.is_none() && self.ready.is_none();
        let intent = records.intend(record, event(record, actor, "sandbox.created", None), journal)?;
        let created = self.engine.create(spec, events).await;
        let committed = intent.committed().await;
        match (created, committed) {
            (Ok(sandbox), Ok(())) => Ok((sandbox, records)),
            (Ok(sandbox), Err(error)) => {
                sandbox.delete().await?;
                Err(error)
            }
            (Err(error), Ok(())) => {
                let error = error.into();
                fail_start(record, actor, &error, &records).await?;
                Err(error)
            }
            (Err(error), Err(_)) => Err(error.into()),
        }
    }
}

fn first_record(request: &Request, engine: &Capabilities) -> SandboxRecord {
    SandboxRecord {
        id: request.id,
        name: request.name.clone(),
        engine: engine.name.to_owned(),
        image: request.image_name.clone(),
        command: request.command.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
        network: request.network,
        limits: request.limits,
        kept: request.kept,
        ports: Vec::new(),
        view: request.view.as_ref().map(|view| ViewOf { source: view.source.path().to_owned(), target: view.target.clone() }),
        unenforced: engine.missing.iter().map(|(control, _)| control.clone()).collect(),
        volumes: request.volumes.clone(),
        policy_file: request.gate.as_ref().and_then(|gate| gate.file.as_ref()).map(|file| file.path.clone()),
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
        view: request.view.clone(),
        directories: request.directories.clone(),
        files: request.files.clone(),
        unplugged: request.unplugged.clone(),
        bare: request.bare,
        wiring: Wiring::Nothing,
    }
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
    store.end(record, vec![event]).await.map(|_| ())
}

/// The bytes of output that are kept where nothing else is said.
pub const LOG_BYTES: u64 = MOST_BYTES;
