//! Directories above each other, read as an overlay reads them: the topmost of a name counts, a whiteout hides those below, a directory
//! goes on below unless it is opaque.

use cofferdam_trust::unpack::{is_whiteout, opaque_attribute};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, openat, statat};
use rustix::io::{Errno, Result};
use std::collections::{BTreeMap, btree_map};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One directory of them.
#[derive(Debug)]
pub struct Merged {
    /// Topmost first; nothing below an opaque one.
    places: Vec<OwnedFd>,
}

/// What a name is, and where.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Of the topmost.
    pub stat: Stat,
    place: usize,
}

impl Entry {
    /// Its kind.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Merged {
    /// Of trees, the topmost first. A root hides nothing, whatever it says.
    pub fn new(roots: &[impl AsFd]) -> Result<Self> {
        let places: Result<Vec<OwnedFd>> = roots.iter().map(|root| openat(root, ".", DIRECTORY, Mode::empty())).collect();
        Ok(Self { places: places? })
    }

    /// What is in it.
    pub fn entries(&self) -> Result<BTreeMap<OsString, Entry>> {
        let mut found = BTreeMap::new();
        for (place, directory) in self.places.iter().enumerate() {
            for name in names(directory)? {
                if let btree_map::Entry::Vacant(free) = found.entry(name) {
                    let stat = statat(directory, free.key(), AtFlags::SYMLINK_NOFOLLOW)?;
                    free.insert(Entry { stat, place });
                }
            }
        }
        found.retain(|_, entry| !is_whiteout(&entry.stat));
        Ok(found)
    }

    /// A directory in it.
    pub fn below(&self, name: &OsStr, entry: &Entry) -> Result<Self> {
        let mut merged = Self { places: Vec::new() };
        for place in self.places.iter().skip(entry.place) {
            match openat(place, name, DIRECTORY, Mode::empty()) {
                Ok(directory) => {
                    if merged.go_on(directory)? {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // Something else, which hides what is below.
                Err(Errno::NOTDIR | Errno::LOOP) if !merged.places.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(merged)
    }

    /// Where an entry of it lies.
    pub fn place(&self, entry: &Entry) -> &OwnedFd {
        &self.places[entry.place]
    }

    /// The directory itself, as its attributes have it.
    pub fn top(&self) -> Option<&OwnedFd> {
        self.places.first()
    }

    /// True if nothing below it counts.
    fn go_on(&mut self, directory: OwnedFd) -> Result<bool> {
        let mut value = [0; 1];
        let opaque = match fgetxattr(&directory, opaque_attribute(), &mut value) {
            Ok(length) => &value[..length] == b"y",
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => false,
            Err(error) => return Err(error),
        };
        self.places.push(directory);
        Ok(opaque)
    }
}

/// The names in a directory, in no order.
pub fn names(directory: &OwnedFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// A directory in another.
pub fn open_directory(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    openat(parent, name, DIRECTORY, Mode::empty())
}
