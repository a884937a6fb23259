//! One connection to the database of a data directory.

use crate::migration;
use cofferdam_model::SandboxId;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection};
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

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
        source: sqlx::Error,
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
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
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
    pub(crate) connection: SqliteConnection,
}

impl Store {
    /// Opens the database, creating or migrating it.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(open)?;
        migration::run(&mut connection, path).await?;
        Ok(Self { connection })
    }

    /// Starts a write that nobody else interleaves with.
    pub(crate) async fn begin(&mut self, durability: Durability) -> Result<(), StoreError> {
        let pragma = match durability {
            Durability::Normal => "PRAGMA synchronous=NORMAL",
            Durability::Full => "PRAGMA synchronous=FULL",
        };
        sqlx::query(pragma).execute(&mut self.connection).await?;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        Ok(())
    }

    /// Commits, or rolls back if the work failed.
    pub(crate) async fn end<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        let statement = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = sqlx::query(statement).execute(&mut self.connection).await;
        let value = result?;
        ended?;
        Ok(value)
    }
}
