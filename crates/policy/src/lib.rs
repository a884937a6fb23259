//! Decisions about isolation and egress, pure: parse → compile → decide.
//!
//! Invariants: nothing here reads a clock, opens a file or a socket, or asks DNS; every function decides on the values
//! it is given. Start reading at [`egress`], what a sandbox may reach, and [`seccomp`], which system calls it may make.

pub mod capability;
pub mod egress;
pub mod seccomp;
