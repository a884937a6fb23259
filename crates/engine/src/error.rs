//! What can go wrong with an engine.

use std::io;

/// What an error means to whoever decides what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request asks for something that this engine or host cannot do.
    Unsupported,
    /// The request is wrong.
    Invalid,
    /// The program could not be executed.
    Program,
    /// The host is out of something.
    Exhausted,
    /// The sandbox has ended.
    Gone,
    /// The host failed.
    Host,
}

/// An engine's error.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A control or feature that is not to be had here.
    #[error("{what} is not possible here: {why}; {remedy}")]
    Unsupported {
        /// The feature.
        what: String,
        /// Why.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A request that cannot be served as it is.
    #[error("{what}: {why}")]
    Invalid {
        /// The part of the request.
        what: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The program is not there.
    #[error("{program}: not found in the sandbox")]
    NotFound {
        /// As it was asked for.
        program: String,
    },
    /// The program is there and cannot be executed.
    #[error("{program}: cannot be executed: {source}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("working directory {directory}: {source}")]
    Directory {
        /// As it was asked for.
        directory: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The host is out of something.
    #[error("{what} is used up on this host: {why}; {remedy}")]
    Exhausted {
        /// Of what.
        what: String,
        /// How far.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// What was to be copied into a sandbox is more than its disk holds.
    #[error("{what} does not fit on the sandbox's disk")]
    NoRoom {
        /// What was to be copied.
        what: String,
    },
    /// The sandbox has ended.
    #[error("the sandbox has ended")]
    Gone,
    /// The host failed.
    #[error("{operation}: {source}")]
    Host {
        /// What was being done.
        operation: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl EngineError {
    /// What it means.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Invalid { .. } | Self::NoRoom { .. } => ErrorKind::Invalid,
            Self::NotFound { .. } | Self::NotExecutable { .. } | Self::Directory { .. } => ErrorKind::Program,
            Self::Exhausted { .. } => ErrorKind::Exhausted,
            Self::Gone => ErrorKind::Gone,
            Self::Host { .. } => ErrorKind::Host,
        }
    }

    /// Whether the same request may succeed later, unchanged.
    pub const fn retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Exhausted | ErrorKind::Host)
    }

    /// A failure of the host.
    pub fn host(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Host { operation: operation.into(), source: source.into() }
    }
}
