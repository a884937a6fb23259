//! What a probe found.

use serde::Serialize;
use std::io;

/// Whether the attempt was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Stopped.
    Contained,
    /// It worked: a hole.
    Open,
    /// This kernel has not what is attacked.
    Unavailable,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Finding {
    /// In a word.
    pub outcome: Outcome,
    /// In detail.
    pub detail: String,
}

/// Stopped.
pub fn contained(detail: impl Into<String>) -> Finding {
    Finding { outcome: Outcome::Contained, detail: detail.into() }
}

/// A hole.
pub fn open(detail: impl Into<String>) -> Finding {
    Finding { outcome: Outcome::Open, detail: detail.into() }
}

/// Not on this kernel.
pub fn unavailable(detail: impl Into<String>) -> Finding {
    Finding { outcome: Outcome::Unavailable, detail: detail.into() }
}

/// Contained if the condition holds.
pub fn check(condition: bool, detail: impl Into<String>) -> Finding {
    if condition { contained(detail) } else { open(detail) }
}

/// Contained if the attempt failed with a refusal.
pub fn refused<T>(result: io::Result<T>) -> Finding {
    match result {
        Ok(_) => open("it worked"),
        Err(error) => contained(error.to_string()),
    }
}
