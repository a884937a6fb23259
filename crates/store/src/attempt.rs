//! Attempts at tasks.

use crate::{Durability, Store, StoreError};
use cofferdam_model::{AttemptId, Name, NewEvent, Phase, Reason, SandboxId, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// What is known of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its id.
    pub id: AttemptId,
    /// The task.
    pub task: Name,
    /// Who attempted it.
    pub agent: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it ended as it did.
    pub reason: Option<Reason>,
    /// More about why.
    pub detail: Option<String>,
    /// The verdict: 1 is full success.
    pub reward: Option<f64>,
    /// Sandbox of the agent.
    pub agent_sandbox: Option<SandboxId>,
    /// Sandbox of the verifier.
    pub verify_sandbox: Option<SandboxId>,
    /// The agent's exit status.
    pub agent_exit_code: Option<i32>,
    /// The verifier's exit status.
    pub verify_exit_code: Option<i32>,
    /// Accepted.
    pub created_at: Timestamp,
    /// Ended.
    pub ended_at: Option<Timestamp>,
}

impl Store {
    /// Records an attempt, new or changed, with the events that explain it.
    pub async fn attempt_save(&mut self, record: &AttemptRecord, events: &[NewEvent]) -> Result<(), StoreError> {
        let text = serde_json::to_string(record).map_err(|source| StoreError::Corrupt { id: record.id.to_string(), source })?;
        self.begin(Durability::Full).await?;
        let query = "INSERT INTO attempt (id, task, phase, created_at, record) VALUES ($1, $2, $3, $4, $5) \
                     ON CONFLICT (id) DO UPDATE SET phase = excluded.phase, record = excluded.record";
        let result = sqlx::query(query)
            .bind(record.id.to_string())
            .bind(record.task.as_str())
            .bind(record.phase.name())
            .bind(record.created_at.as_millisecond())
            .bind(text)
            .execute(&mut self.connection)
            .await;
        let result = match result {
            Ok(_) => self.event_append(events).await,
            Err(error) => Err(error.into()),
        };
        self.end(result).await
    }

    /// Attempts, oldest first; of one task if it is named.
    pub async fn attempt_list(&mut self, task: Option<&Name>) -> Result<Vec<AttemptRecord>, StoreError> {
        let rows = sqlx::query("SELECT record FROM attempt WHERE $1 IS NULL OR task = $1 ORDER BY created_at, id")
            .bind(task.map(|task| task.as_str().to_owned()))
            .fetch_all(&mut self.connection)
            .await?;
        let mut attempts = Vec::with_capacity(rows.len());
        for row in rows {
            let text: String = row.try_get("record")?;
            attempts.push(serde_json::from_str(&text).map_err(|source| StoreError::Corrupt { id: text.chars().take(60).collect(), source })?);
        }
        Ok(attempts)
    }
}
