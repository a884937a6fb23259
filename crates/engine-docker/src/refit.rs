//! A container's mounts, made what a sandbox's are: while its pid 1 waits, nothing of the image has run.
//!
//! Everything becomes private and `nosuid`, `/` and what may be written to `nodev`; `/dev` and its terminals, `/dev/shm` and `/sys` are replaced by
//! those of the native engine; our own files go out of sight.

use crate::container::OWN;
use cofferdam_engine::{EngineError, SandboxSpec};
use cofferdam_engine_host::device::{self, Devices, system};
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{self, FsOption, attr, clone_tree, new_fs, set_attributes};
use cofferdam_sys::{Result, namespace};
use rustix::fs::{CWD, Mode, mkdirat};
use std::os::fd::{AsFd, OwnedFd};

/// Does it; a detached copy of everything mounted there, which outlives the container.
pub fn refit(pid: u32, ids: &Ids, spec: &SandboxSpec) -> std::result::Result<OwnedFd, EngineError> {
    let devices = device::make(ids)?;
    let writable: Vec<String> = spec.mounts.iter().filter(|mount| mount.writable).map(|mount| mount.target.display().to_string()).collect();
    namespace::in_mounts_of(pid, move || among_its_mounts(&devices, &writable)).map_err(system)
}

fn among_its_mounts(devices: &Devices, writable: &[String]) -> Result<OwnedFd> {
    set_attributes(mount::at("/")?, attr::NO_SUID, None, true)?;
    for path in writable.iter().map(String::as_str).chain(["/"]) {
        set_attributes(mount::at(path)?, attr::NO_SUID | attr::NO_DEV, None, false)?;
    }
    for (mount, path) in [(&devices.dev, "/dev"), (&devices.pts, "/dev/pts"), (&devices.shm, "/dev/shm")] {
        mount::attach(mount, path)?;
    }
    cover_sys()?;
    mount::detach(OWN)?;
    // The place that it was mounted at; where the root is read-only it stays, empty.
    let _ = rustix::fs::rmdir(OWN);
    clone_tree(CWD, "/", true)
}

/// Of `/sys`, the part that programs ask for the number of CPUs.
fn cover_sys() -> Result<()> {
    let closed = attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC;
    let whole = new_fs("sysfs", &[], closed)?;
    let part = clone_tree(whole.as_fd(), "devices/system", false)?;
    let sys = new_fs("tmpfs", &[FsOption::Value("mode", "755"), FsOption::Value("size", "64k"), FsOption::Value("nr_inodes", "8")], 0)?;
    for directory in ["devices", "devices/system"] {
        mkdirat(&sys, directory, Mode::from_raw_mode(0o755)).map_err(|e| cofferdam_sys::Error::new("make /sys", e))?;
    }
    set_attributes(&sys, closed, None, false)?;
    mount::attach(&sys, "/sys")?;
    mount::attach(&part, "/sys/devices/system")
}
