//! Sandboxes.

use crate::{Durability, Store, StoreError};
use cofferdam_model::{NewEvent, SandboxId, SandboxRecord, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// What a reference (an id, a prefix of one, a name) stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Nothing.
    None,
    /// One sandbox.
    One(Box<SandboxRecord>),
    /// Several: the prefix is too short.
    Several(Vec<SandboxId>),
}

impl Store {
    /// Records a new sandbox with its first events.
    pub async fn sandbox_insert(&mut self, record: &SandboxRecord, events: &[NewEvent], durability: Durability) -> Result<(), StoreError> {
        self.begin(durability).await?;
        let result = self.insert_in(record, events).await;
        self.end(result).await
    }

    async fn insert_in(&mut self, record: &SandboxRecord, events: &[NewEvent]) -> Result<(), StoreError> {
        if let Some(name) = &record.name {
            let holder = sqlx::query("SELECT record FROM sandbox WHERE name = $1 AND removed_at IS NULL")
                .bind(name.as_str())
                .fetch_optional(&mut self.connection)
                .await?;
            if let Some(holder) = holder {
                return Err(StoreError::NameInUse { name: name.to_string(), holder: read(&holder)?.id });
            }
        }
        sqlx::query("INSERT INTO sandbox (id, name, phase, created_at, record) VALUES ($1, $2, $3, $4, $5)")
            .bind(record.id.to_string())
            .bind(record.name.as_ref().map(|name| name.as_str().to_owned()))
            .bind(record.phase.name())
            .bind(record.created_at.as_millisecond())
            .bind(write(record)?)
            .execute(&mut self.connection)
            .await?;
        self.event_append(events).await
    }

    /// Replaces a sandbox's record, with the events that explain it. A final phase is not left again: false if it was
    /// reached already by someone else (the record is then unchanged but for its removal).
    pub async fn sandbox_update(&mut self, record: &SandboxRecord, events: &[NewEvent], durability: Durability) -> Result<bool, StoreError> {
        self.begin(durability).await?;
        let result = self.update_in(record, events).await;
        self.end(result).await
    }

    async fn update_in(&mut self, record: &SandboxRecord, events: &[NewEvent]) -> Result<bool, StoreError> {
        let stored = self.sandbox_get(record.id).await?;
        let settled = stored.as_ref().filter(|stored| stored.phase.is_final() && stored.phase != record.phase);
        let is_settled = settled.is_some();
        let kept = settled.map(|stored| SandboxRecord { removed_at: record.removed_at, ..stored.clone() });
        let record = kept.as_ref().unwrap_or(record);
        sqlx::query("UPDATE sandbox SET phase = $2, removed_at = $3, record = $4 WHERE id = $1")
            .bind(record.id.to_string())
            .bind(record.phase.name())
            .bind(record.removed_at.map(Timestamp::as_millisecond))
            .bind(write(record)?)
            .execute(&mut self.connection)
            .await?;
        self.event_append(events).await?;
        Ok(!is_settled)
    }

    /// A sandbox by its whole id.
    pub async fn sandbox_get(&mut self, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
        let row = sqlx::query("SELECT record FROM sandbox WHERE id = $1").bind(id.to_string()).fetch_optional(&mut self.connection).await?;
        row.as_ref().map(read).transpose()
    }

    /// A sandbox by id, prefix of an id (4 digits at least) or name. Names of sandboxes that are not removed win.
    pub async fn sandbox_find(&mut self, reference: &str) -> Result<Match, StoreError> {
        const SHORTEST_PREFIX: usize = 4;
        let named = sqlx::query("SELECT record FROM sandbox WHERE name = $1 AND removed_at IS NULL")
            .bind(reference)
            .fetch_optional(&mut self.connection)
            .await?;
        if let Some(row) = named {
            return Ok(Match::One(Box::new(read(&row)?)));
        }
        let digits = reference.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digits || reference.len() < SHORTEST_PREFIX || reference.len() > 32 {
            return Ok(Match::None);
        }
        let rows = sqlx::query("SELECT record FROM sandbox WHERE id >= $1 AND id < $2 LIMIT 10")
            .bind(reference)
            .bind(format!("{reference}g"))
            .fetch_all(&mut self.connection)
            .await?;
        let mut found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(match found.len() {
            0 => Match::None,
            1 => Match::One(Box::new(found.remove(0))),
            _ => Match::Several(found.iter().map(|record| record.id).collect()),
        })
    }

    /// Sandboxes that are not removed, oldest first.
    pub async fn sandbox_list(&mut self) -> Result<Vec<SandboxRecord>, StoreError> {
        let query = "SELECT record FROM sandbox WHERE removed_at IS NULL ORDER BY created_at, id";
        let rows = sqlx::query(query).fetch_all(&mut self.connection).await?;
        rows.iter().map(read).collect()
    }

    /// Sandboxes that have not ended as far as the records know.
    pub async fn sandbox_list_live(&mut self) -> Result<Vec<SandboxRecord>, StoreError> {
        let query = "SELECT record FROM sandbox WHERE phase IN ('pending', 'creating', 'running')";
        let rows = sqlx::query(query).fetch_all(&mut self.connection).await?;
        rows.iter().map(read).collect()
    }
}

fn write(record: &SandboxRecord) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|source| StoreError::Corrupt { id: record.id.to_string(), source })
}

fn read(row: &SqliteRow) -> Result<SandboxRecord, StoreError> {
    let text: String = row.try_get("record")?;
    serde_json::from_str(&text).map_err(|source| StoreError::Corrupt { id: text.chars().take(60).collect(), source })
}
