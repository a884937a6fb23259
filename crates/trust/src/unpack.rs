//! A layer's archive becomes a directory that overlayfs understands.
//!
//! Nothing of the archive is believed. Every path is walked by this code, component by component, below the layer's own root;
//! links are followed as a process inside would see them, never the kernel's way. Entry count, bytes and ratio are bounded.
//! Devices are left out (a sandbox has its own), whiteouts become character devices 0:0 and opaque directories an extended
//! attribute, as `Documentation/filesystems/overlayfs` says.
//!
//! Layers are unpacked beside each other, each without those below it. Where a layer leaves out the directories above its
//! entries, it takes them from below, so such a layer is looked at again once those are there ([`Unpacked::implicit`]).

mod attributes;
mod lower;
mod pax;
mod tree;

pub use lower::{Found, Lowers, is_whiteout, opaque_attribute};
pub use tree::complete;

use attributes::Attributes;
use pax::Extended;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};
use tree::Tree;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const METADATA: &[u8] = b".wh..wh.";
const MOST_SKIPPED: usize = 100;

/// How much a layer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of all files together, and of the archive.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of the archive for each byte as stored, counted once it is larger than [`Budget::RATIO_FROM`].
    pub ratio: u64,
}

impl Budget {
    /// Archives below this may be as compressed as they like.
    pub const RATIO_FROM: u64 = 256 << 20;
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, ratio: 500 }
    }
}

/// A layer that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read.
    #[error("the layer is no valid archive: {0}")]
    Archive(io::Error),
    /// An entry that leaves the root, or pretends to be what it is not.
    #[error("entry {path:?} of the layer is refused: {why}")]
    Refused {
        /// The entry.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// More than an image may hold.
    #[error("the layer holds more than {most} {what}")]
    Budget {
        /// Of what.
        what: &'static str,
        /// The bound.
        most: u64,
    },
    /// The kernel refused.
    #[error("unpack {path:?}: {source}{remedy}", remedy = full(source))]
    Io {
        /// The entry.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It can be unpacked only above the layers below it.
    #[error("entry {path:?} of the layer needs what the layers below it hold")]
    NeedsLower {
        /// The entry.
        path: String,
    },
}

fn full(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::StorageFull { "; free some space (cofferdam image gc), then try again" } else { "" }
}

/// What became of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Directories that no entry described: they take their attributes from the layers below.
    pub implicit: BTreeSet<PathBuf>,
    /// Entries left out, with the reason; the first hundred.
    pub skipped: Vec<String>,
    /// Entries.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Unpacks an archive (not compressed) into an empty directory. With `lowers`, what the layer leaves out is taken from there;
/// without, it is told in the result.
pub fn unpack(archive: impl Read, root: BorrowedFd<'_>, lowers: Option<&Lowers>, budget: Budget) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker { tree: Tree::new(root, lowers), budget, done: Unpacked::default() };
    let mut archive = Archive::new(Padded { inner: archive, read: 0 });
    archive.set_ignore_zeros(false);
    for entry in archive.entries().map_err(UnpackError::Archive)? {
        unpacker.entry(entry.map_err(UnpackError::Archive)?)?;
    }
    let mut done = unpacker.done;
    done.implicit = unpacker.tree.finish()?;
    Ok(done)
}

/// Some tools (umoci's `insert` for one) end an archive with its last byte of data, not with its last block.
struct Padded<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        const BLOCK: u64 = 512;
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let missing = usize::try_from(self.read.next_multiple_of(BLOCK) - self.read).unwrap_or(0).min(buffer.len());
        buffer[..missing].fill(0);
        self.read += missing as u64;
        Ok(missing)
    }
}

struct Unpacker<'a> {
    tree: Tree<'a>,
    budget: Budget,
    done: Unpacked,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), UnpackError> {
        self.done.entries += 1;
        if self.done.entries > self.budget.entries {
            return Err(UnpackError::Budget { what: "entries", most: self.budget.entries });
        }
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return Ok(());
        }
        let extended = Extended::of(&mut entry)?;
        let raw = extended.name.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = clean(&raw)?;
        let attributes = Attributes::of(&entry, &extended, &raw)?;
        let Some(name) = path.file_name().map(|name| name.as_bytes().to_vec()) else {
            return self.tree.root_attributes(&attributes, entry.header().entry_type());
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&path, &name);
        }
        match entry.header().entry_type() {
            EntryType::Directory => self.tree.directory(&path, &attributes),
            EntryType::Symlink => {
                let target = link_name(&entry, &raw)?;
                self.tree.symlink(&path, &target, &attributes)
            }
            EntryType::Link => {
                let target = clean(&link_name(&entry, &raw)?)?;
                self.tree.hard_link(&path, &target)
            }
            EntryType::Fifo => self.tree.fifo(&path, &attributes),
            EntryType::Char | EntryType::Block => {
                self.skip(&path, "a device");
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(&path, entry, &extended, &attributes),
            _ => {
                self.skip(&path, "of an unknown kind");
                Ok(())
            }
        }
    }

    fn file<R: Read>(
        &mut self,
        path: &Path,
        mut entry: Entry<'_, R>,
        extended: &Extended,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let size = extended.real_size.unwrap_or_else(|| entry.size());
        self.done.bytes = self.done.bytes.saturating_add(size);
        if self.done.bytes > self.budget.bytes {
            return Err(UnpackError::Budget { what: "bytes", most: self.budget.bytes });
        }
        let sparse = entry.header().entry_type() == EntryType::GNUSparse;
        match extended.map(&mut entry).map_err(UnpackError::Archive)? {
            Some(map) => self.tree.mapped_file(path, &mut entry, &map, size, attributes),
            None => self.tree.file(path, &mut entry, sparse, attributes),
        }
    }

    fn whiteout(&mut self, path: &Path, name: &[u8]) -> Result<(), UnpackError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            return self.tree.opaque(parent);
        }
        if name.starts_with(METADATA) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(refused(path, "it is a whiteout of no name"));
        }
        self.tree.whiteout(&parent.join(std::ffi::OsStr::from_bytes(hidden)))
    }

    fn skip(&mut self, path: &Path, why: &str) {
        if self.done.skipped.len() < MOST_SKIPPED {
            self.done.skipped.push(format!("{}: {why}", path.display()));
        }
    }
}

fn link_name<R: Read>(entry: &Entry<'_, R>, raw: &[u8]) -> Result<Vec<u8>, UnpackError> {
    const LONGEST: usize = 4095;
    let shown = || String::from_utf8_lossy(raw).chars().take(300).collect();
    let target = entry.link_name_bytes().ok_or_else(|| UnpackError::Refused { path: shown(), why: "it is a link without a target" })?;
    if target.is_empty() || target.len() > LONGEST || target.contains(&0) {
        return Err(UnpackError::Refused { path: shown(), why: "the target of the link is empty, too long or holds a NUL byte" });
    }
    Ok(target.into_owned())
}

/// A path relative to the root. `..` is refused: no builder writes it, and it says nothing that could not be said plainly.
fn clean(raw: &[u8]) -> Result<PathBuf, UnpackError> {
    const LONGEST: usize = 4095;
    let refuse = |why| UnpackError::Refused { path: String::from_utf8_lossy(raw).chars().take(300).collect(), why };
    if raw.len() > LONGEST || raw.contains(&0) {
        return Err(refuse("its path is too long or holds a NUL byte"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(std::ffi::OsStr::from_bytes(raw)).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if name.len() > 255 => return Err(refuse("a name in its path is longer than 255 bytes")),
            Component::Normal(name) => path.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(refuse("its path holds '..'")),
        }
    }
    Ok(path)
}

fn refused(path: &Path, why: &'static str) -> UnpackError {
    UnpackError::Refused { path: path.to_string_lossy().chars().take(300).collect(), why }
}

fn failed(path: &Path) -> impl Fn(rustix::io::Errno) -> UnpackError + use<'_> {
    move |errno| UnpackError::Io { path: path.to_string_lossy().chars().take(300).collect(), source: errno.into() }
}
