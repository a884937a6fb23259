//! Phases of a sandbox and why it ended.
//!
//! ```text
//! pending ─▶ creating ─▶ running ─▶ completed   ended by itself, any exit status
//!    │           │          ├─────▶ failed      could not start, out of memory, killed, supervisor lost
//!    └───────────┴──────────┘─────▶ timeout     its wall time ran out (from running only)
//! ```
//! A sandbox that never ran goes from pending or creating to failed. The last three are final.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Accepted, nothing made yet.
    Pending,
    /// Being made.
    Creating,
    /// Its main process runs.
    Running,
    /// Ended by itself.
    Completed,
    /// Could not start or was ended by something else than itself or its time.
    Failed,
    /// Its wall time ran out.
    Timeout,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Creating, Self::Running, Self::Completed, Self::Failed, Self::Timeout];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Creating => "creating",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }

    /// Whether nothing follows it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Timeout)
    }

    /// Whether a record in that phase is out of date once this one was reached: an earlier phase, or another end.
    pub const fn rules_out(self, other: Self) -> bool {
        const fn step(phase: Phase) -> u8 {
            match phase {
                Phase::Pending => 0,
                Phase::Creating => 1,
                Phase::Running => 2,
                Phase::Completed | Phase::Failed | Phase::Timeout => 3,
            }
        }
        step(other) < step(self) || (self.is_final() && self as u8 != other as u8)
    }

    /// Whether it may be followed by that one.
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Pending, Self::Creating) | (Self::Creating, Self::Running) | (Self::Running, Self::Completed | Self::Timeout) => true,
            (_, Self::Failed) => !self.is_final(),
            _ => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that is no phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a phase")]
pub struct PhaseError(String);

impl FromStr for Phase {
    type Err = PhaseError;

    fn from_str(text: &str) -> Result<Self, PhaseError> {
        Self::ALL.into_iter().find(|phase| phase.name() == text).ok_or_else(|| PhaseError(text.to_owned()))
    }
}

/// Why a sandbox ended as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its main process ended.
    Exited,
    /// It could not be started.
    StartFailed,
    /// The memory limit was reached and the kernel killed the main process.
    OutOfMemory,
    /// Stopped on request.
    Stopped,
    /// Killed on request, or by a signal from outside.
    Killed,
    /// The process that supervised it ended first.
    SupervisorLost,
    /// The gate ended and none could take its place.
    GateLost,
    /// Its wall time ran out.
    TimeLimit,
    /// Nobody used it any more.
    Unused,
    /// Its own description was gone from it: it is not what was started.
    Unhealthy,
    /// The task's tests do not say of its untouched base what the task says of them.
    SanityFail,
    /// The verifier left no verdict.
    VerifierFailed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Exited,
        Self::StartFailed,
        Self::OutOfMemory,
        Self::Stopped,
        Self::Killed,
        Self::SupervisorLost,
        Self::GateLost,
        Self::TimeLimit,
        Self::Unused,
        Self::Unhealthy,
        Self::SanityFail,
        Self::VerifierFailed,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::StartFailed => "start_failed",
            Self::OutOfMemory => "out_of_memory",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::SupervisorLost => "supervisor_lost",
            Self::GateLost => "gate_lost",
            Self::TimeLimit => "time_limit",
            Self::Unused => "unused",
            Self::Unhealthy => "unhealthy",
            Self::SanityFail => "sanity_fail",
            Self::VerifierFailed => "verifier_failed",
        }
    }

    /// By name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The phase that it leads to.
    pub const fn phase(self) -> Phase {
        match self {
            Self::Exited | Self::Unused => Phase::Completed,
            Self::TimeLimit => Phase::Timeout,
            Self::StartFailed
            | Self::OutOfMemory
            | Self::Stopped
            | Self::Killed
            | Self::SupervisorLost
            | Self::GateLost
            | Self::Unhealthy
            | Self::SanityFail
            | Self::VerifierFailed => Phase::Failed,
        }
    }

    /// Whether neither the task nor who attempted it is the cause: such an attempt is made again.
    pub const fn is_infrastructure(self) -> bool {
        matches!(self, Self::StartFailed | Self::SupervisorLost | Self::GateLost | Self::Unhealthy)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_phases_are_final() {
        for from in Phase::ALL {
            for to in Phase::ALL {
                if from.is_final() {
                    assert!(!from.may_become(to), "{from} -> {to}");
                }
            }
            assert!(!from.may_become(Phase::Pending), "{from} -> pending");
            assert!(from.is_final() || from.may_become(Phase::Failed), "{from} -> failed");
        }
    }

    #[test]
    fn every_reason_leads_to_a_final_phase() {
        for reason in Reason::ALL {
            assert!(reason.phase().is_final());
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
    }
}
