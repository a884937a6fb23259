//! What an entry has besides its contents.

use super::UnpackError;
use super::pax::Extended;
use cofferdam_sys::outer;
use rustix::fs::{Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr};
use rustix::io::Errno;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use tar::Entry;

/// Owner, mode, time and attributes of an entry.
#[derive(Debug)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    mtime: Timespec,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    /// What the entry's headers say.
    pub fn of<R: Read>(entry: &Entry<'_, R>, extended: &Extended, raw: &[u8]) -> Result<Self, UnpackError> {
        let header = entry.header();
        let shown = || String::from_utf8_lossy(raw).chars().take(300).collect::<String>();
        let id = |value: io::Result<u64>| {
            let id = value.ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
            id.ok_or_else(|| UnpackError::Refused { path: shown(), why: "its owner or group is no id" })
        };
        let (seconds, nanoseconds) = extended.mtime.unwrap_or_else(|| (header.mtime().unwrap_or(0).cast_signed(), 0));
        Ok(Self {
            uid: id(header.uid())?,
            gid: id(header.gid())?,
            mode: header.mode().unwrap_or(0o644) & 0o7777,
            mtime: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
            xattrs: extended.xattrs.clone(),
        })
    }

    /// What a file has.
    pub fn of_stat(stat: &Stat) -> Self {
        let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 };
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, mtime, xattrs: Vec::new() }
    }

    /// Who is to own it here. An ordinary user owns everything that they unpack: their sandboxes show it as the sandbox's user's.
    pub fn owner(&self) -> (Uid, Gid) {
        if outer::is_host_root() {
            (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
        } else {
            (rustix::process::geteuid(), rustix::process::getegid())
        }
    }

    /// Its time, as the kernel takes it.
    pub fn times(&self) -> Timestamps {
        Timestamps { last_access: self.mtime, last_modification: self.mtime }
    }
}

/// Owner first: changing it takes set-id bits and capabilities away.
pub fn apply(fd: BorrowedFd<'_>, attributes: &Attributes) -> rustix::io::Result<()> {
    let (uid, gid) = attributes.owner();
    fchown(fd, Some(uid), Some(gid))?;
    fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
    for (name, value) in &attributes.xattrs {
        match fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            // A file system without user attributes loses those, as other unpackers do.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            // A program's capabilities: nothing gains any in a sandbox anyway.
            Err(Errno::PERM | Errno::INVAL) if !outer::is_host_root() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
