//! `cofferdam task`: attempts at tasks.

use crate::args::{Global, TaskRunArgs, TrustArgs};
use crate::commands::egress::Wanted;
use crate::commands::request::{base_environment, check_against_machine, image_environment};
use crate::context::{Context, actor, random};
use crate::exit::{FAILED, Failure, TIME_LIMIT};
use crate::host::Machine;
use crate::images::start_from;
use crate::output::{age, one, table};
use crate::toolchain;
use cofferdam_lifecycle::data::now;
use cofferdam_lifecycle::task::{self, Agent, Plan};
use cofferdam_model::{AttemptId, Limits, Name, NetworkLevel, Phase, Task};
use cofferdam_store::AttemptRecord;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `task run`: exit status 0 for reward 1, 1 for less, 124 for a time-out.
pub fn run(global: Global, arguments: &TaskRunArgs) -> Result<ExitCode, Failure> {
    let agent = agent(&arguments.agent, arguments.agent_cmd.as_deref())?;
    let context = Context::open(global)?;
    let (task, base) = read(&arguments.task)?;
    let record = attempt(&context, &task, &base, agent)?;
    let row = [summary(&record)];
    one(context.global.output, &record, |out| table(out, &HEAD, &row))?;
    if let Some(detail) = &record.detail
        && !context.global.quiet
    {
        crate::output::note!("cofferdam: {detail}");
    }
    Ok(ExitCode::from(match (record.phase, record.reward) {
        (Phase::Timeout, _) => TIME_LIMIT,
        (_, Some(reward)) if reward >= 1.0 => 0,
        _ => FAILED,
    }))
}

/// An agent by its name, or a command line.
pub fn agent(name: &str, command: Option<&str>) -> Result<Agent, Failure> {
    match (name, command) {
        (_, Some(line)) => Ok(Agent::Command(line.to_owned())),
        ("oracle", None) => Ok(Agent::Oracle),
        ("nop", None) => Ok(Agent::Nop),
        ("task", None) => Ok(Agent::Own),
        (other, None) => {
            Err(Failure::usage(format!("agent {other:?} is not known")).remedy("use oracle, nop, task, or --agent-cmd 'COMMAND'"))
        }
    }
}

const HEAD: [&str; 7] = ["ATTEMPT", "TASK", "AGENT", "PHASE", "REWARD", "EXIT", "AGE"];

fn summary(record: &AttemptRecord) -> Vec<String> {
    let number = |code: Option<i32>| code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    vec![
        record.id.short(),
        record.task.to_string(),
        record.agent.clone(),
        record.phase.to_string(),
        record.reward.map_or_else(|| "-".to_owned(), |reward| reward.to_string()),
        format!("{}/{}", number(record.agent_exit_code), number(record.verify_exit_code)),
        age(record.created_at, now()),
    ]
}

/// `task validate`: the oracle must earn 1 and doing nothing 0.
pub fn validate(global: Global, path: &Path) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let (task, base) = read(path)?;
    let oracle = attempt(&context, &task, &base, Agent::Oracle)?;
    let nop = attempt(&context, &task, &base, Agent::Nop)?;
    let sound = oracle.reward == Some(1.0) && nop.reward == Some(0.0);
    let verdict = serde_json::json!({ "task": task.id, "sound": sound, "oracle": oracle.reward, "nop": nop.reward });
    one(context.global.output, &verdict, |out| {
        let word = if sound { "sound" } else { "NOT sound" };
        writeln!(out, "{}: {word}: oracle {:?}, nop {:?}", task.id, oracle.reward, nop.reward)
    })?;
    for record in [&oracle, &nop] {
        if !sound && let Some(detail) = &record.detail {
            crate::output::note!("cofferdam: {}: {detail}", record.agent);
        }
    }
    Ok(ExitCode::from(if sound { 0 } else { FAILED }))
}

/// `task list`.
pub fn list(global: Global, task: Option<&Name>) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let attempts = context.store()?.attempt_list(task)?;
    let rows: Vec<Vec<String>> = attempts.iter().map(summary).collect();
    one(context.global.output, &attempts, |out| table(out, &HEAD, &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// A task's file, or the one in a directory; with the directory that it stands in.
pub fn read(path: &Path) -> Result<(Task, PathBuf), Failure> {
    let file = if path.is_dir() { path.join("task.yaml") } else { path.to_owned() };
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(&file).map_err(|error| Failure::new(FAILED, "task", format!("{shown}: {error}")))?;
    let task = Task::parse(&shown, &text).map_err(|error| Failure::new(FAILED, "task", error.to_string()))?;
    let base = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((task, std::path::absolute(base)?))
}

fn attempt(context: &Context, task: &Task, base: &Path, agent: Agent) -> Result<AttemptRecord, Failure> {
    let plan = plan(context, task, base, agent, AttemptId::from_random(random()))?;
    let engine = context.engine()?;
    let mut store = context.store()?;
    let record = context.runtime.block_on(task::run(&context.data, &engine, &mut store, &plan))?;
    context.sweep(&mut store)?;
    Ok(record)
}

/// What a task may use: its own limits, no more CPUs than the machine has.
pub fn limits(task: &Task) -> Result<Limits, Failure> {
    let machine = Machine::read();
    let mut limits = task.limits();
    if task.limits.cpus.is_none() && limits.cpus > machine.cpus {
        limits.cpus = machine.cpus;
    }
    check_against_machine(&limits, machine)?;
    Ok(limits)
}

/// Everything that an attempt needs.
pub fn plan(context: &Context, task: &Task, base: &Path, agent: Agent, id: AttemptId) -> Result<Plan, Failure> {
    let wanted = |level, allow| Wanted { network: Some(level), allow, ..Wanted::default() };
    let (_, agent_gate) = wanted(task.network, &task.allow).compile()?;
    // The verifier's network is its own; where it is limited, the same list says to what.
    let allow: &[String] = if task.verify.network == NetworkLevel::LimitedWeb { &task.allow } else { &[] };
    let (_, verify_gate) = wanted(task.verify.network, allow).compile()?;
    let mut image = start_from(context, &task.image, &TrustArgs::default())?;
    let mut environment = BTreeMap::new();
    for name in &task.toolchains {
        let (toolchain, variables) = toolchain::find(name)?;
        image.add_toolchain(&toolchain);
        environment.extend(variables);
    }
    image_environment(&image, &mut environment);
    base_environment(&image, &image.user(None)?, &mut environment);
    let (task, base, limits) = (task.clone(), base.to_owned(), limits(task)?);
    Ok(Plan { id, task, base, agent, image, environment, limits, agent_gate, verify_gate, actor: actor(), random })
}
