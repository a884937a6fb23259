//! A task as a compose file, for those who have a daemon and nothing else: agent and verifier apart, each hardened as our own containers are.
//!
//! ```text
//! workspace (root; copies src in) ─▶ services ─▶ agent ─▶ result (root; copies what it left, and the tests) ─▶ services ─▶ verifier
//! ```
//! `workspace` and `result` hold what lies in memory, and the network that their services share, until the project is taken down. Where a part has
//! a network, a gate stands before them: it sets that network up, and all of them share it.
//! A pure function of the plan, but for whether there is a directory `solution`.

mod file;
mod scripts;

use super::own::agent_command;
use super::plan::{Plan, Start, TaskRunError};
use super::step::{Mode, SERVICES, environment};
use super::workspace::{self, WORKSPACE};
use cofferdam_gate::wire::RESOLVER;
use cofferdam_model::Span;
use cofferdam_model::task::{During, Form, Ready, Service};
use cofferdam_policy::egress::{HOST_LOOPBACK, HostPattern, Policy, Rule, Target};
use cofferdam_policy::{capability, seccomp};
use cofferdam_trust::{Origin, User, UserError};
use file::{Condition, Container, GATE_POLICY, GATE_SOCKET, Health, Project, Volume, escape};
use std::collections::BTreeMap;

/// Beside the compose file: the system calls that are allowed.
pub const SECCOMP: &str = "seccomp.json";
/// In the directory of a gate.
const POLICY: &str = "policy.yaml";
const RESOLV_CONF: &str = "resolv.conf";
const SYNTH: &str = "/workspace/.synth";
const LOGS_BYTES: u64 = 256 << 20;
const SMALL_BYTES: u64 = 16 << 20;

/// A task that a compose file cannot say.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// It reaches the host's own loopback.
    #[error("task {task}: it may reach {HOST_LOOPBACK}, and a gate in a container has no way to this host's loopback")]
    HostLoopback {
        /// The task.
        task: String,
    },
    /// It starts from this host's own files.
    #[error("task {task}: image {image}: a daemon starts from images, not from this host's files")]
    NoImage {
        /// The task.
        task: String,
        /// What it starts from.
        image: String,
    },
    /// Its result is a whole file system.
    #[error("task {task}: the result of a task in Harbor's form is a whole file system, which no volume holds")]
    Harbor {
        /// The task.
        task: String,
    },
    /// A user that the image has not.
    #[error(transparent)]
    User(#[from] UserError),
    /// The agent has nothing to do.
    #[error(transparent)]
    Task(Box<TaskRunError>),
    /// It cannot be written.
    #[error("the compose file cannot be written: {0}")]
    Form(String),
}

/// What a host has for a rendered task.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// How many open files the daemon can give to a process.
    pub most_files: u64,
    /// Name and digest of this program as an image, for tasks with a network.
    pub gate: Option<(&'a str, &'a str)>,
}

/// The files of a rendered task, by their names.
pub fn render(plan: &Plan, given: Given<'_>) -> Result<BTreeMap<String, String>, RenderError> {
    let task = || plan.task.id.to_string();
    if plan.task.form != Form::Workspace {
        return Err(RenderError::Harbor { task: task() });
    }
    let rendering = Rendering { plan, given };
    let mut files = BTreeMap::new();
    for mode in [Mode::Execution, Mode::Verification] {
        let Some(policy) = rendering.policy(mode) else { continue };
        let inside = |rule: &Rule| matches!(&rule.target, Target::Host(HostPattern::Exact(name)) if name.as_str() == HOST_LOOPBACK);
        if policy.rules().iter().any(inside) {
            return Err(RenderError::HostLoopback { task: task() });
        }
        let text = policy.to_file().ok_or_else(|| RenderError::Form("a policy that allows nothing".into()))?;
        files.insert(format!("{}/{POLICY}", names(mode).gate), text);
        files.insert(format!("{}/{RESOLV_CONF}", names(mode).gate), format!("nameserver {RESOLVER}\noptions edns0\n"));
    }
    let project = rendering.project()?;
    let text = cofferdam_model::yaml::write(&project).map_err(|error| RenderError::Form(error.to_string()))?;
    let calls = seccomp::parse(seccomp::TABLE).map_err(|error| RenderError::Form(error.to_string()))?;
    let gate = given.gate.filter(|_| !files.is_empty()).map_or_else(String::new, |(name, _)| scripts::HEAD_OF_GATE.replace("GATE", name));
    let image = plan.image_name.to_string();
    let mut head = format!("{}\n", scripts::HEAD.replace("GATE\n", &gate).replace("IMAGE", &image).replace("TASK", plan.task.id.as_str()));
    let secrets: Vec<&str> = project.secrets().into_iter().collect();
    if !secrets.is_empty() {
        head =
            format!("{head}# From the environment of whoever brings it up, as its name says that it is a secret: {}\n", secrets.join(", "));
    }
    files.extend([("compose.yaml".to_owned(), head + &text), (SECCOMP.to_owned(), seccomp::profile(&calls))]);
    Ok(files)
}

struct Rendering<'a> {
    plan: &'a Plan,
    given: Given<'a>,
}

/// Names of a sandbox's parts in the file.
struct Names {
    gate: &'static str,
    holder: &'static str,
    main: &'static str,
    services: &'static str,
    suffix: &'static str,
}

const fn names(mode: Mode) -> Names {
    match mode {
        Mode::Execution => Names { gate: "gate", holder: "workspace", main: "agent", services: "services", suffix: "" },
        Mode::Verification | Mode::Sanity => {
            Names { gate: "verifier-gate", holder: "result", main: "verifier", services: "verifier-services", suffix: "-verifying" }
        }
    }
}

impl Rendering<'_> {
    fn project(&self) -> Result<Project, RenderError> {
        let mut project = Project::default();
        let disk = |mode| self.start(mode).limits.disk.unwrap_or(self.start(mode).limits.memory).get();
        for (name, bytes) in [
            ("workspace", disk(Mode::Execution)),
            ("result", disk(Mode::Verification)),
            ("synth", SMALL_BYTES),
            ("agent-logs", LOGS_BYTES),
            ("verifier-logs", SMALL_BYTES),
        ] {
            project.volume(name, bytes);
        }
        for mode in [Mode::Execution, Mode::Verification] {
            let names = names(mode);
            if self.policy(mode).is_some() {
                project.services.insert(names.gate.to_owned(), self.gate(mode)?);
            }
            project.services.insert(names.holder.to_owned(), self.holder(mode)?);
            let mut before = (names.holder.to_owned(), Condition::Healthy);
            for service in self.services(mode) {
                project.volume(names.services, disk(mode));
                // Ours are named otherwise.
                let name = format!("service-{}{}", service.name, names.suffix);
                project.services.insert(name.clone(), self.service(mode, service, &before)?);
                before = (name, if service.ready.is_some() { Condition::Healthy } else { Condition::Started });
            }
            project.services.insert(names.main.to_owned(), self.main(mode, &before)?);
            if self.policy(mode).is_some() {
                project.share_network(names.gate, &format!("./{}/{RESOLV_CONF}", names.gate));
            }
        }
        Ok(project)
    }

    fn start(&self, mode: Mode) -> &Start {
        self.plan.start(mode)
    }

    /// What a part may reach, if it has a network.
    fn policy(&self, mode: Mode) -> Option<&Policy> {
        self.start(mode).gate.as_ref().map(|gate| &gate.policy)
    }

    /// The gate of a part. Nobody who shares its network may become somebody else.
    fn gate(&self, mode: Mode) -> Result<Container, RenderError> {
        let names = names(mode);
        let (_, image) = self.given.gate.ok_or_else(|| RenderError::Form("there is no image of the gate".into()))?;
        let policy = format!("{GATE_POLICY}/{POLICY}");
        let held: Vec<&str> = capability::names(capability::ROOT & !(capability::SETUID | capability::SETGID)).collect();
        let held = held.join(",");
        let words = ["/cofferdam", "gate", "--sidecar", "--policy", &policy, "--socket", GATE_SOCKET, "--workload-capabilities", &held];
        let mut gate = Container::gate(image.to_owned(), words.map(str::to_owned).into(), names.gate, self.labels());
        if mode == Mode::Verification {
            gate.depends_on.insert("agent".into(), Condition::Completed);
        }
        Ok(gate)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let task = &self.plan.task;
        let labels = [
            ("cofferdam.task", task.id.to_string()),
            ("cofferdam.attempt", self.plan.id.to_string()),
            ("cofferdam.difficulty", task.difficulty.to_string()),
        ];
        labels.map(|(key, value)| (key.to_owned(), value)).into()
    }

    fn services(&self, mode: Mode) -> impl Iterator<Item = &Service> {
        let during = if mode == Mode::Execution { During::Agent } else { During::Verify };
        self.plan.task.services.iter().filter(move |service| service.during.contains(&during))
    }

    /// Whom the workspace belongs to.
    fn owner(&self, mode: Mode) -> Result<User, RenderError> {
        let named = self.plan.task.agent.as_ref().and_then(|agent| agent.user.as_deref());
        Ok(self.start(mode).image.user(named.filter(|_| mode == Mode::Execution))?)
    }

    /// A container with what all of them have.
    fn container(&self, mode: Mode, user: &User, words: Vec<String>) -> Result<Container, RenderError> {
        let start = self.start(mode);
        let task = &self.plan.task;
        let image = match (start.image.origin(), start.image.config_digest()) {
            (Origin::Store { .. }, Some(digest)) => digest.to_string(),
            _ => return Err(RenderError::NoImage { task: task.id.to_string(), image: start.image.identity() }),
        };
        let mut container = Container::hardened(image, user, &start.limits, self.labels());
        container.entrypoint = words;
        container.limit_files(u64::from(start.limits.open_files).min(self.given.most_files));
        if self.policy(mode).is_some() {
            container.share_network(names(mode).gate);
        }
        Ok(container)
    }

    /// Puts in what the others find, as root; then holds it.
    fn holder(&self, mode: Mode) -> Result<Container, RenderError> {
        let plan = self.plan;
        let names = names(mode);
        let owner = self.owner(mode)?;
        let root = self.start(mode).image.user(Some("0"))?;
        let mut script = scripts::Holder::new(mode, (owner.uid, owner.gid));
        let base = |path: &std::path::Path| plan.base.join(path).display().to_string();
        let mut volumes = vec![Volume::named(names.holder, scripts::HELD)];
        let mut environment = BTreeMap::new();
        if mode == Mode::Execution {
            volumes.extend([Volume::named("synth", SYNTH), Volume::named("agent-logs", "/logs/agent")]);
            if let Some(src) = &plan.task.workspace.src {
                volumes.push(Volume::host(&base(src), "/in/src"));
                script.copy("/in/src", "/held/src", (owner.uid, owner.gid));
            }
            let solution = plan.base.join("solution");
            if plan.agent == super::Agent::Oracle && solution.is_dir() {
                volumes.push(Volume::host(&solution.display().to_string(), "/in/solution"));
                script.copy("/in/solution", "/held/solution", (owner.uid, owner.gid));
            }
            for (name, contents) in workspace::description(&plan.task, &plan.id.to_string()) {
                let variable = name.to_uppercase().replace('.', "_");
                script.write(&variable, &format!("{SYNTH}/{name}"));
                environment.insert(variable, Some(escape(&contents)));
            }
        } else {
            volumes.extend([Volume::named("workspace", "/agent").read_only(), Volume::named("verifier-logs", "/logs/verifier")]);
            if let Some(tests) = &plan.task.workspace.tests {
                volumes.push(Volume::host(&base(tests), "/in/tests"));
                script.copy("/in/tests", "/held/tests", (0, 0));
            }
            script.take_over();
        }
        for service in self.services(mode) {
            let Some(files) = &service.files else { continue };
            let user = self.start(mode).image.user(service.user.as_deref())?;
            let source = format!("/in/services/{}", service.name);
            volumes.push(Volume::host(&base(files), &source));
            script.copy(&source, &format!("{SERVICES}/{}", service.name), (user.uid, user.gid));
        }
        if self.services(mode).next().is_some() {
            volumes.push(Volume::named(names.services, SERVICES));
        }
        let mut container = self.container(mode, &root, scripts::shell(&script.finish()))?;
        container.environment = environment;
        container.read_only = true;
        container.volumes = volumes;
        container.add_tmpfs("/run", SMALL_BYTES, 0o755, (0, 0));
        container.healthcheck = Health::of(&["test", "-f", "/run/ready"], 1, 10, 600);
        if mode == Mode::Verification {
            container.depends_on.insert("agent".into(), Condition::Completed);
        }
        if self.policy(mode).is_some() {
            container.depends_on.insert(names.gate.to_owned(), Condition::Healthy);
        }
        Ok(container)
    }

    /// Of a main process or a service: what it sees.
    fn inside(&self, mode: Mode, container: &mut Container) {
        let names = names(mode);
        let shared = self.services(mode).next().is_some();
        container.working_dir = Some(WORKSPACE.to_owned());
        container.volumes = vec![Volume::named(names.holder, WORKSPACE), Volume::named("synth", SYNTH).read_only()];
        if shared {
            container.volumes.push(Volume::named(names.services, SERVICES));
        }
        if shared && self.policy(mode).is_none() {
            container.network_mode = format!("service:{}", names.holder);
        }
    }

    fn service(&self, mode: Mode, service: &Service, before: &(String, Condition)) -> Result<Container, RenderError> {
        let user = self.start(mode).image.user(service.user.as_deref())?;
        let mut container = self.container(mode, &user, service.command.iter().map(|word| escape(word)).collect())?;
        container.set_environment(environment(self.plan, mode, &user, &service.env, &self.plan.id.to_string()));
        self.inside(mode, &mut container);
        container.depends_on.insert(before.0.clone(), before.1);
        if let Some(ready) = &service.ready {
            let command = scripts::shell(&scripts::ready(ready));
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            container.healthcheck = Health::of(&words, seconds(ready.interval, 1), 10, tries(ready));
        }
        Ok(container)
    }

    /// The agent, or the verifier.
    fn main(&self, mode: Mode, before: &(String, Condition)) -> Result<Container, RenderError> {
        let plan = self.plan;
        let task = &plan.task;
        let timeout = self.start(mode).limits.timeout.map(|span| span.duration().as_secs().max(1));
        let (user, script, command, mut own) = if mode == Mode::Execution {
            let own = task.agent.as_ref().map(|agent| agent.env.clone()).unwrap_or_default();
            (self.owner(mode)?, scripts::agent(timeout), agent_command(plan).map_err(Box::new).map_err(RenderError::Task)?, own)
        } else {
            let user = self.start(mode).image.user(Some(task.verify.user.as_deref().unwrap_or("0")))?;
            (user, scripts::verifier(timeout, &task.verify), task.verify.command.clone(), task.verify.env.clone())
        };
        if plan.agent == super::Agent::Oracle && mode == Mode::Execution {
            own.extend(task.solution.iter().flat_map(|solution| solution.env.clone()));
        }
        let mut words = scripts::shell(&script);
        words.push(names(mode).main.to_owned());
        words.extend(command.iter().map(|word| escape(word)));
        let mut container = self.container(mode, &user, words)?;
        container.set_environment(environment(plan, mode, &user, &own, &plan.id.to_string()));
        self.inside(mode, &mut container);
        let logs = if mode == Mode::Execution { "agent" } else { "verifier" };
        container
            .volumes
            .push(Volume::named(if mode == Mode::Execution { "agent-logs" } else { "verifier-logs" }, &format!("/logs/{logs}")));
        container.healthcheck = Health::of(&["test", "-f", "/workspace/.synth/task.json"], 30, 10, 3);
        container.depends_on.insert(before.0.clone(), before.1);
        Ok(container)
    }
}

fn seconds(span: Option<Span>, least: u64) -> u64 {
    span.map_or(least, |span| span.duration().as_secs().max(least))
}

fn tries(ready: &Ready) -> u64 {
    const WITHIN_SECONDS: u64 = 30;
    seconds(ready.timeout, WITHIN_SECONDS.min(ready.timeout.map_or(WITHIN_SECONDS, |_| 1))).div_ceil(seconds(ready.interval, 1))
}
