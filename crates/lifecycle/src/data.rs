//! The data directory: where everything that outlives a command is.

use cofferdam_model::{InstallId, SandboxId, Timestamp};
use cofferdam_sys::lock;
use cofferdam_trust::removal;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A data directory, held shared: migrate, restore and wipe wait until nobody holds it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    install: InstallId,
    _shared: OwnedFd,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be made or read.
    #[error("data directory {path}: {source}; choose another with --data-dir or COFFERDAM_DATA_DIR", path = path.display())]
    Io {
        /// The path concerned.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It belongs to someone else.
    #[error("data directory {path} belongs to user {owner}, you are user {me}; choose your own with --data-dir or COFFERDAM_DATA_DIR", path = path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: String,
        /// The caller.
        me: u32,
    },
    /// Someone holds it exclusively.
    #[error("data directory {path} is being migrated, restored or wiped; try again when that has ended", path = path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The install id cannot be read.
    #[error("{path} holds no install id: restore it from a backup, or remove it if no sandbox runs", path = path.display())]
    NoInstall {
        /// The file.
        path: PathBuf,
    },
}

impl DataDir {
    /// Opens the directory, making it (mode 0700) with a new install id if it does not exist. `random` is used only then.
    pub fn open(path: &Path, random: impl FnOnce() -> [u8; 16]) -> Result<Self, DataError> {
        let error = |source| DataError::Io { path: path.to_owned(), source };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
                fs::metadata(path).map_err(error)?
            }
            Err(e) => return Err(error(e)),
        };
        let me = rustix::process::geteuid().as_raw();
        if !metadata.is_dir() {
            return Err(error(io::ErrorKind::NotADirectory.into()));
        }
        if metadata.uid() != me {
            return Err(DataError::Foreign { path: path.to_owned(), owner: user_name(metadata.uid()), me });
        }
        let path = path.canonicalize().map_err(error)?;
        let shared = lock::open_file(&path.join("lock")).map_err(|e| error(e.source))?;
        if !lock::try_lock(&shared, false).map_err(|e| error(e.source))? {
            return Err(DataError::Busy { path });
        }
        let install = install_id(&path, random)?;
        Ok(Self { path, install, _shared: shared })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The installation's id.
    pub const fn install(&self) -> InstallId {
        self.install
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.path.join("cofferdam.db")
    }

    /// Where the sandboxes' directories are.
    pub fn sandboxes(&self) -> PathBuf {
        self.path.join("sandboxes")
    }

    /// Where named volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    /// Where collected files go.
    pub fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// Held by whoever makes sandboxes that have no directory here (tests of the host): until it is dropped, no sweep takes what has none for
    /// left behind.
    pub fn hold_unrecorded(&self) -> io::Result<OwnedFd> {
        let file = lock::open_file(&self.unrecorded()).map_err(|error| error.source)?;
        lock::lock_shared(&file).map_err(|error| error.source)?;
        Ok(file)
    }

    /// Whether nobody makes such sandboxes now; as long as the result lives nobody begins to.
    pub(crate) fn nobody_unrecorded(&self) -> Option<OwnedFd> {
        let file = lock::open_file(&self.unrecorded()).ok()?;
        lock::try_lock(&file, true).ok()?.then_some(file)
    }

    fn unrecorded(&self) -> PathBuf {
        self.path.join("unrecorded.lock")
    }

    /// A sandbox's directory.
    pub fn sandbox(&self, id: SandboxId) -> PathBuf {
        self.sandboxes().join(id.to_string())
    }

    /// Makes a sandbox's directory (mode 0700) and takes its lock. It appears under its name only when it is locked, so
    /// that no sweep takes it for dead.
    pub fn make_sandbox(&self, id: SandboxId) -> Result<(PathBuf, OwnedFd), DataError> {
        let path = self.sandbox(id);
        let making = self.sandboxes().join(format!("{MAKING_PREFIX}{}-{id}", std::process::id()));
        let error = |source| DataError::Io { path: path.clone(), source };
        match fs::DirBuilder::new().mode(0o700).create(&making) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new().recursive(true).mode(0o700).create(&making),
            other => other,
        }
        .map_err(error)?;
        let lock = lock::open_file(&making.join("lock")).map_err(|e| error(e.source))?;
        lock::try_lock(&lock, true).map_err(|e| error(e.source))?;
        fs::rename(&making, &path).map_err(error)?;
        Ok((path, lock))
    }
}

/// Removes a directory of ours, if it is there. On NFS a file that is still open keeps a name of its own (`.nfs…`) until it is closed: that is as
/// good as gone, and the sweep removes what is left of the directory.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match removal::remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && is_as_good_as_gone(path) => Ok(()),
        other => other,
    }
}

/// Whether it holds nothing but what was removed while it was open.
pub(crate) fn is_as_good_as_gone(path: &Path) -> bool {
    let gone = |entry: io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory { is_as_good_as_gone(&entry.path()) } else { entry.file_name().as_encoded_bytes().starts_with(b".nfs") }
        })
    };
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.all(gone))
}

/// How the name of a directory begins that is not locked yet; the maker's pid follows.
pub const MAKING_PREFIX: &str = ".making-";

/// Reads the install id, or writes a new one under its final name only when it is whole.
fn install_id(path: &Path, random: impl FnOnce() -> [u8; 16]) -> Result<InstallId, DataError> {
    let file = path.join("install-id");
    let error = |source| DataError::Io { path: file.clone(), source };
    match fs::read_to_string(&file) {
        Ok(text) => text.trim().parse().map_err(|_| DataError::NoInstall { path: file.clone() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let id = InstallId::from_random(random());
            let making = path.join(format!("install-id.{}", std::process::id()));
            // On the disk before it has its name: a power loss leaves the whole id or none.
            let written = fs::File::create(&making).and_then(|mut file| {
                io::Write::write_all(&mut file, format!("{id}\n").as_bytes())?;
                file.sync_all()
            });
            written.map_err(error)?;
            // A link fails where a rename would replace what another process has just written.
            let linked = fs::hard_link(&making, &file);
            fs::remove_file(&making).map_err(error)?;
            fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(error)?;
            match linked {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(error(e)),
                _ => {
                    let text = fs::read_to_string(&file).map_err(error)?;
                    text.trim().parse().map_err(|_| DataError::NoInstall { path: file.clone() })
                }
            }
        }
        Err(e) => Err(error(e)),
    }
}

fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f.get(2) == Some(&uid.to_string().as_str()));
    entry.map_or_else(|| uid.to_string(), |fields| fields[0].to_owned())
}

/// The moment now, to the millisecond.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nfs_keeps_of_open_files_is_as_good_as_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        fs::create_dir_all(path.join("b")).expect("made");
        assert!(is_as_good_as_gone(&path));
        fs::write(path.join("b/.nfs0000000000a1"), "").expect("written");
        assert!(is_as_good_as_gone(&path));
        fs::write(path.join("lock"), "").expect("written");
        assert!(!is_as_good_as_gone(&path) && !is_as_good_as_gone(&path.join("none")));
        remove_tree(&path).and_then(|()| remove_tree(&path)).expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn keeps_its_install_id() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b");
        let first = DataDir::open(&path, || [7; 16]).expect("opens");
        let second = DataDir::open(&path, || [8; 16]).expect("opens beside");
        assert_eq!(first.install(), second.install());
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        fs::write(path.join("install-id"), "rubbish").expect("written");
        assert!(matches!(DataDir::open(&path, || [9; 16]), Err(DataError::NoInstall { .. })));
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(DataDir::open(file.path(), || [7; 16]), Err(DataError::Io { .. })));
    }

    #[test]
    fn another_users_directory_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(65534), None).expect("owned");
            let error = DataDir::open(directory.path(), || [7; 16]).expect_err("refused").to_string();
            assert!(error.contains("belongs to user nobody"), "{error}");
        }
    }
}
