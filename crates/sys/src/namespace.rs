//! Network namespaces; id maps.

use crate::error::check;
use crate::ids::Ids;
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags, open};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A network namespace owned by the user namespace that made it.
#[derive(Debug)]
pub struct Network {
    fd: OwnedFd,
}

impl Network {
    /// Makes a network namespace and lets the calling thread stay in it. Call it in a thread of its own.
    pub fn make() -> Result<Self> {
        // SAFETY: takes no pointers.
        check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWNET) }), "unshare(CLONE_NEWNET)")?;
        Ok(Self { fd: current()? })
    }

    /// That of the calling thread.
    pub fn current() -> Result<Self> {
        Ok(Self { fd: current()? })
    }

    /// That in which a socket was made, whoever holds it.
    pub fn of_socket(socket: impl AsFd) -> Result<Self> {
        const SIOCGSKNS: libc::Ioctl = 0x894c;
        // SAFETY: takes no pointers; the descriptor is open.
        let fd = check(i64::from(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) }), "ioctl(SIOCGSKNS)")?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) } })
    }

    /// Whether they are one.
    pub fn is(&self, other: &Self) -> Result<bool> {
        let identity = |network: &Self| rustix::fs::fstat(&network.fd).map_err(|e| Error::new("stat a namespace", e));
        let (one, other) = (identity(self)?, identity(other)?);
        Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
    }

    /// That of a process.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self { fd: of_process(pid, "net")? })
    }

    /// Lets the calling thread enter it, for good: call it in a thread of its own.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: takes no pointers; the descriptor is open.
        check(i64::from(unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) }), "setns(network)").map(|_| ())
    }
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
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

/// A copy of this process's mount namespace, private, after `work` was done in it. Nobody is in it: it lasts as long as the descriptor.
pub fn private_mounts(work: impl FnOnce() -> Result<()> + Send) -> Result<OwnedFd> {
    let enter = || {
        // SAFETY: takes no pointers.
        check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWNS) }), "unshare(CLONE_NEWNS)")?;
        rustix::mount::mount_change("/", rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC)
            .map_err(|e| Error::new("make mounts private", e))?;
        work()?;
        let path = "/proc/thread-self/ns/mnt";
        open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| Error::new(format!("open {path}"), e))
    };
    in_thread(enter)
}

/// Does work in a mount namespace.
pub fn among<T: Send>(mounts: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || {
        // SAFETY: takes no pointers.
        check(i64::from(unsafe { libc::unshare(libc::CLONE_FS) }), "unshare(CLONE_FS)")?;
        // SAFETY: takes no pointers; the descriptor is open.
        check(i64::from(unsafe { libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS) }), "setns(mount)")?;
        work()
    };
    in_thread(enter)
}

/// In a thread of its own, whose namespaces go with it.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    const STACK_BYTES: usize = 128 << 10;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Error::new("start a thread", e))?;
        thread.join().unwrap_or_else(|_| Err(Error::new("enter mounts", std::io::Error::other("its thread panicked"))))
    })
}

/// A user namespace with this map and nobody in it: mounts are seen through it.
pub fn map_of(ids: &Ids) -> Result<OwnedFd> {
    let mut pidfd = -1i32;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: a fork whose child makes no call but the one that waits for a signal, and so touches nothing of this process's.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut pidfd, 0usize, 0usize) };
    if check(pid, "clone(CLONE_NEWUSER)")? == 0 {
        loop {
            // SAFETY: takes no pointers that are read.
            unsafe { libc::syscall(libc::SYS_ppoll, 0usize, 0usize, 0usize, 0usize, 8usize) };
        }
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let made = map_ids(pid as u32, ids).and_then(|()| of_process(pid as u32, "user"));
    crate::process::signal(pidfd.as_fd(), libc::SIGKILL)?;
    crate::process::wait_ended(pidfd.as_fd(), std::time::Duration::from_secs(5));
    crate::process::reap(pidfd.as_fd());
    made
}

/// Gives the process's user namespace its ids.
pub fn map_ids(pid: u32, ids: &Ids) -> Result<()> {
    for (file, map) in ["uid_map", "gid_map"].into_iter().zip(ids.maps()) {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, &map).map_err(|e| Error::new(format!("write {path}"), e))?;
    }
    Ok(())
}
