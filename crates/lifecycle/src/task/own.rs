//! The sandboxes of a task of our own form: everything is in `/workspace`.

use super::artifacts::{self, Artifact};
use super::plan::{Agent, Plan, TaskRunError};
use super::step::{Mode, Stage, Step, io_at};
use super::workspace::{self, WORKSPACE};
use cofferdam_engine::Transfer;
use cofferdam_model::task::Form;
use std::path::Path;

const MOST_RESULT_BYTES: u64 = 16 << 30;
pub(super) const MOST_LOG_BYTES: u64 = 256 << 20;
pub(super) const LARGEST_REWARD_FILE: u64 = 64 << 10;

/// What the agent executes.
pub fn agent_command(plan: &Plan) -> Result<Vec<String>, TaskRunError> {
    let missing = |what| TaskRunError::NoCommand { task: plan.task.id.to_string(), agent: plan.agent.name().to_owned(), what };
    let shell = |line: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()];
    Ok(match &plan.agent {
        Agent::Oracle => {
            let what = if plan.task.form == Form::Workspace { "solution.command" } else { "solution/solve.sh" };
            plan.task.solution.as_ref().ok_or_else(|| missing(what))?.command.clone()
        }
        Agent::Own => {
            let own = plan.task.agent.as_ref().filter(|own| !own.command.is_empty());
            own.ok_or_else(|| missing("agent.command"))?.command.clone()
        }
        Agent::Nop => shell("true"),
        Agent::Command(line) => shell(line),
    })
}

/// The agent's sandbox.
pub(super) fn agent(stage: &Stage<'_>) -> Result<Step, TaskRunError> {
    let plan = stage.plan;
    let task = &plan.task;
    let own = task.agent.as_ref();
    let user = plan.execution.image.user(own.and_then(|agent| agent.user.as_deref()))?;
    let owner = (user.uid, user.gid);
    let mut copies: Vec<Transfer> = template(plan, owner).into_iter().collect();
    let mut environment = own.map(|agent| agent.env.clone()).unwrap_or_default();
    if plan.agent == Agent::Oracle {
        let solution = plan.base.join("solution");
        if solution.is_dir() {
            copies.push(Transfer::In { source: solution, target: format!("{WORKSPACE}/solution").into(), owner });
        }
        environment.extend(task.solution.iter().flat_map(|solution| solution.env.clone()));
    }
    Ok(Step {
        id: stage.new_id(),
        mode: Mode::Execution,
        image: plan.execution.image.clone(),
        command: agent_command(plan)?,
        directory: WORKSPACE.to_owned(),
        environment,
        network: task.network,
        directories: workspace::directories(owner, false),
        copies,
        services: task.services.clone(),
        results: vec![(WORKSPACE.into(), stage.result(), MOST_RESULT_BYTES), ("/logs/agent".into(), stage.agent_logs(), MOST_LOG_BYTES)],
        layer: None,
        user,
    })
}

fn template(plan: &Plan, owner: (u32, u32)) -> Option<Transfer> {
    let src = plan.task.workspace.src.as_ref()?;
    Some(Transfer::In { source: plan.base.join(src), target: format!("{WORKSPACE}/src").into(), owner })
}

/// Keeps what the task collects; before, takes out of the result what the agent had no business to leave there.
pub(super) fn keep(stage: &Stage<'_>) -> Result<Vec<Artifact>, TaskRunError> {
    let result = stage.result();
    workspace::strip(&result).map_err(io_at(&result))?;
    if stage.plan.task.artifacts.is_empty() {
        return Ok(Vec::new());
    }
    Ok(artifacts::keep(stage.data, &result, &stage.plan.task.artifacts, &stage.files())?)
}

/// The verifier's sandbox, on a result.
pub(super) fn verify(stage: &Stage<'_>, result: &Path) -> Result<Step, TaskRunError> {
    let agent = stage.plan.verification.image.user(None)?;
    let result = Transfer::In { source: result.to_owned(), target: WORKSPACE.into(), owner: (agent.uid, agent.gid) };
    judge(stage, Mode::Verification, vec![result])
}

/// The verifier's sandbox, on the base that the agent would begin with.
pub(super) fn sanity(stage: &Stage<'_>) -> Result<Step, TaskRunError> {
    let agent = stage.plan.verification.image.user(None)?;
    judge(stage, Mode::Sanity, template(stage.plan, (agent.uid, agent.gid)).into_iter().collect())
}

/// The tests come first: what the agent left is what finds no room where there is too little.
fn judge(stage: &Stage<'_>, mode: Mode, judged: Vec<Transfer>) -> Result<Step, TaskRunError> {
    const ROOT: (u32, u32) = (0, 0);
    let plan = stage.plan;
    let verify = &plan.task.verify;
    let image = &plan.verification.image;
    let agent = image.user(None)?;
    let mut copies = Vec::new();
    if let Some(tests) = &plan.task.workspace.tests {
        copies.push(Transfer::In { source: plan.base.join(tests), target: format!("{WORKSPACE}/tests").into(), owner: ROOT });
    }
    copies.extend(judged);
    Ok(Step {
        id: stage.new_id(),
        mode,
        image: image.clone(),
        // uid 0 of a fresh range: tests and reward belong to it, the candidate's files to the agent.
        user: image.user(Some(verify.user.as_deref().unwrap_or("0")))?,
        command: verify.command.clone(),
        directory: WORKSPACE.to_owned(),
        environment: verify.env.clone(),
        network: verify.network,
        directories: workspace::directories((agent.uid, agent.gid), mode == Mode::Verification),
        copies,
        services: plan.task.services.clone(),
        results: if mode == Mode::Verification { rewards(stage) } else { Vec::new() },
        layer: None,
    })
}

/// Where a verifier leaves its reward.
pub(super) fn rewards(stage: &Stage<'_>) -> Vec<(std::path::PathBuf, std::path::PathBuf, u64)> {
    let file = |kind: &str| (format!("/logs/verifier/reward.{kind}").into(), stage.reward(kind), LARGEST_REWARD_FILE);
    vec![file("txt"), file("json")]
}
