//! Events.

use crate::{Store, StoreError};
use cofferdam_model::{Event, NewEvent};
use rusqlite::{Transaction, params};

/// Which events to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those after this sequence number.
    pub after: i64,
    /// Only those of this subject.
    pub subject: Option<String>,
    /// At most so many; 0 for all.
    pub limit: u32,
}

/// Adds events to a transaction.
pub(crate) fn append(transaction: &Transaction<'_>, events: &[NewEvent]) -> Result<(), StoreError> {
    let mut insert = transaction.prepare_cached("INSERT INTO event (time, subject, kind, event) VALUES (?1, ?2, ?3, ?4)")?;
    for event in events {
        let text = serde_json::to_string(event).map_err(|source| StoreError::Corrupt { id: event.subject.clone(), source })?;
        insert.execute(params![event.time.as_millisecond(), event.subject, event.kind, text])?;
    }
    Ok(())
}

impl Store {
    /// Records events on their own.
    pub fn event_insert(&mut self, events: &[NewEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(crate::Durability::Normal, |transaction| append(transaction, events))
    }

    /// The last so many, in order.
    pub fn event_last(&mut self, count: u32) -> Result<Vec<Event>, StoreError> {
        self.merge_to_read()?;
        let query = "SELECT max(0, coalesce(max(sequence), 0) - ?1) FROM event";
        let after = self.connection.query_row(query, params![count], |row| row.get(0))?;
        self.event_list(&EventFilter { after, subject: None, limit: 0 })
    }

    /// Events in order.
    pub fn event_list(&mut self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        self.merge_to_read()?;
        let limit = if filter.limit == 0 { -1 } else { i64::from(filter.limit) };
        let query = "SELECT sequence, event FROM event WHERE sequence > ?1 AND (?2 IS NULL OR subject = ?2) ORDER BY sequence LIMIT ?3";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(params![filter.after, filter.subject, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut events = Vec::new();
        for row in rows {
            let (sequence, text): (i64, String) = row?;
            let event = serde_json::from_str(&text).map_err(|source| StoreError::Corrupt { id: sequence.to_string(), source })?;
            events.push(Event { sequence, event });
        }
        Ok(events)
    }
}
