//! Confines the calling process for good: files by Landlock, system calls by a filter.

use crate::bpf::Instruction;
use crate::error::check;
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Every right of Landlock's first version over files and directories; later versions add REFER, TRUNCATE and `IOCTL_DEV`.
const FILES_V1: u64 = (1 << 13) - 1;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEVICE: u64 = 1 << 15;
const READ_FILE: u64 = 1 << 2;
const READ_DIRECTORY: u64 = 1 << 3;
const BIND_TCP: u64 = 1;
const SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS: u64 = 3;
const RULE_PATH_BENEATH: i32 = 1;

#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// From now on nothing can be opened but these trees, for reading; no TCP port can be taken, and no signal or abstract socket
/// reaches beyond. `version` is the kernel's ([`crate::process::landlock_version`]). Paths that do not exist are left out.
pub fn read_only_below(paths: &[&Path], version: u32) -> Result<()> {
    let mut files = FILES_V1;
    for (since, right) in [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEVICE)] {
        files |= if version >= since { right } else { 0 };
    }
    let network = if version >= 4 { BIND_TCP } else { 0 };
    let scope = if version >= 6 { SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS } else { 0 };
    let attributes = [files, network, scope];
    let size = match version {
        0..=3 => 8usize,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: the structure is live and at least as long as its stated size.
    let rules = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0u32) };
    let rules = check(rules, "landlock_create_ruleset")?;
    // SAFETY: the kernel has just made this descriptor for us.
    let rules = unsafe { OwnedFd::from_raw_fd(rules as i32) };
    for path in paths {
        let Ok(place) = open(*path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { continue };
        let is_directory = path.is_dir();
        let access = if is_directory { READ_FILE | READ_DIRECTORY } else { READ_FILE };
        let rule = PathBeneath { access, parent: place.as_raw_fd() };
        // SAFETY: the rule is live; both descriptors are open.
        let added = unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0u32) };
        check(added, "landlock_add_rule")?;
    }
    // SAFETY: takes a number and a descriptor that is open.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0u32) }, "landlock_restrict_self").map(|_| ())
}

/// From now on every thread is under this filter. `no_new_privs` has been set.
pub fn filter(program: &[Instruction]) -> Result<()> {
    const SECCOMP_FILTER_FLAG_TSYNC: u64 = 1;
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|e| Error::new("seccomp", std::io::Error::other(e)))?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: the program and its instructions outlive the call, which copies them.
    let set = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &raw const program) };
    check(set, "seccomp(SECCOMP_SET_MODE_FILTER)").map(|_| ())
}
