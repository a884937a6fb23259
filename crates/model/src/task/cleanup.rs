//! When what an attempt left is removed.

use crate::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happens to the bytes of an ended attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cleanup {
    /// Clean up after reward 1 (or exit 0 where there is no verifier).
    pub on_success: bool,
    /// Clean up after anything else.
    pub on_failure: bool,
    /// Clean up after a time-out.
    pub on_timeout: bool,
    /// Wait so long first.
    pub delay: Span,
    /// Clean up whatever it is after so long.
    pub force_after: Span,
    /// Keep the logs.
    pub keep_logs: bool,
    /// Keep the artifacts.
    pub keep_artifacts: bool,
    /// Delete what was kept after so long.
    pub retention: Span,
}

impl Default for Cleanup {
    fn default() -> Self {
        const DAY_SECONDS: u64 = 86_400;
        Self {
            on_success: true,
            on_failure: true,
            on_timeout: true,
            delay: Span::seconds(60),
            force_after: Span::seconds(DAY_SECONDS),
            keep_logs: true,
            keep_artifacts: true,
            retention: Span::seconds(30 * DAY_SECONDS),
        }
    }
}
