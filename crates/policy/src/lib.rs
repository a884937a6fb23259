//! Decisions about isolation and egress, pure: parse → compile → decide.
//!
//! Invariants: nothing here reads a clock, opens a file or a socket, or asks DNS; every function decides on the values
//! it is given. Start reading at [`seccomp`], the system call policy of every sandbox, and [`capability`].

pub mod capability;
pub mod seccomp;
