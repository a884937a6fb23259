//! A container's mounts, made what a sandbox's are: while its pid 1 waits, nothing of the image has run.
//!
//! Everything becomes private and `nosuid`, `/` and what may be written to `nodev`; `/dev` and its terminals, `/dev/shm` and `/sys` are replaced by
//! those of the native engine; `/tmp`, `/workspace` and what a task puts in have the owners and permissions that they have there, whatever the
//! image brought; our own files go out of sight.

use crate::container::{HEALTH, OWN};
use crate::places::{self, Found, Mounts, Place};
use cofferdam_engine::{self as engine, EngineError, SandboxSpec};
use cofferdam_engine_host::device::{self, Devices, system};
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{self, FsOption, attr, clone_tree, new_fs, set_attributes};
use cofferdam_sys::{Result, namespace};
use rustix::fs::{CWD, Mode, OFlags, mkdirat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// By these the file system is known that the daemon puts where a volume will be.
pub const PLACEHOLDER_INODES: u64 = 3;

/// Does it. What comes out outlives the container.
pub fn refit(pid: u32, ids: &Ids, spec: &SandboxSpec) -> std::result::Result<Mounts, EngineError> {
    let devices = device::make(ids)?;
    let trees = spec.mounts.iter().filter(|mount| mount.writable && !mount.source.is_volume());
    let writable: Vec<String> = trees.map(|mount| mount.target.display().to_string()).collect();
    let volumes = volumes(pid, ids, spec)?;
    let places = places::of(ids, spec);
    let found = namespace::in_mounts_of(pid, move || among_its_mounts(&devices, &writable, &volumes, places)).map_err(system)?;
    found.cover(pid, ids, spec)
}

/// A named volume, to be attached.
struct Volume {
    mount: OwnedFd,
    target: PathBuf,
}

fn volumes(pid: u32, ids: &Ids, spec: &SandboxSpec) -> std::result::Result<Vec<Volume>, EngineError> {
    let userns = if ids.outside((0, 0)) == (0, 0) { None } else { Some(namespace::of_process(pid, "user").map_err(system)?) };
    let ready = |mount: &engine::Mount| {
        let attributes = attr::NO_SUID | attr::NO_DEV | if mount.writable { 0 } else { attr::READ_ONLY };
        set_attributes(mount.source.fd(), attributes, userns.as_ref().map(AsFd::as_fd), false).map_err(system)?;
        let duplicate = mount.source.fd().try_clone().map_err(|e| EngineError::host("duplicate a descriptor", e))?;
        Ok(Volume { mount: duplicate, target: mount.target.clone() })
    };
    spec.mounts.iter().filter(|mount| mount.source.is_volume()).map(ready).collect()
}

/// A volume goes where the daemon has put something for it.
fn attach(volume: &Volume) -> Result<()> {
    mount::attach_at(&volume.mount, places::in_memory(&volume.target, PLACEHOLDER_INODES, OFlags::PATH)?)
}

fn among_its_mounts(devices: &Devices, writable: &[String], volumes: &[Volume], places: Vec<Place>) -> Result<Found> {
    set_attributes(mount::at("/")?, attr::NO_SUID, None, true)?;
    for path in writable.iter().map(String::as_str).chain(["/"]) {
        set_attributes(mount::at(path)?, attr::NO_SUID | attr::NO_DEV, None, false)?;
    }
    // Not only covered: the nodes there may be mounts of the host's.
    mount::detach("/dev")?;
    for (mount, path) in [(&devices.dev, "/dev"), (&devices.pts, "/dev/pts"), (&devices.shm, "/dev/shm")] {
        mount::attach(mount, path)?;
    }
    let found = places::look(places)?;
    volumes.iter().try_for_each(attach)?;
    cover_sys(&clone_tree(CWD, &format!("{OWN}/init"), false)?)?;
    mount::detach(OWN)?;
    // The place that it was mounted at; where the root is read-only it stays, empty.
    let _ = rustix::fs::rmdir(OWN);
    Ok(found)
}

/// Of `/sys`, the part that programs ask for the number of CPUs; and the program that the daemon executes to see whether it can.
fn cover_sys(health: &OwnedFd) -> Result<()> {
    let closed = attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC;
    let whole = new_fs("sysfs", &[], closed)?;
    // Before 6.15 only of what is attached.
    let attached =
        || clone_tree(CWD, "/sys/devices/system", false).and_then(|part| set_attributes(&part, closed, None, false).map(|()| part));
    let part = clone_tree(whole.as_fd(), "devices/system", false).or_else(|_| attached())?;
    let sys = new_fs("tmpfs", &[FsOption::Value("mode", "755"), FsOption::Value("size", "64k"), FsOption::Value("nr_inodes", "8")], 0)?;
    for directory in ["devices", "devices/system"] {
        mkdirat(&sys, directory, Mode::from_raw_mode(0o755)).map_err(|e| cofferdam_sys::Error::new("make /sys", e))?;
    }
    let place = Path::new(HEALTH).file_name().unwrap_or_default();
    rustix::fs::openat(&sys, place, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o444))
        .map_err(|e| cofferdam_sys::Error::new("make /sys", e))?;
    set_attributes(&sys, closed, None, false)?;
    set_attributes(health, attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV, None, false)?;
    mount::attach(&sys, "/sys")?;
    mount::attach(health, HEALTH)?;
    mount::attach(&part, "/sys/devices/system")
}
