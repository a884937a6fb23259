//! A root, or a view, without an overlay: a copy in memory of everything that the overlay would show. For hosts whose kernel has no
//! overlayfs, or keeps it from this user.
//!
//! Slower and larger, and else the same: what the sandbox changed is found by comparing, see [`difference`].

pub mod difference;
pub mod merged;

use crate::data::{copy_data, data_bytes};
use crate::disk::tmpfs;
use cofferdam_engine::EngineError;
use cofferdam_sys::mount::attr;
use cofferdam_sys::{outer, process};
use cofferdam_trust::pack::xattrs;
use difference::change_time;
use merged::{Entry, Merged, open_directory};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fsetxattr, linkat,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Directories in each other that are copied.
const DEEPEST: u32 = 256;
/// A page, the least that an entry costs.
const PAGE: u64 = 4096;
/// What is copied may fill so much of the memory that is free: one part in this many.
const PART_OF_MEMORY: u64 = 2;

/// A file system with a copy.
#[derive(Debug)]
pub struct Copied {
    /// Its mount, detached.
    pub mount: OwnedFd,
    /// Its root, to be read through that mount.
    pub place: OwnedFd,
    /// What it is a copy of.
    pub original: Original,
}

/// What a copy was made of, to be compared with.
#[derive(Debug)]
pub struct Original {
    /// As they were shown, the topmost first.
    lowers: Vec<OwnedFd>,
    /// When it was copied. What has not been touched since is as it was.
    at: (i64, i64),
}

/// Whether overlays are not to be had: as opposed to this one. A user may be told so in one more way, by a kernel that does not know the
/// option that users need.
pub fn is_wanted(error: &cofferdam_sys::Error) -> bool {
    let refused = [Errno::NODEV, Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP];
    let of_user = |errno| errno == Errno::INVAL && !outer::is_host_root();
    Errno::from_io_error(&error.source).is_some_and(|errno| refused.contains(&errno) || of_user(errno))
}

impl Copied {
    /// Copies what `upper` above `lowers` shows. `room` is what the sandbox may write besides.
    pub fn make(upper: &OwnedFd, lowers: Vec<OwnedFd>, room: u64) -> Result<Self, EngineError> {
        let error = |e: io::Error| match Errno::from_io_error(&e) {
            Some(Errno::NOSPC | Errno::NOMEM) => no_memory("it ran out while the files were copied".into()),
            _ => EngineError::host("copy the files of the sandbox", e),
        };
        // At each depth a directory of every layer is open; what differs is found in the same way later.
        process::raise_open_files();
        let above = merged(Some(upper), &lowers).map_err(|e| error(e.into()))?;
        let size = Size::of(&above).map_err(error)?;
        size.check()?;
        let mount = tmpfs(room.saturating_add(size.bytes), size.entries, attr::NO_SUID | attr::NO_DEV)?;
        let place = openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let place = place.map_err(|e| error(e.into()))?;
        let mut copying = Copying { root: &place, links: HashMap::new() };
        copying.directory(&above, &place, Path::new("")).map_err(error)?;
        let at = change_time(&statat(&place, "", AtFlags::EMPTY_PATH).map_err(|e| error(e.into()))?);
        Ok(Self { mount, place, original: Original { lowers, at } })
    }
}

fn merged(upper: Option<&OwnedFd>, lowers: &[OwnedFd]) -> rustix::io::Result<Merged> {
    let all: Vec<_> = upper.into_iter().chain(lowers).map(AsFd::as_fd).collect();
    Merged::new(&all)
}

fn no_memory(why: String) -> EngineError {
    EngineError::Exhausted {
        what: "memory for a copy of the sandbox's files".into(),
        why: format!("{why} (this host gives no overlay file systems, so they are copied)"),
        remedy: "use a smaller image or repository, or load the kernel's module 'overlay'".into(),
    }
}

/// What a copy takes.
#[derive(Debug, Default)]
struct Size {
    bytes: u64,
    entries: u64,
}

impl Size {
    fn of(all: &Merged) -> io::Result<Self> {
        let mut size = Self::default();
        size.add(all, 0)?;
        Ok(size)
    }

    fn add(&mut self, directory: &Merged, depth: u32) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other(format!("more than {DEEPEST} directories are in each other")));
        }
        for (name, entry) in directory.entries()? {
            let length = if may_have_holes(&entry) {
                data_bytes(&File::from(open_file(directory.place(&entry), &name)?))?
            } else {
                u64::try_from(entry.stat.st_size).unwrap_or(0)
            };
            self.bytes = self.bytes.saturating_add(length.next_multiple_of(PAGE)).saturating_add(PAGE);
            self.entries += 1;
            if entry.kind() == FileType::Directory {
                self.add(&directory.below(&name, &entry)?, depth + 1)?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), EngineError> {
        const MEBIBYTE: u64 = 1 << 20;
        let most = process::memory_available().unwrap_or(u64::MAX) / PART_OF_MEMORY;
        if self.bytes <= most {
            return Ok(());
        }
        Err(no_memory(format!("{} MiB are wanted, at most {} MiB are given", self.bytes / MEBIBYTE, most / MEBIBYTE)))
    }
}

/// Much less on the disk than its size: with holes, or compressed.
fn may_have_holes(entry: &Entry) -> bool {
    const MUCH: i64 = 1 << 20;
    let Stat { st_blocks, st_size, .. } = entry.stat;
    entry.kind() == FileType::RegularFile && st_blocks.saturating_mul(512).saturating_add(MUCH) < st_size
}

fn open_file(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// A copy that is being made.
struct Copying<'a> {
    root: &'a OwnedFd,
    /// Files with several names: device and inode, to the first in the copy.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copying<'_> {
    fn directory(&mut self, from: &Merged, to: &OwnedFd, path: &Path) -> io::Result<()> {
        for (name, entry) in from.entries()? {
            let path = path.join(&name);
            self.entry(from, &name, &entry, to, &path).map_err(|e| at(&path, e))?;
        }
        if let Some(top) = from.top() {
            attributes(&statat(top, "", AtFlags::EMPTY_PATH)?, to)?;
            copy_xattrs(top, to)?;
        }
        Ok(())
    }

    fn entry(&mut self, from: &Merged, name: &OsStr, entry: &Entry, to: &OwnedFd, path: &Path) -> io::Result<()> {
        let (stat, kind) = (&entry.stat, entry.kind());
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return Ok(linkat(self.root, first, to, name, AtFlags::empty())?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                self.directory(&from.below(name, entry)?, &open_directory(to, name)?, path)
            }
            FileType::RegularFile => file(from.place(entry), stat, to, name),
            FileType::Symlink => {
                symlinkat(readlinkat(from.place(entry), name, Vec::new())?, to, name)?;
                own(stat, to, name)?;
                Ok(utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            FileType::Fifo => {
                mknodat(to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode & 0o7777), 0)?;
                own(stat, to, name)?;
                Ok(rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?)
            }
            // Sockets mean nothing without who listens, devices are the engine's.
            _ => Ok(()),
        }
    }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        // Told by its number further up, or told with a path already.
        Some(Errno::NOSPC | Errno::NOMEM) | None => error,
        Some(_) => io::Error::new(error.kind(), format!("{}: {error}", path.display())),
    }
}

fn file(from: &OwnedFd, stat: &Stat, to: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let source = open_file(from, name)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    let (source, target) = (File::from(source), File::from(target));
    copy_data(&source, &target)?;
    let (source, target) = (OwnedFd::from(source), OwnedFd::from(target));
    copy_xattrs(&source, &target)?;
    attributes(stat, &target)
}

/// Owner, mode and time, in this order: a new owner clears bits of the mode.
fn attributes(stat: &Stat, of: &OwnedFd) -> io::Result<()> {
    own(stat, of, OsStr::new(""))?;
    fchmod(of, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(of, &times(stat))?)
}

fn own(stat: &Stat, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    match chownat(parent, name, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), flags) {
        // Somebody else's file, which an ordinary user's sandbox saw as nobody's: its copy is the user's.
        Err(Errno::PERM | Errno::INVAL) if !outer::is_host_root() => Ok(()),
        other => Ok(other?),
    }
}

fn times(stat: &Stat) -> Timestamps {
    let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}

/// Those that a layer keeps, as far as memory can have them.
fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    for (name, value) in xattrs(from)? {
        match fsetxattr(to, &name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
