//! The mount namespace in which the spawner lives, and of which every sandbox gets a copy: none of the host's mounts.
//!
//! ```text
//! /        tmpfs, read-only, with two empty directories
//! /proc    a proc file system of a pid namespace that has ended: it shows no process
//! /none    empty
//! ```
//! To whom the mounts of a user namespace belong, the kernel gives a proc file system only if it sees one already: that is what
//! `/proc` is for. A new sandbox covers it with a copy of `/none` before anything else (`cover`). All three lie below the sandbox's
//! root and cannot be taken apart there: they come from a namespace with more rights.
//!
//! Letting go of the host's mounts waits for every processor. The spawner does it while its supervisor prepares the first sandbox, once
//! for all of them; and a clone copies two mounts instead of the host's.

use crate::plan_wire::SETUP_LEAVE;
use crate::setup::{
    AT_EMPTY_PATH, ATTR_NOSUID_NODEV_NOEXEC, ATTR_READ_ONLY, Failure, MOVE_FROM_FD, OPEN_TREE_CLONE, Outcome, check, new_mount,
};
use crate::{AT_FDCWD, O_CLOEXEC, SIGCHLD, close, exit, sys};

const CLONE_NEWNS: usize = 0x2_0000;
const CLONE_NEWPID: usize = 0x2000_0000;
const CLONE_FILES: usize = 0x400;
const MS_REC_PRIVATE: usize = 0x4000 | 0x4_0000;
const MNT_DETACH: usize = 2;
const DIRECTORY_MODE: usize = 0o555;

/// Leaves the host's mounts.
pub fn enter() -> Outcome {
    let step = |result| check(SETUP_LEAVE, result);
    step(sys!(UNSHARE, CLONE_NEWNS))?;
    step(sys!(MOUNT, 0, c"/".as_ptr(), 0, MS_REC_PRIVATE, 0))?;
    let proc = ended_proc()?;
    let root = new_mount(SETUP_LEAVE, c"tmpfs".as_ptr().cast(), ATTR_NOSUID_NODEV_NOEXEC)?;
    for name in [c"proc", c"none"] {
        step(sys!(MKDIRAT, root, name.as_ptr(), DIRECTORY_MODE))?;
    }
    let read_only = [ATTR_READ_ONLY, 0, 0, 0];
    step(sys!(MOUNT_SETATTR, root, c"".as_ptr(), AT_EMPTY_PATH, read_only.as_ptr(), 32))?;
    // Any directory of the host will do: it is gone with the rest.
    attach(SETUP_LEAVE, root, c"/proc")?;
    step(sys!(FCHDIR, root))?;
    step(sys!(PIVOT_ROOT, c".".as_ptr(), c".".as_ptr()))?;
    step(sys!(UMOUNT2, c".".as_ptr(), MNT_DETACH))?;
    step(sys!(CHDIR, c"/".as_ptr()))?;
    attach(SETUP_LEAVE, proc, c"/proc")?;
    close(root as i32);
    close(proc as i32);
    Ok(())
}

/// In a copy of that namespace, after its own proc file system was made.
pub fn cover(stage: u32) -> Outcome {
    let copy = check(stage, sys!(OPEN_TREE, AT_FDCWD, c"/none".as_ptr(), OPEN_TREE_CLONE | O_CLOEXEC))?;
    attach(stage, copy, c"/proc")?;
    close(copy as i32);
    Ok(())
}

fn attach(stage: u32, mount: isize, place: &core::ffi::CStr) -> Outcome {
    check(stage, sys!(MOVE_MOUNT, mount, c"".as_ptr(), AT_FDCWD, place.as_ptr(), MOVE_FROM_FD)).map(|_| ())
}

/// A proc file system of a pid namespace whose first and only process made it and ended.
fn ended_proc() -> Result<isize, Failure> {
    /// An exit status from here on is an errno.
    const FAILED: u32 = 128;
    let pid = check(SETUP_LEAVE, sys!(CLONE, CLONE_NEWPID | CLONE_FILES | SIGCHLD, 0, 0, 0, 0))?;
    if pid == 0 {
        // The table of descriptors is the spawner's too. Its number is what there is to say.
        let made = new_mount(SETUP_LEAVE, c"proc".as_ptr().cast(), ATTR_NOSUID_NODEV_NOEXEC);
        sys!(EXIT_GROUP, made.map_or_else(|failure| FAILED + failure.errno, |mount| mount as u32));
        exit();
    }
    let mut status = 0u32;
    check(SETUP_LEAVE, sys!(WAIT4, pid, &raw mut status, 0, 0))?;
    let mount = status >> 8;
    if status & 0xff != 0 || mount >= FAILED {
        return Err(Failure { stage: SETUP_LEAVE, errno: mount.saturating_sub(FAILED).max(1), step: 0 });
    }
    Ok(mount as isize)
}
