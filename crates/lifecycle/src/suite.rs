//! Running a suite: many attempts, as many at a time as the machine admits, each recorded before and after.
//!
//! ```text
//! queued ──take──▶ running ──attempt recorded──▶ done
//!    ▲                │
//!    └── could not be made, fewer than three tries ── else ──▶ failed
//!    └── runner lost (recover) ──┘
//! ```
//!
//! What an attempt's own record says decides: an item whose attempt is final is done, whoever died before saying so.

use crate::data::{DataDir, now};
use crate::task::{self, Plan, TaskRunError};
use cofferdam_engine::Engine;
use cofferdam_model::{AttemptId, Limits, Phase, Reason, Task};
use cofferdam_store::{AttemptRecord, ItemRecord, ItemState, Store, StoreError, SuiteItem, SuiteRecord};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often an item is begun that Cofferdam itself could not attempt.
pub const MOST_TRIES: u32 = 3;
/// What an item counts for at least, unless its task says less.
const LEAST_MEMORY: u64 = 512 << 20;
const LEAST_CPU_MILLIS: u32 = 500;
/// How long a slot sleeps before it looks again whether it is to stop.
const NAP: Duration = Duration::from_millis(200);
const SWEEP_SECONDS: i64 = 5;
const SLOT_STACK_BYTES: usize = 2 << 20;

/// What suites may use of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Memory, bytes.
    pub memory: u64,
    /// CPUs, thousandths.
    pub cpu_millis: u32,
}

impl Budget {
    /// What a task counts for: its limits. Where it sets none itself, half a CPU and 512 MiB at least. Memory is a limit that is enforced, so
    /// what is counted is never exceeded.
    pub fn of(task: &Task, limits: &Limits) -> Self {
        let least = |own: bool, least: u64| if own { 0 } else { least };
        Self {
            memory: limits.memory.get().max(least(task.limits.memory.is_some(), LEAST_MEMORY)),
            cpu_millis: limits.cpus.millis().max(least(task.limits.cpus.is_some(), u64::from(LEAST_CPU_MILLIS)) as u32),
        }
    }
}

/// What is told while a suite runs.
#[derive(Debug)]
pub enum Seen<'a> {
    /// An item is begun.
    Begun(&'a SuiteItem),
    /// An item has been attempted.
    Ended(&'a SuiteItem, &'a AttemptRecord),
    /// An item could not be attempted, and why; it may be tried again.
    Trouble(&'a SuiteItem, &'a str, bool),
}

/// A suite that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody runs it.
    #[error("suite {0} is being run by another process")]
    Busy(String),
    /// A file of the data directory.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Makes the plan of an attempt.
pub type Planner<'a> = dyn Fn(&SuiteItem, AttemptId) -> Result<Plan, String> + Sync + 'a;
/// Says what an item counts for.
pub type Needs<'a> = dyn Fn(&SuiteItem) -> Result<Budget, String> + Sync + 'a;

/// What runs a suite.
pub struct Runner<'a> {
    /// The data directory.
    pub data: &'a DataDir,
    /// What runs sandboxes.
    pub engine: &'a dyn Engine,
    /// The suite.
    pub suite: &'a SuiteRecord,
    /// Most attempts at a time.
    pub parallel: usize,
    /// What may be used together.
    pub budget: Budget,
    /// Makes plans.
    pub plan: &'a Planner<'a>,
    /// Says what items need.
    pub needs: &'a Needs<'a>,
    /// Is told.
    pub observe: &'a (dyn Fn(Seen<'_>) + Sync),
    /// Set: nothing new is begun.
    pub stop: &'a AtomicBool,
    /// New ids.
    pub random: fn() -> [u8; 16],
    /// When what is due was last looked at, seconds; 0 at first.
    pub swept: AtomicI64,
}

/// Takes the suite for this process, until the result is dropped.
pub fn lock(data: &DataDir, suite: &SuiteRecord) -> Result<std::os::fd::OwnedFd, SuiteError> {
    let directory = data.path().join("suites");
    std::fs::create_dir_all(&directory).map_err(|source| SuiteError::Io { path: directory.clone(), source })?;
    let path = directory.join(format!("{}.lock", suite.id));
    let file = cofferdam_sys::lock::open_file(&path).map_err(|error| SuiteError::Io { path: path.clone(), source: error.source })?;
    match cofferdam_sys::lock::try_lock(&file, true) {
        Ok(true) => Ok(file),
        Ok(false) => Err(SuiteError::Busy(suite.id.short())),
        Err(error) => Err(SuiteError::Io { path, source: error.source }),
    }
}

/// Puts right what a lost runner left: its attempts that are final are done, the others are recorded as lost and queued again.
/// Idempotent. The suite's lock is held.
pub fn recover(data: &DataDir, store: &mut Store, suite: &SuiteRecord) -> Result<(), SuiteError> {
    for item in store.suite_items(suite.id, Some(ItemState::Running))? {
        if let Some(id) = item.attempt {
            let path = data.path().join("attempts").join(id.to_string());
            match std::fs::remove_dir_all(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(SuiteError::Io { path, source }),
                _ => {}
            }
        }
        let attempt = item.attempt.map(|id| store.attempt_get(id)).transpose()?.flatten();
        let state = match attempt {
            Some(record) if counts(&record) => ItemState::Done,
            Some(record) if !record.phase.is_final() => {
                let detail = Some("the process that ran the suite ended first".to_owned());
                let lost =
                    AttemptRecord { phase: Phase::Failed, reason: Some(Reason::SupervisorLost), detail, ended_at: Some(now()), ..record };
                store.attempt_save(&lost, &[], &[])?;
                ItemState::Queued
            }
            _ => ItemState::Queued,
        };
        store.suite_settle(suite.id, item.item.number, state)?;
    }
    Ok(())
}

/// Whether an attempt was made, whatever came of it.
fn counts(record: &AttemptRecord) -> bool {
    record.phase.is_final() && !record.reason.is_some_and(Reason::is_infrastructure)
}

struct Dispatch {
    queue: VecDeque<ItemRecord>,
    /// What each task counts for, once it is known.
    parts: HashMap<PathBuf, Budget>,
    left: Budget,
    running: usize,
    failure: Option<SuiteError>,
}

/// What an item was given; given back when it is dropped.
struct Share<'a> {
    dispatch: &'a Mutex<Dispatch>,
    changed: &'a Condvar,
    part: Budget,
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut dispatch = locked(self.dispatch);
        dispatch.left.memory += self.part.memory;
        dispatch.left.cpu_millis += self.part.cpu_millis;
        dispatch.running -= 1;
        drop(dispatch);
        self.changed.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner<'_> {
    /// Attempts what is queued. Returns when nothing is left, or nothing new is to be begun and what ran has ended.
    pub fn run(&self, store: &mut Store) -> Result<(), SuiteError> {
        let queue: VecDeque<ItemRecord> = store.suite_items(self.suite.id, Some(ItemState::Queued))?.into();
        let slots = self.parallel.max(1).min(queue.len());
        let dispatch = Mutex::new(Dispatch { queue, parts: HashMap::new(), left: self.budget, running: 0, failure: None });
        let changed = Condvar::new();
        std::thread::scope(|scope| {
            for _ in 0..slots {
                let slot = || {
                    if let Err(error) = self.slot(&dispatch, &changed) {
                        locked(&dispatch).failure.get_or_insert(error);
                        changed.notify_all();
                    }
                };
                let started = std::thread::Builder::new().name("slot".into()).stack_size(SLOT_STACK_BYTES).spawn_scoped(scope, slot);
                if let Err(source) = started {
                    locked(&dispatch).failure.get_or_insert(SuiteError::Io { path: "a thread".into(), source });
                }
            }
        });
        let failure = locked(&dispatch).failure.take();
        failure.map_or(Ok(()), Err)
    }

    fn slot(&self, dispatch: &Mutex<Dispatch>, changed: &Condvar) -> Result<(), SuiteError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).thread_stack_size(256 << 10).build();
        let runtime = runtime.map_err(|source| SuiteError::Io { path: "a runtime".into(), source })?;
        let mut store = Store::open(&self.data.database())?;
        while let Some((item, share)) = self.next(dispatch, changed) {
            let again = self.attempt(&runtime, &mut store, &item)?;
            self.sweep(&runtime, &mut store)?;
            // Behind those that wait, and before the share is given back: nobody takes an empty queue for the end.
            locked(dispatch).queue.extend(again);
            drop(share);
        }
        Ok(())
    }

    /// What dead supervisors left is ended, and what is due goes, also while the suite runs.
    fn sweep(&self, runtime: &tokio::runtime::Runtime, store: &mut Store) -> Result<(), SuiteError> {
        let now = now().as_second();
        let last = self.swept.load(Ordering::Relaxed);
        if now - last >= SWEEP_SECONDS && self.swept.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // What is left behind even now is told by the sweep at the end of the command.
            let _swept = runtime.block_on(crate::sweep::run(self.data, self.engine, store))?;
            task::due::sweep(self.data, store)?;
        }
        Ok(())
    }

    /// The first in line, once it fits. None: nothing is left, or nothing new is to be begun.
    fn next<'a>(&self, dispatch: &'a Mutex<Dispatch>, changed: &'a Condvar) -> Option<(ItemRecord, Share<'a>)> {
        let mut state = locked(dispatch);
        loop {
            if self.stop.load(Ordering::Relaxed) || state.failure.is_some() {
                return None;
            }
            match state.queue.front() {
                None if state.running == 0 => return None,
                None => {}
                Some(item) => {
                    let (path, known) = (item.item.path.clone(), state.parts.get(&item.item.path).copied());
                    let part = known.unwrap_or_else(|| self.part(&item.item));
                    state.parts.insert(path, part);
                    let fits = part.memory <= state.left.memory && part.cpu_millis <= state.left.cpu_millis;
                    // What is larger than everything runs alone; whether the machine has so much at all is the plan's to say.
                    if fits || state.running == 0 {
                        let part =
                            Budget { memory: part.memory.min(state.left.memory), cpu_millis: part.cpu_millis.min(state.left.cpu_millis) };
                        state.left.memory -= part.memory;
                        state.left.cpu_millis -= part.cpu_millis;
                        state.running += 1;
                        let item = state.queue.pop_front()?;
                        return Some((item, Share { dispatch, changed, part }));
                    }
                }
            }
            state = changed.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn part(&self, item: &SuiteItem) -> Budget {
        match (self.needs)(item) {
            Ok(budget) => budget,
            // The plan will say what is wrong.
            Err(_) => Budget { memory: LEAST_MEMORY, cpu_millis: LEAST_CPU_MILLIS },
        }
    }

    /// One attempt; the item again if it is to be tried once more.
    fn attempt(&self, runtime: &tokio::runtime::Runtime, store: &mut Store, item: &ItemRecord) -> Result<Option<ItemRecord>, SuiteError> {
        let id = AttemptId::from_random((self.random)());
        let number = item.item.number;
        if !store.suite_take(self.suite.id, number, id)? {
            return Ok(None);
        }
        (self.observe)(Seen::Begun(&item.item));
        let made = match (self.plan)(&item.item, id) {
            Ok(plan) => runtime
                .block_on(task::run(self.data, self.engine, store, &plan))
                .map_err(|error: TaskRunError| (error.to_string(), error.retryable())),
            Err(why) => {
                // There is nothing but the reason; without a record it would be gone with this process.
                let mut record = AttemptRecord::begun(id, item.item.task.clone(), &self.suite.agent, now());
                (record.phase, record.reason, record.ended_at) = (Phase::Failed, Some(Reason::StartFailed), Some(record.created_at));
                record.detail = Some(why.clone());
                store.attempt_save(&record, &[], &[])?;
                Err((why, true))
            }
        };
        let (why, retryable) = match made {
            Ok(record) => {
                store.suite_settle(self.suite.id, number, ItemState::Done)?;
                (self.observe)(Seen::Ended(&item.item, &record));
                return Ok(None);
            }
            Err(trouble) => trouble,
        };
        let again = retryable && item.tries + 1 < MOST_TRIES;
        store.suite_settle(self.suite.id, number, if again { ItemState::Queued } else { ItemState::Failed })?;
        (self.observe)(Seen::Trouble(&item.item, &why, again));
        Ok(again.then(|| ItemRecord { tries: item.tries + 1, ..item.clone() }))
    }
}
