//! A tree that is copied from: a build context, or the layers of an image. No path leads out of it.

use super::{CopyError, normal};
use crate::content::Content;
use crate::pattern::{Ignore, name_matches};
use cofferdam_sys::mount::{FsOption, attr, new_fs};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, Stat, openat2, statat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A tree that is copied from.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    /// What is left out of it.
    pub ignore: Ignore,
    /// Whether owners are those of the image they come from, or nobody's.
    pub(super) owned: bool,
}

impl View {
    /// A build context.
    pub fn context(path: &Path) -> io::Result<Self> {
        let ignore = match std::fs::read_to_string(path.join(".dockerignore")) {
            Ok(text) => Ignore::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ignore::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { root: File::open(path)?.into(), ignore, owned: false })
    }

    /// The layers of an image or a stage, put together; lowest first.
    pub fn of_layers(content: &Content, layers: &[Arc<OwnedFd>]) -> io::Result<Self> {
        // A stack is of two at least.
        let empty = content.directory("layers").map_err(io::Error::other)?.join("empty");
        let _ = std::fs::create_dir(&empty);
        let empty = File::open(&empty)?;
        let tops = layers.iter().rev().map(|layer| layer.as_fd());
        let mut options: Vec<FsOption<'_>> = tops.map(|layer| FsOption::Fd("lowerdir+", layer)).collect();
        options.push(FsOption::Fd("lowerdir+", empty.as_fd()));
        if options.len() == 1 {
            return Ok(Self { root: empty.into(), ignore: Ignore::default(), owned: true });
        }
        let root = new_fs("overlay", &options, attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV).map_err(|error| error.source)?;
        Ok(Self { root, ignore: Ignore::default(), owned: true })
    }

    /// A tree that was unpacked here.
    pub(super) fn unpacked(root: OwnedFd) -> Self {
        Self { root, ignore: Ignore::default(), owned: true }
    }

    /// What a message calls it.
    pub(super) const fn name(&self) -> &'static str {
        if self.owned { "that image" } else { "the build context (or .dockerignore leaves it out)" }
    }

    pub(super) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Follows links, as for what a COPY names itself.
    pub(super) fn stat(&self, path: &Path) -> rustix::io::Result<Stat> {
        statat(self.open(path, OFlags::PATH)?, "", AtFlags::EMPTY_PATH)
    }

    /// A regular file as text, at most so many bytes of it; None if there is none.
    pub fn text(&self, path: &Path, most: u64) -> io::Result<Option<String>> {
        use std::io::Read;
        let opened = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK);
        let file = match opened {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => return Ok(None),
            other => File::from(other?),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The names in a directory, sorted.
    pub fn names(&self, path: &Path) -> Result<Vec<OsString>, CopyError> {
        let failed = |error: Errno| CopyError::Io { path: path.to_owned(), source: error.into() };
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn leaves_out(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && self.ignore.excludes(&path.to_string_lossy())
    }

    /// The paths that a pattern stands for, sorted.
    pub(super) fn matching(&self, pattern: &str) -> Result<Vec<PathBuf>, CopyError> {
        let clean = normal(Path::new(pattern));
        let wild = |part: &str| part.contains(['*', '?', '[']);
        if !wild(pattern) {
            let there = !self.leaves_out(&clean) && self.stat(&clean).is_ok();
            return if there { Ok(vec![clean]) } else { Ok(Vec::new()) };
        }
        let mut found = vec![PathBuf::new()];
        for part in clean.components() {
            let part = part.as_os_str().to_string_lossy().into_owned();
            let mut next = Vec::new();
            for directory in &found {
                if !wild(&part) {
                    next.push(directory.join(&part));
                    continue;
                }
                for name in self.names(directory).unwrap_or_default() {
                    if name_matches(&part, &name.to_string_lossy()) {
                        next.push(directory.join(name));
                    }
                }
            }
            found = next;
        }
        found.retain(|path| !self.leaves_out(path) && self.stat(path).is_ok());
        Ok(found)
    }
}
