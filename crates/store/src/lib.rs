//! The records: `SQLite`, one file per noun, and a journal for those that end at once.
//!
//! Invariants: every change is one transaction that also writes its events; acknowledged means committed with
//! `synchronous=FULL`; nothing here knows an engine or evaluates a policy. Start reading at [`Store`].

mod attempt;
mod due;
mod event;
mod journal;
mod migration;
mod sandbox;
mod store;
mod suite;

pub use attempt::{AttemptRecord, Figures, TestOutcome};
pub use due::Due;
pub use event::EventFilter;
pub use journal::{Entry, Journal};
pub use sandbox::Match;
pub use store::{Durability, Store, StoreError};
pub use suite::{ItemRecord, ItemState, SuiteItem, SuiteRecord};
