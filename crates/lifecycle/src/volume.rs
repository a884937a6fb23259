//! Named volumes: directories that outlive sandboxes ([design](../../../docs/design/volumes.md)).

use crate::data::{DataDir, MAKING_PREFIX, now, remove_tree};
use cofferdam_engine::MountSource;
use cofferdam_model::{Bytes, Name, Timestamp};
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{FsOption, attr, new_fs};
use cofferdam_sys::{lock, loopdev, outer};
use cofferdam_trust::pack::{Entry, LayerWriter, PackTree};
use cofferdam_trust::unpack::{Budget, UnpackError, unpack};
use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, Gid, Mode, OFlags, Stat, Uid, chownat, fallocate, flock, fstat, ftruncate, open, openat, stat,
    statat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of a volume that is made by being used.
pub const SIZE: Bytes = Bytes::mebibytes(1024);
const SMALLEST: Bytes = Bytes::mebibytes(8);
/// Share of the host's disk that is never given out: one part in twenty, a gibibyte at most.
const RESERVE_PART: u64 = 20;
const LARGEST_RESERVE: u64 = 1 << 30;

/// What can go wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// There is none of this name.
    #[error("no volume is called {0}; see cofferdam volume ls")]
    Unknown(Name),
    /// There is one already.
    #[error("volume {0} exists; choose another name, or remove it: cofferdam volume rm {0}")]
    Exists(Name),
    /// A sandbox uses it.
    #[error("volume {0} is in use; see cofferdam volume ls, and end the sandboxes that use it first")]
    InUse(Name),
    /// It cannot have a quota here.
    #[error("a volume of a size: {why}; {remedy}")]
    Unsupported {
        /// Why.
        why: String,
        /// What helps.
        remedy: &'static str,
    },
    /// There is no room for it.
    #[error(
        "a volume of {size}: the disk has {free} MiB free, of which {reserve} MiB are kept for the host; free some, or make it smaller"
    )]
    NoRoom {
        /// Its size.
        size: Bytes,
        /// Free mebibytes.
        free: u64,
        /// Mebibytes that are never given out.
        reserve: u64,
    },
    /// The archive.
    #[error("volume {name}: {source}")]
    Archive {
        /// The volume.
        name: Name,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// Something that an archive cannot say.
    #[error("volume {name}: {path:?} cannot be in an archive: names that begin with .wh. mean removed files there; rename it first")]
    Unsayable {
        /// The volume.
        name: Name,
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("volume {name}: {what}: {source}")]
    Io {
        /// The volume.
        name: Name,
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A volume as it is recorded and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: Name,
    /// Its quota in bytes; none without root.
    pub size_bytes: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The volumes of a data directory.
#[derive(Clone, Debug)]
pub struct Volumes {
    path: PathBuf,
}

impl Volumes {
    /// Of this data directory.
    pub fn of(data: &DataDir) -> Self {
        Self { path: data.volumes() }
    }

    /// All of them, by name.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match self.get(&name) {
                // Removed meanwhile.
                Err(VolumeError::Unknown(_)) => {}
                other => found.push(other?),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The one of this name.
    pub fn get(&self, name: &Name) -> Result<Volume, VolumeError> {
        let text = match fs::read(self.directory(name).join("volume.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(VolumeError::Unknown(name.clone())),
            other => other.map_err(io_error(name, "read volume.json"))?,
        };
        serde_json::from_slice(&text).map_err(|error| io_error(name, "read volume.json")(error.into()))
    }

    /// Makes an empty one. A size is a quota; [`SIZE`] where none is said and one can be kept.
    pub fn create(&self, name: &Name, size: Option<Bytes>) -> Result<Volume, VolumeError> {
        self.make(name, size, |_| Ok(()))
    }

    /// Makes one with what is in a tar archive; it appears when it is whole.
    pub fn import(&self, name: &Name, size: Option<Bytes>, archive: impl Read) -> Result<Volume, VolumeError> {
        self.make(name, size, |root| {
            let bytes = if outer::is_host_root() { size.unwrap_or(SIZE).get() } else { u64::MAX };
            let budget = Budget { bytes, ..Budget::default() };
            let source = |source| VolumeError::Archive { name: name.clone(), source };
            unpack(archive, root.as_fd(), None, budget).map_err(source).map(|_| ())?;
            rustix::fs::syncfs(root).map_err(|e| io_error(name, "write it to the disk")(e.into()))
        })
    }

    /// Writes a tar archive of it.
    pub fn export(&self, name: &Name, out: impl Write) -> Result<(), VolumeError> {
        let (root, _lock) = self.open_root(name)?;
        let unsayable = RefCell::new(None);
        let look = |path: &Path| {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".wh.")) {
                unsayable.borrow_mut().get_or_insert_with(|| path.to_owned());
            }
            false
        };
        let mut archive = LayerWriter::new(out, i64::MAX);
        let tree =
            PackTree { root: root.as_fd(), ids: &Ids::range(0, u32::MAX), leave_out: &look, prune: &|_| false, gone: &BTreeMap::new() };
        let of_root = || Ok(Entry::of(&statat(&root, "", AtFlags::EMPTY_PATH)?));
        let written = of_root().and_then(|own| {
            archive.directory(Path::new("."), own)?;
            tree.write(&mut archive)?;
            archive.finish()
        });
        let written = written.map_err(io_error(name, "write the archive"));
        match unsayable.into_inner() {
            Some(path) => Err(VolumeError::Unsayable { name: name.clone(), path }),
            None => written.map(|_| ()),
        }
    }

    /// Removes it, unless a sandbox uses it.
    pub fn remove(&self, name: &Name) -> Result<(), VolumeError> {
        self.get(name)?;
        let directory = self.directory(name);
        let lock = lock::open_file(&directory.join("lock")).map_err(|e| io_error(name, "open its lock")(e.source))?;
        if !lock::try_lock(&lock, true).map_err(|e| io_error(name, "lock it")(e.source))? {
            return Err(VolumeError::InUse(name.clone()));
        }
        // It is gone at once: what is left of it after a kill has a name that is swept.
        let going = self.making(name);
        let removed = fs::rename(&directory, &going).and_then(|()| remove_tree(&going)).map_err(io_error(name, "remove it"));
        drop(lock);
        // On NFS the lock was in the way.
        let _ = remove_tree(&going);
        removed
    }

    /// For a sandbox whose user is `owner`; made if it does not exist (then true).
    pub fn source(&self, name: &Name, owner: (u32, u32)) -> Result<(MountSource, bool), VolumeError> {
        let (made, (root, lock)) = match self.open_root(name) {
            Err(VolumeError::Unknown(_)) => match self.create(name, None) {
                // Somebody was faster.
                Err(VolumeError::Exists(_)) => (false, self.open_root(name)?),
                created => {
                    created?;
                    (true, self.open_root(name)?)
                }
            },
            other => (false, other?),
        };
        let path = self.directory(name);
        if !outer::is_host_root() {
            let source = MountSource::of_own(&path.join("data")).map_err(|e| io_error(name, "open it")(io::Error::other(e)))?;
            return Ok((source.locked(lock), made));
        }
        give_empty_to(&root, owner).map_err(|e| io_error(name, "give it to its user")(e.into()))?;
        Ok((MountSource::volume(root, path, lock), made))
    }

    /// Its bytes in use and, where it has a quota, those that it can hold.
    pub fn usage(&self, name: &Name) -> Result<Option<(u64, u64)>, VolumeError> {
        if !outer::is_host_root() {
            return Ok(None);
        }
        let (root, _lock) = self.open_root(name)?;
        let stat = rustix::fs::fstatvfs(&root).map_err(|e| io_error(name, "look at it")(e.into()))?;
        Ok(Some(((stat.f_blocks - stat.f_bfree) * stat.f_frsize, stat.f_blocks * stat.f_frsize)))
    }

    fn directory(&self, name: &Name) -> PathBuf {
        self.path.join(name.as_str())
    }

    fn making(&self, name: &Name) -> PathBuf {
        self.path.join(format!("{MAKING_PREFIX}{}-{name}", std::process::id()))
    }

    fn make(
        &self,
        name: &Name,
        size: Option<Bytes>,
        fill: impl FnOnce(&OwnedFd) -> Result<(), VolumeError>,
    ) -> Result<Volume, VolumeError> {
        let size = wanted_size(size)?;
        if self.directory(name).exists() {
            return Err(VolumeError::Exists(name.clone()));
        }
        fs::create_dir_all(&self.path).map_err(io_error(name, "make the directory of volumes"))?;
        let making = Making(self.making(name));
        DirBuilder::new().mode(0o700).create(&making.0).map_err(io_error(name, "make its directory"))?;
        let volume = Volume { name: name.clone(), size_bytes: size.map(Bytes::get), created_at: now() };
        if let Some(size) = size {
            format(name, &making.0, size)?;
        } else {
            let data = making.0.join("data");
            // Whatever this process's umask is: it is another user's.
            let made = fs::create_dir(&data).and_then(|()| fs::set_permissions(&data, fs::Permissions::from_mode(0o755)));
            made.map_err(io_error(name, "make its directory"))?;
        }
        let root = root_of(name, &making.0)?;
        if size.is_some() {
            // A program that wants an empty directory must find one; `e2fsck` makes it anew where it needs it.
            rustix::fs::unlinkat(&root, "lost+found", AtFlags::REMOVEDIR).map_err(|e| io_error(name, "empty it")(e.into()))?;
        }
        fill(&directory_of(&root).map_err(|e| io_error(name, "open it")(e.into()))?)?;
        let text = serde_json::to_vec_pretty(&volume).map_err(|error| io_error(name, "write volume.json")(error.into()))?;
        let written = File::create(making.0.join("volume.json")).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(io_error(name, "write volume.json"))?;
        // A directory takes no other's place that holds something, as a volume's does.
        match fs::rename(&making.0, self.directory(name)) {
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
                return Err(VolumeError::Exists(name.clone()));
            }
            other => other.map_err(io_error(name, "give it its name"))?,
        }
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(io_error(name, "write it to the disk"))?;
        Ok(volume)
    }

    /// Its root, and the lock that says that it is used.
    fn open_root(&self, name: &Name) -> Result<(OwnedFd, OwnedFd), VolumeError> {
        self.get(name)?;
        let directory = self.directory(name);
        let lock = lock::open_file(&directory.join("lock")).map_err(|e| io_error(name, "open its lock")(e.source))?;
        if !lock::try_lock(&lock, false).map_err(|e| io_error(name, "lock it")(e.source))? {
            // It is being removed.
            return Err(VolumeError::Unknown(name.clone()));
        }
        // Or it was, and what is called so now has another lock.
        let of = |found: Stat| (found.st_dev, found.st_ino);
        let here = stat(directory.join("lock")).map(of);
        if here.is_err() || here != fstat(&lock).map(of) {
            return Err(VolumeError::Unknown(name.clone()));
        }
        Ok((root_of(name, &directory)?, lock))
    }
}

/// A volume's directory until it is whole.
struct Making(PathBuf);

impl Drop for Making {
    fn drop(&mut self) {
        // It has its own name by now, or the sweep finds it.
        let _ = remove_tree(&self.0);
    }
}

fn io_error(name: &Name, what: impl Into<String>) -> impl FnOnce(io::Error) -> VolumeError {
    let (name, what) = (name.clone(), what.into());
    move |source| VolumeError::Io { name, what, source }
}

fn wanted_size(size: Option<Bytes>) -> Result<Option<Bytes>, VolumeError> {
    let remedy = "leave --size away";
    match size {
        None if outer::is_host_root() => Ok(Some(SIZE)),
        None => Ok(None),
        Some(_) if !outer::is_host_root() => {
            Err(VolumeError::Unsupported { why: "without root this host can keep no quota of it".into(), remedy })
        }
        Some(size) if size.get() < SMALLEST.get() => {
            Err(VolumeError::Unsupported { why: format!("{size} is too small for a file system"), remedy: "give it 8MiB at least" })
        }
        Some(size) => Ok(Some(size)),
    }
}

/// Sets the bytes aside and makes the file system.
fn format(name: &Name, directory: &Path, size: Bytes) -> Result<(), VolumeError> {
    let stat = rustix::fs::statvfs(directory).map_err(|e| io_error(name, "look at the disk")(e.into()))?;
    let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let reserve = (total / RESERVE_PART).min(LARGEST_RESERVE);
    if free < size.get().saturating_add(reserve) {
        return Err(VolumeError::NoRoom { size, free: free >> 20, reserve: reserve >> 20 });
    }
    let path = directory.join("image");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let image = open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|e| io_error(name, "make its file")(e.into()))?;
    match fallocate(&image, FallocateFlags::empty(), 0, size.get()) {
        // Such a file system sets nothing aside: the file grows as it is written.
        Err(Errno::OPNOTSUPP) => ftruncate(&image, size.get()),
        other => other,
    }
    .map_err(|e| io_error(name, "set its bytes aside")(e.into()))?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-m", "0", "-E", "nodiscard,root_owner=0:0"]).arg(&path).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    let remedy = "install e2fsprogs";
    let output = mkfs.output().map_err(|error| VolumeError::Unsupported { why: format!("mkfs.ext4: {error}"), remedy })?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io_error(name, "make its file system")(io::Error::other(why)))
}

/// The root of the volume in this directory: of a detached mount, or the directory itself.
fn root_of(name: &Name, directory: &Path) -> Result<OwnedFd, VolumeError> {
    let path = directory.join("image");
    let image = match open(&path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return open(directory.join("data"), flags, Mode::empty()).map_err(|e| io_error(name, "open its directory")(e.into()));
        }
        other => other.map_err(|e| io_error(name, "open its file")(e.into()))?,
    };
    let failed = |error: cofferdam_sys::Error| io_error(name, error.call.clone())(error.source);
    let mounting = lock::open_file(&directory.join("mounting")).map_err(failed)?;
    flock(&mounting, FlockOperation::LockExclusive).map_err(|e| io_error(name, "lock it")(e.into()))?;
    let (_device, device) = match loopdev::find(image.as_fd()).map_err(failed)? {
        Some(attached) => attached,
        None => loopdev::attach(image.as_fd()).map_err(failed)?,
    };
    let options = [FsOption::Value("source", &device), FsOption::Value("errors", "remount-ro")];
    new_fs("ext4", &options, attr::NO_SUID | attr::NO_DEV | attr::NO_ATIME).map_err(failed)
}

/// A root may be open as a path only.
fn directory_of(root: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// An empty volume becomes its user's: what the first program writes, it can write.
fn give_empty_to(root: &OwnedFd, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    let open = directory_of(root)?;
    for entry in rustix::fs::Dir::read_from(&open)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(());
        }
    }
    chownat(&open, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
}
