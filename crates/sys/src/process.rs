//! Processes by descriptor, and the calling process's own settings.

use crate::error::check;
use crate::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const MFD_EXEC: u32 = 0x10;
const MFD_NOEXEC_SEAL: u32 = 0x8;

/// A sealed memory file with these bytes. `executable` says whether it may be executed (kernels 6.3 and later ask).
pub fn sealed_file(name: &str, bytes: &[u8], executable: bool) -> Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let hint = MemfdFlags::from_bits_retain(if executable { MFD_EXEC } else { MFD_NOEXEC_SEAL });
    let fd = memfd_create(name, base | hint).or_else(|_| memfd_create(name, base)).map_err(|e| Error::new("memfd_create", e))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).map_err(|e| Error::new("write(memfd)", e))?;
    let fd = OwnedFd::from(file);
    fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)
        .map_err(|e| Error::new("fcntl(F_ADD_SEALS)", e))?;
    Ok(fd)
}

/// Sends a signal through a pidfd; false if the process is gone.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<bool> {
    // SAFETY: no information structure is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    if result == 0 {
        return Ok(true);
    }
    let error = Error::last("pidfd_send_signal");
    if error.errno() == libc::ESRCH { Ok(false) } else { Err(error) }
}

/// Collects an ended child by pidfd without waiting; true if it was collected or is no child of ours.
pub fn reap(pidfd: BorrowedFd<'_>) -> bool {
    // SAFETY: all-zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call.
    let result = unsafe {
        libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::__WALL)
    };
    // SAFETY: waitid filled the structure, or left it zeroed.
    result != 0 || unsafe { info.si_pid() } != 0
}

/// Waits until the process behind a pidfd has ended; false if it takes longer than this.
pub fn wait_ended(pidfd: BorrowedFd<'_>, most: std::time::Duration) -> bool {
    let most = rustix::event::Timespec { tv_sec: most.as_secs() as i64, tv_nsec: i64::from(most.subsec_nanos()) };
    let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&most)).is_ok_and(|ready| ready > 0)
}

/// The pid, in this process's pid namespace, of the process behind a pidfd; None when it is gone.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok()
}

/// CPUs that this process may run on.
pub fn cpus() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().max(1))
}

/// Bytes of memory that the kernel could give out now, without what it takes from others.
pub fn memory_available() -> Option<u64> {
    let text = read_kernel_file(std::path::Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The capabilities that this process and what it executes can have at all.
pub fn bounding_set() -> u64 {
    let status = read_kernel_file(std::path::Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}

/// A small file of the kernel's (`/proc`, `/sys`) in as few calls as can be.
pub fn read_kernel_file(path: &std::path::Path) -> std::io::Result<String> {
    const AT_ONCE: usize = 16 << 10;
    let mut file = std::fs::File::open(path)?;
    let (mut bytes, mut length) = (vec![0; AT_ONCE], 0);
    loop {
        match std::io::Read::read(&mut file, &mut bytes[length..])? {
            0 => break,
            read => length += read,
        }
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

/// Gives up every right for good: with `user` it becomes that user, with no group but its own and no capability; nothing that it
/// could execute brings one back, and no other process of that user may look inside. Call it while the process has one thread.
pub fn become_unprivileged(user: Option<u32>) -> Result<()> {
    const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let (header, none) = ([CAPABILITY_VERSION_3, 0], [0u32; 6]);
    // SAFETY: constant arguments, no pointers to memory but an empty list.
    unsafe {
        if let Some(user) = user {
            check(libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>()), "setgroups")?;
            check(libc::syscall(libc::SYS_setresgid, user, user, user), "setresgid")?;
            check(libc::syscall(libc::SYS_setresuid, user, user, user), "setresuid")?;
        }
        // Those over its own user namespace too. The ambient ones go with the permitted ones.
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()), "capset")?;
        check(i64::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)), "prctl(PR_SET_NO_NEW_PRIVS)")?;
        check(i64::from(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0)), "prctl(PR_SET_DUMPABLE)")?;
    }
    Ok(())
}

/// From now on this thread's looks at files, and what it makes, are this user's; nothing else of the process changes. The thread is of no other
/// use afterwards. `all` keeps what root may do to files of others.
pub fn see_files_as((uid, gid): (u32, u32), groups: &[u32], all: bool) -> Result<()> {
    const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = [CAPABILITY_VERSION_3, 0];
    let mut rights = [0u32; 6];
    // SAFETY: valid pointers of the stated lengths; the raw calls change the calling thread only.
    unsafe {
        check(libc::syscall(libc::SYS_capget, header.as_ptr(), rights.as_mut_ptr()), "capget")?;
        // A user namespace that forbids it has one user, whose groups these are.
        match check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), "setgroups") {
            Err(error) if error.errno() != libc::EPERM => return Err(error),
            _ => {}
        }
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
        // They answer with the id before: the second answer is the one that counts.
        let (user, group) = (libc::syscall(libc::SYS_setfsuid, uid), libc::syscall(libc::SYS_setfsgid, gid));
        if user != i64::from(uid) || group != i64::from(gid) {
            return Err(Error::new("setfsuid", rustix::io::Errno::PERM));
        }
        if all {
            check(libc::syscall(libc::SYS_capset, header.as_ptr(), rights.as_ptr()), "capset")?;
        } else {
            // Whoever serves a user keeps no right that the user has not.
            check(libc::syscall(libc::SYS_capset, header.as_ptr(), [0u32; 6].as_ptr()), "capset")?;
        }
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid and outlives both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// The hard limit of one resource (`RLIMIT_*`).
pub fn hard_limit(resource: u32) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid and outlives the call.
    unsafe { libc::getrlimit(resource as _, &raw mut limit) };
    limit.rlim_max
}

/// Makes this process die by the default action of SIGPIPE again, as command line tools do.
pub fn default_sigpipe() {
    // SAFETY: installs no handler of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Forks. The parent gets the child's pidfd, the child None. Call it only while the process has one thread.
pub fn fork() -> Result<Option<OwnedFd>> {
    use std::os::fd::FromRawFd;
    let mut pidfd = -1i32;
    // SAFETY: plain fork with a pidfd; `pidfd` is valid. The caller promises one thread, so the child may run ordinary code.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PIDFD | libc::SIGCHLD, 0, &raw mut pidfd, 0, 0) };
    match check(pid, "fork")? {
        0 => Ok(None),
        // SAFETY: the kernel has just made this descriptor for us.
        _ => Ok(Some(unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// The Landlock version of this kernel, if it is enabled.
pub fn landlock_version() -> Option<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: asks for the version only; no structure is read.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, LANDLOCK_CREATE_RULESET_VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}
