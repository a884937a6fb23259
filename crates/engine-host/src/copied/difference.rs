//! What was changed in a copy: each of its names is compared with what it was copied from.

use super::merged::{Merged, names, open_directory};
use super::{Original, merged};
use cofferdam_sys::outer;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Who owns what is owned by no id of a user namespace.
const NOBODY: u32 = 65_534;

/// How a copy differs.
#[derive(Debug, Default)]
pub struct Difference {
    /// What is as it was, directories left out.
    pub same: HashSet<PathBuf>,
    /// Directories that are as they were; what is in them may not be.
    pub same_directories: HashSet<PathBuf>,
    /// What is not there any more, by its directory.
    pub gone: BTreeMap<PathBuf, Vec<OsString>>,
}

impl Original {
    /// How a copy differs from it now.
    pub fn difference(&self, copy: &OwnedFd) -> io::Result<Difference> {
        let mut comparing = Comparing { at: self.at, found: Difference::default() };
        comparing.directory(&merged(None, &self.lowers)?, copy, Path::new(""))?;
        Ok(comparing.found)
    }
}

struct Comparing {
    at: (i64, i64),
    found: Difference,
}

impl Comparing {
    fn directory(&mut self, original: &Merged, copy: &OwnedFd, path: &Path) -> io::Result<()> {
        let present: HashSet<OsString> = names(copy)?.into_iter().collect();
        let mut gone = Vec::new();
        for (name, entry) in original.entries()? {
            let place = path.join(&name);
            // Sockets and devices were not copied.
            let copied = matches!(entry.kind(), FileType::Directory | FileType::RegularFile | FileType::Symlink | FileType::Fifo);
            if !present.contains(&name) {
                gone.extend(copied.then_some(name));
                continue;
            }
            let now = match statat(copy, &name, AtFlags::SYMLINK_NOFOLLOW) {
                // Gone meanwhile.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let directories = [now.st_mode, entry.stat.st_mode].map(|mode| FileType::from_raw_mode(mode) == FileType::Directory);
            match directories {
                [true, true] => {
                    if same_attributes(&entry.stat, &now) {
                        self.found.same_directories.insert(place.clone());
                    }
                    self.directory(&original.below(&name, &entry)?, &open_directory(copy, &name)?, &place)?;
                }
                [false, false] if copied && self.is_same(original.place(&entry), &entry.stat, copy, &now, &name)? => {
                    self.found.same.insert(place);
                }
                _ => {}
            }
        }
        if !gone.is_empty() {
            self.found.gone.insert(path.to_owned(), gone);
        }
        Ok(())
    }

    fn is_same(&self, original: &OwnedFd, then: &Stat, copy: &OwnedFd, now: &Stat, name: &OsStr) -> io::Result<bool> {
        let times = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if then.st_mode != now.st_mode || !same_attributes(then, now) || times(then) != times(now) {
            return Ok(false);
        }
        match FileType::from_raw_mode(now.st_mode) {
            FileType::RegularFile if then.st_size != now.st_size => Ok(false),
            // No call sets this time, and that of the copy's root was set last: what was written to since has no earlier one.
            FileType::RegularFile if change_time(now) < self.at => Ok(true),
            FileType::RegularFile => same_bytes(open(original, name)?, open(copy, name)?),
            FileType::Symlink => Ok(readlinkat(original, name, Vec::new())? == readlinkat(copy, name, Vec::new())?),
            _ => Ok(true),
        }
    }
}

/// Seconds and nanoseconds.
pub fn change_time(stat: &Stat) -> (i64, i64) {
    (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

/// Mode and owner. Somebody else's file, who has no id where an ordinary user is, was copied as the user's.
fn same_attributes(then: &Stat, now: &Stat) -> bool {
    let owner = |then: u32, now: u32| then == now || (then == NOBODY && !outer::is_host_root());
    then.st_mode & 0o7777 == now.st_mode & 0o7777 && owner(then.st_uid, now.st_uid) && owner(then.st_gid, now.st_gid)
}

fn open(directory: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?.into())
}

fn same_bytes(mut one: File, mut other: File) -> io::Result<bool> {
    const BUFFER: usize = 64 << 10;
    let (mut of_one, mut of_other) = (Vec::with_capacity(BUFFER), Vec::with_capacity(BUFFER));
    loop {
        for (file, buffer) in [(&mut one, &mut of_one), (&mut other, &mut of_other)] {
            buffer.clear();
            file.take(BUFFER as u64).read_to_end(buffer)?;
        }
        if of_one != of_other {
            return Ok(false);
        }
        if of_one.is_empty() {
            return Ok(true);
        }
    }
}
