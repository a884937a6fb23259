//! Sandboxes.

use crate::event::append;
use crate::{Durability, Store, StoreError};
use cofferdam_model::{NewEvent, SandboxId, SandboxRecord, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, Transaction, params};

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
    pub fn sandbox_insert(&mut self, record: &SandboxRecord, events: &[NewEvent], durability: Durability) -> Result<(), StoreError> {
        self.write(durability, |transaction| insert(transaction, record, events))
    }

    /// Replaces a sandbox's record, with the events that explain it. A phase is not left backwards, and a final one not at
    /// all: false if someone else has come further (the record is then unchanged but for its removal).
    pub fn sandbox_update(&mut self, record: &SandboxRecord, events: &[NewEvent], durability: Durability) -> Result<bool, StoreError> {
        self.merge()?;
        self.write(durability, |transaction| update(transaction, record, events))
    }

    /// A sandbox by its whole id.
    pub fn sandbox_get(&mut self, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
        self.merge_to_read()?;
        get(&self.connection, id)
    }

    /// A sandbox by id, prefix of an id (4 digits at least) or name. Names of sandboxes that are not removed win.
    pub fn sandbox_find(&mut self, reference: &str) -> Result<Match, StoreError> {
        const SHORTEST_PREFIX: usize = 4;
        self.merge_to_read()?;
        let named = "SELECT record FROM sandbox WHERE name = ?1 AND removed_at IS NULL";
        if let Some(record) = select(&self.connection, named, params![reference])?.pop() {
            return Ok(Match::One(Box::new(record)));
        }
        let digits = reference.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digits || reference.len() < SHORTEST_PREFIX || reference.len() > 32 {
            return Ok(Match::None);
        }
        let prefixed = "SELECT record FROM sandbox WHERE id >= ?1 AND id < ?2 LIMIT 10";
        let mut found = select(&self.connection, prefixed, params![reference, format!("{reference}g")])?;
        Ok(match found.len() {
            0 => Match::None,
            1 => Match::One(Box::new(found.remove(0))),
            _ => Match::Several(found.iter().map(|record| record.id).collect()),
        })
    }

    /// Sandboxes that are not removed, oldest first.
    pub fn sandbox_list(&mut self) -> Result<Vec<SandboxRecord>, StoreError> {
        self.merge_to_read()?;
        select(&self.connection, "SELECT record FROM sandbox WHERE removed_at IS NULL ORDER BY created_at, id", [])
    }

    /// Sandboxes that have not ended as far as the records know.
    pub fn sandbox_list_live(&mut self) -> Result<Vec<SandboxRecord>, StoreError> {
        self.merge_to_read()?;
        select(
            &self.connection,
            "SELECT record FROM sandbox INDEXED BY sandbox_present WHERE removed_at IS NULL AND phase IN ('pending', 'creating', 'running')",
            [],
        )
    }

    /// Whether there are any of those.
    pub fn sandbox_any_live(&mut self) -> Result<bool, StoreError> {
        self.merge_to_read()?;
        let query = "SELECT EXISTS (SELECT 1 FROM sandbox INDEXED BY sandbox_present WHERE removed_at IS NULL AND phase IN ('pending', 'creating', 'running'))";
        Ok(self.connection.query_row(query, [], |row| row.get(0))?)
    }
}

pub(crate) fn insert(transaction: &Transaction<'_>, record: &SandboxRecord, events: &[NewEvent]) -> Result<(), StoreError> {
    if let Some(name) = &record.name {
        let holder = select(transaction, "SELECT record FROM sandbox WHERE name = ?1 AND removed_at IS NULL", params![name.as_str()])?;
        if let Some(holder) = holder.first() {
            return Err(StoreError::NameInUse { name: name.to_string(), holder: holder.id });
        }
    }
    let name = record.name.as_ref().map(cofferdam_model::Name::as_str);
    let removed = record.removed_at.map(Timestamp::as_millisecond);
    let values = params![record.id.to_string(), name, record.phase.name(), record.created_at.as_millisecond(), removed, write(record)?];
    let query = "INSERT INTO sandbox (id, name, phase, created_at, removed_at, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.execute(query, values)?;
    append(transaction, events)
}

pub(crate) fn update(transaction: &Transaction<'_>, record: &SandboxRecord, events: &[NewEvent]) -> Result<bool, StoreError> {
    let stored = get(transaction, record.id)?;
    let removed_at = record.removed_at.or_else(|| stored.as_ref().and_then(|stored| stored.removed_at));
    let newer = stored.filter(|stored| stored.phase.rules_out(record.phase));
    let applied = newer.is_none();
    let written = SandboxRecord { removed_at, ..newer.unwrap_or_else(|| record.clone()) };
    let removed = removed_at.map(Timestamp::as_millisecond);
    let values = params![record.id.to_string(), written.phase.name(), removed, write(&written)?];
    transaction.execute("UPDATE sandbox SET phase = ?2, removed_at = ?3, record = ?4 WHERE id = ?1", values)?;
    append(transaction, events)?;
    Ok(applied)
}

pub(crate) fn get(connection: &Connection, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
    let text = connection.query_row("SELECT record FROM sandbox WHERE id = ?1", params![id.to_string()], |row| row.get::<_, String>(0));
    text.optional()?.map(|text| read(&text)).transpose()
}

fn select(connection: &Connection, query: &str, values: impl Params) -> Result<Vec<SandboxRecord>, StoreError> {
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map(values, |row| row.get::<_, String>(0))?;
    rows.map(|text| read(&text?)).collect()
}

fn write(record: &SandboxRecord) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|source| StoreError::Corrupt { id: record.id.to_string(), source })
}

fn read(text: &str) -> Result<SandboxRecord, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt { id: text.chars().take(60).collect(), source })
}
