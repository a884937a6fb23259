//! Attempts at tasks.

mod artifacts;

pub use artifacts::{CollectError, collect};

/// Why an attempt could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TaskRunError {
    /// x
    #[error(transparent)]
    Collect(#[from] CollectError),
}
