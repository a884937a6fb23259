//! Attempts at tasks.

use crate::event::append;
use crate::{Due, Durability, Store, StoreError};
use cofferdam_model::{AttemptId, Name, NewEvent, Phase, Reason, SandboxId, Timestamp};
use rusqlite::params;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What became of a listed test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// It passed, and nothing said that it did not.
    Passed,
    /// It failed.
    Failed,
    /// Nothing was said of it.
    Missing,
}

/// What an attempt took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Seconds of the agent's sandbox.
    pub agent_seconds: f64,
    /// Seconds of the verifier's sandbox.
    pub verify_seconds: f64,
    /// Most memory of the agent's sandbox, bytes; 0 where the kernel does not tell.
    pub memory_peak_bytes: u64,
    /// CPU time of both sandboxes, seconds.
    pub cpu_seconds: f64,
    /// Bytes of artifacts.
    pub artifact_bytes: u64,
    /// Bytes that left both sandboxes through the gate.
    pub egress_bytes: u64,
}

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
    /// Each listed test.
    #[serde(default)]
    pub tests: BTreeMap<String, TestOutcome>,
    /// What it took.
    #[serde(default)]
    pub figures: Figures,
    /// The image that the agent started from: its digest, or what else it was.
    #[serde(default)]
    pub image: Option<String>,
    /// Recorded steps of the agent, beside the artifacts: paths below the attempt's directory.
    #[serde(default)]
    pub trajectories: Vec<String>,
    /// Accepted.
    pub created_at: Timestamp,
    /// Ended.
    pub ended_at: Option<Timestamp>,
}

impl AttemptRecord {
    /// An attempt that begins.
    pub fn begun(id: AttemptId, task: Name, agent: &str, now: Timestamp) -> Self {
        Self {
            id,
            task,
            agent: agent.to_owned(),
            phase: Phase::Running,
            reason: None,
            detail: None,
            reward: None,
            agent_sandbox: None,
            verify_sandbox: None,
            agent_exit_code: None,
            verify_exit_code: None,
            tests: BTreeMap::new(),
            figures: Figures::default(),
            image: None,
            trajectories: Vec::new(),
            created_at: now,
            ended_at: None,
        }
    }
}

impl Store {
    /// Records an attempt, new or changed, with the events that explain it and what is to be done later for it. One that has ended stays as
    /// it is, and nothing is recorded: false then.
    pub fn attempt_save(&mut self, record: &AttemptRecord, events: &[NewEvent], dues: &[Due]) -> Result<bool, StoreError> {
        let text = serde_json::to_string(record).map_err(|source| StoreError::Corrupt { id: record.id.to_string(), source })?;
        self.write(Durability::Full, |transaction| {
            let query = "INSERT INTO attempt (id, task, phase, created_at, record) VALUES (?1, ?2, ?3, ?4, ?5) \
                         ON CONFLICT (id) DO UPDATE SET phase = excluded.phase, record = excluded.record \
                         WHERE attempt.phase IN ('pending', 'creating', 'running')";
            let values =
                params![record.id.to_string(), record.task.as_str(), record.phase.name(), record.created_at.as_millisecond(), text];
            if transaction.execute(query, values)? == 0 {
                return Ok(false);
            }
            for due in dues {
                let values = params![due.at.as_millisecond(), due.kind, due.subject];
                transaction.execute("INSERT OR IGNORE INTO due (at, kind, subject) VALUES (?1, ?2, ?3)", values)?;
            }
            append(transaction, events)?;
            Ok(true)
        })
    }

    /// Attempts that are recorded as running.
    pub fn attempt_list_running(&mut self) -> Result<Vec<AttemptRecord>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT record FROM attempt WHERE phase = 'running'")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let parse = |text: String| {
            serde_json::from_str(&text).map_err(|source| StoreError::Corrupt { id: text.chars().take(60).collect(), source })
        };
        rows.map(|text| parse(text?)).collect()
    }

    /// Attempts, oldest first; of one task if it is named.
    pub fn attempt_list(&mut self, task: Option<&Name>) -> Result<Vec<AttemptRecord>, StoreError> {
        let query = "SELECT record FROM attempt WHERE ?1 IS NULL OR task = ?1 ORDER BY created_at, id";
        let mut statement = self.connection.prepare_cached(query)?;
        let rows = statement.query_map(params![task.map(Name::as_str)], |row| row.get::<_, String>(0))?;
        let mut attempts = Vec::new();
        for text in rows {
            let text = text?;
            attempts
                .push(serde_json::from_str(&text).map_err(|source| StoreError::Corrupt { id: text.chars().take(60).collect(), source })?);
        }
        Ok(attempts)
    }
}
