//! Our files of a container on the host, and files that are put into one before anything runs in it.

use cofferdam_engine::{Directory, EngineError, File, SandboxSpec};
use cofferdam_engine_host::device::system;
use cofferdam_gate::wire::RESOLVER;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::process;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, mkdirat, openat, openat2};
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

/// Writes pid 1 and what a container is to find in `/etc`.
pub fn write_own(spec: &SandboxSpec) -> Result<(), EngineError> {
    let host = |error| EngineError::host("write the container's own files", error);
    let contained = spec.directory.join("contained");
    fs::create_dir_all(&contained).map_err(host)?;
    let init = contained.join("init");
    fs::write(&init, cofferdam_sys::INIT_PROGRAM).map_err(host)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o555)).map_err(host)?;
    fs::set_permissions(&contained, fs::Permissions::from_mode(0o755)).map_err(host)?;
    let etc = spec.directory.join("etc");
    fs::create_dir_all(&etc).map_err(host)?;
    let hosts = format!("127.0.0.1\tlocalhost {0}\n::1\tlocalhost ip6-localhost ip6-loopback\n", spec.hostname);
    let mut files = vec![
        ("hosts", hosts),
        ("hostname", format!("{}\n", spec.hostname)),
        ("resolv.conf", format!("nameserver {RESOLVER}\noptions edns0\n")),
    ];
    if !spec.bare {
        files.push(("passwd", spec.image.accounts().passwd().to_owned()));
        files.push(("group", spec.image.accounts().group().to_owned()));
    }
    for (name, text) in files {
        fs::write(etc.join(name), text).map_err(host)?;
        fs::set_permissions(etc.join(name), fs::Permissions::from_mode(0o644)).map_err(host)?;
    }
    Ok(())
}

/// Removes them.
pub fn remove_own(directory: &Path) {
    for name in ["contained", "etc"] {
        let _ = fs::remove_dir_all(directory.join(name));
    }
}

/// Whether each tree of the host is the one that was opened and checked: somebody may have moved another to its path since.
pub fn are_as_checked(root: &OwnedFd, spec: &SandboxSpec) -> Result<(), EngineError> {
    for mount in spec.mounts.iter().filter(|mount| !mount.source.is_volume()) {
        // Below another mount no link is the image's: whoever writes there may flip a directory and a link while the daemon looks.
        let below = spec.mounts.iter().any(|other| other.target != mount.target && mount.target.starts_with(&other.target));
        let links = if below { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | links;
        let shown = openat2(root, &mount.target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside).and_then(rustix::fs::fstat);
        let checked = rustix::fs::fstat(mount.source.fd());
        let same = matches!((&shown, &checked), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino));
        if !same {
            return Err(EngineError::Invalid {
                what: format!("mount source {}", mount.source.path().display()),
                why: "what the daemon mounted is not what was checked: it was moved meanwhile, or the daemon sees other files than this process".into(),
            });
        }
    }
    Ok(())
}

/// Does what makes files in a container. Where the daemon remaps users, what is made there belongs to one of the container's, who this process
/// is not: then a thread of its own does it as the container's root.
pub fn as_its_root<T: Send>(ids: &Ids, work: impl FnOnce() -> Result<T, EngineError> + Send) -> Result<T, EngineError> {
    let root = ids.outside((0, 0));
    if root == (0, 0) {
        return work();
    }
    let panicked = |_| EngineError::host("make files in the container", std::io::Error::other("its thread panicked"));
    std::thread::scope(|scope| {
        let work = || {
            process::see_files_as(root, &[], true).map_err(system)?;
            work()
        };
        scope.spawn(work).join().map_err(panicked)?
    })
}

/// Puts in directories and files that the sandbox asks for. Nothing of the image has run; paths are resolved within the root.
pub fn put_in(root: &OwnedFd, ids: &Ids, spec: &SandboxSpec) -> Result<(), EngineError> {
    for directory in &spec.directories {
        put_directory(root, ids, directory).map_err(|error| explain(&directory.path, error))?;
    }
    for file in &spec.files {
        put_file(root, ids, file).map_err(|error| explain(&file.path, error))?;
    }
    Ok(())
}

fn explain(path: &Path, error: Errno) -> EngineError {
    if error == Errno::ROFS {
        return EngineError::Unsupported {
            what: format!("making {} in the sandbox", path.display()),
            why: "on the engine docker the image's own files cannot be changed by anybody but root".into(),
            remedy: "choose a place in /workspace, /tmp or the home directory, run as root (-u root), or use --engine native".into(),
        };
    }
    EngineError::host(format!("make {}", path.display()), error)
}

fn own(place: &OwnedFd, ids: &Ids, owner: (u32, u32), mode: u32) -> rustix::io::Result<()> {
    let (uid, gid) = ids.outside(owner);
    chownat(place, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    fchmod(place, Mode::from_raw_mode(mode))
}

fn put_directory(root: &OwnedFd, ids: &Ids, directory: &Directory) -> rustix::io::Result<()> {
    let place = enter(root, &directory.path)?;
    own(&place, ids, directory.owner, directory.mode)
}

fn put_file(root: &OwnedFd, ids: &Ids, file: &File) -> rustix::io::Result<()> {
    let parent = enter(root, file.path.parent().unwrap_or(Path::new("/")))?;
    let name = file.path.file_name().ok_or(Errno::INVAL)?;
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Err(error) if error != Errno::NOENT => return Err(error),
        _ => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
    let mut out = fs::File::from(made);
    out.write_all(&file.contents).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    own(&OwnedFd::from(out), ids, file.owner, file.mode)
}

/// Makes sure that there is a directory, or a file, for something to be mounted on.
pub fn make_mount_point(root: &OwnedFd, path: &Path, is_directory: bool) -> rustix::io::Result<()> {
    if is_directory {
        return enter(root, path).map(|_| ());
    }
    let parent = enter(root, path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().ok_or(Errno::INVAL)?;
    match openat(&parent, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::from_raw_mode(0o644)) {
        Err(error) if error != Errno::EXIST => Err(error),
        _ => Ok(()),
    }
}

/// A directory of the container, made with those above it where it is missing.
fn enter(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut walked = std::path::PathBuf::new();
    let mut place = openat2(root, ".", DIRECTORY, Mode::empty(), inside)?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        walked.push(name);
        place = match openat2(root, &walked, DIRECTORY, Mode::empty(), inside) {
            Err(Errno::NOENT) => {
                mkdirat(&place, name, Mode::from_raw_mode(0o755))?;
                openat2(root, &walked, DIRECTORY, Mode::empty(), inside)?
            }
            other => other?,
        };
    }
    Ok(place)
}
