//! Entering and leaving network namespaces; id maps.

use crate::error::check;
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsRawFd, OwnedFd};

/// While this lives, the calling thread is in a new network namespace. Dropping it returns the thread to the one it
/// came from; if that fails the process aborts, since going on in the wrong namespace is worse.
#[derive(Debug)]
pub struct NewNetwork {
    home: OwnedFd,
}

impl NewNetwork {
    /// Makes a network namespace owned by the current user namespace and enters it.
    pub fn enter() -> Result<Self> {
        let home = open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::new("open /proc/thread-self/ns/net", e))?;
        // SAFETY: takes no pointers.
        check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWNET) }), "unshare(CLONE_NEWNET)")?;
        Ok(Self { home })
    }
}

impl Drop for NewNetwork {
    fn drop(&mut self) {
        // SAFETY: takes no pointers; the descriptor is open.
        if unsafe { libc::setns(self.home.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            std::process::abort();
        }
    }
}

/// A descriptor of one namespace (`user`, `net`, `mnt`, …) of a process.
pub fn of_process(pid: u32, kind: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{kind}");
    open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| Error::new(format!("open {path}"), e))
}

/// Maps ids 0..`count` of the process's user namespace to `base`.. of the caller's.
pub fn map_ids(pid: u32, base: u32, count: u32) -> Result<()> {
    let map = format!("0 {base} {count}\n");
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, &map).map_err(|e| Error::new(format!("write {path}"), e))?;
    }
    Ok(())
}
