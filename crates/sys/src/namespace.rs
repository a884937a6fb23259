//! Entering and leaving network namespaces; id maps.

use crate::error::check;
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsRawFd, OwnedFd};

/// A network namespace owned by the user namespace that made it.
#[derive(Debug)]
pub struct Network {
    fd: OwnedFd,
}

/// While this lives, the calling thread is in another network namespace. Dropping it returns the thread to the one it
/// came from; if that fails the process aborts, since going on in the wrong namespace is worse.
#[derive(Debug)]
pub struct Visit {
    home: OwnedFd,
}

impl Network {
    /// Makes a network namespace and lets the calling thread stay in it. Call it in a thread of its own.
    pub fn make() -> Result<Self> {
        // SAFETY: takes no pointers.
        check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWNET) }), "unshare(CLONE_NEWNET)")?;
        Ok(Self { fd: current()? })
    }

    /// Enters it.
    pub fn visit(&self) -> Result<Visit> {
        let visit = Visit { home: current()? };
        // SAFETY: takes no pointers; the descriptor is open.
        check(i64::from(unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) }), "setns(network)")?;
        Ok(visit)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // SAFETY: takes no pointers; the descriptor is open.
        if unsafe { libc::setns(self.home.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            std::process::abort();
        }
    }
}

fn current() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| Error::new(format!("open {path}"), e))
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
