//! Writing below a layer's root. Nobody else writes there, so a path that was walked stays what it was.

use super::attributes::{Attributes, apply};
use super::lower::{Found, Lowers, is_whiteout, opaque_attribute};
use super::{UnpackError, failed, refused};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timestamps, XattrFlags, chmodat, chownat, fchmod, fsetxattr, ftruncate,
    futimens, linkat, mkdirat, mknodat, openat, openat2, readlinkat, seek, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;
const CHUNK: usize = 256 << 10;
const HOLE: usize = 4096;

/// A layer's tree.
#[derive(Debug)]
pub struct Tree<'a> {
    root: BorrowedFd<'a>,
    lowers: Option<&'a Lowers>,
    /// The directory of the last entry, as it was asked for.
    last: Option<(PathBuf, OwnedFd, PathBuf)>,
    /// What this layer hides, where nothing of its own has taken the place.
    hidden: HashSet<PathBuf>,
    implicit: BTreeSet<PathBuf>,
    /// Times of directories, set last: every entry changes its directory's.
    times: Vec<(PathBuf, Timestamps)>,
    /// Directories that their owner may not write to are made so last: where no capability counts (NFS), nothing could be put into them.
    closed: BTreeMap<PathBuf, u32>,
    buffer: Vec<u8>,
}

impl<'a> Tree<'a> {
    /// An empty one.
    pub fn new(root: BorrowedFd<'a>, lowers: Option<&'a Lowers>) -> Self {
        let (hidden, implicit) = (HashSet::new(), BTreeSet::new());
        Self { root, lowers, last: None, hidden, implicit, times: Vec::new(), closed: BTreeMap::new(), buffer: vec![0; CHUNK] }
    }

    /// The times of directories; gives those that no entry described.
    pub fn finish(self) -> Result<BTreeSet<PathBuf>, UnpackError> {
        for (path, times) in self.times.iter().rev() {
            let place = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            match utimensat(self.root, place, times, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(path)(error)),
            }
        }
        // What is below comes before what is above it.
        for (path, mode) in self.closed.iter().rev() {
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let directory = openat2(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside);
            directory.and_then(|directory| fchmod(directory, Mode::from_raw_mode(*mode))).map_err(failed(path))?;
        }
        Ok(self.implicit)
    }

    /// The entry of the root itself.
    pub fn root_attributes(&mut self, attributes: &Attributes, kind: EntryType) -> Result<(), UnpackError> {
        let path = Path::new("");
        if kind != EntryType::Directory {
            return Err(refused(path, "the root is no directory"));
        }
        apply(self.root, attributes).map_err(failed(Path::new("/")))?;
        self.times.push((path.to_owned(), attributes.times()));
        Ok(())
    }

    /// A directory; what it holds already stays.
    pub fn directory(&mut self, path: &Path, attributes: &Attributes) -> Result<(), UnpackError> {
        let (parent, place, name) = self.parent_of(path)?;
        let error = failed(path);
        if kind_of(self.root, &place).map_err(&error)? != Some(FileType::Directory) {
            self.clear(&place, path)?;
            mkdirat(&parent, &name, Mode::from_raw_mode(0o700)).map_err(&error)?;
        }
        let directory = open_directory(&parent, &name).map_err(&error)?;
        if self.hidden.remove(&place) {
            set_opaque(&directory).map_err(&error)?;
        }
        self.describe(&directory, &place, attributes).map_err(&error)?;
        self.implicit.remove(&place);
        self.times.push((place, attributes.times()));
        Ok(())
    }

    fn describe(&mut self, directory: &OwnedFd, place: &Path, attributes: &Attributes) -> rustix::io::Result<()> {
        const OWNERS: u32 = 0o700;
        self.closed.remove(place);
        apply(directory.as_fd(), attributes)?;
        if attributes.mode & OWNERS != OWNERS {
            fchmod(directory, Mode::from_raw_mode(attributes.mode | OWNERS))?;
            self.closed.insert(place.to_owned(), attributes.mode);
        }
        Ok(())
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &[u8], attributes: &Attributes) -> Result<(), UnpackError> {
        let (parent, place, name) = self.make_room(path)?;
        let error = failed(path);
        symlinkat(OsStr::from_bytes(target), &parent, &name).map_err(&error)?;
        self.hidden.remove(&place);
        if (attributes.uid, attributes.gid) != (0, 0) {
            let (uid, gid) = attributes.owner();
            chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(&error)?;
        }
        utimensat(&parent, &name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW).map_err(&error)
    }

    /// A named pipe.
    pub fn fifo(&mut self, path: &Path, attributes: &Attributes) -> Result<(), UnpackError> {
        let (parent, place, name) = self.make_room(path)?;
        let error = failed(path);
        mknodat(&parent, &name, FileType::Fifo, Mode::from_raw_mode(attributes.mode), 0).map_err(&error)?;
        self.hidden.remove(&place);
        let (uid, gid) = attributes.owner();
        chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(&error)?;
        // The umask took bits away.
        chmodat(&parent, &name, Mode::from_raw_mode(attributes.mode), AtFlags::empty()).map_err(&error)?;
        utimensat(&parent, &name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW).map_err(&error)
    }

    /// Another name of a file of this layer; of a file of those below, which is copied up first.
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), UnpackError> {
        let source = self.link_target(path, target)?;
        let (parent, place, name) = self.make_room(path)?;
        if place == source {
            return Ok(());
        }
        linkat(self.root, &source, &parent, &name, AtFlags::empty()).map_err(failed(path))?;
        self.hidden.remove(&place);
        Ok(())
    }

    fn link_target(&mut self, path: &Path, target: &Path) -> Result<PathBuf, UnpackError> {
        let (_, place, _) = self.parent_of(target)?;
        match kind_of(self.root, &place).map_err(failed(target))? {
            Some(FileType::RegularFile | FileType::Symlink | FileType::Fifo) if !self.hidden.contains(&place) => Ok(place),
            Some(_) => Err(refused(path, "it is a hard link to something that cannot have one")),
            None => match self.lowers.map(|lowers| lowers.look(&place)) {
                None => Err(UnpackError::NeedsLower { path: path.display().to_string() }),
                Some(Ok(Found::File(stat, file))) => {
                    self.write(target, &mut std::fs::File::from(file), false, &Attributes::of_stat(&stat))?;
                    Ok(place)
                }
                Some(Ok(_)) => Err(refused(path, "it is a hard link to a file that is not there")),
                Some(Err(error)) => Err(failed(target)(error)),
            },
        }
    }

    /// A regular file. Of a sparse one, what is zero becomes a hole.
    pub fn file(&mut self, path: &Path, data: &mut impl Read, sparse: bool, attributes: &Attributes) -> Result<(), UnpackError> {
        self.write(path, data, sparse, attributes)
    }

    fn write(&mut self, path: &Path, data: &mut impl Read, sparse: bool, attributes: &Attributes) -> Result<(), UnpackError> {
        let file = self.create(path)?;
        let error = failed(path);
        let mut length = 0u64;
        loop {
            let read = fill(data, &mut self.buffer).map_err(UnpackError::Archive)?;
            if read == 0 {
                break;
            }
            length += read as u64;
            let chunk = &self.buffer[..read];
            if !sparse {
                write_all(&file, chunk).map_err(&error)?;
                continue;
            }
            for piece in chunk.chunks(HOLE) {
                if piece.iter().all(|byte| *byte == 0) {
                    seek(&file, SeekFrom::Current(piece.len() as i64)).map_err(&error)?;
                } else {
                    write_all(&file, piece).map_err(&error)?;
                }
            }
        }
        if sparse {
            ftruncate(&file, length).map_err(&error)?;
        }
        finish_file(&file, attributes).map_err(&error)
    }

    /// A sparse file whose pieces follow one another in the archive.
    pub fn mapped_file(
        &mut self,
        path: &Path,
        data: &mut impl Read,
        map: &[(u64, u64)],
        size: u64,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let file = self.create(path)?;
        let error = failed(path);
        for (offset, length) in map {
            seek(&file, SeekFrom::Start(*offset)).map_err(&error)?;
            let mut left = *length;
            while left > 0 {
                let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
                let read = fill(data, &mut self.buffer[..wanted]).map_err(UnpackError::Archive)?;
                if read == 0 {
                    return Err(UnpackError::Archive(io::ErrorKind::UnexpectedEof.into()));
                }
                write_all(&file, &self.buffer[..read]).map_err(&error)?;
                left -= read as u64;
            }
        }
        ftruncate(&file, size).map_err(&error)?;
        finish_file(&file, attributes).map_err(&error)
    }

    fn create(&mut self, path: &Path) -> Result<OwnedFd, UnpackError> {
        let (parent, place, name) = self.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&parent, &name, flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::EXIST) => {
                self.clear(&place, path)?;
                openat(&parent, &name, flags, Mode::from_raw_mode(0o600))
            }
            other => other,
        };
        self.hidden.remove(&place);
        file.map_err(failed(path))
    }

    /// Hides a name of the layers below. What this layer itself has there stays, but a directory shows nothing from below.
    pub fn whiteout(&mut self, path: &Path) -> Result<(), UnpackError> {
        let (parent, place, name) = self.parent_of(path)?;
        let error = failed(path);
        match kind_of(self.root, &place).map_err(&error)? {
            None => {
                mknodat(&parent, &name, FileType::CharacterDevice, Mode::empty(), 0).map_err(&error)?;
                self.hidden.insert(place);
                Ok(())
            }
            Some(FileType::Directory) => open_directory(&parent, &name).and_then(|fd| set_opaque(&fd)).map_err(&error),
            Some(_) => Ok(()),
        }
    }

    /// Hides what the layers below have in a directory.
    pub fn opaque(&mut self, path: &Path) -> Result<(), UnpackError> {
        if path.as_os_str().is_empty() {
            return set_opaque(self.root).map_err(failed(path));
        }
        let (directory, _) = self.enter(path)?;
        set_opaque(&directory).map_err(failed(path))
    }

    /// The directory of a path, its place without links, and its name there; what stands in the place is removed.
    fn make_room(&mut self, path: &Path) -> Result<(OwnedFd, PathBuf, OsString), UnpackError> {
        let found = self.parent_of(path)?;
        self.clear(&found.1, path)?;
        Ok(found)
    }

    fn clear(&mut self, place: &Path, path: &Path) -> Result<(), UnpackError> {
        match kind_of(self.root, place).map_err(failed(path))? {
            None => Ok(()),
            Some(FileType::Directory) => {
                self.last = None;
                self.closed.retain(|closed, _| !closed.starts_with(place));
                let whole = PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd())).join(place);
                std::fs::remove_dir_all(whole).map_err(|source| UnpackError::Io { path: path.display().to_string(), source })
            }
            Some(_) => unlinkat(self.root, place, AtFlags::empty()).map_err(failed(path)),
        }
    }

    fn parent_of(&mut self, path: &Path) -> Result<(OwnedFd, PathBuf, OsString), UnpackError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused(path, "it names the root"));
        };
        let again = |fd: &OwnedFd| fd.try_clone().map_err(|source| UnpackError::Io { path: path.display().to_string(), source });
        if let Some((asked, directory, place)) = &self.last
            && asked == parent
        {
            return Ok((again(directory)?, place.join(name), name.to_owned()));
        }
        let (directory, place) = self.enter(parent)?;
        let whole = place.join(name);
        self.last = Some((parent.to_owned(), again(&directory)?, place));
        Ok((directory, whole, name.to_owned()))
    }

    /// Walks to a directory as a process inside would, links included, and makes what is missing. Gives it and its place
    /// without links.
    fn enter(&mut self, path: &Path) -> Result<(OwnedFd, PathBuf), UnpackError> {
        let error = failed(path);
        let mut place = PathBuf::new();
        let mut left: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                place.pop();
                continue;
            }
            let next = place.join(&part);
            let target = match stat_of(self.root, &next).map_err(&error)? {
                Some(stat) if is_whiteout(&stat) => {
                    self.clear(&next, path)?;
                    self.make_directory(&next, None).map_err(&error)?;
                    None
                }
                Some(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => None,
                    FileType::Symlink => Some(readlinkat(self.root, &next, Vec::new()).map_err(&error)?),
                    _ => return Err(refused(path, "a file stands where its directory should be")),
                },
                None => self.take_from_below(&next, path)?,
            };
            let Some(target) = target else {
                place = next;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(refused(path, "its directory is behind too many links"));
            }
            let target = Path::new(OsStr::from_bytes(target.as_bytes()));
            if target.is_absolute() {
                place = PathBuf::new();
            }
            for part in target.components().rev() {
                match part {
                    Component::Normal(_) | Component::ParentDir => left.push_front(part.as_os_str().to_owned()),
                    _ => {}
                }
            }
        }
        let whole = if place.as_os_str().is_empty() { Path::new(".") } else { &place };
        Ok((open_directory(self.root, whole).map_err(&error)?, place))
    }

    /// A directory that this layer does not have: made with the attributes of the one below, or a link from below to follow.
    fn take_from_below(&mut self, place: &Path, path: &Path) -> Result<Option<std::ffi::CString>, UnpackError> {
        let error = failed(path);
        let Some(lowers) = self.lowers else {
            self.implicit.insert(place.to_owned());
            self.make_directory(place, None).map_err(&error)?;
            return Ok(None);
        };
        match lowers.look(place).map_err(&error)? {
            Found::Link(target) => return Ok(Some(target)),
            Found::Directory(stat) => {
                let attributes = Attributes::of_stat(&stat);
                self.make_directory(place, Some(&attributes)).map_err(&error)?;
                self.times.push((place.to_owned(), attributes.times()));
            }
            Found::Nothing | Found::Other | Found::File(..) => self.make_directory(place, None).map_err(&error)?,
        }
        Ok(None)
    }

    fn make_directory(&mut self, place: &Path, attributes: Option<&Attributes>) -> rustix::io::Result<()> {
        mkdirat(self.root, place, Mode::from_raw_mode(0o755))?;
        let directory = open_directory(self.root, place)?;
        fchmod(&directory, Mode::from_raw_mode(0o755))?;
        if self.hidden.remove(place) {
            set_opaque(&directory)?;
        }
        attributes.map_or(Ok(()), |attributes| self.describe(&directory, place, attributes))
    }
}

/// Directories that no entry described take their attributes from below. False if one of them is a link or a file below: then
/// the layer has to be unpacked again, above the others.
pub fn complete(root: BorrowedFd<'_>, implicit: &BTreeSet<PathBuf>, lowers: &Lowers) -> Result<bool, UnpackError> {
    for path in implicit {
        let error = failed(path);
        match lowers.look(path).map_err(&error)? {
            Found::Nothing => {}
            Found::Directory(stat) => {
                let attributes = Attributes::of_stat(&stat);
                let directory = open_directory(root, path).map_err(&error)?;
                apply(directory.as_fd(), &attributes).map_err(&error)?;
                futimens(&directory, &attributes.times()).map_err(&error)?;
            }
            Found::Link(_) | Found::File(..) | Found::Other => return Ok(false),
        }
    }
    Ok(true)
}

fn stat_of(root: BorrowedFd<'_>, place: &Path) -> rustix::io::Result<Option<Stat>> {
    match statat(root, place, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn kind_of(root: BorrowedFd<'_>, place: &Path) -> rustix::io::Result<Option<FileType>> {
    Ok(stat_of(root, place)?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
}

fn open_directory(parent: impl AsFd, name: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    openat(parent, name.as_ref(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn set_opaque(directory: impl AsFd) -> rustix::io::Result<()> {
    fsetxattr(directory, opaque_attribute(), b"y", XattrFlags::empty())
}

fn finish_file(file: &OwnedFd, attributes: &Attributes) -> rustix::io::Result<()> {
    apply(file.as_fd(), attributes)?;
    futimens(file, &attributes.times())
}

fn fill(data: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match data.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
