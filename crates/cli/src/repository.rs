//! What a sandbox changed of a repository that it had a view of: as a patch, on a branch, or in the tree itself.
//!
//! The sandbox is not trusted: nothing of git's own comes back, no link of the tree is followed, no hook and no setting that was written
//! inside is ever looked at, and nothing that was changed meanwhile is overwritten unless the user says so.

mod branch;
mod patch;
mod tree;

pub use branch::{Branch, to_branch};
pub use patch::patch;
pub use tree::to_tree;

use crate::context::Context;
use crate::exit::{FAILED, Failure};
use cofferdam_lifecycle::control::{Reply, Request};
use cofferdam_lifecycle::supervisor::CHANGES;
use cofferdam_model::{SandboxRecord, Timestamp};
use cofferdam_trust::changes::{self, Now};
use cofferdam_trust::content::Content;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A file, executable or not.
    File(Vec<u8>, bool),
    /// A link.
    Link(PathBuf),
}

/// One path that is not what it was.
#[derive(Debug)]
pub struct Difference {
    /// From the tree's root.
    pub path: PathBuf,
    /// What the host has.
    pub before: Option<Item>,
    /// What the sandbox has.
    pub after: Option<Item>,
    /// Whether the host's was changed after the sandbox was made.
    pub meanwhile: bool,
}

/// What a sandbox changed.
pub struct Changed {
    /// The tree on the host.
    pub source: PathBuf,
    /// Path by path.
    pub differences: Vec<Difference>,
    /// What does not come back, and why.
    pub left_out: Vec<String>,
}

impl Changed {
    /// Of a sandbox that ran with `--repo`, running or ended.
    pub fn of(context: &Context, record: &SandboxRecord) -> Result<Self, Failure> {
        let view = record.view.as_ref().ok_or_else(|| {
            let message = format!("sandbox {} has no copy of a repository", record.id.short());
            Failure::new(FAILED, "unsupported", message).remedy("run it with --repo DIR")
        })?;
        let kept = context.data.sandbox(record.id).join(CHANGES);
        let (now, left_out) = if record.phase.is_final() {
            let gone =
                |error| Failure::new(FAILED, "not_found", format!("what sandbox {} changed is not here: {error}", record.id.short()));
            changes::read(&kept).map_err(gone)?
        } else {
            let content = Content::of(context.data.path());
            let file = tempfile::Builder::new().prefix("changes-").tempfile_in(content.directory("partial")?)?;
            let client = context.connect(record)?;
            client.send(&Request::Changes { epoch: i64::MAX, of_view: true }, &[file.as_file().as_fd()])?;
            match client.answer()? {
                Reply::Changed(_) => changes::read(file.path())?,
                other => return Err(Failure::new(FAILED, "protocol", format!("unexpected answer {other:?}"))),
            }
        };
        let root = Root::open(&view.source)?;
        let failed = |error| Failure::new(FAILED, "io", format!("{}: {error}", view.source.display()));
        let differences = differences(&root, &now, record.created_at).map_err(failed)?;
        Ok(Self { source: view.source.clone(), differences, left_out })
    }

    /// Says what does not come back.
    pub fn tell_left_out(&self) {
        for left in &self.left_out {
            crate::output::note!("cofferdam: left out: {}", crate::output::printable(left));
        }
    }
}

/// A tree of the host, looked at without following any link.
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// The tree there. The path was real when the sandbox was made: a link on it came later, and is not followed.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS);
        let gone = |error| Failure::new(FAILED, "not_found", format!("{}: {error}", path.display()));
        Ok(Self { fd: fd.map_err(gone)? })
    }

    fn enter(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn stat(&self, path: &Path) -> rustix::io::Result<Option<Stat>> {
        let parent = match self.enter(path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
        match statat(parent, path.file_name().unwrap_or_default(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn item(&self, path: &Path, stat: &Stat) -> std::io::Result<Option<Item>> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let mut file = std::fs::File::from(self.enter(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut file, &mut bytes)?;
                Ok(Some(Item::File(bytes, stat.st_mode & 0o111 != 0)))
            }
            FileType::Symlink => {
                let parent = self.enter(path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
                let target = readlinkat(parent, path.file_name().unwrap_or_default(), Vec::new())?;
                Ok(Some(Item::Link(OsString::from_vec(target.into_bytes()).into())))
            }
            _ => Ok(None),
        }
    }

    /// Files and links below a directory, git's own left out.
    fn below(&self, path: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        let directory = self.enter(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if name == "." || name == ".." || name == ".git" {
                continue;
            }
            let place = path.join(&name);
            match self.stat(&place)? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => self.below(&place, found)?,
                Some(_) => found.push(place),
                None => {}
            }
        }
        Ok(())
    }
}

/// Where the host and the sandbox differ.
fn differences(root: &Root, now: &BTreeMap<PathBuf, Now>, since: Timestamp) -> std::io::Result<Vec<Difference>> {
    let mut wanted: BTreeMap<PathBuf, Option<Item>> = BTreeMap::new();
    for (path, now) in now {
        let directory = root.stat(path)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let emptied = matches!(now, Now::Directory(true) | Now::Gone | Now::File(..) | Now::Link(_)) && directory;
        if emptied {
            let mut below = Vec::new();
            root.below(path, &mut below)?;
            for gone in below {
                wanted.entry(gone).or_insert(None);
            }
        }
        match now {
            Now::File(bytes, executable) => drop(wanted.insert(path.clone(), Some(Item::File(bytes.clone(), *executable)))),
            Now::Link(target) => drop(wanted.insert(path.clone(), Some(Item::Link(target.clone())))),
            Now::Gone => drop(wanted.entry(path.clone()).or_insert(None)),
            // A file of that name is in the way.
            Now::Directory(_) if !directory => drop(wanted.entry(path.clone()).or_insert(None)),
            Now::Directory(_) => {}
        }
    }
    let mut found = Vec::new();
    for (path, after) in wanted {
        let stat = root.stat(&path)?;
        let before = match &stat {
            Some(stat) => root.item(&path, stat)?,
            None => None,
        };
        if before != after {
            let changed =
                |stat: &Stat| (stat.st_ctime, stat.st_ctime_nsec as i64) > (since.as_second(), i64::from(since.subsec_nanosecond()));
            let meanwhile = stat.as_ref().is_some_and(changed);
            found.push(Difference { path, before, after, meanwhile });
        }
    }
    Ok(found)
}
