//! What can be written to where the root cannot: file systems in memory. What the image has there shows through: they become what is
//! written to of an overlay above it, as everything is on the native engine.

use crate::container::{self, OWN};
use crate::files;
use cofferdam_engine::{EngineError, SandboxSpec};
use cofferdam_engine_host::device::system;
use cofferdam_engine_host::overlay::Overlay;
use cofferdam_engine_host::staging::{self, Staging};
use cofferdam_engine_host::upperside::Side;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{self, clone_tree};
use cofferdam_sys::{Error, Result, namespace, process};
use rustix::fs::{Dir, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, fchmod, fchown, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const UPPER: &str = "upper";
const WORK: &str = "work";

/// A place in memory.
pub struct Place {
    path: PathBuf,
    /// Whether it is to be as it is on the native engine, whatever the image brings.
    insisted: bool,
    mode: Mode,
    /// On this host.
    owner: (Uid, Gid),
    /// By which it is known.
    files: u64,
    /// What else is mounted below it.
    below: Vec<PathBuf>,
    /// Whether the image has a directory there, and not only the container one to mount it on.
    of_image: bool,
}

/// The places of a sandbox, those above others first.
pub fn of(ids: &Ids, spec: &SandboxSpec) -> Vec<Place> {
    let places = container::places(spec);
    let mounted = spec.mounts.iter().map(|mount| mount.target.clone());
    let targets: Vec<PathBuf> = mounted.chain(places.keys().map(PathBuf::from)).collect();
    let owner = |owner| {
        let (user, group) = ids.outside(owner);
        (Uid::from_raw(user), Gid::from_raw(group))
    };
    let place = |(path, place): (String, container::Place)| Place {
        below: topmost_below(Path::new(&path), &targets),
        of_image: spec.image.has_directory(Path::new(&path)),
        path: PathBuf::from(path),
        insisted: place.insisted,
        mode: Mode::from_raw_mode(place.mode),
        owner: owner(place.owner),
        files: container::most_files(spec),
    };
    let mut places: Vec<Place> = places.into_iter().map(place).collect();
    places.sort_by_key(|place| place.path.components().count());
    places
}

/// Of these, those below a place that are not below another of them.
fn topmost_below(place: &Path, targets: &[PathBuf]) -> Vec<PathBuf> {
    let is_below = |path: &Path, other: &Path| path != other && path.starts_with(other);
    let below: Vec<&PathBuf> = targets.iter().filter(|target| is_below(target, place)).collect();
    let mut topmost: Vec<PathBuf> =
        below.iter().filter(|target| !below.iter().any(|other| is_below(target, other))).map(|target| (*target).clone()).collect();
    topmost.sort();
    topmost.dedup();
    topmost
}

/// What there is at the places of a sandbox.
pub struct Found {
    /// Where the image has something.
    covered: Vec<Covered>,
    /// The others, without what is mounted below them.
    plain: Vec<(PathBuf, OwnedFd)>,
}

/// A place where the image has something.
struct Covered {
    place: Place,
    /// What is in memory.
    memory: OwnedFd,
    /// What the image has.
    lower: OwnedFd,
    given: Stat,
}

/// A file system in memory of so many files, at this place of the sandbox. Whoever shares a tree of the host that it lies in may flip a
/// directory and a link there, so what is opened must be that.
pub fn in_memory(path: &Path, files: u64, flags: OFlags) -> Result<OwnedFd> {
    let failed = |e| Error::new(format!("open {}", path.display()), e);
    let opened = openat2(mount::at("/")?, path, flags | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), INSIDE).map_err(failed)?;
    let stat = rustix::fs::fstatfs(&opened).map_err(failed)?;
    if stat.f_type != TMPFS_MAGIC || stat.f_files != files {
        return Err(failed(Errno::XDEV));
    }
    Ok(opened)
}

/// Among the container's mounts: gives the places their owners, and finds those where the image has something. The root without what is
/// mounted on it stands at [`OWN`] meanwhile: older kernels copy mounts from what is attached somewhere, and from nothing else.
pub fn look(places: Vec<Place>) -> Result<Found> {
    mount::attach(clone_tree(rustix::fs::CWD, "/", false)?, OWN)?;
    let root = mount::at(OWN)?;
    let mut found = Found { covered: Vec::new(), plain: Vec::new() };
    for place in places {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let image = openat2(&root, &place.path, flags, Mode::empty(), INSIDE).ok();
        let given = image.as_ref().and_then(|image| fstat(image).ok());
        let memory = in_memory(&place.path, place.files, OFlags::RDONLY)?;
        let alone = clone_tree(memory.as_fd(), "", false)?;
        if let Some((image, given)) = image.zip(given).filter(|(image, _)| !is_empty(image)) {
            let lower = clone_tree(image.as_fd(), "", false)?;
            found.covered.push(Covered { lower, memory: alone, given, place });
        } else {
            if place.insisted || place.of_image {
                place.restore(&memory, given.as_ref())?;
            }
            found.plain.push((place.path, alone));
        }
    }
    mount::detach(OWN)?;
    Ok(found)
}

fn is_empty(directory: &OwnedFd) -> bool {
    let Ok(names) = Dir::read_from(directory) else { return true };
    !names.flatten().any(|name| !matches!(name.file_name().to_bytes(), b"." | b".."))
}

impl Place {
    /// `given`: what the image has there.
    fn restore(&self, directory: &OwnedFd, given: Option<&Stat>) -> Result<()> {
        let as_given = given.filter(|_| !self.insisted).map(|stat| (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)));
        let (user, group) = as_given.unwrap_or(self.owner);
        // What the image gives to that user keeps the permissions that it gives.
        let kept = given.filter(|stat| (stat.st_uid, stat.st_gid) == (user.as_raw(), group.as_raw()));
        let mode = match kept {
            Some(stat) if !self.insisted => Mode::from_raw_mode(stat.st_mode),
            Some(stat) if !self.mode.contains(Mode::SVTX) => Mode::from_raw_mode(stat.st_mode) | Mode::RWXU,
            _ => self.mode,
        };
        let failed = |e| Error::new(format!("set the owner of {}", self.path.display()), e);
        fchown(directory, Some(user), Some(group)).map_err(failed)?;
        fchmod(directory, mode).map_err(failed)
    }
}

/// An overlay that waits for its place.
struct Ready {
    path: PathBuf,
    below: Vec<PathBuf>,
    overlay: OwnedFd,
}

/// What a container's mounts have become.
pub struct Mounts {
    /// All of them, detached.
    pub root: OwnedFd,
    /// Where a sandbox writes to, besides its root: what it has written there.
    pub sides: Vec<Side>,
}

impl Found {
    /// Lets what the image has show through.
    pub fn cover(self, pid: u32, ids: &Ids, spec: &SandboxSpec) -> std::result::Result<Mounts, EngineError> {
        let made = files::as_its_root(ids, || {
            let made: Result<Vec<_>> = self.covered.iter().map(|place| place.overlay(&spec.directory)).collect();
            made.map_err(staging::explain)
        })?;
        let (ready, mut sides): (Vec<Ready>, Vec<Side>) = made.into_iter().unzip();
        sides.extend(self.plain.into_iter().map(|(path, memory)| Side::upper(memory, &path)));
        let root = ids.outside((0, 0));
        let attach = move || {
            if root != (0, 0) {
                process::see_files_as(root, &[], true)?;
            }
            ready.iter().try_for_each(Ready::attach)?;
            clone_tree(rustix::fs::CWD, "/", true)
        };
        Ok(Mounts { root: namespace::in_mounts_of(pid, attach).map_err(system)?, sides })
    }
}

impl Covered {
    fn overlay(&self, directory: &Path) -> Result<(Ready, Side)> {
        let failed = |e| Error::new(format!("make {} writable", self.place.path.display()), e);
        let make = |name: &str| {
            mkdirat(&self.memory, name, Mode::RWXU)?;
            openat(&self.memory, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        };
        let (upper, work) = (make(UPPER).map_err(failed)?, make(WORK).map_err(failed)?);
        self.place.restore(&upper, Some(&self.given))?;
        let staging = if staging::is_needed() { Some(Staging::of(&self.memory, directory)?) } else { None };
        let lowers = std::slice::from_ref(&self.lower);
        let overlay = Overlay { lowers, upper: upper.as_fd(), work: work.as_fd(), volatile: false, of_user: false };
        let overlay = overlay.make(staging.as_ref())?;
        let ready = Ready { path: self.place.path.clone(), below: self.place.below.clone(), overlay };
        Ok((ready, Side::upper(upper, &self.place.path)))
    }
}

impl Ready {
    /// What is mounted below the place is mounted there again.
    fn attach(&self) -> Result<()> {
        let kept: Vec<(&Path, OwnedFd)> =
            self.below.iter().map(|path| Ok((path.as_path(), clone_tree(open(path)?.as_fd(), "", true)?))).collect::<Result<_>>()?;
        mount::attach_at(&self.overlay, open(&self.path)?)?;
        for (path, tree) in kept {
            let failed = |e| Error::new(format!("make {}", path.display()), e);
            let is_directory = fstat(&tree).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
            files::make_mount_point(&mount::at("/")?, path, is_directory).map_err(failed)?;
            mount::attach_at(&tree, open(path)?)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    openat2(mount::at("/")?, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE)
        .map_err(|e| Error::new(format!("open {}", path.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_is_below_a_place_the_topmost() {
        let targets: Vec<PathBuf> = ["/a", "/a/b", "/a/b/c", "/a/d", "/ab", "/x/y"].map(PathBuf::from).to_vec();
        assert_eq!(topmost_below(Path::new("/a"), &targets), [PathBuf::from("/a/b"), PathBuf::from("/a/d")]);
        assert!(topmost_below(Path::new("/x/y"), &targets).is_empty());
    }
}
