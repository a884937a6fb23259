//! Attempts at tasks.
