//! What a sandbox changed of its image: what lies in the directories that it writes to, without what the engine itself put there.

use cofferdam_engine::{Changes, EngineError, SandboxSpec};
use cofferdam_sys::ids::Ids;
use cofferdam_trust::VerifiedImage;
use cofferdam_trust::layout::NewLayer;
use cofferdam_trust::pack::{LayerWriter, PackTree};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Files that every sandbox gets.
const OWN_FILES: &[&str] = &["etc/hosts", "etc/hostname", "etc/resolv.conf"];
/// Directories that every sandbox gets; they are a change only if something is in them.
const OWN_DIRECTORIES: &[&str] = &["dev", "proc", "sys", "sys/devices", "sys/devices/system", "tmp", "etc"];

/// How a copy differs from what it was made of.
#[derive(Debug, Default)]
pub struct Difference {
    /// What is as it was, directories left out.
    pub same: HashSet<PathBuf>,
    /// Directories that are as they were; what is in them may not be.
    pub same_directories: HashSet<PathBuf>,
    /// What is not there any more, by its directory.
    pub gone: BTreeMap<PathBuf, Vec<OsString>>,
}

/// What something was copied from.
pub trait Original: Debug + Send + Sync {
    /// How the copy differs from it now.
    fn difference(&self, copy: &OwnedFd) -> io::Result<Difference>;
}

/// A directory that a sandbox writes to.
#[derive(Debug)]
pub struct Side {
    place: OwnedFd,
    /// Where it is in the sandbox; empty for the root.
    below: PathBuf,
    /// If everything is there, and not only what differs: what it is a copy of.
    original: Option<Box<dyn Original>>,
}

impl Side {
    /// The upper directory of an overlay at this place.
    pub fn upper(place: OwnedFd, below: &Path) -> Self {
        Self { place, below: inside(below), original: None }
    }

    /// A copy, instead of one.
    pub fn copy(place: OwnedFd, original: impl Original + 'static) -> Self {
        Self { place, below: PathBuf::new(), original: Some(Box::new(original)) }
    }

    fn difference(&self) -> Result<Difference, EngineError> {
        let found = self.original.as_ref().map(|original| original.difference(&self.place)).transpose();
        found.map(Option::unwrap_or_default).map_err(|error| EngineError::host("compare with what was copied", error))
    }
}

/// The directories that a sandbox writes to, that of its root first, and what is needed to tell the engine's own from the sandbox's changes. That is worked out when it
/// is asked for: few sandboxes are.
#[derive(Debug)]
pub struct Upperside {
    sides: Vec<Side>,
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
    pub fn of(sides: Vec<Side>, view: Option<Side>, ids: Ids, spec: SandboxSpec) -> Self {
        let mut own: Vec<PathBuf> = spec.files.into_iter().map(|file| file.path).collect();
        own.extend(spec.mounts.into_iter().map(|mount| mount.target));
        own.extend(spec.view.map(|view| view.target));
        let directories = spec.directories.into_iter().map(|directory| directory.path).collect();
        Self { sides, ids, image: spec.image, bare: spec.bare, home: spec.user.home, own, directories, view }
    }

    /// The engine has put these there, too.
    #[must_use]
    pub fn without(mut self, own: &[&str]) -> Self {
        self.own.extend(own.iter().map(PathBuf::from));
        self
    }

    /// Put there by the engine.
    fn own(&self) -> BTreeSet<PathBuf> {
        OWN_FILES.iter().map(PathBuf::from).chain(self.own.iter().map(|path| inside(path))).collect()
    }

    /// Directories that are a change only if something is in them.
    fn made(&self, own: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let mut made: BTreeSet<PathBuf> = OWN_DIRECTORIES.iter().map(PathBuf::from).collect();
        let directories = self.directories.iter().map(|path| inside(path));
        let added = directories.chain([PathBuf::from("workspace"), inside(Path::new(&self.home))]);
        made.extend(self.sides.iter().flat_map(|side| ancestors(&side.below, true)));
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
        let difference = view.difference()?;
        let leave_out = |path: &Path| wanted.leave_out.iter().any(|left| path.starts_with(left));
        write(wanted.out, wanted.epoch, |layer| self.packed(view, &difference, &leave_out, &BTreeSet::new(), |tree| tree.write(layer)))
    }

    fn write_root(&self, wanted: Changes) -> Result<NewLayer, EngineError> {
        let (own, unchanged) = (self.own(), self.unchanged_accounts());
        let ours =
            |path: &Path| own.contains(path) || unchanged.contains(&path) || wanted.leave_out.iter().any(|left| path.starts_with(left));
        let mut made = self.made(&own);
        made.extend(wanted.leave_out.iter().flat_map(|path| ancestors(path, false)));
        let differences = self.sides.iter().map(Side::difference).collect::<Result<Vec<_>, _>>()?;
        let sides = || self.sides.iter().zip(&differences);
        write(wanted.out, wanted.epoch, |layer| {
            let mut used = BTreeSet::new();
            for (side, difference) in sides().filter(|(side, _)| !side.below.as_os_str().is_empty()) {
                if self.packed(side, difference, &ours, &made, |tree| Ok(!tree.is_empty()?))? {
                    used.extend(ancestors(&side.below, false));
                }
            }
            // What leads to something is part of it, whether it is in the root's directory or only in the image.
            made.retain(|path| !used.contains(path));
            for path in self.only_in_image(&used) {
                if let Some(entry) = self.image.directory(path) {
                    layer.directory(path, entry)?;
                }
            }
            sides().try_for_each(|(side, difference)| self.packed(side, difference, &ours, &made, |tree| tree.write(layer)))
        })
    }

    fn only_in_image<'a>(&self, paths: &'a BTreeSet<PathBuf>) -> impl Iterator<Item = &'a PathBuf> {
        let root = self.sides.first().map(|root| &root.place);
        paths.iter().filter(move |path| root.is_some_and(|root| statat(root, *path, AtFlags::SYMLINK_NOFOLLOW).is_err()))
    }

    fn packed<T>(
        &self,
        side: &Side,
        Difference { same, same_directories, gone }: &Difference,
        leave_out: &dyn Fn(&Path) -> bool,
        made: &BTreeSet<PathBuf>,
        work: impl FnOnce(&PackTree<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let leave_out = |path: &Path| leave_out(path) || same.contains(path);
        let prune = |path: &Path| made.contains(path) || same_directories.contains(path);
        let (root, below) = (side.place.as_fd(), side.below.as_path());
        work(&PackTree { root, below, ids: &self.ids, leave_out: &leave_out, prune: &prune, gone })
    }

    fn holds(&self, path: &str, text: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let Some(root) = self.sides.first() else { return false };
        let Ok(file) = openat2(&root.place, path, flags, Mode::empty(), resolve) else { return false };
        let mut found = Vec::new();
        File::from(file).take(text.len() as u64 + 1).read_to_end(&mut found).is_ok() && found == text.as_bytes()
    }
}

type Layer = LayerWriter<io::BufWriter<File>>;

fn write(out: File, epoch: i64, pack: impl FnOnce(&mut Layer) -> io::Result<()>) -> Result<NewLayer, EngineError> {
    let write = || -> io::Result<NewLayer> {
        let mut layer = LayerWriter::new(io::BufWriter::with_capacity(1 << 20, out), epoch);
        pack(&mut layer)?;
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
