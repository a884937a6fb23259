//! One sandbox of an attempt, from its request to what is left of it.

use super::artifacts::{self, Artifact};
use super::plan::{Plan, TaskRunError};
use super::service::{self, Logs};
use super::verdict::TestLines;
use super::workspace::{self, WORKSPACE};
use crate::data::{DataDir, now, remove_tree};
use crate::log::{LogReader, Stream};
use crate::records::Records;
use crate::supervisor::{Health, LOG_BYTES, Outcome, Request, Streams, Supervisor, SupervisorError};
use cofferdam_engine::{Changes, Directory, Engine, EngineError, Sandbox, Transfer};
use cofferdam_model::task::{During, Service};
use cofferdam_model::{NetworkLevel, Reason, SandboxId, SandboxRecord};
use cofferdam_store::{Durability, TestOutcome};
use cofferdam_trust::{User, VerifiedImage};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;

/// How often a sandbox's description is looked for, and how often in a row it may be missing.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const MOST_MISSES: u32 = 3;
/// Below it each service finds its files.
pub(super) const SERVICES: &str = "/services";

/// Which sandbox of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The agent's.
    Execution,
    /// The verifier's.
    Verification,
    /// The verifier's, on the untouched base.
    Sanity,
}

impl Mode {
    /// Its name, for logs and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Execution => "execution",
            Self::Verification => "verification",
            Self::Sanity => "sanity",
        }
    }

    const fn during(self) -> During {
        match self {
            Self::Execution => During::Agent,
            Self::Verification | Self::Sanity => During::Verify,
        }
    }
}

/// What one sandbox is to do.
#[derive(Debug)]
pub struct Step {
    /// Its id.
    pub id: SandboxId,
    /// Which one.
    pub mode: Mode,
    /// What it starts from, if that is more than the plan's image.
    pub image: VerifiedImage,
    /// Who the main process is.
    pub user: User,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it starts.
    pub directory: String,
    /// Environment besides the plan's.
    pub environment: BTreeMap<String, String>,
    /// What it may reach.
    pub network: NetworkLevel,
    /// Directories to make inside.
    pub directories: Vec<Directory>,
    /// From the host into the sandbox, before anything runs.
    pub copies: Vec<Transfer>,
    /// Processes beside the main one.
    pub services: Vec<Service>,
    /// From the ended sandbox to the host; what is not there is skipped.
    pub results: Vec<(PathBuf, PathBuf, u64)>,
    /// Where everything that it changed is written as an archive, without these paths.
    pub layer: Option<(PathBuf, Vec<PathBuf>)>,
}

/// How a step ended.
#[derive(Debug)]
pub struct Ended {
    /// What the supervisor says.
    pub outcome: Outcome,
    /// Each listed test, as its output says.
    pub tests: BTreeMap<String, TestOutcome>,
}

impl Ended {
    /// From its start to its end.
    pub fn seconds(&self) -> f64 {
        const MILLIS: f64 = 1000.0;
        let record = &self.outcome.record;
        let from = record.started_at.unwrap_or(record.created_at);
        record.ended_at.map_or(0.0, |ended| (ended.as_millisecond() - from.as_millisecond()) as f64 / MILLIS)
    }
}

/// What the steps of one attempt share.
pub struct Stage<'a> {
    /// The data directory.
    pub data: &'a DataDir,
    /// What runs sandboxes.
    pub engine: &'a dyn Engine,
    /// The attempt.
    pub plan: &'a Plan,
    /// Its working files.
    pub directory: PathBuf,
}

type Trouble = Rc<RefCell<Option<EngineError>>>;

impl Stage<'_> {
    /// A new sandbox's id.
    pub fn new_id(&self) -> SandboxId {
        SandboxId::from_random((self.plan.random)())
    }

    /// What the agent left.
    pub fn result(&self) -> PathBuf {
        self.directory.join("result")
    }

    /// The agent's `/logs/agent`.
    pub fn agent_logs(&self) -> PathBuf {
        self.directory.join("agent-logs")
    }

    /// A reward file.
    pub fn reward(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("reward.{kind}"))
    }

    /// What is kept of the attempt.
    pub fn kept(&self) -> PathBuf {
        self.data.artifacts().join(self.plan.id.to_string())
    }

    /// Where collected files go: apart from logs, whose names an agent could use.
    pub fn files(&self) -> PathBuf {
        self.kept().join(artifacts::FILES)
    }

    /// Keeps the agent's own logs; returns recorded trajectories.
    pub fn keep_agent_logs(&self) -> Result<Vec<String>, TaskRunError> {
        let source = self.agent_logs();
        if !fs::read_dir(&source).is_ok_and(|mut entries| entries.next().is_some()) {
            return Ok(Vec::new());
        }
        let kept = artifacts::keep(self.data, &source, &["**".to_owned()], &self.kept().join("agent"))?;
        let is_trajectory = |artifact: &&Artifact| Path::new(&artifact.path).extension().is_some_and(|extension| extension == "jsonl");
        Ok(kept.iter().filter(is_trajectory).map(|artifact| format!("agent/{}", artifact.path)).collect())
    }

    /// Runs one sandbox to its end.
    pub async fn run(&self, step: Step) -> Result<Ended, TaskRunError> {
        let mode = step.mode;
        let engine = self.engine.capabilities();
        if step.layer.is_some() && !engine.changes {
            return Err(TaskRunError::Engine(EngineError::Unsupported {
                what: format!("a verifier that gets all that the agent changed (Harbor's mode \"shared\") on the engine {}", engine.name),
                why: "what a sandbox writes there cannot be told from its image".into(),
                remedy: "use --engine native, or environment_mode = \"separate\" with artifacts".into(),
            }));
        }
        let trouble: Trouble = Rc::default();
        let seen = Rc::clone(&trouble);
        let (copies, results, layer) = (step.copies.clone(), step.results.clone(), step.layer.clone());
        let services: Vec<Service> = step.services.iter().filter(|service| service.during.contains(&mode.during())).cloned().collect();
        let logs: Logs = Rc::default();
        let context = service::Context {
            base: self.plan.base.clone(),
            image: step.image.clone(),
            directory: step.directory.clone(),
            environment: environment(self.plan, mode, &step.user, &step.environment, &step.id.to_string()),
            logs: self.directory.join(format!("{}-services", mode.name())),
            started: Rc::clone(&logs),
        };
        let request = self.request(step)?;
        let supervisor = Supervisor::new(self.data, self.engine)
            .on_created(Box::new(move |sandbox| {
                Box::pin(async move {
                    copy_in(&*sandbox, copies).await?;
                    service::start_all(&sandbox, &services, &context).await
                })
            }))
            .on_end(Box::new(move |sandbox| {
                Box::pin(async move {
                    let result = take_out(&*sandbox, results, layer).await;
                    if let Err(error) = result {
                        seen.borrow_mut().get_or_insert(error);
                    }
                })
            }));
        let (outcome, records) = supervisor.run(request, unbounded_channel()).await?;
        let tests = self.keep_log(mode, &outcome.record, &records).await?;
        self.keep_service_logs(mode, &logs)?;
        if let Some(error) = trouble.take() {
            return Err(error.into());
        }
        match outcome.record.reason {
            Some(reason) if reason.is_infrastructure() => {
                let detail = outcome.record.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                Err(TaskRunError::Ended { mode: mode.name(), reason, detail })
            }
            _ => Ok(Ended { outcome, tests }),
        }
    }

    fn request(&self, step: Step) -> Result<Request, TaskRunError> {
        let plan = self.plan;
        let synth = workspace::describe(&plan.task, &plan.id.to_string(), &self.directory.join("synth"))?;
        let environment = environment(self.plan, step.mode, &step.user, &step.environment, &step.id.to_string());
        let start = plan.start(step.mode);
        let mut directories = step.directories;
        if step.services.iter().any(|service| service.files.is_some()) {
            directories.push(Directory { path: SERVICES.into(), mode: 0o755, owner: (0, 0) });
        }
        let labels = [
            ("cofferdam.task", plan.task.id.to_string()),
            ("cofferdam.attempt", plan.id.to_string()),
            ("cofferdam.difficulty", plan.task.difficulty.to_string()),
        ];
        Ok(Request {
            id: step.id,
            name: None,
            kept: true,
            actor: plan.actor.clone(),
            image_name: plan.image_name.clone(),
            image: step.image,
            command: step.command.into_iter().map(String::into_bytes).collect(),
            environment: environment.into_iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect(),
            directory: step.directory,
            user: step.user,
            limits: start.limits,
            network: step.network,
            gate: start.gate.clone(),
            publish: Vec::new(),
            mounts: vec![synth],
            view: None,
            volumes: Vec::new(),
            directories,
            files: Vec::new(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            log_bytes: LOG_BYTES,
            streams: Streams::detached(),
            kept_for: None,
            health: Some(Health { file: format!("{WORKSPACE}/.synth/task.json").into(), every: LOOK_EVERY, tries: MOST_MISSES }),
            unplugged: BTreeSet::new(),
            bare: false,
        })
    }

    /// Keeps what a sandbox wrote beside the artifacts, and removes its directory. Returns what its output says of listed tests.
    async fn keep_log(&self, mode: Mode, record: &SandboxRecord, records: &Records) -> Result<BTreeMap<String, TestOutcome>, TaskRunError> {
        let directory = self.data.sandbox(record.id);
        let mut lines = TestLines::of(if mode == Mode::Execution { Vec::new() } else { self.plan.task.verify.listed().collect() });
        if let Some(mut reader) = LogReader::open(&directory.join("logs")).map_err(io_at(&directory))? {
            let logs = self.kept().join("logs");
            fs::create_dir_all(&logs).map_err(io_at(&logs))?;
            let mut all = io::BufWriter::new(fs::File::create(logs.join(format!("{}.log", mode.name()))).map_err(io_at(&logs))?);
            while let Some(chunk) = reader.next_chunk().map_err(io_at(&directory))? {
                all.write_all(&chunk.bytes).map_err(io_at(&logs))?;
                if chunk.stream == Stream::Out {
                    lines.feed(&chunk.bytes);
                }
            }
            all.flush().map_err(io_at(&logs))?;
        }
        remove_tree(&directory).map_err(io_at(&directory))?;
        let removed = SandboxRecord { removed_at: Some(now()), ..record.clone() };
        records.run(move |store| store.sandbox_update(&removed, &[], Durability::Normal)).await?;
        Ok(lines.finish())
    }

    fn keep_service_logs(&self, mode: Mode, logs: &Logs) -> Result<(), TaskRunError> {
        for (name, directory, pump) in logs.take() {
            // A panicked pump has lost a service's output, not the attempt.
            let _ = pump.join();
            let Some(mut reader) = LogReader::open(&directory).map_err(io_at(&directory))? else { continue };
            let path = self.kept().join("logs").join(format!("{}-{name}.log", mode.name()));
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(io_at(parent))?;
            }
            let mut all = fs::File::create(&path).map_err(io_at(&path))?;
            while let Some(chunk) = reader.next_chunk().map_err(io_at(&directory))? {
                all.write_all(&chunk.bytes).map_err(io_at(&path))?;
            }
        }
        Ok(())
    }
}

/// What every process of a step finds in its environment.
pub(super) fn environment(plan: &Plan, mode: Mode, user: &User, own: &BTreeMap<String, String>, sandbox: &str) -> BTreeMap<String, String> {
    let mut environment = plan.start(mode).environment.clone();
    environment.extend(own.clone());
    let cofferdam_mode = if mode == Mode::Execution { "execution" } else { "verification" };
    let all = [
        ("HOME", user.home.clone()),
        ("USER", user.name.clone()),
        ("LOGNAME", user.name.clone()),
        ("TASK_ID", plan.task.id.to_string()),
        ("ATTEMPT_ID", plan.id.to_string()),
        ("SANDBOX_ID", sandbox.to_owned()),
        ("COFFERDAM_MODE", cofferdam_mode.to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ];
    environment.extend(all.map(|(key, value)| (key.to_owned(), value)));
    environment
}

/// An error about a path.
pub(super) fn io_at(path: &Path) -> impl Fn(io::Error) -> TaskRunError + use<> {
    let path = path.to_owned();
    move |source| TaskRunError::Io { path: path.clone(), source }
}

async fn copy_in(sandbox: &dyn Sandbox, copies: Vec<Transfer>) -> Result<(), SupervisorError> {
    for copy in copies {
        sandbox.transfer(copy).await?;
    }
    Ok(())
}

async fn take_out(
    sandbox: &dyn Sandbox,
    results: Vec<(PathBuf, PathBuf, u64)>,
    layer: Option<(PathBuf, Vec<PathBuf>)>,
) -> Result<(), EngineError> {
    for (source, target, most_bytes) in results {
        match sandbox.transfer(Transfer::Out { source, target, most_bytes }).await {
            Err(EngineError::Host { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => drop(other?),
        }
    }
    if let Some((path, leave_out)) = layer {
        let out = fs::File::create(&path).map_err(|error| EngineError::host(format!("create {}", path.display()), error))?;
        sandbox.changes(Changes { out, epoch: now().as_second(), leave_out, of_view: false }).await?;
    }
    Ok(())
}

/// What a user of the sandbox's own makes of a step that did not end by itself.
pub(super) fn ended_by_itself(ended: &Ended) -> bool {
    matches!(ended.outcome.record.reason, Some(Reason::Exited | Reason::Killed))
}
