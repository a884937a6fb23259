//! `cofferdam stats`: what running sandboxes use, again and again.

use crate::args::{Form, Global, StatsArgs};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{line, size, table};
use crate::terminal;
use cofferdam_engine::Usage;
use cofferdam_lifecycle::control::{Client, Reply, Request};
use cofferdam_lifecycle::data::now;
use cofferdam_model::{Name, SandboxId, SandboxRecord, Timestamp};
use cofferdam_store::Store;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// CPU use is time between two looks; the first two are this far apart.
const FIRST: Duration = Duration::from_millis(300);
const CLEAR: &str = "\x1b[H\x1b[J";

/// What one sandbox uses.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Sample {
    /// When it was looked at.
    pub time: Timestamp,
    /// Its id.
    pub id: SandboxId,
    /// Its name.
    pub name: Option<Name>,
    /// CPU time for each second of time since the look before, in percent of one CPU.
    pub cpu_percent: f64,
    /// CPU time since its start, microseconds.
    pub cpu_micros: u64,
    /// Memory now, bytes.
    pub memory_bytes: u64,
    /// Most memory so far, bytes.
    pub memory_peak_bytes: u64,
    /// Most memory that it may use, bytes.
    pub memory_limit_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Most processes and threads that it may have.
    pub pids_limit: u32,
}

/// Looks at running sandboxes; the looks before are kept, for what is said by their difference.
#[derive(Default)]
pub struct Samples {
    before: BTreeMap<SandboxId, (Instant, u64)>,
}

impl Samples {
    /// What those use now that run. None of one that has not been looked at before.
    pub fn take(&mut self, context: &Context, records: &[SandboxRecord]) -> Vec<Sample> {
        let mut before = std::mem::take(&mut self.before);
        let mut taken = Vec::new();
        for record in records {
            let Some(usage) = usage(context, record) else { continue };
            let looked = Instant::now();
            self.before.insert(record.id, (looked, usage.cpu_micros));
            if let Some((then, micros)) = before.remove(&record.id) {
                let percent = usage.cpu_micros.saturating_sub(micros) as f64 / (looked - then).as_micros().max(1) as f64 * 100.0;
                taken.push(sample(record, &usage, (percent * 10.0).round() / 10.0));
            }
        }
        taken
    }
}

/// Shows it until they have ended, or for good if none was named.
pub fn run(global: Global, arguments: &StatsArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let named = arguments.sandboxes.iter().map(|reference| Ok(Context::find(&mut store, reference)?.id));
    let named: Vec<SandboxId> = named.collect::<Result<_, Failure>>()?;
    let redrawn = context.global.output == Form::Table && !arguments.no_stream && terminal::is_output();
    let mut samples = Samples::default();
    samples.take(&context, &wanted(&mut store, &named)?);
    std::thread::sleep(FIRST);
    loop {
        let records = wanted(&mut store, &named)?;
        let taken = samples.take(&context, &records);
        show(context.global.output, &taken, redrawn)?;
        if arguments.no_stream || (!named.is_empty() && records.is_empty()) {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(arguments.interval.duration());
    }
}

fn wanted(store: &mut Store, named: &[SandboxId]) -> Result<Vec<SandboxRecord>, Failure> {
    let mut live = store.sandbox_list_live()?;
    live.retain(|record| named.is_empty() || named.contains(&record.id));
    Ok(live)
}

fn usage(context: &Context, record: &SandboxRecord) -> Option<Usage> {
    let client = Client::connect(&context.data.sandbox(record.id)).ok()?;
    match client.ask(&Request::Observe) {
        Ok(Reply::Observed(observation)) => Some(observation.usage),
        _ => None,
    }
}

fn sample(record: &SandboxRecord, usage: &Usage, cpu_percent: f64) -> Sample {
    Sample {
        time: now(),
        id: record.id,
        name: record.name.clone(),
        cpu_percent,
        cpu_micros: usage.cpu_micros,
        memory_bytes: usage.memory_bytes,
        memory_peak_bytes: usage.memory_peak_bytes,
        memory_limit_bytes: record.limits.memory.get(),
        pids: usage.pids,
        pids_limit: record.limits.pids,
    }
}

fn show(form: Form, samples: &[Sample], redrawn: bool) -> Result<(), Failure> {
    if form != Form::Table {
        for sample in samples {
            line(form, sample, |_| Ok(()))?;
        }
        return Ok(());
    }
    let rows: Vec<Vec<String>> = samples.iter().map(row).collect();
    let mut out = std::io::stdout().lock();
    if redrawn {
        out.write_all(CLEAR.as_bytes())?;
    }
    table(&mut out, &["ID", "NAME", "CPU", "MEMORY", "LIMIT", "MEMORY %", "PROCESSES"], &rows)?;
    Ok(out.flush()?)
}

fn row(sample: &Sample) -> Vec<String> {
    let name = sample.name.as_ref().map(ToString::to_string).unwrap_or_default();
    let part = sample.memory_bytes as f64 / sample.memory_limit_bytes.max(1) as f64 * 100.0;
    vec![
        sample.id.short(),
        name,
        format!("{:.1}%", sample.cpu_percent),
        size(sample.memory_bytes),
        size(sample.memory_limit_bytes),
        format!("{part:.1}%"),
        sample.pids.to_string(),
    ]
}
