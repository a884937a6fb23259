//! What a sandbox changed of its image: its upper directory, without what the engine itself put there.

use crate::copied::difference::Difference;
use crate::copied::{Copied, Original};
use crate::upper::image_volumes;
use cofferdam_engine::{Changes, EngineError, SandboxSpec};
use cofferdam_sys::ids::Ids;
use cofferdam_trust::VerifiedImage;
use cofferdam_trust::layout::NewLayer;
use cofferdam_trust::pack::{LayerWriter, PackTree};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Files that every sandbox gets.
const OWN_FILES: &[&str] = &["etc/hosts", "etc/hostname", "etc/resolv.conf"];
/// Directories that every sandbox gets; they are a change only if something is in them.
const OWN_DIRECTORIES: &[&str] = &["dev", "proc", "sys", "sys/devices", "sys/devices/system", "tmp", "etc"];

/// A directory that a sandbox writes to.
#[derive(Debug)]
pub struct Side {
    place: OwnedFd,
    /// If everything is there, and not only what differs: what it is a copy of.
    original: Option<Original>,
}

impl Side {
    /// The upper directory of an overlay, or a copy instead.
    pub fn new(upper: OwnedFd, copied: Option<Copied>) -> Self {
        match copied {
            None => Self { place: upper, original: None },
            Some(Copied { place, original, .. }) => Self { place, original: Some(original) },
        }
    }

    fn difference(&self) -> Result<Difference, EngineError> {
        let found = self.original.as_ref().map(|original| original.difference(&self.place)).transpose();
        found.map(Option::unwrap_or_default).map_err(|error| EngineError::host("compare with what was copied", error))
    }
}

/// The upper directory of a sandbox, and what is needed to tell the engine's own from the sandbox's changes. That is worked out when it
/// is asked for: few sandboxes are.
#[derive(Debug)]
pub struct Upperside {
    upper: Side,
    ids: Ids,
    image: VerifiedImage,
    bare: bool,
    home: String,
    /// Files and mount points that the engine put there.
    own: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    /// That of its view.
    view: Option<Side>,
}

impl Upperside {
    /// Of a sandbox made from this. It holds the image, and with it the locks on its layers.
    pub fn of(upper: Side, view: Option<Side>, ids: Ids, spec: SandboxSpec) -> Self {
        let mut own: Vec<PathBuf> = spec.files.into_iter().map(|file| file.path).collect();
        own.extend(spec.mounts.into_iter().map(|mount| mount.target));
        own.extend(spec.view.map(|view| view.target));
        let directories = spec.directories.into_iter().map(|directory| directory.path).collect();
        Self { upper, ids, image: spec.image, bare: spec.bare, home: spec.user.home, own, directories, view }
    }

    /// Put there by the engine.
    fn own(&self) -> BTreeSet<PathBuf> {
        OWN_FILES.iter().map(PathBuf::from).chain(self.own.iter().map(|path| inside(path))).collect()
    }

    /// Directories that are a change only if something is in them.
    fn made(&self, own: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let mut made: BTreeSet<PathBuf> = OWN_DIRECTORIES.iter().map(PathBuf::from).collect();
        made.extend(image_volumes(&self.image).flat_map(|path| ancestors(path, true)));
        let directories = self.directories.iter().map(|path| inside(path));
        let added = directories.chain([PathBuf::from("workspace"), inside(Path::new(&self.home))]);
        if !self.bare {
            made.extend(added.flat_map(|path| ancestors(&path, true)));
        }
        made.extend(own.iter().flat_map(|path| ancestors(path, false)));
        made
    }

    /// Account files that are as the engine wrote them.
    fn unchanged_accounts(&self) -> Vec<&'static Path> {
        let accounts = self.image.accounts();
        let written = [("etc/passwd", accounts.passwd()), ("etc/group", accounts.group())];
        let same = written.into_iter().filter(|(path, text)| !self.bare && self.holds(path, text));
        same.map(|(path, _)| Path::new(path)).collect()
    }

    /// Writes it as a layer, or what differs from the view's tree.
    pub fn write(&self, wanted: Changes) -> Result<NewLayer, EngineError> {
        if !wanted.of_view {
            return self.write_root(wanted);
        }
        let none = || EngineError::Invalid { what: "this sandbox".into(), why: "it has no view of a tree of the host".into() };
        let view = self.view.as_ref().ok_or_else(none)?;
        let Difference { same, same_directories, gone } = view.difference()?;
        let leave_out = |path: &Path| same.contains(path) || wanted.leave_out.iter().any(|left| path.starts_with(left));
        let prune = |path: &Path| same_directories.contains(path);
        let tree = PackTree { root: view.place.as_fd(), ids: &self.ids, leave_out: &leave_out, prune: &prune, gone: &gone };
        write(&tree, wanted.out, wanted.epoch)
    }

    fn write_root(&self, wanted: Changes) -> Result<NewLayer, EngineError> {
        let (own, unchanged) = (self.own(), self.unchanged_accounts());
        let Difference { same, same_directories, gone } = self.upper.difference()?;
        let ours =
            |path: &Path| own.contains(path) || unchanged.contains(&path) || wanted.leave_out.iter().any(|left| path.starts_with(left));
        let leave_out = |path: &Path| ours(path) || same.contains(path);
        let mut made = self.made(&own);
        made.extend(wanted.leave_out.iter().flat_map(|path| ancestors(path, false)));
        let prune = |path: &Path| made.contains(path) || same_directories.contains(path);
        let tree = PackTree { root: self.upper.place.as_fd(), ids: &self.ids, leave_out: &leave_out, prune: &prune, gone: &gone };
        write(&tree, wanted.out, wanted.epoch)
    }

    fn holds(&self, path: &str, text: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let Ok(file) = openat2(&self.upper.place, path, flags, Mode::empty(), resolve) else { return false };
        let mut found = Vec::new();
        File::from(file).take(text.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == text.as_bytes()
    }
}

fn write(tree: &PackTree<'_>, out: File, epoch: i64) -> Result<NewLayer, EngineError> {
    let write = || -> io::Result<NewLayer> {
        let mut layer = LayerWriter::new(io::BufWriter::with_capacity(1 << 20, out), epoch);
        tree.write(&mut layer)?;
        Ok(layer.finish()?.0)
    };
    write().map_err(|error| EngineError::host("read what the sandbox changed", error))
}

fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// The directories that lead to a path, and itself if wanted.
fn ancestors(path: &Path, itself: bool) -> Vec<PathBuf> {
    let all = path.ancestors().skip(usize::from(!itself)).filter(|above| !above.as_os_str().is_empty());
    all.map(Path::to_owned).collect()
}
