//! What is to be done later: due times, swept by whoever comes by.

use crate::{Durability, Store, StoreError};
use cofferdam_model::Timestamp;
use rusqlite::{OptionalExtension, params};

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// When.
    pub at: Timestamp,
    /// What is to be done.
    pub kind: String,
    /// To what.
    pub subject: String,
}

impl Store {
    /// What is due by now, earliest first, at most so many.
    pub fn due_list(&mut self, now: Timestamp, most: usize) -> Result<Vec<Due>, StoreError> {
        let query = "SELECT at, kind, subject FROM due WHERE at <= ?1 ORDER BY at LIMIT ?2";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(params![now.as_millisecond(), most as i64], |row| {
            let at = Timestamp::from_millisecond(row.get(0)?).unwrap_or_default();
            Ok(Due { at, kind: row.get(1)?, subject: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// It has been done. Idempotent.
    pub fn due_done(&mut self, done: &[Due]) -> Result<(), StoreError> {
        self.write(Durability::Normal, |transaction| {
            let mut statement = transaction.prepare_cached("DELETE FROM due WHERE at = ?1 AND kind = ?2 AND subject = ?3")?;
            for due in done {
                statement.execute(params![due.at.as_millisecond(), due.kind, due.subject])?;
            }
            Ok(())
        })
    }

    /// Whether a task's tests have been seen to say of its base what the task says of them.
    pub fn sound_known(&mut self, key: &str) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT 1 FROM sound WHERE key = ?1")?;
        Ok(statement.query_row(params![key], |_| Ok(())).optional()?.is_some())
    }

    /// They have.
    pub fn sound_keep(&mut self, key: &str, task: &str) -> Result<(), StoreError> {
        self.write(Durability::Normal, |transaction| {
            transaction.execute("INSERT OR REPLACE INTO sound (key, task) VALUES (?1, ?2)", params![key, task])?;
            Ok(())
        })
    }
}
