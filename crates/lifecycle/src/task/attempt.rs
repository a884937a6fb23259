//! One attempt.
//!
//! ```text
//! recorded ─▶ base judged once ─▶ agent's sandbox ─▶ result copied out ─▶ verifier's sandbox (result + tests) ─▶ verdict ─▶ recorded
//!                  │                   │                                        │
//!                  └─▶ sanity_fail     └─▶ timeout, stopped                     └─▶ verifier_failed
//! ```
//! What Cofferdam could not do is an error, and the attempt is recorded as failed for it.

use super::plan::{Plan, TaskRunError};
use super::step::{Ended, Stage, io_at};
use super::verdict::{Evidence, judge};
use super::{due, harbor, own, sanity};
use crate::data::{DataDir, now};
use cofferdam_engine::Engine;
use cofferdam_model::task::Form;
use cofferdam_model::{NewEvent, Reason};
use cofferdam_store::{AttemptRecord, Store};
use std::fs;
use std::path::Path;

/// Makes an attempt and records it.
pub async fn run(data: &DataDir, engine: &dyn Engine, store: &mut Store, plan: &Plan) -> Result<AttemptRecord, TaskRunError> {
    let mut record = AttemptRecord::begun(plan.id, plan.task.id.clone(), plan.agent.name(), now());
    record.image = Some(plan.execution.image.identity());
    own::agent_command(plan)?;
    let directory = due::working(data, plan.id);
    let _held = due::hold(&directory).map_err(io_at(&directory))?;
    store.attempt_save(&record, &[event(plan, "attempt.started", None)], &[])?;
    let stage = Stage { data, engine, plan, directory };
    let result = make(&stage, store, &mut record).await;
    if let Err(error) = &result {
        end(&mut record, Reason::StartFailed, Some(error.to_string()));
    }
    record.ended_at = Some(now());
    let kind = format!("attempt.{}", record.phase);
    store.attempt_save(&record, &[event(plan, &kind, record.detail.clone())], &due::of(&record, &plan.task.cleanup))?;
    result.map(|()| record)
}

fn end(record: &mut AttemptRecord, reason: Reason, detail: Option<String>) {
    record.phase = reason.phase();
    record.reason = Some(reason);
    record.detail = detail;
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

async fn make(stage: &Stage<'_>, store: &mut Store, record: &mut AttemptRecord) -> Result<(), TaskRunError> {
    if let Some(why) = sanity::look(stage, store).await? {
        end(record, Reason::SanityFail, Some(why));
        return Ok(());
    }
    let step = match &stage.plan.task.form {
        Form::Workspace => own::agent(stage)?,
        Form::Harbor(form) => harbor::agent(stage, form)?,
    };
    record.agent_sandbox = Some(step.id);
    let ended = match stage.run(step).await {
        Err(error) if error.is_of_the_contents() => {
            end(record, Reason::Exited, Some(format!("the agent could not be started: {error}")));
            record.reward = Some(0.0);
            return Ok(());
        }
        other => other?,
    };
    record.agent_exit_code = ended.outcome.record.exit_code;
    count(record, &ended);
    record.figures.agent_seconds = ended.seconds();
    record.figures.memory_peak_bytes = ended.outcome.observation.usage.memory_peak_bytes;
    record.trajectories = stage.keep_agent_logs()?;
    let kept = match &stage.plan.task.form {
        Form::Workspace => own::keep(stage)?,
        Form::Harbor(form) => harbor::keep(stage, form)?,
    };
    record.figures.artifact_bytes = kept.iter().map(|artifact| artifact.bytes).sum();
    match ended.outcome.record.reason {
        Some(reason @ (Reason::TimeLimit | Reason::Stopped)) => {
            end(record, reason, ended.outcome.record.detail);
            record.reward = (reason == Reason::TimeLimit).then_some(0.0);
            Ok(())
        }
        _ => verify(stage, record, &ended).await,
    }
}

async fn verify(stage: &Stage<'_>, record: &mut AttemptRecord, agent: &Ended) -> Result<(), TaskRunError> {
    let plan = stage.plan;
    let (step, note) = match &plan.task.form {
        Form::Workspace => (own::verify(stage, &stage.result())?, None),
        Form::Harbor(form) => harbor::verify(stage, form)?,
    };
    record.verify_sandbox = Some(step.id);
    let ended = match stage.run(step).await {
        Err(error) if error.is_full() => {
            end(
                record,
                Reason::Exited,
                Some(format!("what the agent left does not fit on the verifier's disk (verify.limits.disk): {error}")),
            );
            record.reward = Some(0.0);
            return Ok(());
        }
        Err(error) if error.is_of_the_contents() => {
            end(record, Reason::VerifierFailed, Some(format!("the verifier could not be started: {error}")));
            return Ok(());
        }
        other => other?,
    };
    record.verify_exit_code = ended.outcome.record.exit_code;
    record.figures.verify_seconds = ended.seconds();
    count(record, &ended);
    match ended.outcome.record.reason {
        Some(Reason::Stopped) => {
            end(record, Reason::Stopped, ended.outcome.record.detail);
            return Ok(());
        }
        // Whatever it had written by then is no verdict: what it judged has kept it from giving one.
        Some(reason) if reason != Reason::Exited && reason != Reason::Killed => {
            end(record, Reason::Exited, Some(format!("the verifier ended: {reason}")));
            record.reward = Some(0.0);
            return Ok(());
        }
        _ => {}
    }
    record.tests = ended.tests.clone();
    let verdict = judge(&Evidence {
        exit_code: ended.outcome.record.exit_code.unwrap_or(1),
        tests: &ended.tests,
        reward_text: reward(&stage.reward("txt")).as_deref(),
        reward_json: reward(&stage.reward("json")).as_deref(),
        file_only: matches!(plan.task.form, Form::Harbor(_)),
    });
    match verdict {
        Ok(verdict) => {
            record.reward = Some(verdict.reward);
            let memory = agent.outcome.record.reason == Some(Reason::OutOfMemory);
            let memory = memory.then(|| "the agent reached its memory limit".to_owned());
            let details = [Some(verdict.detail), memory, note];
            end(record, Reason::Exited, Some(details.into_iter().flatten().collect::<Vec<_>>().join("; ")));
        }
        Err(error) => end(record, Reason::VerifierFailed, Some(error.to_string())),
    }
    Ok(())
}

fn count(record: &mut AttemptRecord, ended: &Ended) {
    const MICROS: f64 = 1e6;
    record.figures.egress_bytes += ended.outcome.traffic.0;
    record.figures.cpu_seconds += ended.outcome.observation.usage.cpu_micros as f64 / MICROS;
}

fn reward(path: &Path) -> Option<String> {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()).then(|| fs::read_to_string(path).unwrap_or_default())
}
