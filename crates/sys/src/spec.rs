//! Builds the description of a process that pid 1 is to start (see [`crate::init_wire`]).

use crate::Result;
use crate::init_wire::{FLAG_GATED, FLAG_JOIN, FLAG_KEEP_GROUPS, FLAG_MAIN, FLAG_SUBREAPER, FLAG_TTY, SPEC_HEADER_BYTES, SPEC_MAGIC, at};
use crate::process::sealed_file;
use std::os::fd::OwnedFd;

/// A process to start inside a sandbox.
#[derive(Clone, Debug, Default)]
pub struct ProcessSpec {
    /// Program and arguments, without NUL bytes. None: nothing is executed, the process is there until it is signalled.
    pub arguments: Vec<Vec<u8>>,
    /// `NAME=value` entries.
    pub environment: Vec<Vec<u8>>,
    /// Working directory inside the sandbox.
    pub directory: Vec<u8>,
    /// User inside the sandbox.
    pub uid: u32,
    /// Group inside the sandbox.
    pub gid: u32,
    /// Supplementary groups inside the sandbox.
    pub groups: Vec<u32>,
    /// Supplementary groups stay as they are.
    pub keep_groups: bool,
    /// Capabilities kept, a bit each; 0 for every user but uid 0.
    pub capabilities: u64,
    /// File mode creation mask.
    pub umask: u32,
    /// Open file limit; 0 leaves what pid 1 has.
    pub open_files: u32,
    /// Rows and columns of a terminal of its own, if it gets one.
    pub terminal: Option<(u16, u16)>,
    /// Whether the sandbox ends with it.
    pub main: bool,
    /// How it comes into a cgroup of its own.
    pub entry: Entry,
}

/// How a process comes into a cgroup of its own. The descriptor goes last in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Not at all.
    #[default]
    None,
    /// It waits on a gate pipe until it has been moved.
    Gate,
    /// It moves itself through a version 1 `tasks` file.
    Join,
    /// There is none: what descends from it stays below it as long as it lives.
    Subreaper,
}

impl ProcessSpec {
    /// The sealed memory file that is handed to pid 1.
    pub fn to_file(&self) -> Result<OwnedFd> {
        sealed_file("spec", &self.encode(), false)
    }

    fn encode(&self) -> Vec<u8> {
        let mut words = [0u32; SPEC_HEADER_BYTES / 4];
        let (rows, columns) = self.terminal.unwrap_or((0, 0));
        words[at::MAGIC] = SPEC_MAGIC;
        words[at::FLAGS] = if self.terminal.is_some() { FLAG_TTY } else { 0 }
            | if self.main { FLAG_MAIN } else { 0 }
            | if self.keep_groups { FLAG_KEEP_GROUPS } else { 0 }
            | match self.entry {
                Entry::None => 0,
                Entry::Gate => FLAG_GATED,
                Entry::Join => FLAG_JOIN,
                Entry::Subreaper => FLAG_SUBREAPER,
            };
        words[at::UID] = self.uid;
        words[at::GID] = self.gid;
        words[at::CAPS_LOW] = self.capabilities as u32;
        words[at::CAPS_HIGH] = (self.capabilities >> 32) as u32;
        words[at::UMASK] = self.umask;
        words[at::ROWS] = u32::from(rows);
        words[at::COLUMNS] = u32::from(columns);
        words[at::GROUPS] = self.groups.len() as u32;
        words[at::ARGUMENTS] = self.arguments.len() as u32;
        words[at::ENVIRONMENT] = self.environment.len() as u32;
        words[at::OPEN_FILES] = self.open_files;
        let mut bytes: Vec<u8> = words.iter().chain(&self.groups).flat_map(|word| word.to_ne_bytes()).collect();
        for string in std::iter::once(&self.directory).chain(&self.arguments).chain(&self.environment) {
            bytes.extend(string);
            bytes.push(0);
        }
        bytes
    }
}
