//! Loop devices that free themselves.

use crate::error::check;
use crate::{Error, Result};
use rustix::fs::{FileType, Mode, OFlags, open};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const LOOP_CTL_GET_FREE: u64 = 0x4C82;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LOOP_GET_STATUS64: u64 = 0x4C05;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const TRIES: u32 = 64;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Attaches a file to a free loop device and returns the device and its path. The device is detached by the kernel
/// when the last user (the descriptor, a mount) is gone.
pub fn attach(file: BorrowedFd<'_>) -> Result<(OwnedFd, String)> {
    let control =
        open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| Error::new("open /dev/loop-control", e))?;
    for _ in 0..TRIES {
        // SAFETY: the ioctl takes no argument.
        let number = check(unsafe { i64::from(libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _)) }, "LOOP_CTL_GET_FREE")?;
        let path = format!("/dev/loop{number}");
        let device = open_or_make(&path, number)?;
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut config: Config = unsafe { std::mem::zeroed() };
        config.fd = file.as_raw_fd() as u32;
        config.info.flags = LO_FLAGS_AUTOCLEAR;
        // SAFETY: the pointer is to a valid `loop_config` that outlives the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) } == 0 {
            return Ok((device, path));
        }
        let error = Error::last("LOOP_CONFIGURE");
        if error.errno() != libc::EBUSY {
            return Err(error);
        }
    }
    Err(Error::new("LOOP_CONFIGURE", rustix::io::Errno::BUSY))
}

/// A container has the nodes of the devices that there were when it began.
fn open_or_make(path: &str, number: i64) -> Result<OwnedFd> {
    const LOOP_MAJOR: u32 = 7;
    let open = || open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let opened = match open() {
        Err(Errno::NOENT) => {
            let device = rustix::fs::makedev(LOOP_MAJOR, u32::try_from(number).unwrap_or(u32::MAX));
            match rustix::fs::mknodat(rustix::fs::CWD, path, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device) {
                Ok(()) | Err(Errno::EXIST) => open(),
                Err(error) => Err(error),
            }
        }
        other => other,
    };
    opened.map_err(|e| Error::new(format!("open {path}"), e))
}

/// The loop device that a file is attached to already, if there is one: opened, so that it stays. Two file systems on two devices of one file
/// would spoil each other.
pub fn find(file: BorrowedFd<'_>) -> Result<Option<(OwnedFd, String)>> {
    let wanted = rustix::fs::fstat(file).map_err(|e| Error::new("stat the file of a loop device", e))?;
    let devices = std::fs::read_dir("/sys/block").map_err(|e| Error::new("read /sys/block", e))?;
    for name in devices.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let attached = std::path::Path::new("/sys/block").join(&name).join("loop/backing_file");
        if !name.starts_with("loop") || !attached.exists() {
            continue;
        }
        let path = format!("/dev/{name}");
        let device = match open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            // Let go meanwhile.
            Err(Errno::NXIO | Errno::NOENT | Errno::NODEV) => continue,
            // It may be the one.
            other => other.map_err(|e| Error::new(format!("open {path}"), e))?,
        };
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut info: Info = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a valid `loop_info64` that outlives the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) } != 0 {
            match Error::last("LOOP_GET_STATUS64") {
                error if error.errno() == libc::ENXIO => continue,
                error => return Err(error),
            }
        }
        if info.inode == wanted.st_ino && info.device == encoded(wanted.st_dev) {
            return Ok(Some((device, path)));
        }
    }
    Ok(None)
}

/// A device number as `loop_info64` has it: `huge_encode_dev` of the kernel.
fn encoded(device: u64) -> u64 {
    let (major, minor) = (u64::from(rustix::fs::major(device)), u64::from(rustix::fs::minor(device)));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
