//! Attempts at tasks: the agent in one sandbox, the verifier in a fresh one on a copy of the result, with tests that the
//! agent never saw.

mod artifacts;
mod attempt;
mod compose;
pub mod due;
mod harbor;
mod own;
mod plan;
mod sanity;
mod service;
mod step;
mod verdict;
mod workspace;

pub use artifacts::{Artifact, CollectError, FILES, collect, manifest};
pub use attempt::run;
pub use compose::{Given, RenderError, render};
pub use plan::{Agent, Plan, Start, TaskRunError};
pub use verdict::{Verdict, VerdictError};
