//! The record: what happened, when, who did it, to what, by which rule and why.

use crate::Timestamp;
use serde::{Deserialize, Serialize};

/// An event that is not recorded yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEvent {
    /// When.
    pub time: Timestamp,
    /// Who: `user:NAME`, `sandbox:ID`, `cofferdam`.
    pub actor: String,
    /// What it happened to: `sandbox:ID`, `attempt:ID`.
    pub subject: String,
    /// What: `noun.past-participle`, such as `sandbox.started` or `network.refused`.
    pub kind: String,
    /// The rule that decided, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// More, by kind.
    #[serde(skip_serializing_if = "serde_json::Value::is_null", default)]
    pub data: serde_json::Value,
}

/// A recorded event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number: ascending, never used twice.
    pub sequence: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: NewEvent,
}
