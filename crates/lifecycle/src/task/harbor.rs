//! The sandboxes of a Harbor directory: the image's own working directory, `/tests`, `/solution`, `/logs`.
//!
//! Harbor verifies in the agent's own container (mode shared) or in another (mode separate). Here it is always another: in mode shared
//! it starts from the image with everything that the agent changed as one more layer, in mode separate from the image with the artifacts.

use super::artifacts::{self, Artifact};
use super::own::{self, MOST_LOG_BYTES};
use super::plan::{Agent, TaskRunError};
use super::step::{Mode, Stage, Step, io_at};
use cofferdam_engine::{Directory, Transfer};
use cofferdam_model::Span;
use cofferdam_model::task::{Carried, During, Harbor, Ready, Service};
use cofferdam_trust::changes::{self, Change};
use cofferdam_trust::unpack::Budget;
use cofferdam_trust::{User, UserError, VerifiedImage};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const MOST_CARRIED_BYTES: u64 = 16 << 30;
const MOST_ENTRIES: u64 = 4_000_000;
/// What of the agent's root file system is not the verifier's: its own tests and verdict, and the reference solution.
const NOT_CARRIED: &[&str] = &["tests", "solution", "logs/verifier"];
/// Where programs of an image are.
const PROGRAMS: &[&str] =
    &["bin", "sbin", "lib", "lib64", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin", "usr/local/sbin"];
const MOST_NAMED: usize = 5;
const SETTLED: Span = Span::seconds(60);

/// The user that a Harbor directory means: its own, else the image's, else root.
fn user(image: &VerifiedImage, named: Option<&str>) -> Result<User, UserError> {
    let own = Some(image.config().user.as_str()).filter(|user| !user.is_empty());
    image.user(Some(named.or(own).unwrap_or("0")))
}

fn workdir(form: &Harbor, image: &VerifiedImage) -> String {
    let own = Some(image.config().working_dir.clone()).filter(|directory| !directory.is_empty());
    form.workdir.clone().or(own).unwrap_or_else(|| "/".to_owned())
}

/// `/logs`, and the working directory where the image has none.
fn directories(image: &VerifiedImage, workdir: &str, agent: &User, verifier: (u32, u32)) -> Vec<Directory> {
    let directory = |path: &str, owner| Directory { path: path.into(), mode: 0o755, owner };
    let agent = (agent.uid, agent.gid);
    let mut all = vec![
        directory("/logs", (0, 0)),
        directory("/logs/agent", agent),
        directory("/logs/artifacts", agent),
        directory("/logs/verifier", verifier),
    ];
    if workdir != "/" && !image.has_directory(Path::new(workdir)) {
        all.push(directory(workdir, agent));
    }
    all
}

/// The image's entry point keeps running beside the agent, as in a container whose command is to wait.
fn services(form: &Harbor, image: &VerifiedImage, user: &User) -> Vec<Service> {
    let mut command = image.config().entrypoint.clone();
    if command.is_empty() && form.ready.is_none() {
        return Vec::new();
    }
    command.extend(["/bin/sh", "-c", "while :; do sleep 86400; done"].map(str::to_owned));
    let name = "environment".parse().ok();
    let ready = form.ready.clone().map(|ready| Ready { timeout: ready.timeout.or(Some(SETTLED)), ..ready });
    let service = |name| Service {
        name,
        command,
        env: BTreeMap::new(),
        user: Some(format!("{}:{}", user.uid, user.gid)),
        files: None,
        ready,
        during: vec![During::Agent, During::Verify],
    };
    name.map(service).into_iter().collect()
}

/// The agent's sandbox.
pub(super) fn agent(stage: &Stage<'_>, form: &Harbor) -> Result<Step, TaskRunError> {
    let plan = stage.plan;
    let image = &plan.execution.image;
    let user = user(image, plan.task.agent.as_ref().and_then(|agent| agent.user.as_deref()))?;
    let directory = workdir(form, image);
    let mut environment = form.env.clone();
    let (mut copies, mut made) = (Vec::new(), directories(image, &directory, &user, (0, 0)));
    if plan.agent == Agent::Oracle {
        environment.extend([("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())]);
        environment.extend(form.solution_env.clone());
        let source = plan.base.join("solution");
        let owner = (user.uid, user.gid);
        copies.push(Transfer::In { source, target: "/solution".into(), owner });
        made.push(Directory { path: "/solution".into(), mode: 0o755, owner });
    }
    let mut results = vec![("/logs/agent".into(), stage.agent_logs(), MOST_LOG_BYTES)];
    for (path, target) in taken(stage, form)? {
        results.push((path.into(), target, MOST_CARRIED_BYTES));
    }
    let layer = (form.carried == Carried::Everything).then(|| (archive(stage), NOT_CARRIED.iter().map(PathBuf::from).collect()));
    Ok(Step {
        id: stage.new_id(),
        mode: Mode::Execution,
        image: image.clone(),
        command: own::agent_command(plan)?,
        directories: made,
        services: services(form, image, &user),
        directory,
        environment,
        network: plan.task.network,
        copies,
        results,
        layer,
        user,
    })
}

fn archive(stage: &Stage<'_>) -> PathBuf {
    stage.directory.join("changes.tar")
}

/// Paths that are taken out of the agent's sandbox, and where to: each below the result as it was inside.
fn taken(stage: &Stage<'_>, form: &Harbor) -> Result<Vec<(String, PathBuf)>, TaskRunError> {
    let convention = "/logs/artifacts".to_owned();
    let mut paths: Vec<String> = match &form.carried {
        Carried::Everything => stage.plan.task.artifacts.iter().cloned().chain([convention]).collect(),
        Carried::Paths(paths) => paths.clone(),
    };
    paths.sort();
    paths.dedup();
    // What lies below another is taken with it.
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| other != path && Path::new(path).starts_with(other)));
    let mut taken = Vec::new();
    for path in paths {
        let target = stage.result().join(path.trim_start_matches('/'));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(io_at(parent))?;
        }
        taken.push((path, target));
    }
    Ok(taken)
}

/// Keeps the artifacts.
pub(super) fn keep(stage: &Stage<'_>, _: &Harbor) -> Result<Vec<Artifact>, TaskRunError> {
    Ok(artifacts::keep(stage.data, &stage.result(), &["**".to_owned()], &stage.files())?)
}

/// The verifier's sandbox; with a note of what the agent replaced that tests may rely on.
pub(super) fn verify(stage: &Stage<'_>, form: &Harbor) -> Result<(Step, Option<String>), TaskRunError> {
    let plan = stage.plan;
    let base = &plan.verification.image;
    let (image, note) = match form.carried {
        Carried::Everything => carried(stage, base)?,
        Carried::Paths(_) => (base.clone(), None),
    };
    let user = user(&image, plan.task.verify.user.as_deref())?;
    let owner = (user.uid, user.gid);
    let mut copies = Vec::new();
    if let Carried::Paths(_) = form.carried {
        for (path, source) in taken(stage, form)? {
            if source.exists() {
                copies.push(Transfer::In { source, target: path.into(), owner });
            }
        }
    }
    if form.verifier.is_none() {
        copies.push(Transfer::In { source: plan.base.join("tests"), target: "/tests".into(), owner });
    }
    let directory =
        if form.verifier.is_none() { workdir(form, &image) } else { workdir(&Harbor { workdir: None, ..form.clone() }, &image) };
    let mut made = directories(&image, &directory, &user, owner);
    if form.verifier.is_none() {
        made.push(Directory { path: "/tests".into(), mode: 0o755, owner });
    }
    let mut environment = form.env.clone();
    environment.extend(plan.task.verify.env.clone());
    let step = Step {
        id: stage.new_id(),
        mode: Mode::Verification,
        command: plan.task.verify.command.clone(),
        directories: made,
        services: services(form, &image, &user),
        directory,
        environment,
        network: plan.task.verify.network,
        copies,
        results: own::rewards(stage),
        layer: None,
        image,
        user,
    };
    Ok((step, note))
}

/// The image with the agent's changes on top.
fn carried(stage: &Stage<'_>, base: &VerifiedImage) -> Result<(VerifiedImage, Option<String>), TaskRunError> {
    let archive = archive(stage);
    let root = stage.directory.join("changes");
    fs::create_dir_all(&root).map_err(io_at(&root))?;
    let budget = Budget { bytes: MOST_CARRIED_BYTES, entries: MOST_ENTRIES, ..Budget::default() };
    let file = fs::File::open(&archive).map_err(io_at(&archive))?;
    let image = base.with_layer(std::io::BufReader::new(file), &root, budget)?;
    let changed = changes::list(&archive, base).map_err(io_at(&archive))?;
    let replaced = |(path, change): &(PathBuf, Change)| {
        let program = PROGRAMS.iter().any(|directory| path.starts_with(directory));
        program && *change != Change::Added && !base.has_directory(&Path::new("/").join(path))
    };
    let replaced: Vec<String> = changed.into_iter().filter(replaced).map(|(path, _)| format!("/{}", path.display())).collect();
    let more = replaced.len().saturating_sub(MOST_NAMED);
    let note = (!replaced.is_empty()).then(|| {
        let named = replaced[..replaced.len() - more].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("the agent replaced {named}{more}, which the tests may use")
    });
    Ok((image, note))
}
