//! A suite summed up, and written out.

use super::{Whole, find, page};
use crate::args::{Global, SuiteArg};
use crate::commands::task;
use crate::config;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{one, table};
use cofferdam_model::Task;
use cofferdam_model::config::Costs;
use cofferdam_model::task::Cleanup;
use cofferdam_store::{AttemptRecord, ItemRecord, ItemState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    /// Most memory of an agent's sandbox, bytes: median, and 95th of a hundred.
    pub memory_median: u64,
    /// The same.
    pub memory_p95: u64,
    /// CPU time of all, seconds.
    pub cpu_seconds: f64,
    /// What all cost by the operator's rates; None without any.
    pub cost: Option<f64>,
    /// Each attempt's seconds.
    #[serde(skip)]
    pub seconds: Vec<f64>,
    /// Each attempt's most memory.
    #[serde(skip)]
    pub memory: Vec<f64>,
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
    /// What costs are counted in.
    pub currency: Option<String>,
}

fn seconds(record: &AttemptRecord) -> f64 {
    record.ended_at.map_or(0.0, |ended| (ended.as_millisecond() - record.created_at.as_millisecond()) as f64 / 1000.0)
}

fn figures<'a>(attempts: impl Iterator<Item = (&'a AttemptRecord, Option<f64>)>) -> Figures {
    let mut figures = Figures::default();
    for (record, cost) in attempts {
        let reward = record.reward.unwrap_or(0.0);
        figures.attempts += 1;
        figures.passed += usize::from(reward >= 1.0);
        figures.mean_reward += reward;
        figures.cpu_seconds += record.figures.cpu_seconds;
        if let Some(cost) = cost {
            *figures.cost.get_or_insert(0.0) += cost;
        }
        figures.seconds.push(seconds(record));
        figures.memory.push(record.figures.memory_peak_bytes as f64);
    }
    figures.mean_reward /= figures.attempts.max(1) as f64;
    (figures.seconds_median, figures.seconds_p95) = spread(&mut figures.seconds);
    let (median, p95) = spread(&mut figures.memory);
    (figures.memory_median, figures.memory_p95) = (median as u64, p95 as u64);
    figures
}

/// Sorts; the median, and the 95th of a hundred.
fn spread(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values.get((values.len() * share / 100).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0);
    (at(50), at(95))
}

fn report(whole: Whole, costs: &Costs) -> Report {
    let done: Vec<_> =
        whole.items.iter().filter(|(item, _)| item.state == ItemState::Done).filter_map(|(item, a)| Some((item, a.as_ref()?))).collect();
    // What the tasks' files say now; the suite runs on that too.
    let mut tasks: BTreeMap<PathBuf, Option<Task>> = BTreeMap::new();
    for (item, _) in &done {
        tasks.entry(item.item.path.clone()).or_insert_with(|| task::read(&item.item.path).ok().map(|(task, _)| task));
    }
    let task_of = |item: &ItemRecord| tasks.get(&item.item.path).and_then(Option::as_ref);
    let priced = |(item, attempt): &(&'_ ItemRecord, &'_ AttemptRecord)| cost(costs, attempt, task_of(item));
    let group = |key: &dyn Fn(&ItemRecord) -> String| {
        let mut groups: BTreeMap<String, Vec<(&AttemptRecord, Option<f64>)>> = BTreeMap::new();
        for pair in &done {
            groups.entry(key(pair.0)).or_default().push((pair.1, priced(pair)));
        }
        groups.into_iter().map(|(key, attempts)| (key, figures(attempts.into_iter()))).collect::<BTreeMap<_, _>>()
    };
    Report {
        all: figures(done.iter().map(|pair| (pair.1, priced(pair)))),
        by_difficulty: group(&|item| task_of(item).map_or_else(|| "unknown".into(), |task| task.difficulty.to_string())),
        by_task: group(&|item| item.item.task.to_string()),
        not_made: whole.count(ItemState::Failed) + whole.count(ItemState::Cancelled),
        left: whole.count(ItemState::Queued) + whole.count(ItemState::Running),
        currency: costs.currency.clone(),
        suite: whole.record,
    }
}

/// Prints it, or writes a page.
pub fn run(global: Global, suite: &SuiteArg, html: Option<&Path>) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let record = find(&mut store, suite.suite.as_deref())?;
    let report = report(Whole::read(&mut store, record)?, &config::load()?.costs);
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
            format!("{:.1} MiB", figures.memory_p95 as f64 / 1_048_576.0),
            figures.cost.map_or_else(|| "-".into(), |cost| format!("{cost:.4}")),
        ]
    };
    one(context.global.output, &report, |out| {
        let mut rows: Vec<Vec<String>> = report.by_task.iter().map(|(name, figures)| row(name, figures)).collect();
        rows.extend(report.by_difficulty.iter().map(|(name, figures)| row(&format!("({name})"), figures)));
        rows.push(row("(all)", &report.all));
        table(out, &["TASK", "ATTEMPTS", "PASSED", "REWARD", "MEDIAN", "P95", "MEMORY P95", "COST"], &rows)?;
        if report.not_made + report.left > 0 {
            writeln!(out, "{} could not be made, {} are left", report.not_made, report.left)?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What an attempt cost by the operator's rates; None without any.
pub fn cost(costs: &Costs, attempt: &AttemptRecord, task: Option<&Task>) -> Option<f64> {
    const HOUR_SECONDS: f64 = 3600.0;
    const MONTH_SECONDS: f64 = 30.0 * 86_400.0;
    const GIGABYTE: f64 = 1e9;
    if costs.container_hour == 0.0 && costs.gb_month == 0.0 && costs.egress_gb == 0.0 {
        return None;
    }
    let figures = &attempt.figures;
    let hours = (figures.agent_seconds + figures.verify_seconds) / HOUR_SECONDS;
    let retention = task.map_or_else(|| Cleanup::default().retention, |task| task.cleanup.retention);
    let months = retention.millis() as f64 / 1000.0 / MONTH_SECONDS;
    let kept = figures.artifact_bytes as f64 / GIGABYTE * months;
    Some(hours * costs.container_hour + kept * costs.gb_month + figures.egress_bytes as f64 / GIGABYTE * costs.egress_gb)
}
