//! The one error of this crate: which call, which errno.

use std::io;

/// A system call that failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}")]
pub struct Error {
    /// The system call, with its subject where that helps.
    pub call: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// From the thread's `errno`.
    pub fn last(call: impl Into<String>) -> Self {
        Self { call: call.into(), source: io::Error::last_os_error() }
    }

    /// From an I/O error.
    pub fn new(call: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { call: call.into(), source: source.into() }
    }

    /// The raw errno, 0 if there was none.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

/// Turns a libc return value into a result.
pub(crate) fn check(value: i64, call: &str) -> Result<i64> {
    if value < 0 { Err(Error::last(call)) } else { Ok(value) }
}
