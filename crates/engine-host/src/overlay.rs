//! Overlays: what is written to, above what stays as it is.

use crate::staging::Staging;
use cofferdam_sys::Result;
use cofferdam_sys::mount::{FsOption, attr, new_fs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What every overlay says.
const PLAIN: [(&str, &str); 3] = [("index", "off"), ("xino", "off"), ("metacopy", "off")];

/// Directories to be put above each other.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// What is below, the topmost first: mounts, detached.
    pub lowers: &'a [OwnedFd],
    /// What is written to.
    pub upper: BorrowedFd<'a>,
    /// The overlay's own, beside it.
    pub work: BorrowedFd<'a>,
    /// Whether nothing of it has to survive a power loss.
    pub volatile: bool,
    /// Whether an ordinary user makes it. Its books are kept in attributes that such a one may write, and then no directory is moved by a
    /// note of where it was; as root that is said: what differs is read from the upper directory alone.
    pub of_user: bool,
}

impl Overlay<'_> {
    /// Its mount, detached. `staging`: as older kernels need it.
    pub fn make(&self, staging: Option<&Staging>) -> Result<OwnedFd> {
        if let Some(staging) = staging {
            let mut options: Vec<String> = PLAIN.iter().map(|(key, value)| format!("{key}={value}")).collect();
            options.extend(self.volatile.then(|| "volatile".to_owned()));
            options.push(if self.of_user { "userxattr" } else { "redirect_dir=off" }.to_owned());
            return staging.overlay(self.lowers, self.upper, self.work, &options);
        }
        let mut options: Vec<FsOption<'_>> = self.lowers.iter().map(|lower| FsOption::Fd("lowerdir+", lower.as_fd())).collect();
        options.push(FsOption::Fd("upperdir", self.upper));
        options.push(FsOption::Fd("workdir", self.work));
        options.extend(PLAIN.map(|(key, value)| FsOption::Value(key, value)));
        options.extend(self.volatile.then_some(FsOption::Flag("volatile")));
        options.push(if self.of_user { FsOption::Flag("userxattr") } else { FsOption::Value("redirect_dir", "off") });
        new_fs("overlay", &options, attr::NO_SUID | attr::NO_DEV)
    }
}
