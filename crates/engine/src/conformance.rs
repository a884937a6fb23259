//! Checks that every engine passes: run them on a real one, on a real host. Most are asserted from inside, by the
//! program `probe` or by ordinary commands of the image.
//!
//! [`checks`] lists them; [`Kit`] is what they work with. A check leaves nothing behind.

mod behaviour;
mod containment;
mod files;
mod kit;
mod limits;
pub mod table;

pub use kit::{Kit, Made, ProbeResult, Ran};

use std::future::Future;
use std::pin::Pin;

/// What a check says: nothing, or why it failed.
pub type Verdict = Result<(), String>;

/// A check in progress.
pub type Checking<'a> = Pin<Box<dyn Future<Output = Verdict> + 'a>>;

/// Something that every engine does.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What holds if it passes.
    pub promise: &'static str,
    /// Does it.
    pub run: for<'a> fn(&'a Kit<'a>) -> Checking<'a>,
}

/// Every check.
pub fn checks() -> Vec<Check> {
    [behaviour::CHECKS, limits::CHECKS, files::CHECKS, containment::CHECKS].concat()
}

/// Fails with a message unless the condition holds.
fn expect(condition: bool, message: impl FnOnce() -> String) -> Verdict {
    if condition { Ok(()) } else { Err(message()) }
}

/// Makes the table entry of an async function.
macro_rules! check {
    ($function:ident, $promise:literal) => {
        $crate::conformance::Check { name: stringify!($function), promise: $promise, run: |kit| Box::pin($function(kit)) }
    };
}
use check;
