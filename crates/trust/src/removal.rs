//! Removal of a tree that somebody else has filled: however deep it is, whatever rights its directories have.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, fchmod, openat, renameat, statat, unlinkat};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Directories that are open at once; what is deeper is moved up first.
const DEEPEST: u32 = 64;
/// Names that are held at once.
const MOST_NAMES: usize = 4096;

/// Removes a tree, or a file; nothing there is fine. Links are not followed. Nobody else may write there meanwhile.
///
/// On NFS a file that is still open stays, under another name, and with it the directories above: then the error is that of a directory that is
/// not empty, and everything else is gone.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let top = match open(CWD, &name) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        other => other?,
    };
    Removal { top: &top, moved: 0 }.empty(&top, 0)?;
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Opens a directory, which its owner may read afterwards.
fn open(parent: impl std::os::fd::AsFd, name: &CStr) -> Result<OwnedFd> {
    match openat(&parent, name, DIRECTORY, Mode::empty()) {
        // Where no capability counts (NFS), or there is none.
        Err(Errno::ACCESS) if is_directory(&parent, name)? => {
            chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(&parent, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

fn is_directory(parent: impl std::os::fd::AsFd, name: &CStr) -> Result<bool> {
    Ok(FileType::from_raw_mode(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode) == FileType::Directory)
}

struct Removal<'a> {
    top: &'a OwnedFd,
    moved: u64,
}

impl Removal<'_> {
    fn empty(&mut self, directory: &OwnedFd, depth: u32) -> Result<()> {
        loop {
            let mut removed = false;
            for name in names(directory)? {
                removed |= self.entry(directory, &name, depth)?;
            }
            if !removed {
                return Ok(());
            }
        }
    }

    /// True if it is not there any more.
    fn entry(&mut self, parent: &OwnedFd, name: &CStr, depth: u32) -> Result<bool> {
        let done = match is_directory(parent, name) {
            Ok(true) if depth < DEEPEST => {
                self.empty(&open(parent, name)?, depth + 1)?;
                writing(parent, || unlinkat(parent, name, AtFlags::REMOVEDIR))
            }
            Ok(true) => {
                self.moved += 1;
                let up = format!(".deeper-{}", self.moved);
                writing(parent, || renameat(parent, name, self.top, up.as_str()))
            }
            Ok(false) => writing(parent, || unlinkat(parent, name, AtFlags::empty())),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Nothing can be removed from a directory that its owner may not write to, where no capability counts.
fn writing(parent: &OwnedFd, work: impl Fn() -> Result<()>) -> Result<()> {
    match work() {
        Err(Errno::ACCESS) => {
            fchmod(parent, Mode::RWXU)?;
            work()
        }
        other => other,
    }
}

fn names(directory: &OwnedFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() >= MOST_NAMES {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::fs;

    /// Deeper than descriptors, stack or a path would reach.
    #[test]
    fn however_deep() {
        const LEVELS: u32 = 30_000;
        let directory = tempfile::tempdir().expect("a directory");
        let whole = directory.path().join("whole");
        fs::create_dir_all(whole.join("beside/it")).expect("made");
        let mut place = openat(CWD, &whole, DIRECTORY, Mode::empty()).expect("opened");
        for level in 0..LEVELS {
            mkdirat(&place, "d", Mode::RWXU).expect("made");
            place = openat(&place, "d", DIRECTORY, Mode::empty()).expect("opened");
            if level % 1000 == 0 {
                drop(openat(&place, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).expect("made"));
            }
        }
        drop(place);
        remove_tree(&whole).expect("removed");
        assert!(!whole.exists());
    }

    #[test]
    fn many_files_links_and_what_is_no_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let (whole, kept) = (directory.path().join("whole"), directory.path().join("kept"));
        fs::create_dir_all(&kept).and_then(|()| fs::write(kept.join("file"), "kept")).expect("made");
        fs::create_dir(&whole).expect("made");
        std::os::unix::fs::symlink(&kept, whole.join("link")).expect("linked");
        for number in 0..MOST_NAMES + 10 {
            fs::write(whole.join(number.to_string()), "").expect("written");
        }
        remove_tree(&whole).expect("removed");
        assert!(!whole.exists() && kept.join("file").exists());
        remove_tree(&whole).expect("nothing is there");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&kept, &link).expect("linked");
        remove_tree(&link).expect("removed");
        assert!(fs::symlink_metadata(&link).is_err() && kept.join("file").exists());
    }
}
