//! The root file system: an overlay of the image's layers, seen through the sandbox's ids, under a directory that is
//! thrown away.
//!
//! Every place that something will be mounted at is made in the upper directory first. An upper entry hides whatever
//! the image ships under that name, a link out of the root included, so a hostile image cannot move a mount.

use crate::device::system;
use crate::overlay::{Composed, How, Parts};
use cofferdam_engine::{Directory, EngineError, File, Mount, SandboxSpec};
use cofferdam_sys::ids::{Ids, Owner};
use cofferdam_sys::mount::{attr, clone_tree, set_attributes};
use cofferdam_sys::outer;
use cofferdam_trust::{Origin, VerifiedImage};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat, openat2, statat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Mount points of the engine itself, relative to the root.
const OWN_MOUNT_POINTS: &[&str] = &["dev", "proc", "sys/devices/system"];

const NO_LINKS: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The upper directory and what is put into it.
#[derive(Debug)]
pub struct Upper<'a> {
    upper: OwnedFd,
    work: OwnedFd,
    layers: Vec<BorrowedFd<'a>>,
    ids: Ids,
}

impl<'a> Upper<'a> {
    /// Makes `upper` and `work` on the sandbox's disk.
    pub fn make(disk: &OwnedFd, spec: &'a SandboxSpec, ids: &Ids) -> Result<Self, EngineError> {
        let make = |name: &str| {
            mkdirat(disk, name, Mode::RWXU)?;
            openat(disk, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        };
        let error = |e| EngineError::host("make the upper directory", e);
        let (upper, work) = (make("upper").map_err(error)?, make("work").map_err(error)?);
        // It is the root that everybody sees, whatever this process's umask is.
        fchmod(&upper, Mode::from_raw_mode(0o755)).map_err(error)?;
        let (uid, gid) = ids.outside((0, 0));
        chownat(&upper, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH).map_err(error)?;
        let layers = spec.image.layers().iter().map(|layer| layer.as_fd()).collect();
        Ok(Self { upper, work, layers, ids: ids.clone() })
    }

    /// The directory itself.
    pub fn into_fd(self) -> OwnedFd {
        self.upper
    }

    /// Puts in mount points, the engine's files and what the spec asks for.
    pub fn populate(&self, spec: &SandboxSpec) -> Result<(), EngineError> {
        let ours = *spec.image.origin() == Origin::Host;
        if !ours {
            // The lower directory of image `host` is ours and has them.
            for name in OWN_MOUNT_POINTS {
                self.directory(Path::new(name), None)?;
            }
            self.directory(Path::new("tmp"), Some((0o1777, (0, 0))))?;
        }
        for tree in spec.image.trees().iter().filter(|tree| !ours || tree.path.parent() != Some(Path::new("/"))) {
            self.directory(relative(&tree.path)?, None)?;
        }
        let user = (spec.user.uid, spec.user.gid);
        if !spec.bare {
            self.users_directory(Path::new("workspace"), user)?;
        }
        if !spec.bare && spec.user.home != "/" && spec.user.uid != 0 {
            self.users_directory(relative(Path::new(&spec.user.home))?, user)?;
        }
        for directory in &spec.directories {
            self.spec_directory(directory)?;
        }
        for volume in image_volumes(&spec.image) {
            if !spec.bare && self.is_free(volume) {
                self.directory(volume, Some((0o755, user)))?;
            }
        }
        let etc = self.enter(Path::new("etc"), None).map_err(|e| EngineError::host("make /etc", e))?;
        for file in identity_files(spec) {
            self.file_in(&etc, &file)?;
        }
        for file in &spec.files {
            self.file(file)?;
        }
        if let Some(view) = &spec.view {
            self.directory(relative(&view.target)?, None)?;
        }
        for mount in &spec.mounts {
            let path = relative(&mount.target)?;
            if mount.source.is_directory() {
                self.directory(path, None)?;
            } else {
                self.file(&File { path: mount.target.clone(), mode: 0o644, owner: (0, 0), contents: Vec::new() })?;
            }
        }
        Ok(())
    }

    /// A directory that its user may write to; the image's mode stays where the image gives it to that user.
    fn users_directory(&self, path: &Path, user: (u32, u32)) -> Result<(), EngineError> {
        let mode = self.of_image(path).filter(|(_, owner)| *owner == user).map_or(0o755, |(mode, _)| mode | 0o700);
        self.directory(path, Some((mode, user)))
    }

    fn spec_directory(&self, directory: &Directory) -> Result<(), EngineError> {
        self.directory(relative(&directory.path)?, Some((directory.mode, directory.owner)))
    }

    /// A directory with its parents. `attributes` sets mode and owner; else an existing directory of the image keeps its
    /// own (but everyone may pass it), and a new one is root's.
    fn directory(&self, path: &Path, attributes: Option<(u32, (u32, u32))>) -> Result<(), EngineError> {
        self.enter(path, attributes).map(|_| ()).map_err(|e| EngineError::host(format!("make /{}", path.display()), e))
    }

    fn enter(&self, path: &Path, attributes: Option<(u32, (u32, u32))>) -> rustix::io::Result<OwnedFd> {
        let mut place = self.upper.try_clone().map_err(|_| Errno::MFILE)?;
        let mut walked = PathBuf::new();
        let last = path.components().count();
        for (index, part) in path.components().enumerate() {
            walked.push(part);
            let wanted = attributes.filter(|_| index + 1 == last);
            place = self.enter_one(&place, part.as_os_str(), &walked, wanted)?;
        }
        Ok(place)
    }

    fn enter_one(&self, parent: &OwnedFd, name: &OsStr, walked: &Path, wanted: Option<(u32, (u32, u32))>) -> rustix::io::Result<OwnedFd> {
        let new = match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(parent, name, flags, Mode::empty())?;
        // On the way to a mount everyone may pass, a home directory's 0700 included.
        let passable = || self.of_image(walked).map_or((0o755, (0, 0)), |(mode, owner)| (mode | 0o011, owner));
        let attributes = wanted.or_else(|| new.then(passable));
        if let Some((mode, owner)) = attributes {
            self.own(&place, owner)?;
            fchmod(&place, Mode::from_raw_mode(mode))?;
        }
        Ok(place)
    }

    /// Mode and owner of a directory of the image's topmost layer that has it.
    fn of_image(&self, path: &Path) -> Option<(u32, (u32, u32))> {
        self.layers.iter().find_map(|layer| {
            let found = openat2(layer, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), NO_LINKS).ok()?;
            let stat = statat(&found, "", AtFlags::EMPTY_PATH).ok()?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            directory.then(|| (stat.st_mode & 0o7777, self.ids.of_image((stat.st_uid, stat.st_gid))))
        })
    }

    /// Whether the image has nothing at this path, and on the way there nothing but directories.
    fn is_free(&self, path: &Path) -> bool {
        let on_the_way = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        let is_there = |path: &Path| {
            let look = |layer| openat2(layer, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), NO_LINKS);
            self.layers.iter().any(|layer| look(layer).err() != Some(Errno::NOENT))
        };
        !is_there(path) && on_the_way.filter(|above| is_there(above)).all(|above| self.of_image(above).is_some())
    }

    fn own(&self, place: impl AsFd, owner: Owner) -> rustix::io::Result<()> {
        let (uid, gid) = self.ids.outside(owner);
        chownat(place, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)
    }

    fn file(&self, file: &File) -> Result<(), EngineError> {
        let parent = relative(&file.path)?.parent().unwrap_or(Path::new(""));
        let parent = self.enter(parent, None).map_err(|e| EngineError::host(format!("make {}", file.path.display()), e))?;
        self.file_in(&parent, file)
    }

    fn file_in(&self, parent: &OwnedFd, file: &File) -> Result<(), EngineError> {
        let write = || -> std::io::Result<()> {
            let name = file.path.file_name().ok_or(Errno::INVAL)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
            self.own(&fd, file.owner)?;
            fchmod(&fd, Mode::from_raw_mode(file.mode))?;
            std::io::Write::write_all(&mut std::fs::File::from(fd), &file.contents)
        };
        write().map_err(|e| EngineError::host(format!("make {}", file.path.display()), e))
    }

    /// What the sandbox sees. `userns` holds the sandbox's ids, where each has one outside.
    pub fn compose(&self, userns: Option<BorrowedFd<'_>>, how: &How<'_>) -> Result<Composed, EngineError> {
        let mut lowers = Vec::new();
        for layer in &self.layers {
            let lower = clone_tree(*layer, "", false).map_err(system)?;
            set_attributes(&lower, attr::READ_ONLY, userns, false).map_err(no_idmap)?;
            lowers.push(lower);
        }
        Parts { upper: &self.upper, work: &self.work, lowers, of_user: userns.is_none() && !outer::is_host_root() }.compose(how)
    }
}

/// A tree of the host through the sandbox's ids, detached.
pub fn host_tree(place: BorrowedFd<'_>, path: &str, userns: Option<BorrowedFd<'_>>, writable: bool) -> Result<OwnedFd, EngineError> {
    let tree = clone_tree(place, path, true).map_err(system)?;
    let attributes = attr::NO_SUID | attr::NO_DEV | if writable { 0 } else { attr::READ_ONLY };
    set_attributes(&tree, attributes, userns, true).map_err(no_idmap)?;
    Ok(tree)
}

/// What a mount shows, through the sandbox's ids, detached.
pub fn mounted(mount: &Mount, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, EngineError> {
    if !mount.source.is_volume() {
        return host_tree(mount.source.fd().as_fd(), "", userns, mount.writable);
    }
    let attributes = attr::NO_SUID | attr::NO_DEV | if mount.writable { 0 } else { attr::READ_ONLY };
    set_attributes(mount.source.fd(), attributes, userns, false).map_err(no_idmap)?;
    mount.source.fd().try_clone().map_err(|e| EngineError::host("duplicate a descriptor", e))
}

/// Where something is to be mounted below a root, no link on the way. It is made if it is missing, as it may be where something else is mounted above it:
/// whoever owns it, everybody may pass.
pub fn mount_point(root: &OwnedFd, target: &Path, is_directory: bool, owner: Option<(u32, u32)>) -> rustix::io::Result<OwnedFd> {
    const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
    let open = |flags| openat2(root, target, flags | OFlags::CLOEXEC, Mode::empty(), INSIDE);
    match open(OFlags::PATH) {
        Err(Errno::NOENT) => {}
        Ok(place) if FileType::from_raw_mode(fstat(&place)?.st_mode).is_dir() != is_directory => {
            return Err(if is_directory { Errno::NOTDIR } else { Errno::ISDIR });
        }
        other => return other,
    }
    let (parent, name) = target.parent().zip(target.file_name()).ok_or(Errno::INVAL)?;
    let parent =
        if parent.as_os_str().is_empty() { root.try_clone().map_err(|_| Errno::MFILE)? } else { mount_point(root, parent, true, owner)? };
    let made = if is_directory {
        mkdirat(&parent, name, Mode::RWXU).and_then(|()| open(OFlags::RDONLY | OFlags::DIRECTORY))
    } else {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)
    };
    match made {
        Ok(made) => {
            if let Some((uid, gid)) = owner {
                fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            fchmod(&made, Mode::from_raw_mode(if is_directory { 0o755 } else { 0o644 }))?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    open(OFlags::PATH)
}

/// What a refusal to show something through other ids means.
pub fn no_idmap(error: cofferdam_sys::Error) -> EngineError {
    EngineError::Unsupported {
        what: "showing a tree of the host through the sandbox's own ids".into(),
        why: format!("{error} (the file system, or a kernel before 5.12, refuses idmapped mounts)"),
        remedy: "move the tree to a file system that supports idmapped mounts, such as ext4, xfs, btrfs or tmpfs".into(),
    }
}

/// `/etc` files that say who and where the sandbox is.
fn identity_files(spec: &SandboxSpec) -> Vec<File> {
    let hosts = format!("127.0.0.1\tlocalhost {0}\n::1\tlocalhost ip6-localhost ip6-loopback\n", spec.hostname);
    let resolver = format!("nameserver {}\noptions edns0\n", cofferdam_gate::wire::RESOLVER);
    let file = |path: &str, contents: String| File { path: path.into(), mode: 0o644, owner: (0, 0), contents: contents.into_bytes() };
    let mut files =
        vec![file("/etc/hosts", hosts), file("/etc/hostname", format!("{}\n", spec.hostname)), file("/etc/resolv.conf", resolver)];
    if *spec.image.origin() != Origin::Host && !spec.bare {
        let accounts = spec.image.accounts();
        files.push(file("/etc/passwd", accounts.passwd().to_owned()));
        files.push(file("/etc/group", accounts.group().to_owned()));
    }
    files
}

/// What an image calls a volume, relative to the root: directories that are there, whether or not a layer has them.
pub fn image_volumes(image: &VerifiedImage) -> impl Iterator<Item = &Path> {
    image.config().volumes.keys().filter_map(|volume| relative(Path::new(volume)).ok())
}

/// An absolute path inside, without its root; `..` is refused.
pub fn relative(path: &Path) -> Result<&Path, EngineError> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let inside = path.strip_prefix("/").ok().filter(|inside| plain && !inside.as_os_str().is_empty());
    let clean = inside.filter(|inside| !inside.as_os_str().as_bytes().contains(&0));
    clean.ok_or_else(|| EngineError::Invalid {
        what: format!("path {}", path.display()),
        why: "an absolute path inside the sandbox is wanted, without '..' and not the root itself".into(),
    })
}
