//! The supervisor's side of the spawner: a small process that clones every sandbox (`init/spawner.rs`).

use crate::channel::{pair, receive_words, send};
use crate::plan_wire::{MOST_CLONE_FDS, MOST_PLAN_BYTES, REPLY_CLONED, REPLY_NOT_CLONED, REQUEST_CLONE, REQUEST_DISCARD};
use crate::process::sealed_file;
use crate::{Error, INIT_PROGRAM, Result};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

/// A running spawner. It ends when this is dropped.
#[derive(Debug)]
pub struct Spawner {
    /// One request at a time.
    socket: Mutex<Option<OwnedFd>>,
    /// 0 once it has been collected.
    pid: AtomicI32,
    /// It ended without being asked to.
    lost: AtomicBool,
}

/// A new process that sets its sandbox up and waits for GO. Its parent is the calling process.
#[derive(Debug)]
pub struct Cloned {
    /// Its pid in the caller's pid namespace.
    pub pid: u32,
    /// Its descriptor.
    pub pidfd: OwnedFd,
}

/// The control groups that a new process enters. It enters version 1's by itself: a thread that moves itself takes no lock
/// of the kernel's, while moving another process waits for a grace period of several milliseconds.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// A version 2 group to be created in.
    pub entrance: Option<OwnedFd>,
    /// The `tasks` files of version 1 groups, open for writing.
    pub tasks: Vec<OwnedFd>,
}

impl Spawner {
    /// Executes it: no environment, no descriptor but its socket and its program, every signal blocked, a session of its own.
    pub fn start() -> Result<Self> {
        let program = sealed_file("cofferdam-init", INIT_PROGRAM, true)?;
        let (socket, theirs) = pair()?;
        let pid = execute(program.as_fd(), theirs.as_fd())?;
        Ok(Self { socket: Mutex::new(Some(socket)), pid: AtomicI32::new(pid), lost: AtomicBool::new(false) })
    }

    /// Whether a request could not even be handed over: nothing came of it, and another spawner may be asked.
    pub fn was_not_asked(error: &Error) -> bool {
        error.call == "sendmsg" && matches!(error.source.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN))
    }

    /// Clones a process into new namespaces of every kind but the network's, which it enters. `control` is its end of a socket pair,
    /// `lease` a descriptor that it keeps open for as long as it lives.
    pub fn spawn(
        &self,
        plan: &[u8],
        control: BorrowedFd<'_>,
        lease: BorrowedFd<'_>,
        network: BorrowedFd<'_>,
        cgroups: &Cgroups,
    ) -> Result<Cloned> {
        let error = |errno: i32| Error::new("clone a sandbox", io::Error::from_raw_os_error(errno));
        let mut fds = vec![control, lease, network];
        fds.extend(cgroups.tasks.iter().map(AsFd::as_fd));
        fds.extend(cgroups.entrance.iter().map(AsFd::as_fd));
        if fds.len() > MOST_CLONE_FDS || plan.len() > MOST_PLAN_BYTES {
            return Err(error(libc::E2BIG));
        }
        let words = [REQUEST_CLONE, cgroups.tasks.len() as u32, u32::from(cgroups.entrance.is_some()), plan.len() as u32];
        let mut message: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        message.extend(plan);
        let guard = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = guard.as_ref().ok_or_else(|| error(libc::EPIPE))?;
        let lost = |_: &Error| self.lost.store(true, Ordering::Relaxed);
        send(socket, &message, &fds).inspect_err(lost)?;
        match receive_words(socket).inspect_err(lost)? {
            Some(([REPLY_CLONED, pid, ..], fds)) => {
                let pidfd = fds.into_iter().next().ok_or_else(|| error(libc::EPROTO))?;
                Ok(Cloned { pid, pidfd })
            }
            Some(([REPLY_NOT_CLONED, errno, 1, _], _)) => {
                Err(Error::new("leave the host's mounts", io::Error::from_raw_os_error(errno as i32)))
            }
            Some(([REPLY_NOT_CLONED, errno, ..], _)) => Err(error(errno as i32)),
            Some(_) => Err(error(libc::EPROTO)),
            None => {
                self.lost.store(true, Ordering::Relaxed);
                Err(Error::new("clone a sandbox", io::Error::other("the spawner has ended")))
            }
        }
    }

    /// Whether it ended without being asked to: another is to take its place.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Closes descriptors, later and elsewhere: those of mounts that are attached nowhere take their time.
    pub fn discard(&self, fds: Vec<OwnedFd>) {
        let guard = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        for some in fds.chunks(MOST_CLONE_FDS) {
            let borrowed: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            let words: Vec<u8> = [REQUEST_DISCARD, 0, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
            // If it has ended they are closed here.
            let _ = guard.as_ref().map(|socket| send(socket, &words, &borrowed));
        }
    }

    /// Lets it end: no sandbox will be asked for any more. Nobody waits for it.
    pub fn finish(&self) {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Collects it if it has ended; true if there is nothing left to collect. Does not wait.
    pub fn collect(&self) -> bool {
        self.wait(libc::WNOHANG)
    }

    fn wait(&self, options: i32) -> bool {
        let pid = self.pid.load(Ordering::Relaxed);
        // SAFETY: no status is asked for. An error says that someone else has collected it.
        let gone = pid == 0 || unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL | options) } != 0;
        if gone {
            self.pid.store(0, Ordering::Relaxed);
        }
        gone
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // Closing the socket ends it at once.
        self.socket.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.wait(0);
    }
}

fn execute(program: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> Result<libc::pid_t> {
    const SOCKET: i32 = 3;
    const PROGRAM: i32 = 4;
    /// `POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID`: the same in every C library for Linux, under
    /// types that differ. What the caller ignores (Rust programs ignore SIGPIPE), a sandbox's programs must not.
    const DEFAULTS_MASK_AND_SESSION: libc::c_short = 0x04 | 0x08 | 0x80;
    // Above the numbers that the new process uses: a descriptor moved onto itself or over the other would be lost.
    let aside = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 10).map_err(|e| Error::new("fcntl(F_DUPFD)", e));
    let (program, socket) = (aside(program)?, aside(socket)?);
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd())).map_err(|e| Error::new("spawner", io::Error::other(e)))?;
    let arguments = [c"cofferdam-spawner".as_ptr().cast_mut(), std::ptr::null_mut()];
    let environment = [std::ptr::null_mut()];
    let check = |result: i32| match result {
        0 => Ok(()),
        errno => Err(Error::new("execute the spawner", io::Error::from_raw_os_error(errno))),
    };
    // SAFETY: all-zero is a valid value for the three structures until they are initialised below.
    let (mut actions, mut attributes, mut signals): (libc::posix_spawn_file_actions_t, libc::posix_spawnattr_t, libc::sigset_t) =
        unsafe { std::mem::zeroed() };
    let mut pid = 0;
    // SAFETY: every pointer is to a live value; the structures are initialised first and destroyed last; strings end in NUL.
    unsafe {
        libc::sigfillset(&raw mut signals);
        check(libc::posix_spawn_file_actions_init(&raw mut actions))?;
        check(libc::posix_spawnattr_init(&raw mut attributes))?;
        let result = (|| {
            for fd in 0..3 {
                check(libc::posix_spawn_file_actions_addopen(&raw mut actions, fd, c"/dev/null".as_ptr(), libc::O_RDWR, 0))?;
            }
            for (from, to) in [(&socket, SOCKET), (&program, PROGRAM)] {
                check(libc::posix_spawn_file_actions_adddup2(&raw mut actions, from.as_raw_fd(), to))?;
            }
            check(libc::posix_spawnattr_setflags(&raw mut attributes, DEFAULTS_MASK_AND_SESSION))?;
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const signals))?;
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const signals))?;
            check(libc::posix_spawn(
                &raw mut pid,
                path.as_ptr(),
                &raw const actions,
                &raw const attributes,
                arguments.as_ptr(),
                environment.as_ptr(),
            ))
        })();
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
        result?;
    }
    Ok(pid)
}

#[cfg(test)]
mod tests;
