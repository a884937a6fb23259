//! The mount calls that `rustix` lacks, and detached mounts in one step.

use crate::error::check;
use crate::{Error, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    open_tree,
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Mount attribute bits of `mount_setattr(2)`.
pub mod attr {
    /// Read-only.
    pub const READ_ONLY: u64 = 0x1;
    /// Set-user-id bits and file capabilities are ignored.
    pub const NO_SUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NO_DEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NO_EXEC: u64 = 0x8;
    /// Access times are not kept.
    pub const NO_ATIME: u64 = 0x10;
    /// Ids are translated through a user namespace.
    pub const ID_MAP: u64 = 0x0010_0000;
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// An option of a new file system.
pub enum FsOption<'a> {
    /// `key=value`.
    Value(&'a str, &'a str),
    /// `key`.
    Flag(&'a str),
    /// `key` with a descriptor.
    Fd(&'a str, BorrowedFd<'a>),
}

/// Makes a new file system and a detached mount of it.
pub fn new_fs(kind: &str, options: &[FsOption<'_>], attributes: u64) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| Error::new(format!("fsopen {kind}"), e))?;
    for option in options {
        let (key, result) = match option {
            FsOption::Value(key, value) => (key, fsconfig_set_string(context.as_fd(), *key, *value)),
            FsOption::Flag(key) => (key, fsconfig_set_flag(context.as_fd(), *key)),
            FsOption::Fd(key, fd) => (key, rustix::mount::fsconfig_set_fd(context.as_fd(), *key, *fd)),
        };
        result.map_err(|e| Error::new(format!("fsconfig {kind} {key}"), e))?;
    }
    fsconfig_create(context.as_fd()).map_err(|e| Error::new(format!("fsconfig create {kind}{}", log_of(&context)), e))?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::from_bits_retain(attributes as u32))
        .map_err(|e| Error::new(format!("fsmount {kind}"), e))
}

/// What the file system itself said about a failed `fsconfig`, in parentheses; empty if it said nothing.
fn log_of(context: &OwnedFd) -> String {
    let mut buffer = [0u8; 512];
    match rustix::io::read(context, &mut buffer) {
        Ok(length) if length > 0 => format!(" ({})", String::from_utf8_lossy(&buffer[..length]).trim()),
        _ => String::new(),
    }
}

/// A detached copy of the mount at a place (with everything below it if `recursive`).
pub fn clone_tree(at: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, path, flags).map_err(|e| Error::new(format!("open_tree {path}"), e))
}

/// Mounts by the call that was there first: where the new ones cannot say it. `attributes` are [`attr::NO_SUID`] and [`attr::NO_DEV`] or none.
pub fn classic(kind: &str, path: &str, attributes: u64, data: &str) -> Result<()> {
    use rustix::mount::MountFlags;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::NOSUID, attributes & attr::NO_SUID != 0);
    flags.set(MountFlags::NODEV, attributes & attr::NO_DEV != 0);
    let words = std::ffi::CString::new(data).map_err(|e| Error::new(format!("mount {kind}"), std::io::Error::other(e)))?;
    rustix::mount::mount(kind, path, kind, flags, words.as_c_str()).map_err(|e| Error::new(format!("mount {kind}"), e))
}

/// Attaches a detached mount at a path, above what is mounted there.
pub fn attach(mount: impl AsFd, path: &str) -> Result<()> {
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", rustix::fs::CWD, path, flags).map_err(|e| Error::new(format!("move_mount {path}"), e))
}

/// Attaches a detached mount at an opened place.
pub fn attach_at(mount: impl AsFd, place: impl AsFd) -> Result<()> {
    use rustix::mount::MoveMountFlags;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount.as_fd(), "", place.as_fd(), "", flags).map_err(|e| Error::new("move_mount", e))
}

/// Takes a mount away from a path; what is open of it stays so.
pub fn detach(path: &str) -> Result<()> {
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).map_err(|e| Error::new(format!("umount {path}"), e))
}

/// Makes a mount that is attached somewhere the root of everything whose root is the calling thread's. What was the root, with all that is mounted on it,
/// is taken away.
pub fn pivot(root: impl AsFd) -> Result<()> {
    let failed = |call: &str| {
        let call = call.to_owned();
        move |e| Error::new(call, e)
    };
    let old = at("/")?;
    rustix::process::fchdir(root.as_fd()).map_err(failed("fchdir"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("pivot_root"))?;
    // It is on top of the new one now.
    rustix::process::fchdir(&old).map_err(failed("fchdir"))?;
    detach(".")?;
    rustix::process::chdir("/").map_err(failed("chdir /"))
}

/// A mount by a path that it is attached at, to be given attributes.
pub fn at(path: &str) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|e| Error::new(format!("open {path}"), e))
}

/// Sets attributes on a detached mount; with `userns` its ids are translated through that user namespace.
/// Propagation becomes private.
pub fn set_attributes(mount: impl AsFd, attributes: u64, userns: Option<BorrowedFd<'_>>, recursive: bool) -> Result<()> {
    let attribute = MountAttr {
        set: attributes | if userns.is_some() { attr::ID_MAP } else { 0 },
        clear: 0,
        propagation: libc::MS_PRIVATE,
        userns: userns.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a valid C string, the structure is valid for its stated size.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_fd().as_raw_fd(), c"".as_ptr(), flags, &raw const attribute, size_of::<MountAttr>())
    };
    check(result, if userns.is_some() { "mount_setattr(idmap)" } else { "mount_setattr" }).map(|_| ())
}
