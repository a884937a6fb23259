//! A tree becomes a layer's archive: always the same bytes for the same tree.
//!
//! Entries are sorted, times are cut to a common one, owners are numbers, and overlayfs's signs become whiteouts.

use crate::content::{Content, ContentError, Hasher};
use crate::layout::{LayoutError, NewImage, NewLayer, compose, copy_in};
use crate::oci::{Platform, RunConfig};
use crate::pull::Puller;
use crate::unpack::{is_whiteout, opaque_attribute};
use crate::verify::{Rule, Verification};
use cofferdam_model::image::Reference;
use cofferdam_sys::ids::Ids;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// The latest time that a file in a layer has where nothing else is said: 1980-01-01, the first that every archive format knows.
pub const EPOCH: i64 = 315_532_800;
const LARGEST_XATTR: usize = 64 << 10;
/// Directories in each other that are packed: whoever filled the tree does not decide how much of a stack is used.
const DEEPEST: usize = 256;

/// Owner, mode and time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
}

impl Entry {
    /// A directory as `mkdir` makes it for root.
    pub const fn directory() -> Self {
        Self { uid: 0, gid: 0, mode: 0o755, mtime: EPOCH }
    }

    /// What a file has.
    pub fn of(stat: &Stat) -> Self {
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, mtime: stat.st_mtime }
    }
}

/// Writes a layer's archive.
pub struct LayerWriter<W: Write> {
    archive: Builder<Hashing<W>>,
    /// No time is later.
    epoch: i64,
}

struct Hashing<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> LayerWriter<W> {
    /// An empty archive. No file in it gets a time later than `epoch`.
    pub fn new(out: W, epoch: i64) -> Self {
        let mut archive = Builder::new(Hashing { inner: out, hasher: Hasher::default(), size: 0 });
        archive.sparse(false);
        Self { archive, epoch }
    }

    /// Ends it; its digest, its size, and what it was written to.
    pub fn finish(self) -> io::Result<(NewLayer, W)> {
        let mut hashing = self.archive.into_inner()?;
        hashing.flush()?;
        let Hashing { inner, hasher, size } = hashing;
        Ok((NewLayer { digest: hasher.finish(), size }, inner))
    }

    fn header(&self, kind: EntryType, entry: Entry, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mode(entry.mode);
        header.set_mtime(u64::try_from(entry.mtime.min(self.epoch)).unwrap_or(0));
        header.set_size(size);
        header
    }

    /// A directory.
    pub fn directory(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let mut header = self.header(EntryType::Directory, entry, 0);
        let mut name = path.as_os_str().to_owned();
        name.push("/");
        self.archive.append_data(&mut header, Path::new(&name), io::empty())
    }

    /// A regular file of so many bytes.
    pub fn file(&mut self, path: &Path, entry: Entry, size: u64, data: impl Read) -> io::Result<()> {
        let mut header = self.header(EntryType::Regular, entry, size);
        // A file that grows or shrinks while it is read must not spoil the archive.
        self.archive.append_data(&mut header, path, data.take(size).chain(io::repeat(0)).take(size))
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &OsStr, entry: Entry) -> io::Result<()> {
        let mut header = self.header(EntryType::Symlink, Entry { mode: 0o777, ..entry }, 0);
        self.archive.append_link(&mut header, path, Path::new(target))
    }

    /// One more name of an entry before it.
    pub fn hard_link(&mut self, path: &Path, target: &Path, entry: Entry) -> io::Result<()> {
        let mut header = self.header(EntryType::Link, entry, 0);
        self.archive.append_link(&mut header, path, target)
    }

    fn fifo(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let mut header = self.header(EntryType::Fifo, entry, 0);
        self.archive.append_data(&mut header, path, io::empty())
    }

    /// Hides a name of the layers below.
    pub fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        let mut name = OsString::from(".wh.");
        name.push(path.file_name().unwrap_or_default());
        let marker = path.with_file_name(name);
        self.file(&marker, Entry { mode: 0, ..Entry::directory() }, 0, io::empty())
    }

    fn opaque(&mut self, directory: &Path) -> io::Result<()> {
        self.file(&directory.join(".wh..wh..opq"), Entry { mode: 0, ..Entry::directory() }, 0, io::empty())
    }

    pub(crate) fn xattrs(&mut self, xattrs: &[(String, Vec<u8>)]) -> io::Result<()> {
        let named: Vec<(String, &[u8])> = xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())).collect();
        if named.is_empty() {
            Ok(())
        } else {
            self.archive.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), *value)))
        }
    }
}

/// A tree to be packed.
pub struct PackTree<'a> {
    /// Its root.
    pub root: BorrowedFd<'a>,
    /// What its owners are inside.
    pub ids: &'a Ids,
    /// What is left out, by its path from the root; a directory with everything below.
    pub leave_out: &'a dyn Fn(&Path) -> bool,
    /// Directories that are left out if nothing of them is left.
    pub prune: &'a dyn Fn(&Path) -> bool,
    /// Names to be hidden, besides those with overlayfs's sign; by their directory.
    pub gone: &'a BTreeMap<PathBuf, Vec<OsString>>,
}

/// Where hard links lead: device and inode, to the first name.
type Seen = HashMap<(u64, u64), PathBuf>;

impl PackTree<'_> {
    /// Writes all of it below the archive's root.
    pub fn write<W: Write>(&self, out: &mut LayerWriter<W>) -> io::Result<()> {
        let root = openat(self.root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        self.children(&root, Path::new(""), out, &mut Seen::new()).map(|_| ())
    }

    /// True if there was anything.
    fn children<W: Write>(&self, directory: &OwnedFd, path: &Path, out: &mut LayerWriter<W>, seen: &mut Seen) -> io::Result<bool> {
        let names = sorted(directory)?;
        let mut any = false;
        for name in self.gone.get(path).into_iter().flatten() {
            let place = path.join(name);
            if !(self.leave_out)(&place) {
                out.whiteout(&place)?;
                any = true;
            }
        }
        for name in names {
            let place = path.join(OsStr::from_bytes(&name));
            if !(self.leave_out)(&place) {
                any |= self.entry(directory, OsStr::from_bytes(&name), &place, out, seen)?;
            }
        }
        Ok(any)
    }

    fn entry<W: Write>(&self, parent: &OwnedFd, name: &OsStr, path: &Path, out: &mut LayerWriter<W>, seen: &mut Seen) -> io::Result<bool> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone meanwhile.
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        if is_whiteout(&stat) {
            return out.whiteout(path).map(|()| true);
        }
        let own = Entry::of(&stat);
        let (uid, gid) = self.ids.inside((own.uid, own.gid));
        let entry = Entry { uid, gid, ..own };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = seen.get(&(stat.st_dev, stat.st_ino)) {
                return out.hard_link(path, first, entry).map(|()| true);
            }
            seen.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            FileType::Directory => return self.directory(parent, name, path, entry, out, seen),
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(parent, name, flags, Mode::empty())?;
                out.xattrs(&xattrs(&file)?)?;
                out.file(path, entry, u64::try_from(stat.st_size).unwrap_or(0), File::from(file))?;
            }
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())?;
                out.symlink(path, OsStr::from_bytes(target.as_bytes()), entry)?;
            }
            FileType::Fifo => out.fifo(path, entry)?,
            // Sockets and devices mean nothing in another sandbox.
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn directory<W: Write>(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
        entry: Entry,
        out: &mut LayerWriter<W>,
        seen: &mut Seen,
    ) -> io::Result<bool> {
        if path.components().count() > DEEPEST {
            let top: PathBuf = path.components().take(4).collect();
            return Err(io::Error::other(format!("{}: more than {DEEPEST} directories are in each other there", top.display())));
        }
        let directory = openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let opaque = is_opaque(&directory)?;
        if !opaque && (self.prune)(path) && self.is_bare(&directory, path)? {
            return Ok(false);
        }
        out.xattrs(&xattrs(&directory)?)?;
        out.directory(path, entry)?;
        if opaque {
            out.opaque(path)?;
        }
        self.children(&directory, path, out, seen)?;
        Ok(true)
    }

    /// Whether nothing of a directory would be packed.
    fn is_bare(&self, directory: &OwnedFd, path: &Path) -> io::Result<bool> {
        if self.gone.get(path).into_iter().flatten().any(|name| !(self.leave_out)(&path.join(name))) {
            return Ok(false);
        }
        for name in sorted(directory)? {
            let place = path.join(OsStr::from_bytes(&name));
            if (self.leave_out)(&place) {
                continue;
            }
            let pruned = (self.prune)(&place);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(directory, OsStr::from_bytes(&name), flags, Mode::empty()) {
                Ok(inner) if pruned && self.is_bare(&inner, &place)? => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn sorted(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    let mut value = [0; 1];
    match fgetxattr(directory.as_fd(), opaque_attribute(), &mut value) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Those that a layer keeps: programs' capabilities and users' own, as unpacking has it.
pub fn xattrs(file: &OwnedFd) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; LARGEST_XATTR];
    let length = match flistxattr(file, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::RANGE) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Some(name) = CStr::from_bytes_with_nul(name).ok().and_then(|name| name.to_str().ok()) else { continue };
        if name != "security.capability" && (!name.starts_with("user.") || name.starts_with("user.overlay.")) {
            continue;
        }
        let mut value = vec![0; LARGEST_XATTR];
        if let Ok(length) = fgetxattr(file, name, &mut value) {
            value.truncate(length);
            found.push((name.to_owned(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A new layer, on its way into the store.
pub fn begin(content: &Content, epoch: i64) -> Result<LayerWriter<io::BufWriter<tempfile::NamedTempFile>>, ContentError> {
    let parent = content.directory("partial")?;
    let file = tempfile::Builder::new().prefix("layer-").tempfile_in(&parent);
    let file = file.map_err(|source| ContentError::Io { path: parent, source })?;
    Ok(LayerWriter::new(io::BufWriter::with_capacity(1 << 20, file), epoch))
}

/// Puts a new layer into the store.
pub fn commit(content: &Content, layer: LayerWriter<io::BufWriter<tempfile::NamedTempFile>>) -> Result<NewLayer, ContentError> {
    let error = |source| ContentError::Io { path: content.path().join("partial"), source };
    let (layer, out) = layer.finish().map_err(error)?;
    let file = out.into_inner().map_err(|e| error(e.into_error()))?;
    let path = file.into_temp_path().keep().map_err(|e| error(e.error))?;
    content.adopt_blob(&path, &layer.digest)?;
    Ok(layer)
}

/// An image of a root file system: a directory, or a tar archive of one.
pub fn import(puller: &Puller<'_>, source: &Path, reference: &Reference) -> Result<crate::content::ImageRecord, LayoutError> {
    let io = |e| LayoutError::Io { path: source.to_owned(), source: e };
    let layer = if source.is_dir() {
        let root = File::open(source).map_err(io)?;
        let mut layer = begin(puller.content, i64::MAX)?;
        PackTree { root: root.as_fd(), ids: &Ids::range(0, u32::MAX), leave_out: &|_| false, prune: &|_| false, gone: &BTreeMap::new() }
            .write(&mut layer)
            .map_err(io)?;
        commit(puller.content, layer)?.listed()
    } else {
        archive(puller.content, source)?
    };
    let how = format!("imported from {}", source.display());
    compose(
        puller,
        NewImage {
            reference: reference.clone(),
            created: None,
            platform: Platform::here(),
            layers: vec![layer],
            config: RunConfig::default(),
            history: Vec::new(),
            verified: Verification::local(Rule::Loaded, how, puller.now),
        },
    )
}

/// An image of one file, which everybody may execute, at `/NAME`.
pub fn program(
    puller: &Puller<'_>,
    file: &Path,
    name: &str,
    reference: &Reference,
    labels: BTreeMap<String, String>,
) -> Result<crate::content::ImageRecord, LayoutError> {
    let io = |e| LayoutError::Io { path: file.to_owned(), source: e };
    let source = File::open(file).map_err(io)?;
    let size = source.metadata().map_err(io)?.len();
    let mut layer = begin(puller.content, EPOCH)?;
    layer.file(Path::new(name), Entry::directory(), size, source).map_err(io)?;
    let layers = vec![commit(puller.content, layer)?.listed()];
    let image = NewImage {
        reference: reference.clone(),
        created: None,
        platform: Platform::here(),
        layers,
        config: RunConfig { labels, ..RunConfig::default() },
        history: Vec::new(),
        verified: Verification::local(Rule::Loaded, format!("made of the program {name}"), puller.now),
    };
    compose(puller, image)
}

/// An archive is stored not compressed, so that its digest is its diff id.
fn archive(content: &Content, source: &Path) -> Result<(crate::oci::Descriptor, cofferdam_model::image::Digest), LayoutError> {
    let io = |e| LayoutError::Io { path: source.to_owned(), source: e };
    let mut file = crate::layout::plain(File::open(source).map_err(io)?).map_err(io)?;
    let parent = content.directory("partial")?;
    let mut copy = tempfile::Builder::new().prefix("import-").tempfile_in(&parent).map_err(io)?;
    io::copy(&mut file, &mut copy).map_err(io)?;
    let (digest, size) = copy_in(content, copy.path())?;
    Ok(NewLayer { digest, size }.listed())
}
