//! Events.

use crate::{Store, StoreError};
use cofferdam_model::{Event, NewEvent};
use sqlx::Row;

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

impl Store {
    /// Adds events to the transaction in progress.
    pub(crate) async fn event_append(&mut self, events: &[NewEvent]) -> Result<(), StoreError> {
        for event in events {
            let text = serde_json::to_string(event).map_err(|source| StoreError::Corrupt { id: event.subject.clone(), source })?;
            sqlx::query("INSERT INTO event (time, subject, kind, event) VALUES ($1, $2, $3, $4)")
                .bind(event.time.as_millisecond())
                .bind(&event.subject)
                .bind(&event.kind)
                .bind(text)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    /// Records events on their own.
    pub async fn event_insert(&mut self, events: &[NewEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.begin(crate::Durability::Normal).await?;
        let result = self.event_append(events).await;
        self.end(result).await
    }

    /// Events in order.
    pub async fn event_list(&mut self, filter: &EventFilter) -> Result<Vec<Event>, StoreError> {
        let limit = if filter.limit == 0 { -1 } else { i64::from(filter.limit) };
        let rows = sqlx::query(
            "SELECT sequence, event FROM event WHERE sequence > $1 AND ($2 IS NULL OR subject = $2) ORDER BY sequence LIMIT $3",
        )
        .bind(filter.after)
        .bind(&filter.subject)
        .bind(limit)
        .fetch_all(&mut self.connection)
        .await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            let sequence: i64 = row.try_get(0)?;
            let text: String = row.try_get(1)?;
            let event = serde_json::from_str(&text).map_err(|source| StoreError::Corrupt { id: sequence.to_string(), source })?;
            events.push(Event { sequence, event });
        }
        Ok(events)
    }
}
