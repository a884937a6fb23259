//! One attempt.
//!
//! ```text
//! recorded ─▶ agent's sandbox ─▶ result copied out ─▶ verifier's sandbox (result + tests) ─▶ verdict ─▶ recorded
//!                  │                                          │
//!                  └── time limit: phase timeout              └── infrastructure failure: phase failed, no reward
//! ```

use super::artifacts::{self, CollectError};
use super::verdict::{Evidence, VerdictError, judge};
use super::workspace::{self, DescribeError, WORKSPACE};
use crate::data::{DataDir, now};
use crate::gating::GateRequest;
use crate::log::{LogReader, Stream};
use crate::records::Records;
use crate::supervisor::{LOG_BYTES, Outcome, Request, Streams, Supervisor, SupervisorError};
use cofferdam_engine::{Engine, EngineError, Sandbox, Transfer};
use cofferdam_model::{AttemptId, Limits, NetworkLevel, NewEvent, Phase, Reason, SandboxId, SandboxRecord, Task};
use cofferdam_store::{AttemptRecord, Durability, Store};
use cofferdam_trust::{User, UserError, VerifiedImage};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::unbounded_channel;

const VERIFICATION: &str = "verification";
const MOST_RESULT_BYTES: u64 = 16 << 30;
const LARGEST_REWARD_FILE: u64 = 64 << 10;

/// Who attempts a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// The reference solution.
    Oracle,
    /// Nobody: nothing is done.
    Nop,
    /// The task's own command.
    Own,
    /// A command line for `sh`.
    Command(String),
}

impl Agent {
    /// Its name in records.
    pub fn name(&self) -> &str {
        match self {
            Self::Oracle => "oracle",
            Self::Nop => "nop",
            Self::Own => "task",
            Self::Command(_) => "command",
        }
    }
}

/// An attempt to make.
#[derive(Debug)]
pub struct Plan {
    /// Its id.
    pub id: AttemptId,
    /// The task.
    pub task: Task,
    /// The directory of the task file.
    pub base: PathBuf,
    /// Who attempts it.
    pub agent: Agent,
    /// The image, with the task's toolchains.
    pub image: VerifiedImage,
    /// Environment of every process.
    pub environment: BTreeMap<String, String>,
    /// The task's limits, as far as this machine has them.
    pub limits: Limits,
    /// What the agent may reach, where its network is not isolated.
    pub agent_gate: Option<GateRequest>,
    /// What the verifier may reach.
    pub verify_gate: Option<GateRequest>,
    /// Who asked for it.
    pub actor: String,
    /// Makes 128 random bits.
    pub random: fn() -> [u8; 16],
}

/// Why an attempt could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TaskRunError {
    /// The task has nothing that this agent could do.
    #[error("task {task}: agent {agent} needs {what} in the task file")]
    NoCommand {
        /// The task.
        task: String,
        /// The agent.
        agent: String,
        /// What is missing.
        what: &'static str,
    },
    /// A user that the image has not.
    #[error(transparent)]
    User(#[from] UserError),
    /// The sandbox.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// Files into or out of the sandbox.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The task's description.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The verdict.
    #[error(transparent)]
    Verdict(#[from] VerdictError),
    /// The artifacts.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The records.
    #[error(transparent)]
    Store(#[from] cofferdam_store::StoreError),
    /// A file of the host.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes an attempt and records it.
pub async fn run(data: &DataDir, engine: &dyn Engine, store: &mut Store, plan: &Plan) -> Result<AttemptRecord, TaskRunError> {
    let mut record = AttemptRecord {
        id: plan.id,
        task: plan.task.id.clone(),
        agent: plan.agent.name().to_owned(),
        phase: Phase::Running,
        reason: None,
        detail: None,
        reward: None,
        agent_sandbox: None,
        verify_sandbox: None,
        agent_exit_code: None,
        verify_exit_code: None,
        created_at: now(),
        ended_at: None,
    };
    let command = agent_command(plan)?;
    store.attempt_save(&record, &[event(plan, "attempt.started", None)])?;
    let directory = data.path().join("attempts").join(plan.id.to_string());
    let attempt = Attempt { data, engine, plan, directory: directory.clone() };
    let result = attempt.make(command, &mut record).await;
    match &result {
        Ok(()) => {}
        Err(error) => {
            record.phase = Phase::Failed;
            record.reason = Some(Reason::StartFailed);
            record.detail = Some(error.to_string());
        }
    }
    record.ended_at = Some(now());
    let kind = format!("attempt.{}", record.phase);
    store.attempt_save(&record, &[event(plan, &kind, record.detail.clone())])?;
    remove(&directory)?;
    result.map(|()| record)
}

fn remove(path: &Path) -> Result<(), TaskRunError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(TaskRunError::Io { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}

fn event(plan: &Plan, kind: &str, reason: Option<String>) -> NewEvent {
    NewEvent {
        time: now(),
        actor: plan.actor.clone(),
        subject: format!("attempt:{}", plan.id),
        kind: kind.to_owned(),
        rule: None,
        reason,
        data: serde_json::json!({ "task": plan.task.id, "agent": plan.agent.name() }),
    }
}

fn agent_command(plan: &Plan) -> Result<Vec<String>, TaskRunError> {
    let missing = |what| TaskRunError::NoCommand { task: plan.task.id.to_string(), agent: plan.agent.name().to_owned(), what };
    Ok(match &plan.agent {
        Agent::Oracle => plan.task.solution.as_ref().ok_or_else(|| missing("solution.command"))?.command.clone(),
        Agent::Own => plan.task.agent.as_ref().ok_or_else(|| missing("agent.command"))?.command.clone(),
        Agent::Nop => vec!["/bin/true".to_owned()],
        Agent::Command(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
    })
}

struct Attempt<'a> {
    data: &'a DataDir,
    engine: &'a dyn Engine,
    plan: &'a Plan,
    directory: PathBuf,
}

/// What one sandbox of an attempt is to do.
struct Step {
    mode: &'static str,
    user: User,
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    network: NetworkLevel,
    gate: Option<GateRequest>,
    /// From the host into the sandbox, before anything runs.
    copies: Vec<Transfer>,
    /// From the ended sandbox to the host; what is not there is skipped.
    results: Vec<(PathBuf, PathBuf, u64)>,
}

impl Attempt<'_> {
    async fn make(&self, command: Vec<String>, record: &mut AttemptRecord) -> Result<(), TaskRunError> {
        let result = self.directory.join("result");
        let (outcome, _) = self.agent(command, &result, record).await?;
        record.agent_exit_code = outcome.record.exit_code;
        workspace::strip(&result).map_err(|source| TaskRunError::Io { path: result.clone(), source })?;
        if !self.plan.task.artifacts.is_empty() {
            let target = self.data.artifacts().join(self.plan.id.to_string());
            artifacts::keep_from(&result, &self.plan.task.artifacts, &target)?;
        }
        if outcome.record.reason == Some(Reason::TimeLimit) {
            record.phase = Phase::Timeout;
            record.reason = Some(Reason::TimeLimit);
            record.detail = outcome.record.detail;
            record.reward = Some(0.0);
            return Ok(());
        }
        self.verify(&result, record).await
    }

    async fn agent(&self, command: Vec<String>, result: &Path, record: &mut AttemptRecord) -> Result<(Outcome, String), TaskRunError> {
        let task = &self.plan.task;
        let own = task.agent.as_ref();
        let user = self.plan.image.user(own.and_then(|agent| agent.user.as_deref()))?;
        let owner = (user.uid, user.gid);
        let mut copies = Vec::new();
        if let Some(src) = &task.workspace.src {
            copies.push(Transfer::In { source: self.plan.base.join(src), target: format!("{WORKSPACE}/src").into(), owner });
        }
        let solution = self.plan.base.join("solution");
        if self.plan.agent == Agent::Oracle && solution.is_dir() {
            copies.push(Transfer::In { source: solution, target: format!("{WORKSPACE}/solution").into(), owner });
        }
        let step = Step {
            mode: "execution",
            environment: own.map(|agent| agent.env.clone()).unwrap_or_default(),
            user,
            command,
            network: task.network,
            gate: self.plan.agent_gate.clone(),
            copies,
            results: vec![(WORKSPACE.into(), result.to_owned(), MOST_RESULT_BYTES)],
        };
        let id = SandboxId::from_random((self.plan.random)());
        record.agent_sandbox = Some(id);
        self.run(id, step).await
    }

    async fn verify(&self, result: &Path, record: &mut AttemptRecord) -> Result<(), TaskRunError> {
        let task = &self.plan.task;
        let agent = self.plan.image.user(None)?;
        let root = (0, 0);
        let mut copies = vec![Transfer::In { source: result.to_owned(), target: WORKSPACE.into(), owner: (agent.uid, agent.gid) }];
        if let Some(tests) = &task.workspace.tests {
            copies.push(Transfer::In { source: self.plan.base.join(tests), target: format!("{WORKSPACE}/tests").into(), owner: root });
        }
        let (text, json) = (self.directory.join("reward.txt"), self.directory.join("reward.json"));
        let step = Step {
            mode: VERIFICATION,
            // uid 0 of a fresh range: tests and reward belong to it, the candidate's files to the agent.
            user: self.plan.image.user(Some("0"))?,
            command: task.verify.command.clone(),
            environment: BTreeMap::new(),
            network: task.verify.network,
            gate: self.plan.verify_gate.clone(),
            copies,
            results: vec![
                ("/logs/verifier/reward.txt".into(), text.clone(), LARGEST_REWARD_FILE),
                ("/logs/verifier/reward.json".into(), json.clone(), LARGEST_REWARD_FILE),
            ],
        };
        let id = SandboxId::from_random((self.plan.random)());
        record.verify_sandbox = Some(id);
        let (outcome, output) = self.run(id, step).await?;
        record.verify_exit_code = outcome.record.exit_code;
        let read =
            |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.is_file()).then(|| fs::read_to_string(path).unwrap_or_default());
        let (text, json) = (read(&text), read(&json));
        let listed = task.verify.fail_to_pass.iter().chain(&task.verify.pass_to_pass).map(String::as_str).collect();
        let exit_code = if outcome.record.reason == Some(Reason::Exited) { outcome.record.exit_code.unwrap_or(1) } else { 1 };
        let evidence = Evidence { exit_code, output: &output, reward_text: text.as_deref(), reward_json: json.as_deref(), listed };
        let verdict = judge(&evidence)?;
        record.phase = Phase::Completed;
        record.reason = Some(Reason::Exited);
        record.reward = Some(verdict.reward);
        record.detail = Some(verdict.detail);
        Ok(())
    }

    /// Runs one sandbox to its end; returns what it wrote to standard output.
    async fn run(&self, id: SandboxId, step: Step) -> Result<(Outcome, String), TaskRunError> {
        let mode = step.mode;
        let trouble: Rc<RefCell<Option<EngineError>>> = Rc::default();
        let (before, after) = (Rc::clone(&trouble), Rc::clone(&trouble));
        let (copies, results) = (step.copies.clone(), step.results.clone());
        let request = self.request(id, step)?;
        let supervisor = Supervisor::new(self.data, self.engine)
            .on_created(Box::new(move |sandbox| Box::pin(async move { note(&before, copy_in(sandbox, copies).await) })))
            .on_end(Box::new(move |sandbox| Box::pin(async move { note(&after, copy_out(sandbox, results).await) })));
        let (outcome, records) = supervisor.run(request, unbounded_channel()).await?;
        let output = self.keep_log(mode, &outcome.record, &records).await?;
        match trouble.take() {
            Some(error) => Err(error.into()),
            None => Ok((outcome, output)),
        }
    }

    fn request(&self, id: SandboxId, step: Step) -> Result<Request, TaskRunError> {
        let plan = self.plan;
        let synth = workspace::describe(&plan.task, &plan.id.to_string(), &self.directory.join("synth"))?;
        let mut environment = plan.environment.clone();
        environment.extend(step.environment);
        let own = [
            ("HOME", step.user.home.clone()),
            ("USER", step.user.name.clone()),
            ("LOGNAME", step.user.name.clone()),
            ("TASK_ID", plan.task.id.to_string()),
            ("ATTEMPT_ID", plan.id.to_string()),
            ("SANDBOX_ID", id.to_string()),
            ("COFFERDAM_MODE", step.mode.to_owned()),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ];
        environment.extend(own.map(|(key, value)| (key.to_owned(), value)));
        let agent = plan.image.user(None)?;
        let labels = [
            ("cofferdam.task", plan.task.id.to_string()),
            ("cofferdam.attempt", plan.id.to_string()),
            ("cofferdam.difficulty", plan.task.difficulty.to_string()),
        ];
        Ok(Request {
            id,
            name: None,
            kept: true,
            actor: plan.actor.clone(),
            image_name: plan.task.image.clone(),
            image: plan.image.clone(),
            command: step.command.into_iter().map(String::into_bytes).collect(),
            environment: environment.into_iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect(),
            directory: WORKSPACE.to_owned(),
            user: step.user,
            limits: plan.limits,
            network: step.network,
            gate: step.gate,
            publish: Vec::new(),
            mounts: vec![synth],
            directories: workspace::directories((agent.uid, agent.gid), step.mode == VERIFICATION),
            files: Vec::new(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            log_bytes: LOG_BYTES,
            streams: Streams::detached(),
            unplugged: BTreeSet::new(),
            bare: false,
        })
    }

    /// Keeps what a sandbox wrote beside the artifacts, and removes its directory.
    async fn keep_log(&self, mode: &str, record: &SandboxRecord, records: &Records) -> Result<String, TaskRunError> {
        let directory = self.data.sandbox(record.id);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TaskRunError::Io { path, source }
        };
        let (mut all, mut output) = (Vec::new(), Vec::new());
        if let Some(mut reader) = LogReader::open(&directory.join("logs")).map_err(io(&directory))? {
            while let Some(chunk) = reader.next_chunk().map_err(io(&directory))? {
                all.extend_from_slice(&chunk.bytes);
                if chunk.stream == Stream::Out {
                    output.extend(chunk.bytes);
                }
            }
        }
        if self.plan.task.cleanup.keep_logs {
            let logs = self.data.artifacts().join(self.plan.id.to_string()).join("logs");
            fs::create_dir_all(&logs).map_err(io(&logs))?;
            fs::write(logs.join(format!("{mode}.log")), &all).map_err(io(&logs))?;
        }
        remove(&directory)?;
        let removed = SandboxRecord { removed_at: Some(now()), ..record.clone() };
        records.run(move |store| store.sandbox_update(&removed, &[], Durability::Normal)).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
}

fn note(trouble: &RefCell<Option<EngineError>>, result: Result<(), EngineError>) {
    if let Err(error) = result {
        trouble.borrow_mut().get_or_insert(error);
    }
}

async fn copy_in(sandbox: Arc<dyn Sandbox>, copies: Vec<Transfer>) -> Result<(), EngineError> {
    for copy in copies {
        sandbox.transfer(copy).await?;
    }
    Ok(())
}

async fn copy_out(sandbox: Arc<dyn Sandbox>, results: Vec<(PathBuf, PathBuf, u64)>) -> Result<(), EngineError> {
    for (source, target, most_bytes) in results {
        match sandbox.transfer(Transfer::Out { source, target, most_bytes }).await {
            Err(EngineError::Host { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => drop(other?),
        }
    }
    Ok(())
}
