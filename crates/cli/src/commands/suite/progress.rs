//! How far a suite is: one line that is drawn again on a terminal, a line an attempt elsewhere.

use crate::output::printable;
use cofferdam_lifecycle::suite::Seen;
use cofferdam_store::{ItemRecord, ItemState};
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const WIDTH: usize = 20;

/// What is told.
pub struct Progress {
    state: Mutex<State>,
    drawn: bool,
    quiet: bool,
}

struct State {
    total: usize,
    before: usize,
    done: usize,
    running: usize,
    passed: usize,
    failed: usize,
    begun: Instant,
}

impl Progress {
    /// Of a suite as far as it is.
    pub fn new(items: &[ItemRecord], quiet: bool) -> Self {
        let before = items.iter().filter(|item| item.state == ItemState::Done).count();
        let state = State { total: items.len(), before, done: before, running: 0, passed: 0, failed: 0, begun: Instant::now() };
        Self { state: Mutex::new(state), drawn: std::io::stderr().is_terminal(), quiet }
    }

    /// Something happened.
    pub fn see(&self, seen: &Seen<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = match seen {
            Seen::Begun(_) => {
                state.running += 1;
                None
            }
            Seen::Ended(item, record) => {
                state.running -= 1;
                state.done += 1;
                let passed = record.reward.is_some_and(|reward| reward >= 1.0);
                if passed {
                    state.passed += 1;
                } else {
                    state.failed += 1;
                }
                let reward = record.reward.map_or_else(|| "-".into(), |reward| reward.to_string());
                Some(format!("{} {}: {} reward {reward}", item.task, item.repetition, record.phase))
            }
            Seen::Trouble(item, why, again) => {
                state.running -= 1;
                let word = if *again { "will be tried again" } else { "given up" };
                Some(format!("{} {}: {}; {word}", item.task, item.repetition, printable(why)))
            }
        };
        if self.quiet {
            return;
        }
        let trouble = matches!(seen, Seen::Trouble(..));
        let mut out = std::io::stderr().lock();
        if let Some(line) = line.filter(|_| trouble || !self.drawn) {
            let _ = if self.drawn { writeln!(out, "\r\x1b[Kcofferdam: {line}") } else { writeln!(out, "cofferdam: {line}") };
        }
        if self.drawn {
            let _ = write!(out, "\r\x1b[K{}", bar(&state));
            let _ = out.flush();
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.drawn && !self.quiet {
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

fn bar(state: &State) -> String {
    let full = WIDTH * state.done / state.total.max(1);
    let now = state.done - state.before;
    let left = (state.total - state.done) as f64 * state.begun.elapsed().as_secs_f64() / now.max(1) as f64;
    let eta = if now == 0 { "…".to_owned() } else { format!("{}:{:02}", left as u64 / 60, left as u64 % 60) };
    format!(
        "[{}{}] {}/{}  running {}  passed {}  failed {}  left {eta}",
        "#".repeat(full),
        ".".repeat(WIDTH - full),
        state.done,
        state.total,
        state.running,
        state.passed,
        state.failed
    )
}
