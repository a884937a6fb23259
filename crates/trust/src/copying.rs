//! COPY and ADD: what of a tree goes where in an image.
//!
//! First a plan, which can be hashed without writing anything; then the plan as a layer. The tree is a build context or another
//! stage; no path leads out of it, links included.

mod view;

pub use view::View;

use crate::content::{Content, Hasher};
use crate::dockerfile::Heredoc;
use crate::pack::{EPOCH, Entry, LayerWriter};
use crate::pattern::path_matches;
use crate::unpack::{self, Budget, Found, Lowers};
use cofferdam_model::image::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Directories in each other.
const DEEPEST: usize = 256;
const MOST_ENTRIES: usize = 2_000_000;

/// What cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Nothing is there.
    #[error("{0:?} is not in {1}")]
    Missing(String, &'static str),
    /// It cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An archive that cannot be unpacked.
    #[error("ADD {path}: {why}")]
    Archive {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Something that is no file, directory or link.
    #[error("{0:?} is neither a file nor a directory nor a link")]
    Special(String),
    /// More than is copied.
    #[error("{0}")]
    Beyond(String),
}

/// What is to be copied.
pub struct Wanted<'a> {
    /// Paths and patterns.
    pub paths: Vec<String>,
    /// Texts, with their names.
    pub texts: Vec<Heredoc>,
    /// Where to, as written.
    pub target: &'a str,
    /// Where relative targets begin.
    pub workdir: &'a str,
    /// The image so far.
    pub below: &'a Lowers,
    /// Owner of everything.
    pub owner: Option<(u32, u32)>,
    /// Mode of everything that is copied.
    pub mode: Option<u32>,
    /// Archives are unpacked.
    pub add: bool,
    /// Patterns of what is left out.
    pub exclude: &'a [String],
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File {
        source: PathBuf,
        size: u64,
    },
    Link(OsString),
    Text(Vec<u8>),
    /// An archive's contents, unpacked there.
    Unpacked(Arc<crate::content::MakingLayer>, PathBuf, u64),
}

#[derive(Clone, Debug)]
struct Item {
    to: PathBuf,
    entry: Entry,
    kind: Kind,
}

/// What goes where.
#[derive(Debug, Default)]
pub struct Plan {
    items: Vec<Item>,
    made: BTreeSet<PathBuf>,
}

/// A path without `.`, `..` and a leading `/`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// A path in an image as a process that starts in `workdir` means it, from the root.
pub fn absolute(workdir: &str, path: &str) -> PathBuf {
    let whole = if path.starts_with('/') { PathBuf::from(path) } else { Path::new(workdir).join(path) };
    normal(&whole)
}

impl Plan {
    /// Decides what goes where.
    pub fn make(view: &View, wanted: &Wanted<'_>, content: &Content) -> Result<Self, CopyError> {
        let mut plan = Self::default();
        let mut sources = Vec::new();
        for pattern in &wanted.paths {
            let found = view.matching(pattern)?;
            if found.is_empty() {
                return Err(CopyError::Missing(pattern.clone(), view.name()));
            }
            sources.extend(found);
        }
        let target = wanted.below.canonical(&absolute(wanted.workdir, wanted.target));
        let ends_as_directory = wanted.target.ends_with('/') || wanted.target == "." || wanted.target.ends_with("/.");
        let is_directory = matches!(wanted.below.look(&target), Ok(Found::Directory(_))) || target.as_os_str().is_empty();
        let into = ends_as_directory || is_directory || sources.len() + wanted.texts.len() > 1;
        for source in sources {
            plan.source(view, wanted, content, &source, &target, into)?;
        }
        for text in &wanted.texts {
            let to = if into { target.join(&text.name) } else { target.clone() };
            plan.ancestors(&to, wanted);
            let (uid, gid) = wanted.owner.unwrap_or_default();
            let entry = Entry { uid, gid, mode: wanted.mode.unwrap_or(0o644), mtime: EPOCH };
            plan.items.push(Item { to, entry, kind: Kind::Text(text.body.clone().into_bytes()) });
        }
        Ok(plan)
    }

    fn source(
        &mut self,
        view: &View,
        wanted: &Wanted<'_>,
        content: &Content,
        source: &Path,
        target: &Path,
        into: bool,
    ) -> Result<(), CopyError> {
        let stat = view.stat(source).map_err(|error| CopyError::Io { path: source.to_owned(), source: error.into() })?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.ancestors(&target.join("."), wanted);
                self.directory(target, wanted, &stat, view);
                self.contents(view, wanted, source, source, target)
            }
            FileType::RegularFile => {
                if wanted.add && self.archive(view, wanted, content, source, target)? {
                    return Ok(());
                }
                let name = source.file_name().unwrap_or_default();
                let to = if into { target.join(name) } else { target.to_owned() };
                self.ancestors(&to, wanted);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.items.push(Item { to, entry: entry(&stat, wanted, view), kind: Kind::File { source: source.to_owned(), size } });
                Ok(())
            }
            _ => Err(CopyError::Special(source.display().to_string())),
        }
    }

    /// What a directory holds, below `target`.
    fn contents(&mut self, view: &View, wanted: &Wanted<'_>, top: &Path, directory: &Path, target: &Path) -> Result<(), CopyError> {
        for name in view.names(directory)? {
            let path = directory.join(&name);
            let out = view.leaves_out(&path) || excluded(wanted.exclude, path.strip_prefix(top).unwrap_or(&path));
            let failed = |error: Errno| CopyError::Io { path: path.clone(), source: error.into() };
            let parent = view.open(directory, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
            let stat = statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let to = target.join(&name);
            if path.components().count() > DEEPEST {
                return Err(CopyError::Beyond(format!("{}: more than {DEEPEST} directories are in each other there", top.display())));
            }
            if self.items.len() >= MOST_ENTRIES {
                return Err(CopyError::Beyond(format!("{}: more than {MOST_ENTRIES} files", directory.display())));
            }
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    if !out || view.ignore.has_exceptions() {
                        let before = self.items.len();
                        self.items.push(Item { to: to.clone(), entry: entry(&stat, wanted, view), kind: Kind::Directory });
                        self.contents(view, wanted, top, &path, &to)?;
                        if out && self.items.len() == before + 1 {
                            self.items.pop();
                        }
                    }
                    continue;
                }
                _ if out => continue,
                FileType::Symlink => Kind::Link(OsString::from_vec(readlinkat(&parent, &name, Vec::new()).map_err(failed)?.into_bytes())),
                FileType::RegularFile => Kind::File { source: path.clone(), size: u64::try_from(stat.st_size).unwrap_or(0) },
                // Sockets and pipes of a working tree are no part of an image.
                _ => continue,
            };
            self.items.push(Item { to, entry: entry(&stat, wanted, view), kind });
        }
        Ok(())
    }

    fn directory(&mut self, target: &Path, wanted: &Wanted<'_>, stat: &Stat, view: &View) {
        let exists = matches!(wanted.below.look(target), Ok(Found::Directory(_))) || target.as_os_str().is_empty();
        if !exists && self.made.insert(target.to_owned()) {
            self.items.push(Item { to: target.to_owned(), entry: entry(stat, wanted, view), kind: Kind::Directory });
        }
    }

    /// The directories above a place: those of the image as they are, new ones as root makes them.
    fn ancestors(&mut self, to: &Path, wanted: &Wanted<'_>) {
        let mut above: Vec<&Path> = to.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for path in above {
            if !self.made.insert(path.to_owned()) {
                continue;
            }
            let entry = if let Ok(Found::Directory(stat)) = wanted.below.look(path) {
                Entry::of(&stat)
            } else {
                let (uid, gid) = wanted.owner.unwrap_or_default();
                Entry { uid, gid, ..Entry::directory() }
            };
            self.items.push(Item { to: path.to_owned(), entry, kind: Kind::Directory });
        }
    }

    /// True if the file was an archive; its contents are then in the plan.
    fn archive(&mut self, view: &View, wanted: &Wanted<'_>, content: &Content, source: &Path, target: &Path) -> Result<bool, CopyError> {
        let failed = |why: String| CopyError::Archive { path: source.display().to_string(), why };
        let open = || view.open(source, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from).map_err(|error| failed(error.to_string()));
        let mut head = [0; 512];
        let read = open()?.read(&mut head).map_err(|error| failed(error.to_string()))?;
        if head.starts_with(b"BZh") {
            return Err(failed(
                "bzip2 archives are not unpacked here; compress it with gzip, xz or zstd, or COPY it and unpack it in RUN".into(),
            ));
        }
        let packed = [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd], crate::layout::XZ].iter().any(|magic| head.starts_with(magic));
        let plain_tar = read == head.len() && &head[257..262] == b"ustar";
        if !packed && !plain_tar {
            return Ok(false);
        }
        let mut plain = crate::layout::plain(open()?).map_err(|error| failed(error.to_string()))?;
        if packed {
            let read = plain.read(&mut head).unwrap_or(0);
            if read < 262 || &head[257..262] != b"ustar" {
                return Ok(false);
            }
            plain = crate::layout::plain(open()?).map_err(|error| failed(error.to_string()))?;
        }
        let making = Arc::new(content.begin_layer().map_err(|error| failed(error.to_string()))?);
        unpack::unpack(plain, making.root().as_fd(), None, Budget::default()).map_err(|error| failed(error.to_string()))?;
        self.ancestors(&target.join("."), wanted);
        let unpacked = View::unpacked(making.root().try_clone().map_err(|error| failed(error.to_string()))?);
        let first = self.items.len();
        let whole = Wanted { paths: Vec::new(), texts: Vec::new(), mode: None, exclude: &[], ..*wanted };
        self.contents(&unpacked, &whole, Path::new(""), Path::new(""), target)?;
        for item in &mut self.items[first..] {
            if let Kind::File { source, size } = &item.kind {
                item.kind = Kind::Unpacked(Arc::clone(&making), source.clone(), *size);
            }
        }
        Ok(true)
    }

    /// Stands for everything that will be written, times left out.
    pub fn digest(&self, view: &View) -> Result<Digest, CopyError> {
        let mut all = Hasher::default();
        for item in &self.items {
            let Entry { uid, gid, mode, .. } = item.entry;
            all.update(format!("{uid} {gid} {mode:o} {} ", item.to.as_os_str().len()).as_bytes());
            all.update(item.to.as_os_str().as_bytes());
            match &item.kind {
                Kind::Directory => all.update(b"d"),
                Kind::Link(target) => all.update(&[b"l", target.as_bytes(), b"\0"].concat()),
                Kind::Text(text) => all.update(&[b"f", crate::content::sha256(text).as_str().as_bytes()].concat()),
                Kind::File { source, .. } | Kind::Unpacked(_, source, _) => {
                    let mut one = Hashing(Hasher::default());
                    let mut file = item.open(view)?;
                    io::copy(&mut file, &mut one).map_err(|e| CopyError::Io { path: source.clone(), source: e })?;
                    all.update(&[b"f", one.0.finish().as_str().as_bytes()].concat());
                }
            }
        }
        Ok(all.finish())
    }

    /// Writes it.
    pub fn write<W: Write>(&self, view: &View, out: &mut LayerWriter<W>) -> Result<(), CopyError> {
        for item in &self.items {
            let failed = |source| CopyError::Io { path: item.to.clone(), source };
            match &item.kind {
                Kind::Directory => out.directory(&item.to, item.entry).map_err(failed)?,
                Kind::Link(target) => out.symlink(&item.to, target, item.entry).map_err(failed)?,
                Kind::Text(text) => out.file(&item.to, item.entry, text.len() as u64, text.as_slice()).map_err(failed)?,
                Kind::File { size, .. } | Kind::Unpacked(_, _, size) => {
                    out.file(&item.to, item.entry, *size, item.open(view)?).map_err(failed)?;
                }
            }
        }
        Ok(())
    }
}

struct Hashing(Hasher);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Item {
    fn open(&self, view: &View) -> Result<File, CopyError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (source, opened) = match &self.kind {
            Kind::File { source, .. } => (source, view.open(source, flags)),
            Kind::Unpacked(tree, source, _) => {
                (source, openat2(tree.root(), source, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS))
            }
            _ => return Err(CopyError::Special(self.to.display().to_string())),
        };
        opened.map(File::from).map_err(|error| CopyError::Io { path: source.clone(), source: error.into() })
    }
}

fn excluded(patterns: &[String], path: &Path) -> bool {
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split('/').collect();
    patterns.iter().any(|pattern| path_matches(&pattern.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>(), &parts))
}

/// Of the context everything is root's; an image's files keep their owners.
fn entry(stat: &Stat, wanted: &Wanted<'_>, view: &View) -> Entry {
    let own = Entry::of(stat);
    let (uid, gid) = wanted.owner.unwrap_or(if view.owned { (own.uid, own.gid) } else { (0, 0) });
    let mode = wanted.mode.unwrap_or(own.mode);
    Entry { uid, gid, mode, mtime: own.mtime }
}
