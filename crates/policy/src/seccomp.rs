//! The system call policy: one reviewed table (`data/seccomp.txt`), compiled to a filter that finds a call by binary
//! search. [`TABLE`] is the text, [`parse`] reads it, [`compile`] writes the filter for one architecture.

mod compile;
mod parse;
mod profile;
#[cfg(test)]
mod tests;

pub use compile::{Arch, Instruction, compile};
pub use parse::{Alternative, Call, Condition, ParseError, Rule, parse};
pub use profile::{outline, profile};

/// The table, as reviewed.
pub const TABLE: &str = include_str!("../data/seccomp.txt");

/// The gate's own table.
pub static GATE_TABLE: &str = include_str!("../data/gate-seccomp.txt");

/// The most calls that the table may let through; a longer one is an error of ours.
pub const MOST_ALLOWED: usize = 250;
