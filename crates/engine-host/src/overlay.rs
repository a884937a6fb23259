//! Layers and what is above them become one tree: an overlay, made as this kernel wants it; a copy where there are none.

use crate::copied::{self, Copied};
use crate::device::system;
use crate::disk::tmpfs;
use crate::staging::{Staging, explain};
use cofferdam_engine::EngineError;
use cofferdam_sys::mount::{FsOption, attr, clone_tree, new_fs};
use cofferdam_sys::outer;
use rustix::fs::{Mode, OFlags, fstatfs, mkdirat, openat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
/// What every overlay says.
const PLAIN: [(&str, &str); 3] = [("index", "off"), ("xino", "off"), ("metacopy", "off")];

/// How it is made on this host, for this sandbox.
#[derive(Debug)]
pub struct How<'a> {
    /// As older kernels need it.
    pub staging: Option<&'a Staging>,
    /// A copy in any case.
    pub copied: bool,
    /// Bytes that may be written.
    pub room: u64,
}

/// Why this host gives this user no overlays: then everything is copied. None where it does.
pub fn refusal(staged: bool, run_directory: &Path) -> Result<Option<String>, EngineError> {
    const ROOM: u64 = 1 << 20;
    let disk = tmpfs(ROOM, 0, 0)?;
    let make = |name: &str| {
        mkdirat(&disk, name, Mode::from_raw_mode(0o755))?;
        openat(&disk, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let error = |e| EngineError::host("make a directory", e);
    let (upper, work) = (make("upper").map_err(error)?, make("work").map_err(error)?);
    let staging = if staged { Some(Staging::make(&disk, run_directory)?) } else { None };
    let lower = clone_tree(rustix::fs::CWD, "/usr", false).map_err(system)?;
    let parts = Parts { upper: &upper, work: &work, lowers: vec![lower], of_user: !outer::is_host_root() };
    let made = parts.overlay(false, staging.as_ref());
    Ok(made.err().filter(copied::is_wanted).map(|error| error.to_string()))
}

/// Directories to be put above each other.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What is written to.
    pub upper: &'a OwnedFd,
    /// The overlay's own, beside it.
    pub work: &'a OwnedFd,
    /// What is below, the topmost first: mounts, detached.
    pub lowers: Vec<OwnedFd>,
    /// Whether an ordinary user makes it. Its books are kept in attributes that such a one may write, and then no directory is moved by a
    /// note of where it was; as root that is said: what differs is read from the upper directory alone.
    pub of_user: bool,
}

/// What came out.
#[derive(Debug)]
pub struct Composed {
    /// Its mount, detached.
    pub mount: OwnedFd,
    /// What is no longer needed.
    pub done_with: Vec<OwnedFd>,
    /// If it is a copy: what is written to is there.
    pub original: Option<Copied>,
}

impl Parts<'_> {
    /// Puts them above each other.
    pub fn compose(self, how: &How<'_>) -> Result<Composed, EngineError> {
        let on_disk = fstatfs(self.upper).is_ok_and(|stat| stat.f_type != TMPFS_MAGIC);
        if how.copied {
            return self.copy(on_disk, how);
        }
        match self.overlay(on_disk, how.staging) {
            Ok(mount) => Ok(Composed { mount, done_with: self.lowers, original: None }),
            Err(error) if copied::is_wanted(&error) => self.copy(on_disk, how),
            Err(error) => Err(explain(error)),
        }
    }

    /// Its mount, detached. On a disk nothing of it has to survive a power loss.
    fn overlay(&self, on_disk: bool, staging: Option<&Staging>) -> cofferdam_sys::Result<OwnedFd> {
        let (upper, work) = (self.upper.as_fd(), self.work.as_fd());
        if let Some(staging) = staging {
            let mut options: Vec<String> = PLAIN.iter().map(|(key, value)| format!("{key}={value}")).collect();
            options.extend(on_disk.then(|| "volatile".to_owned()));
            options.push(if self.of_user { "userxattr" } else { "redirect_dir=off" }.to_owned());
            return staging.overlay(&self.lowers, upper, work, &options);
        }
        let mut options: Vec<FsOption<'_>> = self.lowers.iter().map(|lower| FsOption::Fd("lowerdir+", lower.as_fd())).collect();
        options.push(FsOption::Fd("upperdir", upper));
        options.push(FsOption::Fd("workdir", work));
        options.extend(PLAIN.map(|(key, value)| FsOption::Value(key, value)));
        options.extend(on_disk.then_some(FsOption::Flag("volatile")));
        options.push(if self.of_user { FsOption::Flag("userxattr") } else { FsOption::Value("redirect_dir", "off") });
        new_fs("overlay", &options, attr::NO_SUID | attr::NO_DEV)
    }

    fn copy(self, on_disk: bool, how: &How<'_>) -> Result<Composed, EngineError> {
        if on_disk {
            return Err(EngineError::Unsupported {
                what: "a disk limit above half the memory limit".into(),
                why: "there are no overlay file systems: what a sandbox starts from is copied into memory".into(),
                remedy: "load the kernel's module 'overlay', or give the sandbox a smaller --disk".into(),
            });
        }
        let copied = Copied::make(self.upper, self.lowers, how.room)?;
        // A mount of the sandbox's own: what it mounts there is not seen from outside, where it is compared.
        let mount = match how.staging {
            Some(staging) => staging.second(&copied.mount),
            None => clone_tree(copied.mount.as_fd(), "", false),
        };
        Ok(Composed { mount: mount.map_err(system)?, done_with: Vec::new(), original: Some(copied) })
    }
}
