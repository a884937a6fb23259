//! Attempts at tasks: the agent in one sandbox, the verifier in a fresh one on a copy of the result, with tests that the
//! agent never saw.

mod artifacts;
mod attempt;
mod verdict;
mod workspace;

pub use artifacts::{CollectError, collect};
pub use attempt::{Agent, Plan, TaskRunError, run};
pub use verdict::{Verdict, VerdictError};
