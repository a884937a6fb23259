//! The system call filter, compiled when this crate was built.

use cofferdam_sys::bpf::Instruction;

/// For the architecture this crate was built for.
pub static FILTER: &[Instruction] = include!(concat!(env!("OUT_DIR"), "/filter.rs"));
