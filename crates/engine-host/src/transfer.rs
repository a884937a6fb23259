//! Files in and out, from the host's side. Inside paths are resolved by the kernel within the sandbox's root
//! (`openat2` with `RESOLVE_IN_ROOT` and no magic links), one component after the other from an open directory, so a
//! workload that swaps a directory for a link while we copy leads us nowhere but into its own root.

use cofferdam_engine::{EngineError, Transfer, TransferReport};
use cofferdam_sys::ids::Ids;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, mkdirat, openat, openat2, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

const MOST_NAMED: usize = 100;
const DEEPEST: usize = 256;
const COPY_BYTES: usize = 1 << 18;
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Runs one transfer on a sandbox with this root mount and these ids.
pub fn run(root: &OwnedFd, ids: &Ids, transfer: &Transfer) -> Result<TransferReport, EngineError> {
    match transfer {
        Transfer::In { source, target, owner } => {
            let mut copier = Copier { owner: Some(ids.outside(*owner)), ..Copier::new(u64::MAX) };
            let (parent, name) = enter_target(root, target, &copier)?;
            let start = rustix::fs::CWD;
            let path = c_string(source)?;
            copier.entry(start.as_fd(), &path, &parent, &name, 0).map_err(|error| {
                let what = source.display().to_string();
                if is_full(&parent, &error) { EngineError::NoRoom { what } } else { EngineError::host(format!("copy {what}"), error) }
            })?;
            Ok(copier.report)
        }
        Transfer::Out { source, target, most_bytes } => {
            let mut copier = Copier::new(*most_bytes);
            let (from, from_name) = open_source(root, source)?;
            let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let to = openat(rustix::fs::CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| EngineError::host(format!("open {}", parent.display()), e))?;
            let name = c_string(Path::new(target.file_name().unwrap_or_default()))?;
            copier
                .entry(from.as_fd(), &from_name, &to, &name, 0)
                .map_err(|e| EngineError::host(format!("copy {}", source.display()), e))?;
            Ok(copier.report)
        }
    }
}

/// Whether it was the sandbox's own disk that had no room, and not something of the host.
fn is_full(directory: &OwnedFd, error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    const NOTHING_LEFT: u64 = 1 << 20;
    let full = |disk: rustix::fs::StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize) < NOTHING_LEFT || disk.f_favail == 0;
    matches!(error.kind(), StorageFull | QuotaExceeded) && rustix::fs::fstatvfs(directory).is_ok_and(full)
}

fn c_string(path: &Path) -> Result<CString, EngineError> {
    let bytes = path.as_os_str().as_bytes();
    let invalid = || EngineError::Invalid { what: format!("path {}", path.display()), why: "a file name is wanted".into() };
    if bytes.is_empty() { Err(invalid()) } else { CString::new(bytes).map_err(|_| invalid()) }
}

/// The source's directory and name; its last component is not followed if it is a link.
fn open_source(root: &OwnedFd, path: &Path) -> Result<(OwnedFd, CString), EngineError> {
    let error = |e| EngineError::host(format!("open {} in the sandbox", path.display()), e);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if path.file_name().is_none() {
        return Ok((openat2(root, ".", flags | OFlags::DIRECTORY, Mode::empty(), INSIDE).map_err(error)?, c".".to_owned()));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = openat2(root, parent, flags | OFlags::DIRECTORY, Mode::empty(), INSIDE).map_err(error)?;
    Ok((parent, c_string(Path::new(path.file_name().unwrap_or_default()))?))
}

/// The target's directory, made where it is missing, and its name.
fn enter_target(root: &OwnedFd, path: &Path, copier: &Copier) -> Result<(OwnedFd, CString), EngineError> {
    let error = |e| EngineError::host(format!("open {} in the sandbox", path.display()), e);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut place = openat2(root, ".", flags, Mode::empty(), INSIDE).map_err(error)?;
    let mut walked = std::path::PathBuf::from("/");
    for part in path.parent().unwrap_or(Path::new("/")).components() {
        if let Component::Normal(name) = part {
            walked.push(name);
            place = match openat2(root, &walked, flags, Mode::empty(), INSIDE) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    mkdirat(&place, name, Mode::from_raw_mode(0o755)).map_err(error)?;
                    let next = openat(&place, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(error)?;
                    copier.own(&next).map_err(|e| EngineError::host("change owner in the sandbox", e))?;
                    next
                }
                Err(other) => return Err(error(other)),
            };
        }
    }
    Ok((place, c_string(Path::new(path.file_name().unwrap_or_default()))?))
}

struct Copier {
    report: TransferReport,
    left: u64,
    owner: Option<(u32, u32)>,
}

impl Copier {
    fn new(most_bytes: u64) -> Self {
        Self { report: TransferReport::default(), left: most_bytes, owner: None }
    }

    fn leave_out(&mut self, name: &CStr, why: &str) {
        if self.report.left_out.len() < MOST_NAMED {
            self.report.left_out.push(format!("{}: {why}", name.to_string_lossy().escape_debug()));
        }
    }

    /// Copies one entry by name from one open directory to another.
    fn entry(&mut self, from: impl AsFd, name: &CStr, to: &OwnedFd, to_name: &CStr, depth: usize) -> std::io::Result<()> {
        let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(from, name, to, to_name),
            FileType::Directory if depth < DEEPEST => self.directory(from, name, to, to_name, depth),
            FileType::Directory => {
                self.leave_out(name, "nested too deep");
                Ok(())
            }
            FileType::Symlink => {
                let target = readlinkat(&from, name, Vec::new())?;
                remove_file(to, to_name)?;
                symlinkat(&target, to, to_name)?;
                if let Some((uid, gid)) = self.owner {
                    chownat(to, to_name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
                }
                Ok(())
            }
            _ => {
                self.leave_out(name, "neither file, directory nor link");
                Ok(())
            }
        }
    }

    fn file(&mut self, from: impl AsFd, name: &CStr, to: &OwnedFd, to_name: &CStr) -> std::io::Result<()> {
        // NONBLOCK: the entry may have become a pipe since it was looked at.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut source = File::from(openat(from, name, flags, Mode::empty())?);
        let metadata = source.metadata()?;
        if !metadata.is_file() {
            self.leave_out(name, "changed while it was copied");
            return Ok(());
        }
        if metadata.len() > self.left {
            self.leave_out(name, "beyond the budget of bytes");
            return Ok(());
        }
        remove_file(to, to_name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = openat(to, to_name, flags, Mode::from_raw_mode(0o600))?;
        let copied = copy(&mut source, &target, self.left)?;
        self.left -= copied;
        self.report.files += 1;
        self.report.bytes += copied;
        self.own(&target)?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        Ok(fchmod(&target, Mode::from_raw_mode(mode))?)
    }

    fn directory(&mut self, from: impl AsFd, name: &CStr, to: &OwnedFd, to_name: &CStr, depth: usize) -> std::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = openat(from, name, flags, Mode::empty())?;
        match mkdirat(to, to_name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let target = openat(to, to_name, flags, Mode::empty())?;
        self.own(&target)?;
        for entry in Dir::read_from(&source)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match self.entry(&source, name, &target, name, depth + 1) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.leave_out(name, "vanished while it was copied"),
                other => other?,
            }
        }
        let mode = rustix::fs::fstat(&source)?.st_mode & 0o777;
        Ok(fchmod(&target, Mode::from_raw_mode(mode))?)
    }

    fn own(&self, place: impl AsFd) -> std::io::Result<()> {
        match self.owner {
            Some((uid, gid)) => Ok(chownat(place, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?),
            None => Ok(()),
        }
    }
}

fn copy(source: &mut File, target: &OwnedFd, most: u64) -> std::io::Result<u64> {
    let mut target = File::from(target.try_clone()?);
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    let mut limited = source.take(most);
    loop {
        let length = limited.read(&mut buffer)?;
        if length == 0 {
            return Ok(copied);
        }
        target.write_all(&buffer[..length])?;
        copied += length as u64;
    }
}

/// Removes what a file is about to replace: writing through it could follow a link or change a shared file.
fn remove_file(directory: &OwnedFd, name: &CStr) -> std::io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
