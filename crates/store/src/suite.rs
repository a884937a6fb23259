//! Suites: what is to be attempted, and how far that is.

use crate::event::append;
use crate::{AttemptRecord, Durability, Store, StoreError};
use cofferdam_model::{AttemptId, Name, NewEvent, SuiteId, Timestamp};
use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteRecord {
    /// Its id.
    pub id: SuiteId,
    /// What it was made from.
    pub source: PathBuf,
    /// Who attempts its tasks: a built-in agent's name.
    pub agent: String,
    /// The command line of an agent that is one.
    pub agent_command: Option<String>,
    /// What makes its sandboxes: an engine's name; empty is the default.
    #[serde(default)]
    pub engine: String,
    /// How often each task is attempted.
    pub attempts: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When nothing was left to do.
    pub ended_at: Option<Timestamp>,
    /// Whether somebody asked for its end.
    pub cancelled: bool,
}

/// Where an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemState {
    /// Waits.
    Queued,
    /// Is being attempted.
    Running,
    /// Has been attempted: its attempt says how that went.
    Done,
    /// Could not be attempted.
    Failed,
    /// Will not be attempted.
    Cancelled,
}

impl ItemState {
    const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Done, Self::Failed, Self::Cancelled];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One attempt that a suite asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteItem {
    /// Its place in the suite.
    pub number: u32,
    /// The task.
    pub task: Name,
    /// The task's file.
    pub path: PathBuf,
    /// Which attempt at the task, from 1.
    pub repetition: u32,
}

/// An item and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemRecord {
    /// What it asks for.
    #[serde(flatten)]
    pub item: SuiteItem,
    /// Where it is.
    pub state: ItemState,
    /// How often it was begun.
    pub tries: u32,
    /// Its latest attempt.
    pub attempt: Option<AttemptId>,
}

impl Store {
    /// Accepts a suite: when this returns, a power loss does not take it back.
    pub fn suite_insert(&mut self, record: &SuiteRecord, items: &[SuiteItem], events: &[NewEvent]) -> Result<(), StoreError> {
        let text = json(record, &record.id.to_string())?;
        let items: Vec<String> = items.iter().map(|item| json(item, &record.id.to_string())).collect::<Result<_, _>>()?;
        self.write(Durability::Full, |transaction| {
            let values = params![record.id.to_string(), record.created_at.as_millisecond(), text];
            transaction.execute("INSERT INTO suite (id, created_at, record) VALUES (?1, ?2, ?3)", values)?;
            let query = "INSERT INTO suite_item (suite, number, state, tries, item) VALUES (?1, ?2, 'queued', 0, ?3)";
            let mut statement = transaction.prepare(query)?;
            for (number, item) in items.iter().enumerate() {
                statement.execute(params![record.id.to_string(), number as i64, item])?;
            }
            drop(statement);
            append(transaction, events)
        })
    }

    /// Replaces a suite's record.
    pub fn suite_update(&mut self, record: &SuiteRecord, events: &[NewEvent]) -> Result<(), StoreError> {
        let text = json(record, &record.id.to_string())?;
        self.write(Durability::Full, |transaction| {
            transaction.execute("UPDATE suite SET record = ?2 WHERE id = ?1", params![record.id.to_string(), text])?;
            append(transaction, events)
        })
    }

    /// Suites, newest first.
    pub fn suite_list(&mut self) -> Result<Vec<SuiteRecord>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT record FROM suite ORDER BY created_at DESC, id")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|text| parse(&text?)).collect()
    }

    /// Takes an item for an attempt; false if it is not to be had any more.
    pub fn suite_take(&mut self, suite: SuiteId, number: u32, attempt: AttemptId) -> Result<bool, StoreError> {
        self.write(Durability::Normal, |transaction| {
            let query = "UPDATE suite_item SET state = 'running', tries = tries + 1, attempt = ?3 \
                         WHERE suite = ?1 AND number = ?2 AND state = 'queued'";
            Ok(transaction.execute(query, params![suite.to_string(), number, attempt.to_string()])? == 1)
        })
    }

    /// Says where an item is after its attempt.
    pub fn suite_settle(&mut self, suite: SuiteId, number: u32, state: ItemState) -> Result<(), StoreError> {
        self.write(Durability::Normal, |transaction| {
            let query = "UPDATE suite_item SET state = ?3 WHERE suite = ?1 AND number = ?2";
            transaction.execute(query, params![suite.to_string(), number, state.name()])?;
            Ok(())
        })
    }

    /// Items of a suite in their order; of one state if it is named.
    pub fn suite_items(&mut self, suite: SuiteId, state: Option<ItemState>) -> Result<Vec<ItemRecord>, StoreError> {
        let query = "SELECT state, tries, attempt, item FROM suite_item WHERE suite = ?1 AND (?2 IS NULL OR state = ?2) ORDER BY number";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(params![suite.to_string(), state.map(ItemState::name)], columns)?;
        rows.map(|row| item(row?)).collect()
    }

    /// Makes queued items cancelled.
    pub fn suite_cancel_queued(&mut self, suite: SuiteId) -> Result<(), StoreError> {
        self.write(Durability::Full, |transaction| {
            let query = "UPDATE suite_item SET state = 'cancelled' WHERE suite = ?1 AND state = 'queued'";
            transaction.execute(query, params![suite.to_string()])?;
            Ok(())
        })
    }

    /// An attempt by its id.
    pub fn attempt_get(&mut self, id: AttemptId) -> Result<Option<AttemptRecord>, StoreError> {
        let query = "SELECT record FROM attempt WHERE id = ?1";
        let text: Option<String> = self.connection.query_row(query, params![id.to_string()], |row| row.get(0)).optional()?;
        text.map(|text| parse(&text)).transpose()
    }
}

type Columns = (String, u32, Option<String>, String);

fn columns(row: &Row<'_>) -> Result<Columns, rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn item((state, tries, attempt, item): Columns) -> Result<ItemRecord, StoreError> {
    let state = ItemState::ALL.into_iter().find(|known| known.name() == state).unwrap_or(ItemState::Failed);
    Ok(ItemRecord { item: parse(&item)?, state, tries, attempt: attempt.and_then(|id| id.parse().ok()) })
}

fn json<T: Serialize>(value: &T, id: &str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Corrupt { id: id.to_owned(), source })
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt { id: text.chars().take(60).collect(), source })
}
