//! The caller's terminal: size, raw mode while a sandbox has it, and back.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;

/// Raw mode until it is dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts standard input's terminal into raw mode.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Whether standard input and output are a terminal.
pub fn is_interactive() -> bool {
    isatty(io::stdin()) && isatty(io::stdout())
}

/// Whether standard output is a terminal.
pub fn is_output() -> bool {
    isatty(io::stdout())
}

/// Rows and columns; 24 by 80 where nobody knows.
pub fn size() -> (u16, u16) {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok();
    size.filter(|size| size.ws_row > 0).map_or((24, 80), |size| (size.ws_row, size.ws_col))
}
