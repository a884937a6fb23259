//! A job directory as Harbor leaves it, so that its viewer and scripts read ours: `RESULT/TASK__ID/{result.json,agent/,verifier/,artifacts/}`.

use super::{Row, agent};
use crate::exit::Failure;
use cofferdam_lifecycle::task::FILES;
use cofferdam_model::{Phase, Reason, Timestamp};
use cofferdam_store::SuiteRecord;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Writes it into an empty directory.
pub fn write(suite: &SuiteRecord, rows: &[Row], target: &Path) -> Result<(), Failure> {
    for row in rows {
        let name = format!("{}__{}", row.item.item.task, &row.attempt.id.to_string()[..8]);
        let place = target.join(&name);
        for directory in ["agent", "verifier", "artifacts"] {
            fs::create_dir_all(place.join(directory))?;
        }
        if let Some(reward) = row.attempt.reward {
            fs::write(place.join("verifier/reward.txt"), format!("{reward}\n"))?;
        }
        copy(&row.directory.join("logs/execution.log"), &place.join("agent/command.txt"))?;
        copy(&row.directory.join("logs/verification.log"), &place.join("verifier/test-stdout.txt"))?;
        for path in &row.attempt.trajectories {
            copy(&row.directory.join(path), &place.join("agent").join(path.trim_start_matches("agent/")))?;
        }
        for artifact in &row.artifacts {
            copy(&row.directory.join(FILES).join(&artifact.path), &place.join("artifacts").join(&artifact.path))?;
        }
        let trial = trial(suite, row, &name, target);
        fs::write(place.join("config.json"), pretty(&trial["config"]))?;
        fs::write(place.join("result.json"), pretty(&trial))?;
    }
    Ok(())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// What was not kept is not there.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::copy(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn trial(suite: &SuiteRecord, row: &Row, name: &str, target: &Path) -> Value {
    let attempt = &row.attempt;
    let directory = row.item.item.path.parent().unwrap_or(Path::new("")).to_owned();
    let exception = (attempt.phase != Phase::Completed).then(|| {
        let kind = match attempt.reason {
            Some(Reason::TimeLimit) => "AgentTimeoutError",
            Some(Reason::VerifierFailed) => "RewardFileNotFoundError",
            _ => "RuntimeError",
        };
        let message = attempt.detail.clone().unwrap_or_default();
        json!({ "exception_type": kind, "exception_message": message, "exception_traceback": "", "occurred_at": attempt.ended_at })
    });
    let after = |time: Timestamp, seconds: f64| Timestamp::from_millisecond(time.as_millisecond() + (seconds * 1000.0) as i64).ok();
    let executed = after(attempt.created_at, attempt.figures.agent_seconds);
    json!({
        "id": uuid(&attempt.id.to_string()),
        "task_name": row.item.item.task,
        "trial_name": name,
        "trial_uri": format!("file://{}", std::path::absolute(target).unwrap_or_else(|_| target.to_owned()).join(name).display()),
        "task_id": { "path": directory },
        "source": suite.source,
        "task_checksum": attempt.image.clone().unwrap_or_default(),
        "config": {
            "task": { "path": directory },
            "trial_name": name,
            "trials_dir": target,
            "agent": { "name": agent(suite) },
            "job_id": uuid(&suite.id.to_string()),
        },
        "agent_info": { "name": agent(suite), "version": env!("CARGO_PKG_VERSION") },
        "agent_result": { "cost_usd": row.cost },
        "verifier_result": attempt.reward.map(|reward| json!({ "rewards": { "reward": reward } })),
        "exception_info": exception,
        "started_at": attempt.created_at,
        "finished_at": attempt.ended_at,
        "agent_execution": { "started_at": attempt.created_at, "finished_at": executed },
        "verifier": { "started_at": executed, "finished_at": attempt.ended_at },
    })
}

/// 128 bits in the groups of RFC 9562.
fn uuid(hex: &str) -> String {
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
