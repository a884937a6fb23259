//! The layers below one: what a process would see of them, put together.

use cofferdam_sys::outer;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The attribute that makes a directory hide those below it: of the two that the kernel knows, the one that this user may set.
pub fn opaque_attribute() -> &'static str {
    if outer::is_host_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

/// Layers, topmost first.
#[derive(Clone, Debug, Default)]
pub struct Lowers {
    layers: Vec<Arc<OwnedFd>>,
}

/// What is at a path.
#[derive(Debug)]
pub enum Found {
    /// A directory.
    Directory(Stat),
    /// A link, and where it leads.
    Link(CString),
    /// A regular file: its attributes, and it, opened to be read.
    File(Stat, OwnedFd),
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

impl Lowers {
    /// These layers, topmost first.
    pub const fn new(layers: Vec<Arc<OwnedFd>>) -> Self {
        Self { layers }
    }

    /// A path without links, as far as it exists.
    pub fn canonical(&self, path: &Path) -> PathBuf {
        const MOST_LINKS: usize = 40;
        let mut place = PathBuf::new();
        let mut left: std::collections::VecDeque<std::ffi::OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            match Path::new(&part).components().next() {
                Some(std::path::Component::Normal(_)) => {}
                Some(std::path::Component::ParentDir) => {
                    place.pop();
                    continue;
                }
                _ => continue,
            }
            let next = place.join(&part);
            match self.look(&next) {
                Ok(Found::Link(target)) if links < MOST_LINKS => {
                    links += 1;
                    let target = PathBuf::from(std::ffi::OsStr::from_bytes(target.as_bytes()));
                    if target.is_absolute() {
                        place = PathBuf::new();
                    }
                    target.components().rev().for_each(|part| left.push_front(part.as_os_str().to_owned()));
                }
                _ => place = next,
            }
        }
        place
    }

    /// What is at a path none of whose directories is a link.
    pub fn look(&self, path: &Path) -> rustix::io::Result<Found> {
        for layer in &self.layers {
            match look_in(layer, path)? {
                Here::Is(found) => return Ok(found),
                Here::Hidden => return Ok(Found::Nothing),
                Here::Absent => {}
            }
        }
        Ok(Found::Nothing)
    }
}

enum Here {
    Is(Found),
    Hidden,
    Absent,
}

/// Whether a character device is overlayfs's sign for "nothing here".
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn look_in(layer: &OwnedFd, path: &Path) -> rustix::io::Result<Here> {
    let mut walked = PathBuf::new();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        walked.push(part);
        let stat = match statat(layer, &walked, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => {
                let parent = walked.parent().unwrap_or(Path::new(""));
                return Ok(if is_opaque(layer, parent)? { Here::Hidden } else { Here::Absent });
            }
            Err(error) => return Err(error),
        };
        if is_whiteout(&stat) {
            return Ok(Here::Hidden);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if parts.peek().is_none() {
            return Ok(Here::Is(found(layer, &walked, stat, kind)?));
        }
        if kind != FileType::Directory {
            return Ok(Here::Hidden);
        }
    }
    Ok(Here::Absent)
}

fn found(layer: &OwnedFd, path: &Path, stat: Stat, kind: FileType) -> rustix::io::Result<Found> {
    Ok(match kind {
        FileType::Directory => Found::Directory(stat),
        FileType::Symlink => Found::Link(readlinkat(layer, path, Vec::new())?),
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Found::File(stat, openat2(layer, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?)
        }
        _ => Found::Other,
    })
}

fn is_opaque(layer: &OwnedFd, path: &Path) -> rustix::io::Result<bool> {
    if path.as_os_str().is_empty() {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat2(layer, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
    let mut value = [0; 1];
    match rustix::fs::fgetxattr(directory.as_fd(), opaque_attribute(), &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}
