//! The byte format in which a supervisor tells the spawner what a new sandbox's first process has to do.
//!
//! Included by both sides: this crate and the freestanding program under `init/`. It uses nothing but `core`.
//! A request is one message: four words, then the plan. Everything in the plan is little-endian words of 32 bits;
//! offsets count bytes from the plan's start; strings end in NUL.

/// Request: clone a sandbox. Word 1: how many version 1 `tasks` files follow the descriptors; word 2: whether a version 2
/// group comes after those; word 3: bytes of the plan. Descriptors: control socket, lease, network namespace, `tasks`
/// files, group.
pub const REQUEST_CLONE: u32 = 48;
/// Request: close the descriptors that come along. Letting go of a mount that is attached nowhere waits for every processor;
/// the supervisor has better to do. No reply.
pub const REQUEST_DISCARD: u32 = 51;
/// Reply: the child's pid is in word 1, its pidfd comes along.
pub const REPLY_CLONED: u32 = 49;
/// Reply: no child; errno in word 1; word 2 is 1 if the spawner itself could not leave the host's mounts.
pub const REPLY_NOT_CLONED: u32 = 50;
/// To the child, on its control socket: it may go on. Descriptors: the root mount, then those that steps name by index.
pub const REQUEST_GO: u32 = 32;
/// Most instructions of a filter that comes with GO to a contained pid 1, as `struct sock_filter`s behind the four words; word 1 is their
/// number, 0 for none.
pub const MOST_FILTER_INSTRUCTIONS: usize = 2048;
/// From the child, on its control socket: set-up stopped at stage word 2 with errno word 3; word 1 is the index of the
/// mount step if any.
pub const REPLY_SETUP_FAILED: u32 = 33;

/// Most descriptors in a clone request.
pub const MOST_CLONE_FDS: usize = 16;
/// Most descriptors handed over with GO.
pub const MOST_MOUNTS: usize = 200;
/// Most bytes of a plan.
pub const MOST_PLAN_BYTES: usize = 64 << 10;

/// Word offsets in a plan.
pub mod plan_at {
    /// Landlock version to use, 0 for none.
    pub const LANDLOCK: usize = 0;
    /// Capabilities kept, low word.
    pub const CAPS_LOW: usize = 1;
    /// Capabilities kept, high word.
    pub const CAPS_HIGH: usize = 2;
    /// 1 if nobody in its user namespace may set supplementary groups.
    pub const KEEP_GROUPS: usize = 3;
    /// Offset of the host name.
    pub const HOSTNAME: usize = 4;
    /// Bytes of the host name.
    pub const HOSTNAME_BYTES: usize = 5;
    /// Offset of the steps.
    pub const STEPS: usize = 6;
    /// Number of steps: four words each (kind, first index, second index, offset of the path).
    pub const STEP_COUNT: usize = 7;
    /// Offset of the filter.
    pub const FILTER: usize = 8;
    /// Instructions in the filter: 8 bytes each, as the kernel takes them.
    pub const FILTER_COUNT: usize = 9;
    /// Offset of the resource limits.
    pub const LIMITS: usize = 10;
    /// Number of resource limits: four words each (resource, 0, value low, value high).
    pub const LIMIT_COUNT: usize = 11;
    /// User that pid 1 is.
    pub const USER: usize = 12;
    /// Group that pid 1 is.
    pub const GROUP: usize = 13;
    /// 1 if the maps of its user namespace are written by an ordinary user, who has to own the files that they are written to.
    pub const UNPRIVILEGED: usize = 14;
    /// Words before the variable part: even, since what follows is aligned to 8.
    pub const HEADER_WORDS: usize = 16;
}

/// Step: attach the handed-over mount with the first index (0 is the root itself).
pub const STEP_ATTACH: u32 = 0;
/// Step: mount a proc file system of the new pid namespace.
pub const STEP_PROC: u32 = 1;
/// Step: make what is there read-only, by a mount of it onto itself. Skipped where it does not exist.
pub const STEP_READ_ONLY: u32 = 2;
/// Step: hide a file of the new proc file system behind the handed-over mounts with these indexes: an empty file, or, should it be a
/// directory after all, an empty directory. Skipped where it does not exist.
pub const STEP_MASK_FILE: u32 = 3;
/// Step: the same of what is expected to be a directory.
pub const STEP_MASK_DIRECTORY: u32 = 4;

/// Stage of a failed set-up: entering the cgroups.
pub const SETUP_CGROUPS: u32 = 1;
/// Stage of a failed set-up: the cgroup namespace.
pub const SETUP_NAMESPACE: u32 = 2;
/// Stage of a failed set-up: its proc file system.
pub const SETUP_PROC: u32 = 3;
/// Stage of a failed set-up: becoming pid 1's user.
pub const SETUP_IDENTITY: u32 = 4;
/// Stage of a failed set-up: attaching the root.
pub const SETUP_ROOT: u32 = 5;
/// Stage of a failed set-up: a mount step.
pub const SETUP_STEP: u32 = 6;
/// Stage of a failed set-up: the host name.
pub const SETUP_HOSTNAME: u32 = 7;
/// Stage of a failed set-up: the descriptors that pid 1 gets.
pub const SETUP_DESCRIPTORS: u32 = 8;
/// Stage of a failed set-up: resource limits.
pub const SETUP_LIMITS: u32 = 9;
/// Stage of a failed set-up: Landlock.
pub const SETUP_LANDLOCK: u32 = 10;
/// Stage of a failed set-up: capabilities.
pub const SETUP_CAPABILITIES: u32 = 11;
/// Stage of a failed set-up: the system call filter.
pub const SETUP_FILTER: u32 = 12;
/// Stage of a failed set-up: executing pid 1.
pub const SETUP_EXECUTE: u32 = 13;
/// Stage of a spawner: leaving the host's mounts.
pub const SETUP_LEAVE: u32 = 14;
