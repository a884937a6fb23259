//! The nouns of Cofferdam: ids, names, quantities, limits, images, tasks, phases, events.
//!
//! Invariants: nothing here reads a file, a clock or the environment, starts anything, or knows an engine, HTTP or SQL.
//! Every newtype is made by `FromStr` or `TryFrom` only, so a value that exists is valid.
//! Start reading at [`task`] for what users write and [`sandbox`] for what they get back.

pub mod config;
pub mod event;
pub mod id;
pub mod image;
pub mod limits;
pub mod name;
pub mod network;
pub mod phase;
pub mod quantity;
pub mod sandbox;
pub mod schema;
pub mod synth;
pub mod task;
pub mod yaml;

pub use event::{Event, NewEvent};
pub use id::{AttemptId, InstallId, SandboxId, SuiteId};
pub use image::ImageRef;
pub use limits::{Difficulty, Limits};
pub use name::Name;
pub use network::NetworkLevel;
pub use phase::{Phase, Reason};
pub use quantity::{Bytes, Cpus, Span};
pub use sandbox::{PublishedPort, SandboxRecord, ViewOf, VolumeUse};
pub use task::Task;

/// A moment, as it is written in records: RFC 3339, UTC.
pub type Timestamp = jiff::Timestamp;
