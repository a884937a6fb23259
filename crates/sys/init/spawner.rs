//! The spawner: clones one sandbox for each request, and ends when its supervisor goes away.
//!
//! ```text
//! supervisor                        spawner                       child
//!                                   leave the host's mounts (see `emptied`)
//! plan, descriptors ──────────────▶ enter the network namespace
//!                                   clone3 ─────────────────────▶ set-up until it needs its mounts (see `setup`)
//! pid, pidfd ◀───────────────────── return, forget the descriptors
//! id maps, mounts, GO ───────────────────────────────────────────▶ the rest of set-up, then pid 1
//! ```
//! The child's parent is the supervisor (`CLONE_PARENT`): it collects it, and nothing is orphaned when the spawner ends.

use crate::channel::{receive_bytes, send_to};
use crate::emptied;
use crate::plan_wire::{MOST_CLONE_FDS, MOST_PLAN_BYTES, REPLY_CLONED, REPLY_NOT_CLONED, REQUEST_CLONE, REQUEST_DISCARD};
use crate::setup::{Failure, Inherited, Plan, run};
use crate::{AT_FDCWD, F_SETFD, FD_CLOEXEC, O_CLOEXEC, PR_SET_DUMPABLE, close, exit, sys};

/// The supervisor's end is on the other side.
pub const SOCKET: i32 = 3;
/// This program: what the child executes.
pub const PROGRAM: i32 = 4;
const HEADER_BYTES: usize = 16;
const EINVAL: u32 = 22;
const CLONE_NEWNET: usize = 0x4000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_PIDFD: u64 = 0x1000;
/// New user, mount, pid, ipc and uts namespaces. The network namespace is entered before, the cgroup namespace comes when
/// the child is in its groups.
const NAMESPACES: u64 = 0x1000_0000 | 0x2_0000 | 0x2000_0000 | 0x800_0000 | 0x400_0000;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

#[repr(C, align(8))]
struct Buffer([u8; HEADER_BYTES + MOST_PLAN_BYTES]);

static mut BUFFER: Buffer = Buffer([0; HEADER_BYTES + MOST_PLAN_BYTES]);

/// Serves the supervisor until it goes away.
pub fn main_loop() -> ! {
    for fd in [SOCKET, PROGRAM] {
        sys!(FCNTL, fd, F_SETFD, FD_CLOEXEC);
    }
    let home = sys!(OPENAT, AT_FDCWD, c"/proc/self/ns/net".as_ptr(), O_CLOEXEC, 0) as i32;
    if home < 0 {
        exit();
    }
    // What went wrong is the answer to every request.
    let emptied = emptied::enter();
    let buffer = &raw mut BUFFER;
    loop {
        let mut fds = [-1; MOST_CLONE_FDS];
        let got = receive_bytes(SOCKET, buffer.cast(), size_of::<Buffer>(), &mut fds);
        if got < HEADER_BYTES as isize {
            exit();
        }
        // SAFETY: the buffer is aligned and longer than four words; nothing else refers to it.
        let words: [u32; 4] = unsafe { buffer.cast::<[u32; 4]>().read() };
        match words[0] {
            REQUEST_CLONE => {
                // SAFETY: what follows the words was received into the buffer, and stays there until the next request.
                let plan = unsafe { Plan::new(buffer.cast::<u8>().add(HEADER_BYTES).cast(), got as usize - HEADER_BYTES) };
                let spawned = match (&emptied, plan) {
                    (Err(Failure { errno, .. }), _) => Err([*errno, 1]),
                    (Ok(()), None) => Err([EINVAL, 0]),
                    (Ok(()), Some(plan)) => spawn(&plan, words, fds, home).map_err(|errno| [errno, 0]),
                };
                match spawned {
                    Ok((pid, pidfd)) => {
                        send_to(SOCKET, [REPLY_CLONED, pid, 0, 0], &[pidfd]);
                        close(pidfd);
                    }
                    Err([errno, before]) => send_to(SOCKET, [REPLY_NOT_CLONED, errno, before, 0], &[]),
                }
            }
            REQUEST_DISCARD => wait_for_supervisor(),
            _ => exit(),
        }
        for fd in fds {
            close(fd);
        }
    }
}

/// Until the supervisor has closed its own of the descriptors that it sent, so that not its closing is the last one: until it asks for
/// something else, ends, or a moment has passed.
fn wait_for_supervisor() {
    const POLLIN: u64 = 1;
    const MOMENT_NANOS: u64 = 1_000_000;
    let watched = SOCKET as u64 | POLLIN << 32;
    let moment = [0u64, MOMENT_NANOS];
    sys!(POLL, &raw const watched, 1, moment.as_ptr(), 0, 8);
}

/// Clones the child: its pid and pidfd, or the errno.
fn spawn(plan: &Plan, words: [u32; 4], fds: [i32; MOST_CLONE_FDS], home: i32) -> Result<(u32, i32), u32> {
    let [_, tasks, grouped, _] = words;
    let tasks = (tasks as usize).min(MOST_CLONE_FDS - 4);
    let inherited = Inherited { control: fds[0], lease: fds[1], tasks: &fds[3..3 + tasks] };
    let group = if grouped == 0 { -1 } else { fds[3 + tasks] };
    let mut pidfd = -1i32;
    let mut arguments = CloneArgs {
        flags: NAMESPACES | CLONE_PARENT | CLONE_PIDFD | if group < 0 { 0 } else { CLONE_INTO_CGROUP },
        pidfd: &raw mut pidfd as u64,
        cgroup: if group < 0 { 0 } else { group as u64 },
        ..CloneArgs::default()
    };
    let entered = sys!(SETNS, fds[2], CLONE_NEWNET);
    if entered < 0 {
        return Err((-entered) as u32);
    }
    // The files of a process that may not be dumped belong to root of the host. This one holds nothing, and becomes closed before
    // anything of its sandbox runs.
    if plan.is_unprivileged() {
        sys!(PRCTL, PR_SET_DUMPABLE, 1, 0, 0, 0);
    }
    let pid = sys!(CLONE3, &raw mut arguments, size_of::<CloneArgs>());
    if pid == 0 {
        run(plan, &inherited);
    }
    sys!(PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0);
    // Staying in a sandbox's network namespace would be worse than ending. That of the host is closed to who is not root there: an
    // empty one is as good.
    if sys!(SETNS, home, CLONE_NEWNET) < 0 && sys!(UNSHARE, CLONE_NEWNET) < 0 {
        exit();
    }
    if pid < 0 { Err((-pid) as u32) } else { Ok((pid as u32, pidfd)) }
}
