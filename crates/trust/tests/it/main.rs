//! Tests of the crate from outside: layers, forgeries.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod authority;
mod closed;
mod forgeries;
mod layers;
