//! A sandbox's own `/dev`: eight nodes, a devpts and a sized shared-memory file system.

use cofferdam_engine::EngineError;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{FsOption, attr, clone_tree, new_fs, set_attributes};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chownat, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::process::{Gid, Uid};
use std::os::fd::{AsFd, OwnedFd};

const NODES: &[(&str, u32, u32)] = &[("full", 1, 7), ("null", 1, 3), ("random", 1, 8), ("tty", 5, 0), ("urandom", 1, 9), ("zero", 1, 5)];
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];
const DIRECTORIES: &[(&str, u32)] = &[("empty", 0o755), ("pts", 0o755), ("shm", 0o1777)];
const TTY_GROUP: u32 = 5;

/// The detached mounts of `/dev`.
#[derive(Debug)]
pub struct Devices {
    /// `/dev`, read-only.
    pub dev: OwnedFd,
    /// `/dev/pts`.
    pub pts: OwnedFd,
    /// `/dev/shm`.
    pub shm: OwnedFd,
    /// The null device in `dev`: covers masked files.
    pub null: OwnedFd,
    /// An empty directory in `dev`: covers masked directories.
    pub empty: OwnedFd,
    /// Nodes of the host, to be attached above the files of their names in `dev`: where nobody may make nodes of their own.
    pub nodes: Vec<(&'static str, OwnedFd)>,
}

/// Makes them for the sandbox with these ids.
pub fn make(ids: &Ids) -> Result<Devices, EngineError> {
    let options = |mode| [FsOption::Value("mode", mode), FsOption::Value("size", "64m"), FsOption::Value("nr_inodes", "16384")];
    let dev = new_fs("tmpfs", &options("755"), 0).map_err(system)?;
    populate(&dev, ids).map_err(|e| EngineError::host("make /dev", e))?;
    let open = |name: &str| {
        openat(&dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| EngineError::host(format!("open /dev/{name}"), e))
    };
    let nodes = if ids.is_range() { Vec::new() } else { nodes_of_host()? };
    let null = match nodes.iter().find(|(name, _)| *name == "null") {
        Some((_, node)) => node.try_clone().map_err(|e| EngineError::host("duplicate /dev/null", e))?,
        None => open("null")?,
    };
    let empty = open("empty")?;
    // One file system for both: the more of them a host has, the longer each more takes to make. Before 6.15 only what is attached can be shown
    // in part.
    let shm = match clone_tree(dev.as_fd(), "shm", false) {
        Ok(part) => part,
        Err(_) => new_fs("tmpfs", &options("1777"), 0).map_err(system)?,
    };
    set_attributes(&shm, attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC, None, false).map_err(system)?;
    set_attributes(&dev, attr::READ_ONLY | attr::NO_SUID | attr::NO_EXEC, None, false).map_err(system)?;
    let group = ids.outside((0, TTY_GROUP)).1.to_string();
    let pts_options =
        [FsOption::Value("gid", &group), FsOption::Value("mode", "620"), FsOption::Value("ptmxmode", "666"), FsOption::Value("max", "64")];
    let pts = new_fs("devpts", &pts_options, attr::NO_SUID | attr::NO_EXEC).map_err(system)?;
    Ok(Devices { dev, pts, shm, null, empty, nodes })
}

fn nodes_of_host() -> Result<Vec<(&'static str, OwnedFd)>, EngineError> {
    let node = |name: &'static str| {
        let mount = clone_tree(CWD, &format!("/dev/{name}"), false).map_err(system)?;
        // A device is written to through a read-only mount as well; its node is not.
        set_attributes(&mount, attr::READ_ONLY | attr::NO_SUID | attr::NO_EXEC, None, false).map_err(system)?;
        Ok((name, mount))
    };
    NODES.iter().map(|(name, ..)| node(name)).collect()
}

fn populate(dev: &OwnedFd, ids: &Ids) -> rustix::io::Result<()> {
    let (uid, gid) = ids.outside((0, 0));
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let mode = Mode::from_raw_mode(0o666);
    // The umask of the calling process would take bits from the nodes' modes.
    let umask = rustix::process::umask(Mode::empty());
    let result = (|| {
        for (name, major, minor) in NODES {
            let (kind, device) =
                if ids.is_range() { (FileType::CharacterDevice, makedev(*major, *minor)) } else { (FileType::RegularFile, 0) };
            mknodat(dev.as_fd(), *name, kind, mode, device)?;
        }
        for (name, mode) in DIRECTORIES {
            mkdirat(dev.as_fd(), *name, Mode::from_raw_mode(*mode))?;
        }
        for (name, target) in LINKS {
            symlinkat(*target, dev.as_fd(), *name)?;
        }
        Ok(())
    })();
    rustix::process::umask(umask);
    result?;
    for (name, ..) in NODES {
        chownat(dev.as_fd(), *name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    chownat(dev.as_fd(), "shm", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    chownat(dev.as_fd(), "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

/// A failed system call of the host.
pub fn system(error: cofferdam_sys::Error) -> EngineError {
    EngineError::host(error.call, error.source)
}
