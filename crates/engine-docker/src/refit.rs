//! A container's mounts, made what a sandbox's are: while its pid 1 waits, nothing of the image has run.
//!
//! Everything becomes private and `nosuid`, `/` and what may be written to `nodev`; `/dev` and its terminals, `/dev/shm` and `/sys` are replaced by
//! those of the native engine; `/tmp`, `/workspace` and what a task puts in have the owners and permissions that they have there, whatever the
//! image brought; our own files go out of sight.

use crate::container::{self, HEALTH, OWN};
use cofferdam_engine::{self as engine, EngineError, SandboxSpec};
use cofferdam_engine_host::device::{self, Devices, system};
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{self, FsOption, attr, clone_tree, new_fs, set_attributes};
use cofferdam_sys::{Error, Result, namespace};
use rustix::fs::{CWD, Gid, Mode, OFlags, ResolveFlags, Uid, mkdirat, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
/// By these the file system is known that the daemon puts where a volume will be.
pub const PLACEHOLDER_INODES: u64 = 3;

/// Does it; a detached copy of everything mounted there, which outlives the container.
pub fn refit(pid: u32, ids: &Ids, spec: &SandboxSpec) -> std::result::Result<OwnedFd, EngineError> {
    let devices = device::make(ids)?;
    let trees = spec.mounts.iter().filter(|mount| mount.writable && !mount.source.is_volume());
    let writable: Vec<String> = trees.map(|mount| mount.target.display().to_string()).collect();
    let volumes = volumes(pid, ids, spec)?;
    let places = places(ids, spec);
    namespace::in_mounts_of(pid, move || among_its_mounts(&devices, &writable, &volumes, &places)).map_err(system)
}

/// A place in memory that is to be as it is on the native engine.
struct Place {
    path: String,
    mode: Mode,
    /// On this host.
    owner: (Uid, Gid),
    /// By which it is known.
    files: u64,
}

fn places(ids: &Ids, spec: &SandboxSpec) -> Vec<Place> {
    let insisted = container::places(spec).into_iter().filter(|(_, place)| place.insisted);
    let place = |(path, place): (String, container::Place)| {
        let (user, group) = ids.outside(place.owner);
        let owner = (Uid::from_raw(user), Gid::from_raw(group));
        Place { path, mode: Mode::from_raw_mode(place.mode), owner, files: container::most_files(spec) }
    };
    insisted.map(place).collect()
}

/// A file system in memory of so many files, at this place of the sandbox. Whoever shares a tree of the host that it lies in may flip a
/// directory and a link there, so what is opened must be that.
fn in_memory(path: &Path, files: u64, flags: OFlags) -> Result<OwnedFd> {
    let failed = |e| Error::new(format!("open {}", path.display()), e);
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(mount::at("/")?, path, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside).map_err(failed)?;
    let stat = rustix::fs::fstatfs(&opened).map_err(failed)?;
    if stat.f_type != TMPFS_MAGIC || stat.f_files != files {
        return Err(failed(Errno::XDEV));
    }
    Ok(opened)
}

/// `bare`: the root without what is mounted on it.
fn restore(place: &Place, bare: &OwnedFd) -> Result<()> {
    const OWNERS: Mode = Mode::RWXU;
    let failed = |e| Error::new(format!("set the owner of {}", place.path), e);
    let directory = in_memory(Path::new(&place.path), place.files, OFlags::RDONLY)?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let below = openat2(bare, Path::new(&place.path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside);
    let given = below.and_then(rustix::fs::fstat).ok();
    // What the image gives to that user keeps the permissions that it gives.
    let kept = given.filter(|stat| (stat.st_uid, stat.st_gid) == (place.owner.0.as_raw(), place.owner.1.as_raw()));
    let mode = match kept {
        Some(stat) if !place.mode.contains(Mode::SVTX) => Mode::from_raw_mode(stat.st_mode) | OWNERS,
        _ => place.mode,
    };
    rustix::fs::fchown(&directory, Some(place.owner.0), Some(place.owner.1)).map_err(failed)?;
    rustix::fs::fchmod(&directory, mode).map_err(failed)
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
    mount::attach_at(&volume.mount, in_memory(&volume.target, PLACEHOLDER_INODES, OFlags::PATH)?)
}

fn among_its_mounts(devices: &Devices, writable: &[String], volumes: &[Volume], places: &[Place]) -> Result<OwnedFd> {
    set_attributes(mount::at("/")?, attr::NO_SUID, None, true)?;
    for path in writable.iter().map(String::as_str).chain(["/"]) {
        set_attributes(mount::at(path)?, attr::NO_SUID | attr::NO_DEV, None, false)?;
    }
    // Not only covered: the nodes there may be mounts of the host's.
    mount::detach("/dev")?;
    for (mount, path) in [(&devices.dev, "/dev"), (&devices.pts, "/dev/pts"), (&devices.shm, "/dev/shm")] {
        mount::attach(mount, path)?;
    }
    let bare = clone_tree(CWD, "/", false)?;
    places.iter().try_for_each(|place| restore(place, &bare))?;
    volumes.iter().try_for_each(attach)?;
    cover_sys(&clone_tree(CWD, &format!("{OWN}/init"), false)?)?;
    mount::detach(OWN)?;
    // The place that it was mounted at; where the root is read-only it stays, empty.
    let _ = rustix::fs::rmdir(OWN);
    clone_tree(CWD, "/", true)
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
