//! One connection to the database of a data directory.

use crate::{Journal, migration};
use cofferdam_model::SandboxId;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The log is merged early: a process that finds nobody else with the database reads all of the log, and commands come
/// one at a time. A command writes some dozen pages.
const CONNECTION: &str = "PRAGMA wal_autocheckpoint=100";
/// How long anything of the records is waited for.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How safe a commit is when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Survives the process; a power loss may take it.
    Normal,
    /// Survives a power loss.
    Full,
}

/// What can go wrong with the records.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("database {path}: {source}", path = path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// What the database said.
        source: rusqlite::Error,
    },
    /// It was written by a newer release.
    #[error("database {path} has version {found}, this release knows {known}: use the release that wrote it, or restore a backup", path = path.display())]
    Newer {
        /// Its file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The name belongs to another sandbox.
    #[error("name {name:?} is in use by sandbox {holder}; remove that one (cofferdam rm {name}) or choose another name")]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        holder: SandboxId,
    },
    /// The directory of the database could not be made durable.
    #[error("database directory {directory}: {source}", directory = directory.display())]
    Sync {
        /// It.
        directory: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The journal beside the database cannot be written or read.
    #[error("records {path}: {source}", path = path.display())]
    Journal {
        /// Its file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A stored record cannot be read.
    #[error("database: record {id} cannot be read: {source}")]
    Corrupt {
        /// Its id.
        id: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The records of one data directory.
#[derive(Debug)]
pub struct Store {
    pub(crate) connection: Connection,
    /// The directory of a database whose log file is new: its entry must survive a power loss too.
    new_in: Option<PathBuf>,
    /// What others record without the database.
    pub(crate) journal: Journal,
}

impl Store {
    /// Opens the database, creating or migrating it. Blocking, as everything here.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let new_in = if Path::new(&log).exists() { None } else { path.parent().map(Path::to_owned) };
        let mut connection = Connection::open_with_flags(path, flags).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        connection.execute_batch(CONNECTION).map_err(open)?;
        migration::run(&mut connection, path)?;
        let mut store = Self { connection, new_in, journal: Journal::of(path) };
        store.merge_to_read()?;
        Ok(store)
    }

    /// One transaction that nobody else interleaves with: committed if the work succeeds, else nothing of it is left.
    pub(crate) fn write<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.connection.execute_batch(match durability {
            Durability::Normal => "PRAGMA synchronous=NORMAL",
            Durability::Full => "PRAGMA synchronous=FULL",
        })?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        if durability == Durability::Full
            && let Some(directory) = self.new_in.take()
        {
            let synced = std::fs::File::open(&directory).and_then(|directory| directory.sync_all());
            synced.map_err(|source| StoreError::Sync { directory, source })?;
        }
        Ok(value)
    }
}
