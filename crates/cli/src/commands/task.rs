//! `cofferdam task`: attempts at tasks.

mod begin;
mod prepare;
mod read;
mod render;

pub use begin::init;
pub use prepare::{Prepared, limits};
pub use read::{DEFINITIONS, definition, read};
pub use render::render;

use crate::args::{Global, TaskRunArgs, TrustArgs};
use crate::context::{Context, random};
use crate::engines::EngineName;
use crate::exit::{FAILED, Failure, TIME_LIMIT};
use crate::output::{age, one, printable, table};
use cofferdam_lifecycle::data::now;
use cofferdam_lifecycle::task::{self, Agent};
use cofferdam_model::{AttemptId, Name, Phase};
use cofferdam_store::AttemptRecord;
use std::path::Path;
use std::process::ExitCode;

/// `task run`: exit status 0 for reward 1, 1 for less, 124 for a time-out.
pub fn run(global: Global, arguments: &TaskRunArgs) -> Result<ExitCode, Failure> {
    let agent = agent(&arguments.agent, arguments.agent_cmd.as_deref())?;
    let context = Context::open(global)?;
    let prepared = Prepared::of(&context, &arguments.task, &arguments.trust)?;
    let record = attempt(&context, &prepared, agent, arguments.engine)?;
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
    let prepared = Prepared::of(&context, path, &TrustArgs::default())?;
    let task = &prepared.task;
    let oracle = attempt(&context, &prepared, Agent::Oracle, EngineName::Auto)?;
    let nop = attempt(&context, &prepared, Agent::Nop, EngineName::Auto)?;
    let sound = oracle.reward == Some(1.0) && nop.reward == Some(0.0);
    let verdict = serde_json::json!({ "task": task.id, "sound": sound, "oracle": oracle.reward, "nop": nop.reward });
    one(context.global.output, &verdict, |out| {
        let word = if sound { "sound" } else { "NOT sound" };
        let shown = |record: &AttemptRecord| record.reward.map_or_else(|| "no verdict".to_owned(), |reward| reward.to_string());
        writeln!(out, "{}: {word}: oracle {}, nop {}", task.id, shown(&oracle), shown(&nop))
    })?;
    for record in [&oracle, &nop] {
        if !sound && let Some(detail) = &record.detail {
            crate::output::note!("cofferdam: {}: {detail}", record.agent);
        }
    }
    Ok(ExitCode::from(if sound { 0 } else { FAILED }))
}

/// `task show`: everything that is recorded of an attempt.
pub fn show(global: Global, reference: &str) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let attempts = context.store()?.attempt_list(None)?;
    let fitting: Vec<&AttemptRecord> = attempts.iter().filter(|record| record.id.to_string().starts_with(reference)).collect();
    let record = match fitting.as_slice() {
        [record] => *record,
        [] => {
            let message = format!("no attempt has an id that begins with {reference:?}");
            return Err(Failure::new(FAILED, "not_found", message).remedy("see cofferdam task list"));
        }
        _ => {
            let message = format!("{reference:?} begins the ids of {} attempts", fitting.len());
            return Err(Failure::new(FAILED, "ambiguous", message).remedy("give more digits"));
        }
    };
    let kept = context.data.artifacts().join(record.id.to_string());
    one(context.global.output, record, |out| {
        table(out, &HEAD, &[summary(record)])?;
        if let Some(detail) = &record.detail {
            writeln!(out, "\n{}", printable(detail))?;
        }
        for (test, outcome) in &record.tests {
            writeln!(out, "{:<8} {}", format!("{outcome:?}").to_lowercase(), printable(test))?;
        }
        let figures = &record.figures;
        let memory = figures.memory_peak_bytes as f64 / 1_048_576.0;
        writeln!(out, "agent {:.3} s, verifier {:.3} s, memory {memory:.1} MiB", figures.agent_seconds, figures.verify_seconds)?;
        if kept.is_dir() {
            writeln!(out, "logs and artifacts: {}", kept.display())?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `task schema`.
pub fn schema(name: &str) -> Result<ExitCode, Failure> {
    let schema = cofferdam_model::schema::named(name).ok_or_else(|| Failure::usage(format!("no schema is called {name}")))?;
    println!("{}", serde_json::to_string_pretty(&schema).map_err(std::io::Error::from)?);
    Ok(ExitCode::SUCCESS)
}

/// `task list`.
pub fn list(global: Global, task: Option<&Name>) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let attempts = context.store()?.attempt_list(task)?;
    let rows: Vec<Vec<String>> = attempts.iter().map(summary).collect();
    one(context.global.output, &attempts, |out| table(out, &HEAD, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn attempt(context: &Context, prepared: &Prepared, agent: Agent, engine: EngineName) -> Result<AttemptRecord, Failure> {
    let plan = prepared.plan(agent, AttemptId::from_random(random()));
    let engine = context.engine_named(engine, None, false)?;
    context.say_unenforced(&*engine)?;
    let mut store = context.store()?;
    let record = context.runtime.block_on(task::run(&context.data, &*engine, &mut store, &plan))?;
    context.sweep(&mut store)?;
    Ok(record)
}
