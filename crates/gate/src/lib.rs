//! The egress gate of a sandbox.
//!
//! Today this crate holds [`wire`]: what makes a network namespace a place from which nothing leaves. The namespace has
//! a loopback device and nothing else; rules refuse at once what is not allowed and log it to a socket that is read from
//! outside. Invariants: nothing here opens a connection, reads a file but `/proc/sys/net`, or knows a database.
//! Start reading at [`wire::install`].

pub mod wire;
