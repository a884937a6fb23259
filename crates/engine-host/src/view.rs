//! A tree of the host that the sandbox changes a copy of: an overlay whose upper directory is on the sandbox's own disk. Nothing is copied
//! before it is written to, so a large tree costs as much as a small one.

use crate::device::system;
use crate::overlay::{Composed, How, Parts};
use crate::upper::no_idmap;
use cofferdam_engine::{EngineError, SandboxSpec, View};
use cofferdam_sys::ids::{Ids, Owner};
use cofferdam_sys::mount::{attr, clone_tree, set_attributes};
use cofferdam_sys::namespace::map_of;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, fchmod, mkdirat, openat, statat};
use std::os::fd::{AsFd, OwnedFd};

/// The view's place on the sandbox's disk.
#[derive(Debug)]
pub struct Place<'a> {
    view: &'a View,
    upper: OwnedFd,
    work: OwnedFd,
    user: Owner,
}

impl<'a> Place<'a> {
    /// Makes it, if the sandbox has a view.
    pub fn make(disk: &OwnedFd, spec: &'a SandboxSpec, ids: &Ids) -> Result<Option<Self>, EngineError> {
        let Some(view) = &spec.view else { return Ok(None) };
        let user = (spec.user.uid, spec.user.gid);
        let make = |name: &str| {
            mkdirat(disk, name, Mode::from_raw_mode(0o755))?;
            openat(disk, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        };
        let (upper, work) = (|| {
            let (upper, work) = (make("view")?, make("view-work")?);
            let (uid, gid) = ids.outside(user);
            chownat(&upper, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
            let mode = statat(view.source.fd(), "", AtFlags::EMPTY_PATH)?.st_mode & 0o777;
            fchmod(&upper, Mode::from_raw_mode(mode | 0o700))?;
            Ok((upper, work))
        })()
        .map_err(|e: rustix::io::Errno| EngineError::host("make the view's directory", e))?;
        Ok(Some(Self { view, upper, work, user }))
    }

    /// What the sandbox sees: the owner of the tree is the sandbox's user there.
    pub fn compose(&self, ids: &Ids, how: &How<'_>) -> Result<Composed, EngineError> {
        let lower = clone_tree(self.view.source.fd().as_fd(), "", false).map_err(system)?;
        let map = if ids.is_range() { Some(self.map(ids)?) } else { None };
        let attributes = attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV;
        set_attributes(&lower, attributes, map.as_ref().map(AsFd::as_fd), false).map_err(no_idmap)?;
        Parts { upper: &self.upper, work: &self.work, lowers: vec![lower], of_user: map.is_none() }.compose(how)
    }

    fn map(&self, ids: &Ids) -> Result<OwnedFd, EngineError> {
        let stat = statat(self.view.source.fd(), "", AtFlags::EMPTY_PATH).map_err(|e| EngineError::host("look at the view's tree", e))?;
        map_of(&ids.with_owner((stat.st_uid, stat.st_gid), self.user)).map_err(system)
    }

    /// What is written to.
    pub fn into_upper(self) -> OwnedFd {
        self.upper
    }
}
