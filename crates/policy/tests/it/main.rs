//! Egress decisions, by tables and against a slow reference.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod addresses;
mod files;
mod names;
mod reference;
