//! Processes of a sandbox.

use cofferdam_trust::User;
use std::os::fd::OwnedFd;
use tokio::sync::watch;

/// A process to start.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Program and arguments; not empty, no NUL bytes.
    pub command: Vec<Vec<u8>>,
    /// `NAME=value` entries; the whole environment.
    pub environment: Vec<Vec<u8>>,
    /// Working directory inside; must exist.
    pub directory: String,
    /// User.
    pub user: User,
    /// Rows and columns of a terminal of its own; None for the given descriptors.
    pub terminal: Option<(u16, u16)>,
}

/// Standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// These three.
    Fds([OwnedFd; 3]),
    /// The process's own terminal (see [`ProcessSpec::terminal`]).
    Terminal,
}

/// A started process.
#[derive(Debug)]
pub struct Process {
    /// Its number in the sandbox.
    pub id: u32,
    /// The other side of its terminal.
    pub terminal: Option<OwnedFd>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl ExitStatus {
    /// As a shell gives it.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => 128 + number,
        }
    }

    /// From `wait(2)`'s status word.
    pub const fn from_wait(status: u32) -> Self {
        let signal = (status & 0x7F) as i32;
        if signal == 0 { Self::Code(((status >> 8) & 0xFF) as i32) } else { Self::Signal(signal) }
    }
}

impl Process {
    /// For engines: a process whose end will be sent through the channel.
    pub const fn new(id: u32, terminal: Option<OwnedFd>, exit: watch::Receiver<Option<ExitStatus>>) -> Self {
        Self { id, terminal, exit }
    }

    /// A second handle for waiting; it has no terminal.
    #[must_use]
    pub fn watch(&self) -> Self {
        Self { id: self.id, terminal: None, exit: self.exit.clone() }
    }

    /// Waits for its end. A process whose sandbox vanished counts as killed. Cancel safe; may be called again.
    pub async fn wait(&mut self) -> ExitStatus {
        const SIGKILL: i32 = 9;
        match self.exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(ExitStatus::Signal(SIGKILL)),
            Err(_) => ExitStatus::Signal(SIGKILL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status() {
        for (status, code) in [(0, 0), (0x0100, 1), (0xFF00, 255), (9, 137), (0x8B, 139), (15, 143)] {
            assert_eq!(ExitStatus::from_wait(status).shell_code(), code, "{status:#x}");
        }
    }
}
