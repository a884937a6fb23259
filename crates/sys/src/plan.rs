//! What the first process of a new sandbox has to do, prepared before it exists (`init/setup.rs` does it).

use crate::bpf::Instruction;
use crate::ids::Owner;
use crate::plan_wire::{
    REQUEST_GO, SETUP_CAPABILITIES, SETUP_CGROUPS, SETUP_DESCRIPTORS, SETUP_EXECUTE, SETUP_FILTER, SETUP_HOSTNAME, SETUP_IDENTITY,
    SETUP_LANDLOCK, SETUP_LIMITS, SETUP_NAMESPACE, SETUP_PROC, SETUP_ROOT, SETUP_STEP, STEP_ATTACH, STEP_MASK_DIRECTORY, STEP_MASK_FILE,
    STEP_PROC, STEP_READ_ONLY, plan_at as at,
};
use std::ffi::{CStr, CString};

/// One thing to do to the new root. Paths are relative to it and resolved inside it without following any link.
#[derive(Clone, Debug)]
pub enum Step {
    /// Attach the handed-over mount with this index (0 is the root itself).
    Attach(usize, CString),
    /// Mount a proc file system of the new pid namespace.
    Proc(CString),
    /// Make what is there read-only, by a mount of it onto itself. Skipped where it does not exist.
    ReadOnly(CString),
    /// Hide what is most probably a file of the proc file system behind the handed-over mounts with these indexes (an empty file, an
    /// empty directory). Skipped where it does not exist.
    MaskFile(CString, usize, usize),
    /// The same of a directory.
    MaskDirectory(CString, usize, usize),
}

impl Step {
    /// Where it acts, relative to the new root.
    pub fn place(&self) -> String {
        let (Self::Attach(_, path) | Self::Proc(path) | Self::ReadOnly(path) | Self::MaskFile(path, ..) | Self::MaskDirectory(path, ..)) =
            self;
        path.to_string_lossy().into_owned()
    }

    fn words(&self) -> ([u32; 3], &CStr) {
        match self {
            Self::Attach(index, path) => ([STEP_ATTACH, *index as u32, 0], path),
            Self::Proc(path) => ([STEP_PROC, 0, 0], path),
            Self::ReadOnly(path) => ([STEP_READ_ONLY, 0, 0], path),
            Self::MaskFile(path, file, directory) => ([STEP_MASK_FILE, *file as u32, *directory as u32], path),
            Self::MaskDirectory(path, file, directory) => ([STEP_MASK_DIRECTORY, *file as u32, *directory as u32], path),
        }
    }
}

/// Everything the first process needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to mount, in order.
    pub steps: Vec<Step>,
    /// Host name inside.
    pub hostname: CString,
    /// User and group that pid 1 is.
    pub owner: Owner,
    /// The maps of its user namespace are written by an ordinary user.
    pub unprivileged: bool,
    /// Supplementary groups stay as they are: nobody in its user namespace may set them.
    pub keep_groups: bool,
    /// Capabilities that pid 1 keeps, a bit each.
    pub capabilities: u64,
    /// The system call filter; empty for none.
    pub filter: Vec<Instruction>,
    /// Landlock version to use; None for none.
    pub landlock: Option<u32>,
    /// Resource limits: `RLIMIT_*`, soft and hard.
    pub limits: Vec<(u32, u64)>,
}

impl Plan {
    /// The bytes of [`crate::plan_wire`].
    pub fn encode(&self) -> Vec<u8> {
        let header = at::HEADER_WORDS as u32 * 4;
        let filter_at = header;
        let limits_at = filter_at + self.filter.len() as u32 * 8;
        let steps_at = limits_at + self.limits.len() as u32 * 16;
        let strings_at = steps_at + self.steps.len() as u32 * 16;
        let mut strings = Vec::new();
        let mut string = |text: &CStr| {
            let offset = strings_at + strings.len() as u32;
            strings.extend(text.to_bytes_with_nul());
            offset
        };
        let mut words = vec![0u32; at::HEADER_WORDS];
        words[at::LANDLOCK] = self.landlock.unwrap_or(0);
        (words[at::USER], words[at::GROUP]) = self.owner;
        (words[at::UNPRIVILEGED], words[at::KEEP_GROUPS]) = (u32::from(self.unprivileged), u32::from(self.keep_groups));
        words[at::CAPS_LOW] = self.capabilities as u32;
        words[at::CAPS_HIGH] = (self.capabilities >> 32) as u32;
        words[at::HOSTNAME] = string(&self.hostname);
        words[at::HOSTNAME_BYTES] = self.hostname.as_bytes().len() as u32;
        (words[at::FILTER], words[at::FILTER_COUNT]) = (filter_at, self.filter.len() as u32);
        (words[at::LIMITS], words[at::LIMIT_COUNT]) = (limits_at, self.limits.len() as u32);
        (words[at::STEPS], words[at::STEP_COUNT]) = (steps_at, self.steps.len() as u32);
        for instruction in &self.filter {
            words.extend(instruction.words());
        }
        for (resource, value) in &self.limits {
            words.extend([*resource, 0, *value as u32, (*value >> 32) as u32]);
        }
        for step in &self.steps {
            let ([kind, first, second], path) = step.words();
            words.extend([kind, first, second, string(path)]);
        }
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.append(&mut strings);
        bytes
    }
}

/// What tells the pid 1 of a container to go on, under this filter.
pub fn go_contained(filter: &[Instruction]) -> Vec<u8> {
    let words = [REQUEST_GO, filter.len() as u32, 0, 0].into_iter().chain(filter.iter().flat_map(|instruction| instruction.words()));
    words.flat_map(u32::to_ne_bytes).collect()
}

/// A stage of [`crate::plan_wire::REPLY_SETUP_FAILED`] in words.
pub fn stage_name(stage: u32) -> &'static str {
    match stage {
        SETUP_CGROUPS => "entering the cgroups",
        SETUP_NAMESPACE => "cgroup namespace",
        SETUP_PROC => "a proc file system",
        SETUP_IDENTITY => "identity",
        SETUP_ROOT => "attaching the root",
        SETUP_STEP => "mounting",
        SETUP_HOSTNAME => "host name",
        SETUP_DESCRIPTORS => "descriptors",
        SETUP_LIMITS => "resource limits",
        SETUP_LANDLOCK => "Landlock",
        SETUP_CAPABILITIES => "capabilities",
        SETUP_FILTER => "seccomp",
        SETUP_EXECUTE => "executing pid 1",
        _ => "an unknown step",
    }
}
