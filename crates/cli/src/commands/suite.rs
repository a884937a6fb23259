//! `cofferdam suite`: many attempts at many tasks.

mod export;
mod page;
mod progress;
mod report;

use crate::args::{Global, SuiteArg, SuiteRunArgs, SuiteVerb, TrustArgs};
use crate::commands::task;
use crate::context::{Context, actor, random};
use crate::engines::EngineName;
use crate::exit::{FAILED, Failure};
use crate::host::Machine;
use crate::output::{age, one, table};
use cofferdam_lifecycle::data::now;
use cofferdam_lifecycle::suite::{Budget, Runner, lock, recover};
use cofferdam_model::config::SuiteFile;
use cofferdam_model::yaml;
use cofferdam_model::{NewEvent, SuiteId};
use cofferdam_store::{AttemptRecord, ItemRecord, ItemState, Store, SuiteItem, SuiteRecord};
use cofferdam_trust::pattern::name_matches;
use progress::Progress;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::signal::unix::{SignalKind, signal};

const PARALLEL: usize = 10;
const DEEPEST: usize = 6;
/// Part of the memory that is available, in percent, which attempts may use together.
const MEMORY_PERCENT: u64 = 90;
/// As a shell tells of a process that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Does what was asked.
pub fn run(global: Global, verb: &SuiteVerb) -> Result<ExitCode, Failure> {
    match verb {
        SuiteVerb::Run(arguments) => start(global, arguments),
        SuiteVerb::List => list(global),
        SuiteVerb::Show(suite) => show(global, suite),
        SuiteVerb::Cancel(suite) => cancel(global, suite),
        SuiteVerb::Report { suite, html } => report::run(global, suite, html.as_deref()),
        SuiteVerb::Export(arguments) => export::run(global, arguments),
    }
}

/// One attempt as it is printed.
#[derive(Serialize)]
struct Row<'a> {
    task: &'a cofferdam_model::Name,
    repetition: u32,
    state: ItemState,
    tries: u32,
    /// The attempt's id.
    #[serde(rename = "attempt")]
    id: Option<cofferdam_model::AttemptId>,
    #[serde(flatten)]
    attempt: Option<&'a AttemptRecord>,
}

/// A suite with everything that is known of it.
pub struct Whole {
    record: SuiteRecord,
    items: Vec<(ItemRecord, Option<AttemptRecord>)>,
}

impl Whole {
    fn read(store: &mut Store, record: SuiteRecord) -> Result<Self, Failure> {
        let mut items = Vec::new();
        for item in store.suite_items(record.id, None)? {
            let attempt = item.attempt.map(|id| store.attempt_get(id)).transpose()?.flatten();
            items.push((item, attempt));
        }
        Ok(Self { record, items })
    }

    fn count(&self, state: ItemState) -> usize {
        self.items.iter().filter(|(item, _)| item.state == state).count()
    }

    fn passed(&self) -> usize {
        self.rewards().filter(|reward| *reward >= 1.0).count()
    }

    fn rewards(&self) -> impl Iterator<Item = f64> {
        self.items
            .iter()
            .filter(|(item, _)| item.state == ItemState::Done)
            .map(|(_, attempt)| attempt.as_ref().and_then(|a| a.reward).unwrap_or(0.0))
    }
}

fn start(global: Global, arguments: &SuiteRunArgs) -> Result<ExitCode, Failure> {
    cofferdam_sys::process::raise_open_files();
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let (record, parallel) = match &arguments.resume {
        Some(reference) => (find(&mut store, Some(reference.as_str()).filter(|text| !text.is_empty()))?, None),
        None => accept(&mut store, arguments)?,
    };
    let _lock = lock(&context.data, &record)?;
    context.sweep(&mut store)?;
    recover(&context.data, &mut store, &record)?;
    let parallel = arguments.parallel.or(parallel).unwrap_or(PARALLEL);
    attempt_all(&context, &mut store, &record, parallel)?;
    context.sweep(&mut store)?;
    let mut whole = Whole::read(&mut store, record)?;
    let left = whole.count(ItemState::Queued) + whole.count(ItemState::Running);
    if left == 0 {
        whole.record.ended_at = Some(now());
        store.suite_update(&whole.record, &[event(&whole.record, "suite.ended")])?;
    }
    print(&context, &whole)?;
    if left > 0 {
        crate::output::note!("cofferdam: {left} attempts are left; go on with: cofferdam suite run --resume {}", whole.record.id.short());
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::from(if whole.count(ItemState::Failed) > 0 { FAILED } else { 0 }))
}

/// Writes the suite down, whole, before anything of it starts.
fn accept(store: &mut Store, arguments: &SuiteRunArgs) -> Result<(SuiteRecord, Option<usize>), Failure> {
    let source = arguments.source.clone().ok_or_else(|| Failure::usage("name a directory of tasks or a suite file"))?;
    let file = suite_file(&source)?;
    let places = match &file {
        Some(file) => file.tasks.iter().map(|task| source.parent().unwrap_or(Path::new("")).join(task)).collect(),
        None => vec![source.clone()],
    };
    let mut found = BTreeMap::new();
    for place in &places {
        discover(place, 0, &mut found)?;
    }
    found.retain(|id, _| arguments.filter.is_empty() || arguments.filter.iter().any(|glob| name_matches(glob, id.as_str())));
    if found.is_empty() {
        return Err(Failure::new(FAILED, "suite", format!("{} holds no task that was asked for", source.display()))
            .remedy(format!("a task is a directory with a {}", task::DEFINITIONS.join(" or a "))));
    }
    let agent = arguments.agent.clone().or(file.as_ref().and_then(|file| file.agent.clone())).unwrap_or_else(|| "task".into());
    let attempts = arguments.attempts.or(file.as_ref().and_then(|file| file.attempts)).unwrap_or(1).max(1);
    task::agent(&agent, arguments.agent_cmd.as_deref())?;
    let record = SuiteRecord {
        id: SuiteId::from_random(random()),
        source: std::path::absolute(&source)?,
        agent,
        agent_command: arguments.agent_cmd.clone(),
        engine: arguments.engine.unwrap_or_default().text().to_owned(),
        attempts,
        created_at: now(),
        ended_at: None,
        cancelled: false,
    };
    // Each task once, then each once more: early figures are of every task.
    let pairs = (1..=attempts).flat_map(|repetition| found.iter().map(move |(task, path)| (repetition, task, path)));
    let items: Vec<SuiteItem> = pairs
        .enumerate()
        .map(|(number, (repetition, task, path))| SuiteItem { number: number as u32, task: task.clone(), path: path.clone(), repetition })
        .collect();
    store.suite_insert(&record, &items, &[event(&record, "suite.accepted")])?;
    Ok((record, file.and_then(|file| file.parallel)))
}

/// What has been prepared in this run: a task is read, its image found or built, once.
#[derive(Default)]
struct Preparations {
    known: Mutex<HashMap<PathBuf, Arc<OnePreparation>>>,
}

type OnePreparation = Mutex<Option<Arc<task::Prepared>>>;

impl Preparations {
    /// Others who want the same wait; after an error the next tries again.
    fn of(&self, context: &Context, path: &Path) -> Result<Arc<task::Prepared>, Failure> {
        let one = Arc::clone(locked(&self.known).entry(path.to_owned()).or_default());
        let mut prepared = locked(&one);
        if prepared.is_none() {
            *prepared = Some(Arc::new(task::Prepared::of(context, path, &TrustArgs::default())?));
        }
        prepared.clone().ok_or_else(|| Failure::usage("nothing is prepared"))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn suite_file(source: &Path) -> Result<Option<SuiteFile>, Failure> {
    if source.is_dir() {
        return Ok(None);
    }
    let shown = source.display().to_string();
    let text = std::fs::read_to_string(source).map_err(|error| Failure::new(FAILED, "suite", format!("{shown}: {error}")))?;
    let file: SuiteFile = yaml::parse(&shown, &text).map_err(|error| Failure::new(FAILED, "suite", error.to_string()))?;
    if file.version == 1 { Ok(Some(file)) } else { Err(Failure::new(FAILED, "suite", format!("{shown}: this release knows version 1"))) }
}

/// Every task below a place, by id; one id twice is refused.
fn discover(place: &Path, depth: usize, found: &mut BTreeMap<cofferdam_model::Name, PathBuf>) -> Result<(), Failure> {
    let file = if place.is_dir() { task::definition(place) } else { Some(place.to_owned()) };
    if let Some(file) = file.filter(|file| file.is_file()) {
        let (parsed, _) = task::read(&file)?;
        let path = std::path::absolute(&file)?;
        if let Some(other) = found.insert(parsed.id.clone(), path.clone())
            && other != path
        {
            let message = format!("task id {} is used twice: {} and {}", parsed.id, other.display(), path.display());
            return Err(Failure::new(FAILED, "suite", message).remedy("give one of them another id"));
        }
        return Ok(());
    }
    if !place.is_dir() {
        return Err(Failure::new(FAILED, "suite", format!("{} is neither a directory nor a task", place.display())));
    }
    if depth < DEEPEST {
        let mut names: Vec<PathBuf> = std::fs::read_dir(place)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        names.sort();
        names.iter().try_for_each(|path| discover(path, depth + 1, found))?;
    }
    Ok(())
}

fn attempt_all(context: &Context, store: &mut Store, record: &SuiteRecord, parallel: usize) -> Result<(), Failure> {
    let agent = task::agent(&record.agent, record.agent_command.as_deref())?;
    let named = <EngineName as clap::ValueEnum>::from_str(&record.engine, false).unwrap_or_default();
    let engine = context.engine_named(named, None, false)?;
    context.say_unenforced(&*engine)?;
    let machine = Machine::read();
    let items = store.suite_items(record.id, None)?;
    let progress = Progress::new(&items, context.global.quiet);
    let stop = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    let data = context.data.database();
    let preparations = Preparations::default();
    let result = std::thread::scope(|scope| {
        // Signals and requests to cancel are looked for beside the attempts.
        scope.spawn(|| watch(&context.runtime, &stop, &over, &data, record.id));
        let runner = Runner {
            data: &context.data,
            engine: &*engine,
            suite: record,
            parallel,
            budget: Budget { memory: machine.available() / 100 * MEMORY_PERCENT, cpu_millis: machine.cpus.millis() },
            plan: &|item, id| {
                let prepared = preparations.of(context, &item.path).map_err(|failure| failure.message())?;
                Ok(prepared.plan(agent.clone(), id))
            },
            needs: &|item| {
                let (parsed, _) = task::read(&item.path).map_err(|failure| failure.message())?;
                let limits = task::limits(&parsed).map_err(|failure| failure.message())?;
                Ok(Budget::of(&parsed, &limits))
            },
            observe: &|seen| progress.see(&seen),
            stop: &stop,
            random,
            swept: AtomicI64::new(0),
        };
        let result = runner.run(store);
        over.store(true, Ordering::Relaxed);
        result
    });
    progress.clear();
    Ok(result?)
}

/// The first Ctrl-C drains, the second ends this process: what runs dies with it, and can be gone on with.
fn watch(runtime: &tokio::runtime::Runtime, stop: &AtomicBool, over: &AtomicBool, database: &Path, suite: SuiteId) {
    runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
        let mut ticks = 0u32;
        while !over.load(Ordering::Relaxed) {
            let asked = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                _ = tick.tick() => false,
            };
            ticks += 1;
            if asked && stop.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(INTERRUPTED));
            }
            if asked {
                crate::output::note!("cofferdam: what runs ends, nothing new starts; once more ends it at once");
            } else if ticks.is_multiple_of(10) && is_cancelled(database, suite) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

fn is_cancelled(database: &Path, suite: SuiteId) -> bool {
    let list = Store::open(database).and_then(|mut store| store.suite_list());
    list.is_ok_and(|list| list.iter().any(|record| record.id == suite && record.cancelled))
}

fn event(record: &SuiteRecord, kind: &str) -> NewEvent {
    NewEvent {
        time: now(),
        actor: actor(),
        subject: format!("suite:{}", record.id),
        kind: kind.to_owned(),
        rule: None,
        reason: None,
        data: serde_json::json!({ "source": record.source, "agent": record.agent }),
    }
}

/// A suite by id or prefix; the newest if none is named.
pub fn find(store: &mut Store, reference: Option<&str>) -> Result<SuiteRecord, Failure> {
    let list = store.suite_list()?;
    let mut fitting = list.into_iter().filter(|record| reference.is_none_or(|text| record.id.to_string().starts_with(text)));
    let first = fitting.next().ok_or_else(|| {
        let message =
            reference.map_or_else(|| "there is no suite yet".to_owned(), |text| format!("no suite has an id that begins with {text:?}"));
        Failure::new(FAILED, "not_found", message).remedy("see cofferdam suite list")
    })?;
    match (reference, fitting.next()) {
        (Some(text), Some(_)) => {
            Err(Failure::new(FAILED, "ambiguous", format!("{text:?} begins the ids of several suites")).remedy("give more digits"))
        }
        _ => Ok(first),
    }
}

fn list(global: Global) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let records = store.suite_list()?;
    let mut rows = Vec::new();
    for record in &records {
        let whole = Whole::read(&mut store, record.clone())?;
        let state = match (record.ended_at, record.cancelled) {
            (Some(_), false) => "ended",
            (Some(_), true) => "cancelled",
            (None, _) if lock(&context.data, record).is_err() => "running",
            (None, _) => "stopped",
        };
        let done = format!("{}/{}", whole.count(ItemState::Done), whole.items.len());
        rows.push(vec![
            record.id.short(),
            state.into(),
            done,
            whole.passed().to_string(),
            record.agent.clone(),
            age(record.created_at, now()),
            record.source.display().to_string(),
        ]);
    }
    one(context.global.output, &records, |out| table(out, &["SUITE", "STATE", "DONE", "PASSED", "AGENT", "AGE", "SOURCE"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn show(global: Global, suite: &SuiteArg) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let record = find(&mut store, suite.suite.as_deref())?;
    let whole = Whole::read(&mut store, record)?;
    print(&context, &whole)?;
    Ok(ExitCode::SUCCESS)
}

fn print(context: &Context, whole: &Whole) -> Result<(), Failure> {
    let rows: Vec<Row<'_>> = whole
        .items
        .iter()
        .map(|(item, attempt)| Row {
            task: &item.item.task,
            repetition: item.item.repetition,
            state: item.state,
            tries: item.tries,
            id: attempt.as_ref().map(|attempt| attempt.id),
            attempt: attempt.as_ref(),
        })
        .collect();
    let shown = serde_json::json!({ "suite": whole.record, "attempts": rows });
    one(context.global.output, &shown, |out| {
        let cells = |row: &Row<'_>| {
            let attempt = row.attempt;
            let reward = attempt.and_then(|attempt| attempt.reward).map_or_else(|| "-".into(), |reward| reward.to_string());
            let phase = attempt.map_or_else(|| row.state.name().to_owned(), |attempt| attempt.phase.to_string());
            let detail = attempt.and_then(|attempt| attempt.detail.clone()).unwrap_or_default();
            vec![row.task.to_string(), row.repetition.to_string(), phase, reward, detail.chars().take(60).collect()]
        };
        table(out, &["TASK", "N", "PHASE", "REWARD", "DETAIL"], &rows.iter().map(cells).collect::<Vec<_>>())?;
        writeln!(out, "{}: {} of {} passed", whole.record.id.short(), whole.passed(), whole.items.len())
    })?;
    Ok(())
}

fn cancel(global: Global, suite: &SuiteArg) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let mut record = find(&mut store, suite.suite.as_deref())?;
    if record.ended_at.is_some() {
        return Err(Failure::new(FAILED, "ended", format!("suite {} has ended", record.id.short())));
    }
    record.cancelled = true;
    let running = lock(&context.data, &record).is_err();
    record.ended_at = (!running).then(now);
    store.suite_update(&record, &[event(&record, "suite.cancelled")])?;
    store.suite_cancel_queued(record.id)?;
    Ok(ExitCode::SUCCESS)
}
