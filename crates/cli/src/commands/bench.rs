//! `cofferdam bench`: what this host does, in one process and without records. Against other systems: `cargo xtask bench`.

use crate::args::{BenchArgs, Global};
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use crate::output::one;
use cofferdam_engine::MountSource;
use cofferdam_engine::conformance::{Kit, Made};
use cofferdam_model::ImageRef;
use futures_util::StreamExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

#[derive(serde::Serialize)]
struct Figures {
    start_to_exit_ms: Spread,
    exec_ms: Spread,
    many: u32,
    many_running_ms: f64,
    many_memory_kib_each: u64,
    last_start_against_first: f64,
    neighbours: Vec<Neighbour>,
}

/// How long an exec takes in a sandbox beside one that does its worst.
#[derive(serde::Serialize)]
struct Neighbour {
    beside: &'static str,
    exec_ms: Spread,
}

/// Name and script of each.
const WORST: &[(&str, &str)] = &[
    ("nothing", "sleep 3600"),
    ("a fork bomb", "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done"),
    ("a memory bomb", "while :; do x=$(head -c 200000000 /dev/zero | tr '\\0' x); done"),
    ("a full disk", "while :; do cat /dev/zero > /tmp/f; rm -f /tmp/f; done"),
    ("a spinning processor", "while :; do :; done"),
];

#[derive(serde::Serialize)]
struct Spread {
    median: f64,
    p95: f64,
    best: f64,
}

fn spread(mut samples: Vec<f64>) -> Spread {
    samples.sort_by(f64::total_cmp);
    let at = |share: usize| samples.get(samples.len() * share / 100).copied().unwrap_or(f64::NAN);
    Spread { median: at(50), p95: at(95), best: at(0) }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Measures and prints.
pub fn run(global: Global, arguments: &BenchArgs) -> Result<ExitCode, Failure> {
    cofferdam_sys::process::raise_open_files();
    let context = Context::open(global)?;
    let engine = context.engine()?;
    let directory = context.data.path().join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let failed = |why: String| Failure::new(FAILED, "bench", why);
    let figures = context.runtime.block_on(async {
        let image = cofferdam_trust::resolve(&ImageRef::Host, context.data.path())?;
        let probe = MountSource::open(&directory, None, Path::new("/nonexistent"))?;
        let _unrecorded = context.data.hold_unrecorded()?;
        let kit = Kit::new(&engine, image, context.data.install(), directory.clone(), probe);
        measure(&kit, arguments).await.map_err(failed)
    });
    std::fs::remove_dir_all(&directory)?;
    let figures = figures?;
    one(context.global.output, &figures, |out| {
        let line = |spread: &Spread| format!("median {:.2} ms, p95 {:.2}, best {:.2}", spread.median, spread.p95, spread.best);
        writeln!(out, "start to exit of /bin/true: {}", line(&figures.start_to_exit_ms))?;
        writeln!(out, "exec of /bin/true:          {}", line(&figures.exec_ms))?;
        writeln!(
            out,
            "{} sandboxes running:       {:.0} ms, {} KiB each",
            figures.many, figures.many_running_ms, figures.many_memory_kib_each
        )?;
        writeln!(out, "the last starts took {:.2} times the first", figures.last_start_against_first)?;
        for Neighbour { beside, exec_ms } in &figures.neighbours {
            writeln!(out, "{:27} {}", format!("exec beside {beside}:"), line(exec_ms))?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(kit: &Kit<'_>, arguments: &BenchArgs) -> Result<Figures, String> {
    let plain = |spec: &mut cofferdam_engine::SandboxSpec| spec.mounts.clear();
    let mut starts = Vec::new();
    for _ in 0..arguments.starts.max(1) {
        let begun = Instant::now();
        let made = kit.sandbox(plain).await?;
        made.start(&["/bin/true"]).await?.wait().await;
        starts.push(milliseconds(begun));
        made.delete().await?;
    }
    let made = kit.sandbox(plain).await?;
    let _main = made.start(&["/bin/sleep", "3600"]).await?;
    let mut execs = Vec::new();
    for _ in 0..arguments.starts.max(1) {
        let begun = Instant::now();
        made.exec(&["/bin/true"]).await?;
        execs.push(milliseconds(begun));
    }
    made.delete().await?;
    let before = available_kib();
    let begun = Instant::now();
    let start = |_| async {
        let begun = Instant::now();
        let made = kit.sandbox(plain).await?;
        made.start(&["/bin/sleep", "3600"]).await?;
        Ok::<_, String>((made, milliseconds(begun)))
    };
    let mut starting = futures_util::stream::iter(0..arguments.many).map(start).buffered(arguments.together.max(1));
    let mut running: Vec<Made> = Vec::new();
    let mut each = Vec::new();
    while let Some(started) = starting.next().await {
        let (made, took) = started?;
        running.push(made);
        each.push(took);
    }
    drop(starting);
    let many_running_ms = milliseconds(begun);
    let used = before.saturating_sub(available_kib());
    for made in running {
        made.delete().await?;
    }
    // Medians of fifty: the first few warm up what the kernel keeps.
    let window = |samples: &[f64]| spread(samples.to_vec()).median;
    let first = window(&each[each.len().min(10)..each.len().min(60)]);
    Ok(Figures {
        start_to_exit_ms: spread(starts),
        exec_ms: spread(execs),
        many: arguments.many,
        many_running_ms,
        many_memory_kib_each: used / u64::from(arguments.many.max(1)),
        last_start_against_first: window(&each[each.len().saturating_sub(50)..]) / first,
        neighbours: neighbours(kit).await?,
    })
}

async fn neighbours(kit: &Kit<'_>) -> Result<Vec<Neighbour>, String> {
    const EXECS: u32 = 50;
    let mut measured = Vec::new();
    for (beside, script) in WORST {
        let worst = kit.sandbox(|spec| spec.mounts.clear()).await?;
        let _worst = worst.start(&["/bin/sh", "-c", script]).await?;
        let made = kit.sandbox(|spec| spec.mounts.clear()).await?;
        let _main = made.start(&["/bin/sleep", "3600"]).await?;
        let mut samples = Vec::new();
        for _ in 0..EXECS {
            let begun = Instant::now();
            made.exec(&["/bin/true"]).await?;
            samples.push(milliseconds(begun));
        }
        measured.push(Neighbour { beside, exec_ms: spread(samples) });
        worst.delete().await?;
        made.delete().await?;
    }
    Ok(measured)
}

fn available_kib() -> u64 {
    cofferdam_sys::process::memory_available().unwrap_or(0) / 1024
}
