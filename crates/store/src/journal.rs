//! Sandboxes that end at once are recorded without the database: a line when they are made, a line when they have ended.
//!
//! Opening `SQLite`, reading its schema and two transactions take a process longer than all else that it does about its records. So a short
//! run appends to a file beside the database, and whoever opens the database merges what he finds there. Invariants: a line is written at
//! once and stands between newlines, so one that was cut off by a kill spoils no other; a line leaves the file only when the database holds
//! it with `synchronous=FULL`; merging a line twice changes nothing.

use crate::event::append;
use crate::sandbox::{get, insert, update};
use crate::store::BUSY_TIMEOUT;
use crate::{Durability, Store, StoreError};
use cofferdam_model::{NewEvent, SandboxRecord};
use rusqlite::{ErrorCode, Transaction};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// With so many bytes it is merged by who appends: some hundred runs.
const MOST_BYTES: u64 = 256 << 10;

/// Something about a sandbox, with the events that explain it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// It is being made.
    Made(SandboxRecord, Vec<NewEvent>),
    /// It has ended.
    Ended(SandboxRecord, Vec<NewEvent>),
}

/// The file.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The one of a database.
    pub fn of(database: &Path) -> Self {
        Self { path: database.with_extension("jsonl") }
    }

    /// Adds a line. True when it has become long: the next to open the database should be soon.
    pub fn append(&self, entry: &Entry, durability: Durability) -> Result<bool, StoreError> {
        let (Entry::Made(record, _) | Entry::Ended(record, _)) = entry;
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, entry).map_err(|source| StoreError::Corrupt { id: record.id.to_string(), source })?;
        line.push(b'\n');
        self.write(&line, durability).map_err(|source| StoreError::Journal { path: self.path.clone(), source })
    }

    fn write(&self, line: &[u8], durability: Durability) -> io::Result<bool> {
        let (mut file, made) = match options().open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (options().create(true).open(&self.path)?, true),
            opened => (opened?, false),
        };
        patiently(|| file.try_lock_shared())?;
        file.write_all(line)?;
        let long = file.stream_position()? > MOST_BYTES;
        file.unlock()?;
        if durability == Durability::Full {
            file.sync_data()?;
            if made {
                File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            }
        }
        Ok(long)
    }

    fn is_empty(&self) -> bool {
        std::fs::metadata(&self.path).map_or(true, |metadata| metadata.len() == 0)
    }
}

/// Who has the lock has it for some milliseconds, unless he was stopped meanwhile.
fn patiently(mut lock: impl FnMut() -> Result<(), TryLockError>) -> io::Result<()> {
    const NAP: Duration = Duration::from_millis(1);
    let begun = Instant::now();
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < BUSY_TIMEOUT => std::thread::sleep(NAP),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another cofferdam has held it for 10 s: is it stopped?"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn options() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.read(true).append(true).mode(0o600);
    options
}

impl Store {
    /// Takes over what has been recorded without the database. Every read begins with it.
    pub(crate) fn merge(&mut self) -> Result<(), StoreError> {
        if self.journal.is_empty() {
            return Ok(());
        }
        let journal = self.journal.clone();
        let failed = |source| StoreError::Journal { path: journal.path.clone(), source };
        let mut file = match options().open(&journal.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        self.write(Durability::Full, |transaction| {
            // Whoever appends now waits until the file is empty again.
            patiently(|| file.try_lock()).map_err(failed)?;
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut text)).map_err(failed)?;
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice(line) {
                    Ok(entry) => take(transaction, &entry)?,
                    // A line that was cut off: who wrote it was killed before it could say that it had.
                    Err(error) if error.is_eof() || error.is_syntax() => {}
                    Err(source) => {
                        return Err(StoreError::Corrupt { id: String::from_utf8_lossy(line).chars().take(60).collect(), source });
                    }
                }
            }
            Ok(())
        })?;
        file.set_len(0).map_err(failed)
    }

    /// The same before something is read: a full disk or a busy database is no reason not to read what is there.
    pub(crate) fn merge_to_read(&mut self) -> Result<(), StoreError> {
        match self.merge() {
            Err(StoreError::Database(error))
                if matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy)) =>
            {
                Ok(())
            }
            merged => merged,
        }
    }
}

fn take(transaction: &Transaction<'_>, entry: &Entry) -> Result<(), StoreError> {
    match entry {
        Entry::Made(record, events) => match get(transaction, record.id)? {
            Some(_) => Ok(()),
            None => insert(transaction, record, events),
        },
        Entry::Ended(record, events) => match get(transaction, record.id)? {
            Some(stored) if stored.phase.is_final() => Ok(()),
            Some(_) => update(transaction, record, events).map(|_| ()),
            None => insert(transaction, record, &[]).and_then(|()| append(transaction, events)),
        },
    }
}
