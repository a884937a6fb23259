//! Where a sandbox's own bytes go: memory where its disk limit fits in half the memory limit, else an ext4 image on a
//! loop device, copied from a template that is formatted once for each size.

use crate::data::copy_data;
use crate::device::system;
use cofferdam_engine::EngineError;
use cofferdam_model::{Bytes, Limits};
use cofferdam_sys::loopdev;
use cofferdam_sys::mount::{FsOption, new_fs};
use cofferdam_sys::outer;
use rustix::fs::{Mode, OFlags, ftruncate, openat};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Share of the host's own disk that is never given out: one part in twenty, a gibibyte at most.
const RESERVE_PART: u64 = 20;
const LARGEST_RESERVE: u64 = 1 << 30;
/// Inodes for each byte of a file system in memory: as ext4's default.
const BYTES_PER_INODE: u64 = 16_384;
const LARGEST_MEMORY_DISK: u64 = 64 << 30;
const MKFS: &str = "mkfs.ext4";
const PROGRAMS: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// A detached mount for a sandbox's own bytes. `directory` is the sandbox's directory on the host, `templates` that of
/// formatted images.
pub fn make(limits: &Limits, directory: &Path, templates: &Path) -> Result<OwnedFd, EngineError> {
    let half = limits.memory.get() / 2;
    match limits.disk {
        Some(disk) if disk.get() > half && outer::is_host_root() => loop_disk(disk.get(), directory, templates),
        _ => memory_disk(room(limits)),
    }
}

/// The same in memory whatever its size: the memory limit may end a sandbox before its disk is full.
pub fn in_memory(limits: &Limits) -> Result<OwnedFd, EngineError> {
    memory_disk(limits.disk.unwrap_or(limits.memory).get())
}

/// Why there are no disks here but in memory, if so.
pub fn obstacle() -> Option<String> {
    let formats = PROGRAMS.split(':').any(|directory| Path::new(directory).join(MKFS).exists());
    if !formats {
        return Some(format!("{MKFS} is not installed"));
    }
    let control = "/dev/loop-control";
    fs::File::options().read(true).write(true).open(control).err().map(|error| format!("{control}: {error}"))
}

/// What a sandbox may write.
pub fn room(limits: &Limits) -> u64 {
    limits.disk.map_or(limits.memory.get() / 2, Bytes::get)
}

fn memory_disk(bytes: u64) -> Result<OwnedFd, EngineError> {
    tmpfs(bytes.min(LARGEST_MEMORY_DISK), 0, 0)
}

/// A file system in memory, detached. `inodes` are those besides what its size gives.
pub fn tmpfs(bytes: u64, inodes: u64, attributes: u64) -> Result<OwnedFd, EngineError> {
    let (size, inodes) = (bytes.to_string(), (bytes / BYTES_PER_INODE).max(1024).saturating_add(inodes).to_string());
    let options = [FsOption::Value("mode", "755"), FsOption::Value("size", &size), FsOption::Value("nr_inodes", &inodes)];
    new_fs("tmpfs", &options, attributes).map_err(system)
}

fn loop_disk(bytes: u64, directory: &Path, templates: &Path) -> Result<OwnedFd, EngineError> {
    check_reserve(directory, bytes)?;
    let template = template(bytes, templates)?;
    let path = directory.join("disk.img");
    let image = copy_sparse(&template, &path, bytes).map_err(|e| EngineError::host(format!("make {}", path.display()), e))?;
    // The image needs no name any more: when the mount goes, so do its bytes, whatever happens to us.
    fs::remove_file(&path).map_err(|e| EngineError::host(format!("unlink {}", path.display()), e))?;
    let (_device, device_path) = loopdev::attach(image.as_fd()).map_err(|e| no_loop(&e))?;
    let options = [FsOption::Value("source", &device_path), FsOption::Flag("noinit_itable"), FsOption::Flag("noauto_da_alloc")];
    new_fs("ext4", &options, cofferdam_sys::mount::attr::NO_ATIME).map_err(system)
}

fn no_loop(error: &cofferdam_sys::Error) -> EngineError {
    EngineError::Unsupported {
        what: "a disk limit above half the memory limit".into(),
        why: error.to_string(),
        remedy: "give the sandbox a smaller --disk, or make /dev/loop-control usable".into(),
    }
}

/// Refuses to give out what the host has not, its reserve left out.
fn check_reserve(directory: &Path, bytes: u64) -> Result<(), EngineError> {
    let stat = rustix::fs::statvfs(directory).map_err(|e| EngineError::host(format!("statvfs {}", directory.display()), e))?;
    let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    let reserve = (total / RESERVE_PART).min(LARGEST_RESERVE);
    if free < bytes.saturating_add(reserve) {
        const MEBIBYTE: u64 = 1 << 20;
        return Err(EngineError::Exhausted {
            what: "disk space".into(),
            why: format!(
                "{} MiB are wanted, {} MiB are free, {} MiB of them kept for the host",
                bytes / MEBIBYTE,
                free / MEBIBYTE,
                reserve / MEBIBYTE
            ),
            remedy: "free some, or give the sandbox a smaller --disk".into(),
        });
    }
    Ok(())
}

/// A formatted image of this size; made on first use, under its final name only when whole.
fn template(bytes: u64, templates: &Path) -> Result<PathBuf, EngineError> {
    let path = templates.join(format!("ext4-{bytes}.img"));
    if path.exists() {
        return Ok(path);
    }
    let error = |e: io::Error| EngineError::host(format!("make {}", path.display()), e);
    fs::create_dir_all(templates).map_err(error)?;
    // A file of this maker's own: threads of one process make it at once too.
    let making = tempfile::Builder::new().prefix("making-").tempfile_in(templates).map_err(error)?;
    making.as_file().set_len(bytes).map_err(error)?;
    let output = Command::new(MKFS)
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"])
        .arg(making.path())
        .env("PATH", PROGRAMS)
        .output()
        .map_err(|e| EngineError::Unsupported {
            what: "a disk limit above half the memory limit".into(),
            why: format!("{MKFS}: {e}"),
            remedy: "install e2fsprogs, or give the sandbox a smaller --disk".into(),
        })?;
    if !output.status.success() {
        return Err(error(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())));
    }
    making.persist(&path).map_err(|e| error(e.error))?;
    Ok(path)
}

/// Copies the parts of a template that hold data.
fn copy_sparse(from: &Path, to: &Path, bytes: u64) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = fs::File::from(openat(rustix::fs::CWD, to, flags, Mode::from_raw_mode(0o600))?);
    copy_data(&fs::File::open(from)?, &target)?;
    ftruncate(&target, bytes)?;
    Ok(target.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_makers_of_a_template_make_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let templates = directory.path().join("templates");
        let made: Vec<PathBuf> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..6).map(|_| scope.spawn(|| template(64 << 20, &templates).expect("made"))).collect();
            makers.into_iter().map(|maker| maker.join().expect("no panic")).collect()
        });
        let checked = Command::new("e2fsck").args(["-fn"]).arg(&made[0]).env("PATH", "/usr/sbin:/sbin").output().expect("e2fsck");
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(fs::read_dir(&templates).expect("listed").count(), 1);
    }
}
