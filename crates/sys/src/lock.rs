//! Locks that end with their last open descriptor: a killed holder never leaves one behind.

use crate::{Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Opens (creating it, mode 0600) a lock file.
pub fn open_file(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::from_raw_mode(0o600))
        .map_err(|e| Error::new(format!("open {}", path.display()), e))
}

/// Takes a shared whole-file lock, and waits for it.
pub fn lock_shared(file: &OwnedFd) -> Result<()> {
    flock(file, FlockOperation::LockShared).map_err(|e| Error::new("flock", e))
}

/// Takes a whole-file lock without waiting: false if someone else holds a conflicting one.
pub fn try_lock(file: &OwnedFd, exclusive: bool) -> Result<bool> {
    let how = if exclusive { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(Error::new("flock", error)),
    }
}

/// Takes an exclusive lock on one byte of the file without waiting. It belongs to the open file description, so it
/// lives until every duplicate of the descriptor, in whatever process, is closed.
pub fn try_lock_byte(file: &OwnedFd, offset: u32) -> Result<bool> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: libc::off_t::from(offset),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: `lock` is a valid flock structure that outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(Error::last("fcntl(F_OFD_SETLK)")),
    }
}
