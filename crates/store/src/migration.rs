//! The database's form, by version. A version is never changed once released: the next one is added.

use crate::StoreError;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(5);

const VERSIONS: &[&str] = &[
    "
CREATE TABLE sandbox (
    id TEXT PRIMARY KEY,
    name TEXT,
    phase TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX sandbox_name ON sandbox (name) WHERE removed_at IS NULL AND name IS NOT NULL;
CREATE INDEX sandbox_present ON sandbox (created_at) WHERE removed_at IS NULL;
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    event TEXT NOT NULL
) STRICT;
CREATE INDEX event_subject ON event (subject, sequence);
CREATE TABLE attempt (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    phase TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX attempt_task ON attempt (task, created_at);
",
    "
CREATE TABLE suite (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE suite_item (
    suite TEXT NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    tries INTEGER NOT NULL,
    attempt TEXT,
    item TEXT NOT NULL,
    PRIMARY KEY (suite, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX suite_item_state ON suite_item (suite, state, number);
",
    "
CREATE TABLE due (
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    PRIMARY KEY (at, kind, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_running ON attempt (created_at) WHERE phase = 'running';
CREATE TABLE sound (
    key TEXT PRIMARY KEY,
    task TEXT NOT NULL
) STRICT, WITHOUT ROWID;
",
];

/// Brings the database to the newest version; one that is newer than this release is refused.
///
/// Of several processes that find no database, one makes it. `SQLite` does not wait for another that is just switching to the write-ahead
/// log, whatever the busy timeout says: so that is tried again here.
pub fn run(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let begun = Instant::now();
    loop {
        match once(connection, path) {
            Err(StoreError::Database(error))
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < PATIENCE =>
            {
                std::thread::sleep(NAP);
            }
            result => return result,
        }
    }
}

fn once(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let known = VERSIONS.len() as i64;
    if version(connection)? == known {
        return Ok(());
    }
    // It stays so: the file says it.
    connection.execute_batch("PRAGMA journal_mode=WAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    for statements in &VERSIONS[found as usize..] {
        transaction.execute_batch(statements)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
