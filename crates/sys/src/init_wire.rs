//! The byte format between a supervisor and pid 1 of a sandbox.
//!
//! Included by both sides: this crate and the freestanding program under `init/`. It uses nothing but `core`.
//! A message is four little-endian words on a `SOCK_SEQPACKET` socket; descriptors travel as `SCM_RIGHTS`.

/// Bytes in every message, in both directions: four 32-bit words (kind, id, a, b).
pub const MESSAGE_BYTES: usize = 16;

/// Request: start a process. Descriptors: spec memfd, then stdin, stdout, stderr unless the spec asks for a terminal,
/// then one more if `FLAG_GATED` (read end of the gate pipe) or `FLAG_JOIN` (a `tasks` file) is set.
pub const REQUEST_SPAWN: u32 = 1;
/// Request: send signal `a` to process `id` (`b` = `SIGNAL_GROUP`: to its whole process group; `b` = `SIGNAL_EVERYTHING`).
pub const REQUEST_SIGNAL: u32 = 2;
/// Word `b` of a signal for a process group.
pub const SIGNAL_GROUP: u32 = 1;
/// Word `b` of a signal for every process of the sandbox but pid 1.
pub const SIGNAL_EVERYTHING: u32 = 2;

/// Reply: process `id` runs as inner pid `a`. Descriptors: its pidfd, then the terminal's master if one was asked for.
pub const REPLY_SPAWNED: u32 = 16;
/// Reply: process `id` was executed: its program's first instruction is next.
pub const REPLY_EXECUTED: u32 = 17;
/// Reply: process `id` could not be started: stage `a`, errno `b`.
pub const REPLY_FAILED: u32 = 18;
/// Reply: process `id` ended with wait status `a`.
pub const REPLY_EXITED: u32 = 19;

/// The spec's first word.
pub const SPEC_MAGIC: u32 = 0x434f_4646;
/// Bytes of the spec before its variable part.
pub const SPEC_HEADER_BYTES: usize = 64;

/// The process gets a terminal of its own from the sandbox's devpts.
pub const FLAG_TTY: u32 = 1;
/// The sandbox ends when this process ends.
pub const FLAG_MAIN: u32 = 2;
/// The process waits for one byte on the gate pipe before it executes anything.
pub const FLAG_GATED: u32 = 4;

/// The process first writes "0" to the `tasks` file of a version 1 cgroup, which moves it there.
pub const FLAG_JOIN: u32 = 8;
/// The process's supplementary groups stay as they are: its user namespace has none to set.
pub const FLAG_KEEP_GROUPS: u32 = 16;
/// What descends from the process becomes its child when its own parent ends, so that it can be found from outside.
pub const FLAG_SUBREAPER: u32 = 32;

/// Stage of a failed start: reading the spec.
pub const STAGE_SPEC: u32 = 1;
/// Stage of a failed start: making the terminal.
pub const STAGE_TERMINAL: u32 = 2;
/// Stage of a failed start: creating the process.
pub const STAGE_FORK: u32 = 3;
/// Stage of a failed start: user, groups and capabilities.
pub const STAGE_CREDENTIALS: u32 = 4;
/// Stage of a failed start: the working directory.
pub const STAGE_DIRECTORY: u32 = 5;
/// Stage of a failed start: executing the program.
pub const STAGE_EXECUTE: u32 = 6;
/// Stage of a failed start: the gate pipe closed before it opened, or the cgroup could not be entered.
pub const STAGE_GATE: u32 = 7;
/// Stage of a failed start: resource limits.
pub const STAGE_LIMITS: u32 = 8;

/// Word offsets in the spec's header (32-bit words; the capability mask takes two).
pub mod at {
    /// `SPEC_MAGIC`.
    pub const MAGIC: usize = 0;
    /// `FLAG_*`.
    pub const FLAGS: usize = 1;
    /// User id inside the sandbox.
    pub const UID: usize = 2;
    /// Group id inside the sandbox.
    pub const GID: usize = 3;
    /// Capabilities kept, low word.
    pub const CAPS_LOW: usize = 4;
    /// Capabilities kept, high word.
    pub const CAPS_HIGH: usize = 5;
    /// File mode creation mask.
    pub const UMASK: usize = 6;
    /// Terminal rows.
    pub const ROWS: usize = 7;
    /// Terminal columns.
    pub const COLUMNS: usize = 8;
    /// Number of supplementary groups (32-bit words right behind the header).
    pub const GROUPS: usize = 9;
    /// Number of arguments (NUL-terminated strings behind the directory).
    pub const ARGUMENTS: usize = 10;
    /// Number of environment entries (NUL-terminated strings behind the arguments).
    pub const ENVIRONMENT: usize = 11;
    /// Open file limit, both soft and hard; 0 leaves it.
    pub const OPEN_FILES: usize = 12;
}
