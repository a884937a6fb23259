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
use cofferdam_engine_host::upper::{Upper, mounted, relative};
use cofferdam_engine_host::upperside::{Side, Upperside};
use cofferdam_engine_host::view::Place;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{self, FsOption, attr, clone_tree, new_fs, set_attributes};
use cofferdam_sys::{Error, Result, namespace, process};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, chmodat, fchmod, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What it sees then.
#[derive(Debug)]
pub struct Refitted {
    /// All of it, detached: it outlives the container.
    pub root: OwnedFd,
    /// What it changes of that.
    pub changes: Upperside,
}

/// Does it. `templates` has formatted disks.
pub fn refit(pid: u32, ids: &Ids, spec: &SandboxSpec, templates: &Path) -> std::result::Result<Refitted, EngineError> {
    let is_remapped = ids.outside((0, 0)) != (0, 0);
    let userns = if is_remapped { Some(namespace::of_process(pid, "user").map_err(system)?) } else { None };
    let userns = userns.as_ref().map(AsFd::as_fd);
    let disk = match disk::make(&spec.limits, &spec.directory, templates) {
        // As in a container of this program alone: it is named among what is missing.
        Err(EngineError::Unsupported { .. }) => disk::in_memory(&spec.limits)?,
        other => other?,
    };
    let upper = Upper::make(&disk, spec, ids)?;
    upper.populate(spec)?;
    let view = Place::make(&disk, spec, ids)?;
    let staging = if staging::is_needed() { Some(Staging::make(&disk, &spec.directory)?) } else { None };
    let how = How { staging: staging.as_ref(), copied: false, room: disk::room(&spec.limits) };
    let composed = upper.compose(userns, &how)?;
    let mut view_side = None;
    let mut trees = trees(spec, userns)?;
    if let Some(view) = view {
        let shown = view.compose(ids, &how)?;
        trees.push(Tree { target: view.target().to_owned(), shown: Shown::Made(shown.mount), is_directory: true });
        view_side = Some(Side::new(view.into_upper(), shown.original));
    }
    // What is mounted below another is mounted after it.
    trees.sort_by_key(|tree| tree.target.components().count());
    let devices = device::make(ids)?;
    let container = namespace::of_process(pid, "mnt").map_err(system)?;
    let new = New { root: composed.mount, devices, trees };
    let creator = is_remapped.then(|| ids.outside((0, 0)));
    let root = namespace::among(container.as_fd(), || new.take_place(creator)).map_err(|error| explain(error, spec))?;
    let changes = Upperside::of(Side::new(upper.into_fd(), composed.original), view_side, ids.clone(), spec.clone());
    Ok(Refitted { root, changes })
}

/// Something to be mounted.
struct Tree {
    target: PathBuf,
    shown: Shown,
    is_directory: bool,
}

enum Shown {
    /// This mount, detached.
    Made(OwnedFd),
    /// What the daemon has mounted there for us: of this device and inode, if it is what was checked.
    OfDaemon { place: String, checked: (u64, u64), writable: bool },
}

fn trees(spec: &SandboxSpec, userns: Option<BorrowedFd<'_>>) -> std::result::Result<Vec<Tree>, EngineError> {
    let tree = |(number, mount): (usize, &Mount)| {
        let shown = if mount.source.is_volume() {
            Shown::Made(mounted(mount, userns)?)
        } else {
            let checked = fstat(mount.source.fd()).map_err(|e| EngineError::host("look at what is to be mounted", e))?;
            Shown::OfDaemon { place: place_of_tree(number), checked: (checked.st_dev, checked.st_ino), writable: mount.writable }
        };
        // What cannot be a path inside is refused before it is mounted.
        relative(&mount.target)?;
        Ok(Tree { target: mount.target.clone(), shown, is_directory: mount.source.is_directory() })
    };
    spec.mounts.iter().enumerate().map(tree).collect()
}

/// What a refusal to mount something means to who wanted it mounted.
fn explain(error: Error, spec: &SandboxSpec) -> EngineError {
    if let Some(number) = error.call.strip_prefix(NOT_AS_CHECKED).and_then(|place| place.rsplit('/').next()?.parse::<usize>().ok()) {
        let source = spec.mounts.get(number).map(|mount| mount.source.path().display().to_string()).unwrap_or_default();
        return EngineError::Invalid {
            what: format!("mount source {source}"),
            why:
                "what the daemon mounted is not what was checked: it was moved meanwhile, or the daemon sees other files than this process"
                    .into(),
        };
    }
    match (error.call.strip_prefix(MOUNT_AT), Errno::from_io_error(&error.source)) {
        (Some(place), Some(Errno::ROFS | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR)) => EngineError::Invalid {
            what: format!("mount at {place}"),
            why: format!("{}; choose a place that is not below another mount, or one that is there in it", error.source),
        },
        _ => system(error),
    }
}

const NOT_AS_CHECKED: &str = "look at the tree ";
const MOUNT_AT: &str = "mount at ";

/// What there is to be instead.
struct New {
    root: OwnedFd,
    devices: Devices,
    trees: Vec<Tree>,
}

impl New {
    /// In the container: puts everything where it belongs, and the whole in the old root's place. Mount points that are missing are made by `creator`, if
    /// this process is nobody there.
    fn take_place(self, creator: Option<(u32, u32)>) -> Result<OwnedFd> {
        if let Some(root) = creator {
            process::see_files_as(root, &[], true)?;
        }
        set_attributes(mount::at("/")?, attr::NO_SUID, None, true)?;
        let proc = clone_tree(CWD, "/proc", true)?;
        let shown = |Tree { target, shown, is_directory }: Tree| {
            let mount = match shown {
                Shown::Made(mount) => mount,
                Shown::OfDaemon { place, checked, writable } => of_daemon(&place, checked, writable)?,
            };
            Ok((target, mount, is_directory))
        };
        let trees = self.trees.into_iter().map(shown).collect::<Result<Vec<_>>>()?;
        mount::attach(&self.root, OWN)?;
        let root = mount::at(OWN)?;
        let attach = |mount: &OwnedFd, path: &str| attach(&root, mount, Path::new(path), true);
        attach(&proc, "/proc")?;
        let Devices { dev, pts, shm, .. } = &self.devices;
        for (mount, path) in [(dev, "/dev"), (pts, "/dev/pts"), (shm, "/dev/shm")] {
            attach(mount, path)?;
        }
        attach_sys(&root)?;
        for (target, mount, is_directory) in &trees {
            self::attach(&root, mount, target, *is_directory)?;
        }
        mount::pivot(&root)?;
        clone_tree(CWD, "/", true)
    }
}

/// A copy of what the daemon has mounted, if it is what was checked: the daemon took a path, and somebody may have moved something else there meanwhile.
fn of_daemon(place: &str, checked: (u64, u64), writable: bool) -> Result<OwnedFd> {
    let tree = clone_tree(CWD, place, true)?;
    let stat = fstat(&tree).map_err(|e| Error::new(format!("{NOT_AS_CHECKED}{place}"), e))?;
    if (stat.st_dev, stat.st_ino) != checked {
        return Err(Error::new(format!("{NOT_AS_CHECKED}{place}"), Errno::XDEV));
    }
    set_attributes(&tree, attr::NO_SUID | attr::NO_DEV | if writable { 0 } else { attr::READ_ONLY }, None, true)?;
    Ok(tree)
}

/// Attaches a mount below a root. No link is followed: of the image none is on the way (`Upper::populate`), and in what is shared others may make some.
fn attach(root: &OwnedFd, mount: &OwnedFd, target: &Path, is_directory: bool) -> Result<()> {
    let place = place(root, target, is_directory).map_err(|e| Error::new(format!("{MOUNT_AT}{}", target.display()), e))?;
    mount::attach_at(mount, place)
}

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Where something is to be mounted; made if it is missing, as below another mount it may be.
fn place(root: &OwnedFd, target: &Path, is_directory: bool) -> rustix::io::Result<OwnedFd> {
    let open = |path: &Path| openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), INSIDE);
    match open(target) {
        Err(Errno::NOENT) => {}
        Ok(place) if FileType::from_raw_mode(fstat(&place)?.st_mode).is_dir() != is_directory => {
            return Err(if is_directory { Errno::NOTDIR } else { Errno::ISDIR });
        }
        other => return other,
    }
    let (parent, name) = target.parent().zip(target.file_name()).ok_or(Errno::INVAL)?;
    let parent = place(root, parent, true)?;
    // Everybody may pass what is made here, whatever this process's umask is.
    let made = if is_directory {
        mkdirat(&parent, name, Mode::RWXU).and_then(|()| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            fchmod(openat2(root, target, flags, Mode::empty(), INSIDE)?, Mode::from_raw_mode(0o755))
        })
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).and_then(|file| fchmod(file, Mode::from_raw_mode(0o644)))
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => open(target),
        Err(error) => Err(error),
    }
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
