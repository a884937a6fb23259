//! Which trees of the host may be shown to a sandbox. [`MountSource::open`] is the only maker, so what an engine is
//! given has been checked: by the opened file itself, not by a path that may change.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const O_PATH: i32 = 0o10_000_000;
const O_NOFOLLOW: i32 = 0o400_000;

/// A file or directory of the host, opened and checked.
#[derive(Clone, Debug)]
pub struct MountSource {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    is_directory: bool,
    is_volume: bool,
    /// Held as long as anybody may use the source.
    _lock: Option<Arc<OwnedFd>>,
}

/// Why a tree may not be shown.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It cannot be opened.
    #[error("mount source {path}: {source}", path = path.display())]
    Open {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is, holds, or lies in something that no sandbox may see.
    #[error("mount source {path} is refused: {why}; mount a directory of your own below it instead", path = path.display())]
    Refused {
        /// The path that it resolves to.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A socket, pipe or device.
    #[error("mount source {path} is a {kind}: only files and directories can be mounted", path = path.display())]
    Special {
        /// The path that it resolves to.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
}

/// Refused with everything below.
const WITH_CONTENTS: &[(&str, &str)] = &[
    ("/proc", "it shows the host's processes"),
    ("/sys", "it shows and controls the host's devices"),
    ("/dev", "it holds the host's devices"),
    ("/run", "it holds the sockets of the host's services"),
    ("/var/run", "it holds the sockets of the host's services"),
    ("/boot", "it holds the host's kernel"),
    ("/var/lib/docker", "it is an engine's data"),
    ("/var/lib/containerd", "it is an engine's data"),
];

/// Refused themselves; what lies below may be mounted.
const ITSELF: &[(&str, &str)] = &[
    ("/", "it is the whole host"),
    ("/etc", "it is the host's configuration"),
    ("/home", "it holds every home directory"),
    ("/root", "it is a home directory"),
    ("/var", "it holds the host's state"),
    ("/var/lib", "it holds the host's state"),
    ("/usr", "the image already decides what is there"),
];

impl MountSource {
    /// Opens and checks a source. `home` is the caller's home directory, `data` the data directory.
    pub fn open(path: &Path, home: Option<&Path>, data: &Path) -> Result<Self, MountError> {
        let error = |source| MountError::Open { path: path.to_owned(), source };
        let file = File::options().read(true).custom_flags(O_PATH).open(path).map_err(error)?;
        let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(error)?;
        let kind = file.metadata().map_err(error)?.file_type();
        if let Some(kind) = special(kind) {
            return Err(MountError::Special { path: real, kind });
        }
        if let Some(why) = refusal(&real, home, data) {
            return Err(MountError::Refused { path: real, why });
        }
        Ok(Self { fd: Arc::new(file.into()), path: real, is_directory: kind.is_dir(), is_volume: false, _lock: None })
    }

    /// A file system of its own, mounted nowhere yet: `mount` is its detached mount, `path` what it is called by, `lock` says that it is used.
    pub fn volume(mount: OwnedFd, path: PathBuf, lock: OwnedFd) -> Self {
        Self { fd: Arc::new(mount), path, is_directory: true, is_volume: true, _lock: Some(Arc::new(lock)) }
    }

    /// The same source, with a lock that says that it is used.
    #[must_use]
    pub fn locked(self, lock: OwnedFd) -> Self {
        Self { _lock: Some(Arc::new(lock)), ..self }
    }

    /// A tree that Cofferdam itself made for this sandbox, wherever it is.
    pub fn of_own(path: &Path) -> Result<Self, MountError> {
        let error = |source| MountError::Open { path: path.to_owned(), source };
        let file = File::options().read(true).custom_flags(O_PATH | O_NOFOLLOW).open(path).map_err(error)?;
        let is_directory = file.metadata().map_err(error)?.is_dir();
        Ok(Self { fd: Arc::new(file.into()), path: path.to_owned(), is_directory, is_volume: false, _lock: None })
    }

    /// The opened source (`O_PATH`).
    pub const fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Where it is on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a directory (else a file).
    pub const fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// Whether it is a detached mount of its own, whose owners are those inside; to be attached as it is, once.
    pub const fn is_volume(&self) -> bool {
        self.is_volume
    }
}

fn special(kind: std::fs::FileType) -> Option<&'static str> {
    if kind.is_socket() {
        Some("socket")
    } else if kind.is_fifo() {
        Some("pipe")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("device")
    } else {
        None
    }
}

fn refusal(real: &Path, home: Option<&Path>, data: &Path) -> Option<&'static str> {
    if let Some((_, why)) = WITH_CONTENTS.iter().find(|(root, _)| real.starts_with(root)) {
        return Some(why);
    }
    if let Some((_, why)) = ITSELF.iter().find(|(path, _)| real == Path::new(path)) {
        return Some(why);
    }
    let real_home = home.and_then(|home| home.canonicalize().ok());
    if real_home.is_some_and(|home| home.starts_with(real)) {
        return Some("it is or holds your home directory");
    }
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    if real.starts_with(&data) || data.starts_with(real) {
        return Some("it is, holds or lies in Cofferdam's data directory");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str) -> Result<MountSource, MountError> {
        MountSource::open(Path::new(path), Some(Path::new("/root")), Path::new("/var/lib/cofferdam"))
    }

    #[test]
    fn dangerous_sources_are_refused() {
        for path in [
            "/",
            "/proc",
            "/proc/self",
            "/sys",
            "/dev",
            "/dev/shm",
            "/root",
            "/etc",
            "/usr",
            "/run",
            "/var/run",
            "//",
            "/./",
            "/proc/1/root",
        ] {
            if Path::new(path).exists() {
                assert!(matches!(open(path), Err(MountError::Refused { .. })), "{path}");
            }
        }
        assert!(matches!(open("/dev/null"), Err(MountError::Special { .. })));
        assert!(matches!(open("/nonexistent"), Err(MountError::Open { .. })));
    }

    #[test]
    fn links_are_judged_by_where_they_lead() {
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("innocent");
        for target in ["/", "/proc", "/etc"] {
            std::os::unix::fs::symlink(target, &link).expect("a link");
            assert!(matches!(open(&link.display().to_string()), Err(MountError::Refused { .. })), "{target}");
            std::fs::remove_file(&link).expect("removed");
        }
    }

    #[test]
    fn the_data_directory_and_what_holds_it_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        let other = directory.path().join("other");
        std::fs::create_dir_all(data.join("sandboxes")).expect("made");
        std::fs::create_dir_all(&other).expect("made");
        for (path, refused) in [(directory.path(), true), (&data, true), (&data.join("sandboxes"), true), (&other, false)] {
            assert_eq!(MountSource::open(path, None, &data).is_err(), refused, "{}", path.display());
        }
    }

    #[test]
    fn sockets_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert!(matches!(MountSource::open(&path, None, Path::new("/x")), Err(MountError::Special { kind: "socket", .. })));
    }
}
