//! Overlays, and clones of mounts, on kernels before 6.15, which make them of mounts that are attached somewhere, and of no others.
//!
//! "Somewhere" is a mount namespace that nobody is in: a copy of the host's, private, in which the sandbox's disk and the layers are attached
//! for a moment. The overlay that comes out keeps them, the namespace goes.

use crate::device::system;
use cofferdam_engine::EngineError;
use cofferdam_sys::mount::{self, clone_tree};
use cofferdam_sys::namespace;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The first kernel that needs none.
const DIRECT_FROM: (u32, u32) = (6, 15);
/// The first whose overlays take layers through other ids.
const IDS_FROM: (u32, u32) = (5, 19);

/// Whether this kernel needs it.
pub fn is_needed() -> bool {
    version(&rustix::system::uname().release().to_string_lossy()) < DIRECT_FROM
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What its refusal means.
pub fn explain(error: cofferdam_sys::Error) -> EngineError {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&release) >= IDS_FROM {
        return system(error);
    }
    EngineError::Unsupported {
        what: "a sandbox's root on this kernel".into(),
        why: format!("{error} ({release}: overlays of layers through a sandbox's own ids need 5.19)"),
        remedy: "use a newer kernel, or --engine docker".into(),
    }
}

/// The namespace, with the disk in it.
#[derive(Debug)]
pub struct Staging {
    mounts: OwnedFd,
    place: String,
}

impl Staging {
    /// Attaches `disk` in a new one, at a directory that it has of the host.
    pub fn make(disk: &OwnedFd, place: &Path) -> Result<Self, EngineError> {
        Self::of(disk, place).map_err(system)
    }

    /// The same, with the kernel's own error.
    pub fn of(disk: &OwnedFd, place: &Path) -> cofferdam_sys::Result<Self> {
        let place = place.to_string_lossy().into_owned();
        let mounts = namespace::private_mounts(|| mount::attach(disk, &place))?;
        Ok(Self { mounts, place })
    }

    /// One more mount of what a detached one shows, detached too.
    pub fn second(&self, mount: &OwnedFd) -> cofferdam_sys::Result<OwnedFd> {
        namespace::among(self.mounts.as_fd(), || {
            mount::attach(mount, &self.place)?;
            clone_tree(rustix::fs::CWD, &self.place, false)
        })
    }

    /// An overlay, detached. `upper` and `work` are on the disk; `options` are those besides.
    pub fn overlay(
        &self,
        lowers: &[OwnedFd],
        upper: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
        options: &[String],
    ) -> cofferdam_sys::Result<OwnedFd> {
        let by_descriptor = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let layers: Vec<String> = lowers.iter().map(|lower| by_descriptor(lower.as_fd())).collect();
        let mut data = format!("lowerdir={},upperdir={},workdir={}", layers.join(":"), by_descriptor(upper), by_descriptor(work));
        for option in options {
            data.push(',');
            data.push_str(option);
        }
        namespace::among(self.mounts.as_fd(), || {
            for lower in lowers {
                mount::attach(lower, &self.place)?;
            }
            mount::classic("overlay", &self.place, mount::attr::NO_SUID | mount::attr::NO_DEV, &data)?;
            clone_tree(rustix::fs::CWD, &self.place, false)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (release, numbers) in
            [("6.1.0-50-cloud-amd64", (6, 1)), ("6.18.44-fc", (6, 18)), ("5.14.0-427.el9", (5, 14)), ("7", (7, 0)), ("", (0, 0))]
        {
            assert_eq!(version(release), numbers, "{release}");
        }
        assert!((6, 1) < DIRECT_FROM && (5, 14) < IDS_FROM && (6, 15) >= DIRECT_FROM);
    }
}
