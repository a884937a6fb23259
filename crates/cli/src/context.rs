//! What most commands need: the data directory, the engine, a runtime, a sandbox by its reference.

use crate::args::Global;
use crate::exit::{FAILED, Failure};
use cofferdam_engine_native::NativeEngine;
use cofferdam_lifecycle::control::Client;
use cofferdam_lifecycle::supervisor::Outcome;
use cofferdam_lifecycle::task::due;
use cofferdam_lifecycle::{DataDir, sweep};
use cofferdam_model::SandboxRecord;
use cofferdam_store::{Match, Store};
use std::path::PathBuf;

/// The surroundings of a command.
pub struct Context {
    /// Options that every command takes.
    pub global: Global,
    /// The data directory.
    pub data: DataDir,
    /// Where async work runs.
    pub runtime: tokio::runtime::Runtime,
}

impl Context {
    /// Opens the data directory.
    pub fn open(global: Global) -> Result<Self, Failure> {
        let path = data_path(&global);
        let data = DataDir::open(&path, random)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).thread_stack_size(256 << 10).build()?;
        Ok(Self { global, data, runtime })
    }

    /// The native engine.
    pub fn engine(&self) -> Result<NativeEngine, Failure> {
        Ok(NativeEngine::new(self.data.install(), self.data.path())?)
    }

    /// The records.
    pub fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.data.database())?)
    }

    /// The sandbox that a reference stands for.
    pub fn find(store: &mut Store, reference: &str) -> Result<SandboxRecord, Failure> {
        match store.sandbox_find(reference)? {
            Match::One(record) => Ok(*record),
            Match::None => {
                Err(Failure::new(FAILED, "not_found", format!("no sandbox is called {reference:?} or has an id that begins so"))
                    .remedy("see cofferdam ps -a"))
            }
            Match::Several(ids) => {
                let shown: Vec<String> = ids.iter().map(cofferdam_model::SandboxId::short).collect();
                Err(Failure::new(FAILED, "ambiguous", format!("{reference:?} begins the ids of {}", shown.join(", ")))
                    .remedy("give more digits"))
            }
        }
    }

    /// A connection to the supervisor of a sandbox.
    pub fn connect(&self, record: &SandboxRecord) -> Result<Client, Failure> {
        Client::connect(&self.data.sandbox(record.id)).map_err(|error| {
            let failure = Failure::from(error);
            let state = match record.reason {
                Some(reason) => format!("{} ({reason})", record.phase),
                None => record.phase.to_string(),
            };
            Failure::new(FAILED, "gone", format!("sandbox {}: {}; it is recorded as {state}", record.id.short(), failure.message()))
        })
    }

    /// The same after a sandbox of this process has ended, if there is anything to look at.
    pub fn sweep_after(&self, outcome: &Outcome) -> Result<(), Failure> {
        if outcome.others || sweep::has_directories(&self.data) {
            let (mut store, engine) = (self.store()?, self.sweeper()?);
            let swept = self.runtime.block_on(sweep::run(&self.data, &engine, &mut store))?;
            warn(&swept);
        }
        Ok(())
    }

    /// Ends what dead supervisors left. Errors are told, and change nothing else.
    pub fn sweep(&self, store: &mut Store) -> Result<sweep::Swept, Failure> {
        let engine = self.sweeper()?;
        let swept = self.runtime.block_on(sweep::run(&self.data, &engine, store))?;
        warn(&swept);
        due::sweep(&self.data, store)?;
        Ok(swept)
    }
}

fn warn(swept: &sweep::Swept) {
    for problem in &swept.left {
        crate::output::note!("cofferdam: warning: left behind: {problem}");
    }
}

/// Where the data directory is: flag or environment, else the default of this user.
pub fn data_path(global: &Global) -> PathBuf {
    if let Some(path) = &global.data_dir {
        return path.clone();
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/cofferdam");
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    base.unwrap_or_else(|| PathBuf::from("/tmp")).join("cofferdam")
}

/// 128 random bits.
pub fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

/// 256 random bits.
pub fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&random());
    seed[16..].copy_from_slice(&random());
    seed
}

/// Who runs this command, as it stands in records.
pub fn actor() -> String {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    format!("user:{}", name.unwrap_or_else(|| uid.to_string()))
}
