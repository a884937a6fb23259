//! Trees of the host, volumes and views, in the order in which they are mounted: one that is below another comes after it, whatever the order in
//! which they were asked for.

use cofferdam_engine::{EngineError, Mount, SandboxSpec, View};
use cofferdam_engine_host::upper::{host_tree, mount_point, mounted};
use cofferdam_sys::ids::Ids;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// What is mounted into the sandbox besides what the image shows.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// A tree of the host, or a volume.
    Mount(&'a Mount),
    /// A tree that is changed in a copy.
    View(&'a View),
}

impl<'a> Wanted<'a> {
    /// Those above others first.
    pub fn of(spec: &'a SandboxSpec) -> Vec<Self> {
        let mut wanted: Vec<Self> = spec.mounts.iter().map(Self::Mount).chain(spec.view.iter().map(Self::View)).collect();
        wanted.sort_by_key(|wanted| wanted.target().components().count());
        wanted
    }

    /// Where it goes.
    pub fn target(self) -> &'a Path {
        match self {
            Self::Mount(mount) => &mount.target,
            Self::View(view) => &view.target,
        }
    }

    /// Makes the place that another is mounted at below this one, where it is missing. What cannot be made is missed when that is attached.
    fn make_place(self, below: Self, view: Option<&OwnedFd>, ids: &Ids) {
        let Ok(place) = below.target().strip_prefix(self.target()) else { return };
        let is_directory = !matches!(below, Self::Mount(mount) if !mount.source.is_directory());
        let _ = match (self, view) {
            (Self::Mount(mount), _) if mount.writable => mount_point(mount.source.fd(), place, is_directory, None),
            (Self::View(_), Some(view)) => mount_point(view, place, is_directory, Some(ids.outside((0, 0)))),
            _ => return,
        };
    }
}

/// All of it, detached, in that order behind what the image shows; missing places of what is below others are made.
pub fn trees(
    spec: &SandboxSpec,
    ids: &Ids,
    userns: Option<BorrowedFd<'_>>,
    mut view: Option<OwnedFd>,
) -> Result<Vec<OwnedFd>, EngineError> {
    let mut trees = Vec::new();
    for tree in spec.image.trees() {
        let path = tree.path.to_string_lossy();
        trees.push(host_tree(rustix::fs::CWD, &path, userns, false)?);
    }
    let all = Wanted::of(spec);
    for (index, wanted) in all.iter().enumerate() {
        // The deepest that it is below.
        if let Some(above) = all[..index].iter().rfind(|above| wanted.target().starts_with(above.target())) {
            above.make_place(*wanted, view.as_ref(), ids);
        }
    }
    for wanted in all {
        match wanted {
            Wanted::Mount(mount) => trees.push(mounted(mount, userns)?),
            Wanted::View(_) => trees.extend(view.take()),
        }
    }
    Ok(trees)
}
