//! Limits by difficulty: the one table.

use crate::quantity::{Bytes, Cpus, Span};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How much a task is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Difficulty {
    /// 512 MiB, half a CPU, 5 minutes.
    Easy,
    /// 1 GiB, one CPU, 15 minutes.
    #[default]
    Medium,
    /// 2 GiB, 2 CPUs, half an hour.
    Hard,
    /// 4 GiB, 4 CPUs, an hour.
    Expert,
    /// 8 GiB, 8 CPUs, two hours.
    Nightmare,
}

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Limits {
    /// Memory, swap included.
    pub memory: Bytes,
    /// CPU time per time.
    pub cpus: Cpus,
    /// Bytes on disk: the root's changes, `/workspace` and `/tmp` together. None: what fits in half the memory limit.
    pub disk: Option<Bytes>,
    /// Processes and threads.
    pub pids: u32,
    /// Open files of one process.
    pub open_files: u32,
    /// Wall time; None for no limit.
    pub timeout: Option<Span>,
}

/// Open files of one process, where nothing else is said.
pub const OPEN_FILES: u32 = 65_536;

impl Difficulty {
    /// Every difficulty, ascending.
    pub const ALL: [Self; 5] = [Self::Easy, Self::Medium, Self::Hard, Self::Expert, Self::Nightmare];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
            Self::Expert => "expert",
            Self::Nightmare => "nightmare",
        }
    }

    /// Its limits.
    pub const fn limits(self) -> Limits {
        let (memory_mebibytes, cpu_millis, disk_gibibytes, pids, minutes) = match self {
            Self::Easy => (512, 500, 2, 50, 5),
            Self::Medium => (1024, 1000, 5, 100, 15),
            Self::Hard => (2048, 2000, 10, 200, 30),
            Self::Expert => (4096, 4000, 20, 500, 60),
            Self::Nightmare => (8192, 8000, 50, 1000, 120),
        };
        Limits {
            memory: Bytes::mebibytes(memory_mebibytes),
            cpus: match Cpus::from_millis(cpu_millis) {
                Some(cpus) => cpus,
                None => unreachable!(),
            },
            disk: Some(Bytes::mebibytes(disk_gibibytes * 1024)),
            pids,
            open_files: OPEN_FILES,
            timeout: Some(Span::seconds(minutes * 60)),
        }
    }
}

impl Limits {
    /// One CPU.
    pub const fn one_cpu() -> Cpus {
        Difficulty::Medium.limits().cpus
    }
}

impl fmt::Display for Difficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Text that is no difficulty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a difficulty: easy, medium, hard, expert or nightmare")]
pub struct DifficultyError(String);

impl FromStr for Difficulty {
    type Err = DifficultyError;

    fn from_str(text: &str) -> Result<Self, DifficultyError> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or_else(|| DifficultyError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let rows: Vec<String> = Difficulty::ALL
            .into_iter()
            .map(|difficulty| {
                let l = difficulty.limits();
                let (disk, timeout) = (l.disk.map(|d| d.to_string()), l.timeout.map(|t| t.to_string()));
                format!("{difficulty} {} {} {} {} {}", l.memory, l.cpus, disk.unwrap_or_default(), l.pids, timeout.unwrap_or_default())
            })
            .collect();
        let expected = [
            "easy 512MiB 0.5 2GiB 50 5m",
            "medium 1GiB 1 5GiB 100 15m",
            "hard 2GiB 2 10GiB 200 30m",
            "expert 4GiB 4 20GiB 500 1h",
            "nightmare 8GiB 8 50GiB 1000 2h",
        ];
        assert_eq!(rows, expected);
    }
}
