//! Sockets below directories that are deeper than a socket's address is long.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A path short enough for a socket address (108 bytes), by way of an open directory.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _directory: OwnedFd,
}

impl ShortPath {
    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Shortens the path of a socket.
pub fn short_path(path: &Path) -> io::Result<ShortPath> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let directory = OwnedFd::from(std::fs::File::open(parent)?);
    let name = path.file_name().unwrap_or_default();
    Ok(ShortPath { path: Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name), _directory: directory })
}
