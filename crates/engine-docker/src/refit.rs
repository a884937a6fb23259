//! A container's mounts become those of a sandbox of the native engine, while its pid 1 waits: nothing of the image has run.
//!
//! ```text
//! what the daemon mounted                         what the sandbox sees
//! /               the daemon's copy of the image ─┐   /      the image's layers of the store below the sandbox's own disk
//! /dev /sys       the runtime's                   ├─▶ /dev /sys   those of the native engine
//! /proc           with masks                      │   /proc  the same
//! trees (-v)      by path, compared               │   trees, volumes, a view of a repository
//! /run/cofferdam  pid 1 and its socket            ┘   (nothing)
//! ```
//! Everything is private and `nosuid`; `/`, views and what may be written to are `nodev`. In the end the new root takes the place of the old one, also for pid 1
//! (`pivot_root`), and what the daemon mounted is gone from the container.

use crate::container::{HEALTH, OWN, place_of_tree};
use cofferdam_engine::{EngineError, Mount, SandboxSpec};
use cofferdam_engine_host::device::{self, Devices, system};
use cofferdam_engine_host::disk;
use cofferdam_engine_host::overlay::How;
use cofferdam_engine_host::staging::{self, Staging};
use cofferdam_engine_host::upper::{Upper, mount_point, mounted, relative};
use cofferdam_engine_host::upperside::{Side, Upperside};
use cofferdam_engine_host::view::Place;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{self, FsOption, attr, clone_tree, new_fs, set_attributes};
use cofferdam_sys::{Error, Result, namespace, process};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, chmodat, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What it sees then.
#[derive(Debug)]
pub struct Refitted {
    /// All of it, detached: it outlives the container.
    pub root: OwnedFd,
    /// What it changes of that.
    pub changes: Upperside,
}

/// Does it. `templates` has formatted disks.
pub fn refit(pid: u32, ids: &Ids, spec: &SandboxSpec, templates: &Path) -> Outcome<Refitted> {
    let is_remapped = ids.outside((0, 0)) != (0, 0);
    let userns = if is_remapped { Some(namespace::of_process(pid, "user").map_err(system)?) } else { None };
    let userns = userns.as_ref().map(AsFd::as_fd);
    let disk = match disk::make(&spec.limits, &spec.directory, templates) {
        // As in a container of this program alone. Only for what is named among what is missing.
        Err(EngineError::Unsupported { .. }) if disk::obstacle().is_some() => disk::in_memory(&spec.limits)?,
        other => other?,
    };
    let upper = Upper::make(&disk, spec, ids)?;
    upper.populate(spec)?;
    let view = Place::make(&disk, spec, ids)?.zip(spec.view.as_ref());
    let staging = if staging::is_needed() { Some(Staging::make(&disk, &spec.directory)?) } else { None };
    let how = How { staging: staging.as_ref(), copied: false, room: disk::room(&spec.limits) };
    let composed = upper.compose(userns, &how)?;
    let mut view_side = None;
    let mut trees = trees(spec, userns)?;
    if let Some((place, view)) = view {
        let shown = place.compose(ids, &how)?;
        trees.push(Tree { target: &view.target, shown: Shown::Made(shown.mount), is_directory: true });
        view_side = Some(Side::new(place.into_upper(), shown.original));
    }
    // What is mounted below another is mounted after it.
    trees.sort_by_key(|tree| tree.target.components().count());
    let devices = device::make(ids)?;
    let container = namespace::of_process(pid, "mnt").map_err(system)?;
    let new = New { root: composed.mount, devices, trees };
    let creator = is_remapped.then(|| ids.outside((0, 0)));
    let root = namespace::among(container.as_fd(), || Ok(new.take_place(creator))).map_err(system)??;
    let changes = Upperside::of(Side::new(upper.into_fd(), composed.original), view_side, ids.clone(), spec.clone());
    Ok(Refitted { root, changes })
}

type Outcome<T> = std::result::Result<T, EngineError>;

/// Something to be mounted.
struct Tree<'a> {
    target: &'a Path,
    shown: Shown<'a>,
    is_directory: bool,
}

enum Shown<'a> {
    /// This mount, detached.
    Made(OwnedFd),
    /// What the daemon has mounted for us: of this number.
    OfDaemon(usize, &'a Mount),
}

fn trees<'a>(spec: &'a SandboxSpec, userns: Option<BorrowedFd<'_>>) -> Outcome<Vec<Tree<'a>>> {
    let tree = |(number, mount): (usize, &'a Mount)| {
        // What cannot be a path inside is refused before anything is mounted.
        relative(&mount.target)?;
        let of_daemon = !mount.source.is_volume();
        let shown = if of_daemon { Shown::OfDaemon(number, mount) } else { Shown::Made(mounted(mount, userns)?) };
        Ok(Tree { target: &mount.target, shown, is_directory: mount.source.is_directory() })
    };
    spec.mounts.iter().enumerate().map(tree).collect()
}

/// What there is to be instead.
struct New<'a> {
    root: OwnedFd,
    devices: Devices,
    trees: Vec<Tree<'a>>,
}

impl New<'_> {
    /// In the container: puts everything where it belongs, and the whole in the old root's place. Mount points that are missing are made by `creator`, if
    /// this process is nobody there.
    fn take_place(self, creator: Option<(u32, u32)>) -> Outcome<OwnedFd> {
        if let Some(root) = creator {
            process::see_files_as(root, &[], true).map_err(system)?;
        }
        mount::at("/").and_then(|old| set_attributes(old, attr::NO_SUID, None, true)).map_err(system)?;
        let shown = |Tree { target, shown, is_directory }| {
            let mount = match shown {
                Shown::Made(mount) => mount,
                Shown::OfDaemon(number, mount) => of_daemon(number, mount)?,
            };
            Ok((target, mount, is_directory))
        };
        let trees = self.trees.into_iter().map(shown).collect::<Outcome<Vec<_>>>()?;
        let root = own_parts(&self.root, &self.devices).map_err(system)?;
        for (target, mount, is_directory) in &trees {
            attach(&root, mount, target, *is_directory).map_err(explain)?;
        }
        mount::pivot(&root).and_then(|()| clone_tree(CWD, "/", true)).map_err(system)
    }
}

/// The new root where our own directory was, with what every sandbox has.
fn own_parts(root: &OwnedFd, Devices { dev, pts, shm, .. }: &Devices) -> Result<OwnedFd> {
    let proc = clone_tree(CWD, "/proc", true)?;
    mount::attach(root, OWN)?;
    let root = mount::at(OWN)?;
    for (mount, path) in [(&proc, "/proc"), (dev, "/dev"), (pts, "/dev/pts"), (shm, "/dev/shm")] {
        attach(&root, mount, Path::new(path), true)?;
    }
    attach_sys(&root)?;
    Ok(root)
}

/// What a refusal to mount something means to who wanted it mounted.
fn explain(error: Error) -> EngineError {
    match Errno::from_io_error(&error.source) {
        Some(Errno::ROFS | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR) => EngineError::Invalid {
            what: error.call,
            why: format!("{}; choose a place that is not below another mount, or one that is there in it", error.source),
        },
        _ => system(error),
    }
}

/// A copy of what the daemon has mounted, if it is what was checked: the daemon took a path, and somebody may have moved something else there meanwhile.
fn of_daemon(number: usize, mount: &Mount) -> Outcome<OwnedFd> {
    let tree = clone_tree(CWD, &place_of_tree(number), true).map_err(system)?;
    let (shown, checked) = (fstat(&tree), fstat(mount.source.fd()));
    if !matches!((&shown, &checked), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)) {
        return Err(EngineError::Invalid {
            what: format!("mount source {}", mount.source.path().display()),
            why:
                "what the daemon mounted is not what was checked: it was moved meanwhile, or the daemon sees other files than this process"
                    .into(),
        });
    }
    let attributes = attr::NO_SUID | attr::NO_DEV | if mount.writable { 0 } else { attr::READ_ONLY };
    set_attributes(&tree, attributes, None, true).map_err(system)?;
    Ok(tree)
}

/// Attaches a mount below a root. No link is followed: of the image none is on the way (`Upper::populate`), and in what is shared others may make some.
fn attach(root: &OwnedFd, mount: &OwnedFd, target: &Path, is_directory: bool) -> Result<()> {
    let place = mount_point(root, target, is_directory, None).map_err(|e| Error::new(format!("mount at {}", target.display()), e))?;
    mount::attach_at(mount, place)
}

/// Of `/sys`, the part that programs ask for the number of CPUs; and a program that the daemon executes to see whether it can.
fn attach_sys(root: &OwnedFd) -> Result<()> {
    let closed = attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV;
    let whole = new_fs("sysfs", &[], closed | attr::NO_EXEC)?;
    // Before 6.15 only of what is attached.
    let attached = || {
        clone_tree(CWD, "/sys/devices/system", false)
            .and_then(|part| set_attributes(&part, closed | attr::NO_EXEC, None, false).map(|()| part))
    };
    let part = clone_tree(whole.as_fd(), "devices/system", false).or_else(|_| attached())?;
    let sys = new_fs("tmpfs", &[FsOption::Value("mode", "755"), FsOption::Value("size", "64k"), FsOption::Value("nr_inodes", "8")], 0)?;
    let failed = |e| Error::new("make /sys", e);
    for directory in ["devices", "devices/system"] {
        mkdirat(&sys, directory, Mode::RWXU).map_err(failed)?;
        // Whatever this process's umask is.
        chmodat(&sys, directory, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(failed)?;
    }
    let name = Path::new(HEALTH).file_name().unwrap_or_default();
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut program = File::from(openat(&sys, name, flags, Mode::from_raw_mode(0o555)).map_err(failed)?);
    program.write_all(cofferdam_sys::INIT_PROGRAM).map_err(|e| Error::new("make /sys", e))?;
    fchmod(&program, Mode::from_raw_mode(0o555)).map_err(failed)?;
    drop(program);
    set_attributes(&sys, closed, None, false)?;
    attach(root, &sys, Path::new("/sys"), true)?;
    attach(root, &part, Path::new("/sys/devices/system"), true)
}
