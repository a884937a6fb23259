//! A suite summed up, and written out.

use super::{Whole, find, page};
use crate::args::{Global, SuiteArg};
use crate::commands::task;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{one, table};
use cofferdam_store::{AttemptRecord, ItemState};
use cofferdam_trust::content::sha256;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Figures of some attempts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// How many were made.
    pub attempts: usize,
    /// How many earned a full reward.
    pub passed: usize,
    /// Mean reward.
    pub mean_reward: f64,
    /// Seconds from begin to end: median, and 95th of a hundred.
    pub seconds_median: f64,
    /// The same.
    pub seconds_p95: f64,
    /// Each attempt's seconds.
    #[serde(skip)]
    pub seconds: Vec<f64>,
}

/// Everything that a report says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The suite.
    pub suite: cofferdam_store::SuiteRecord,
    /// Of all attempts.
    pub all: Figures,
    /// By difficulty of the task.
    pub by_difficulty: BTreeMap<String, Figures>,
    /// By task.
    pub by_task: BTreeMap<String, Figures>,
    /// Attempts that could not be made.
    pub not_made: usize,
    /// Attempts that are still to be made.
    pub left: usize,
}

fn seconds(record: &AttemptRecord) -> f64 {
    record.ended_at.map_or(0.0, |ended| (ended.as_millisecond() - record.created_at.as_millisecond()) as f64 / 1000.0)
}

fn figures<'a>(attempts: impl Iterator<Item = &'a AttemptRecord>) -> Figures {
    let mut figures = Figures::default();
    for record in attempts {
        let reward = record.reward.unwrap_or(0.0);
        figures.attempts += 1;
        figures.passed += usize::from(reward >= 1.0);
        figures.mean_reward += reward;
        figures.seconds.push(seconds(record));
    }
    figures.mean_reward /= figures.attempts.max(1) as f64;
    figures.seconds.sort_by(f64::total_cmp);
    let at =
        |share: usize| figures.seconds.get((figures.seconds.len() * share / 100).min(figures.seconds.len().saturating_sub(1))).copied();
    (figures.seconds_median, figures.seconds_p95) = (at(50).unwrap_or(0.0), at(95).unwrap_or(0.0));
    figures
}

/// The difficulty that the task's file says now; the suite runs on it too.
fn difficulty(path: &Path) -> String {
    task::read(path).map_or_else(|_| "unknown".into(), |(task, _)| task.difficulty.to_string())
}

fn report(whole: Whole) -> Report {
    let done: Vec<_> =
        whole.items.iter().filter(|(item, _)| item.state == ItemState::Done).filter_map(|(item, a)| Some((item, a.as_ref()?))).collect();
    let mut difficulties = BTreeMap::new();
    for (item, _) in &done {
        difficulties.entry(item.item.path.clone()).or_insert_with(|| difficulty(&item.item.path));
    }
    let group = |key: &dyn Fn(&cofferdam_store::ItemRecord) -> String| {
        let mut groups: BTreeMap<String, Vec<&AttemptRecord>> = BTreeMap::new();
        for (item, attempt) in &done {
            groups.entry(key(item)).or_default().push(attempt);
        }
        groups.into_iter().map(|(key, attempts)| (key, figures(attempts.into_iter()))).collect::<BTreeMap<_, _>>()
    };
    Report {
        all: figures(done.iter().map(|(_, attempt)| *attempt)),
        by_difficulty: group(&|item| difficulties.get(&item.item.path).cloned().unwrap_or_default()),
        by_task: group(&|item| item.item.task.to_string()),
        not_made: whole.count(ItemState::Failed) + whole.count(ItemState::Cancelled),
        left: whole.count(ItemState::Queued) + whole.count(ItemState::Running),
        suite: whole.record,
    }
}

/// Prints it, or writes a page.
pub fn run(global: Global, suite: &SuiteArg, html: Option<&Path>) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let record = find(&mut store, suite.suite.as_deref())?;
    let report = report(Whole::read(&mut store, record)?);
    if let Some(path) = html {
        std::fs::write(path, page::html(&report))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |name: &str, figures: &Figures| {
        let share = figures.passed as f64 * 100.0 / figures.attempts.max(1) as f64;
        vec![
            name.to_owned(),
            figures.attempts.to_string(),
            format!("{share:.1} %"),
            format!("{:.3}", figures.mean_reward),
            format!("{:.2} s", figures.seconds_median),
            format!("{:.2} s", figures.seconds_p95),
        ]
    };
    one(context.global.output, &report, |out| {
        let mut rows: Vec<Vec<String>> = report.by_task.iter().map(|(name, figures)| row(name, figures)).collect();
        rows.extend(report.by_difficulty.iter().map(|(name, figures)| row(&format!("({name})"), figures)));
        rows.push(row("(all)", &report.all));
        table(out, &["TASK", "ATTEMPTS", "PASSED", "REWARD", "MEDIAN", "P95"], &rows)?;
        if report.not_made + report.left > 0 {
            writeln!(out, "{} could not be made, {} are left", report.not_made, report.left)?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Writes every attempt that was made, one object a line.
pub fn export(global: Global, suite: &SuiteArg, file: &Path, seed: u64) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let record = find(&mut store, suite.suite.as_deref())?;
    let whole = Whole::read(&mut store, record)?;
    let mut lines = Vec::new();
    for (item, attempt) in whole.items.iter().filter(|(item, _)| item.state == ItemState::Done) {
        let Some(attempt) = attempt else { continue };
        let parsed = task::read(&item.item.path).ok();
        let task = parsed.as_ref().map(|(task, _)| task);
        let artifacts = context.data.artifacts().join(attempt.id.to_string());
        let line = serde_json::json!({
            "suite": whole.record.id, "instance_id": item.item.task, "repetition": item.item.repetition,
            "split": split(item.item.task.as_str(), seed),
            "problem_statement": task.map(|task| &task.instruction), "difficulty": task.map(|task| task.difficulty),
            "FAIL_TO_PASS": task.map(|task| &task.verify.fail_to_pass), "PASS_TO_PASS": task.map(|task| &task.verify.pass_to_pass),
            "agent": whole.record.agent, "agent_command": whole.record.agent_command, "attempt": attempt.id,
            "phase": attempt.phase, "reason": attempt.reason, "reward": attempt.reward, "detail": attempt.detail,
            "agent_exit_code": attempt.agent_exit_code, "verify_exit_code": attempt.verify_exit_code,
            "created_at": attempt.created_at, "ended_at": attempt.ended_at, "seconds": seconds(attempt),
            "artifacts": artifacts.is_dir().then_some(artifacts),
        });
        lines.extend(serde_json::to_vec(&line).map_err(std::io::Error::from)?);
        lines.push(b'\n');
    }
    if file == Path::new("-") {
        std::io::stdout().lock().write_all(&lines)?;
    } else {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut out = tempfile::Builder::new().prefix(".cofferdam-").tempfile_in(parent)?;
        out.write_all(&lines)?;
        out.persist(file).map_err(|error| error.error)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A task is in one part whatever else the suite holds: all its attempts with it.
fn split(task: &str, seed: u64) -> &'static str {
    const PARTS: u8 = 10;
    let digest = sha256(format!("{seed} {task}").as_bytes());
    let draw = u8::from_str_radix(&digest.hex()[..2], 16).unwrap_or(0) % PARTS;
    match draw {
        0 => "test",
        1 => "validation",
        _ => "train",
    }
}
