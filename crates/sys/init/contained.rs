//! Pid 1 of a container that another runtime made: mounts, namespaces, limits and capabilities are there already.
//!
//! It is executed with the path of a socket that its supervisor listens at, connects once, waits until the supervisor has set up network and
//! mounts, fences itself in with Landlock and the filter that comes with GO, and is from then on pid 1 as in any sandbox. Nothing of the
//! image has run before that.

use crate::channel::{CONTROL, receive_bytes, send_to};
use crate::plan_wire::{MOST_FILTER_INSTRUCTIONS, REPLY_SETUP_FAILED, REQUEST_GO, SETUP_DESCRIPTORS, SETUP_FILTER};
use crate::setup::{Failure, install_filter, landlock};
use crate::{AT_FDCWD, FD_CLOEXEC, O_CLOEXEC, close, exit, pid_one, sys};

const AF_UNIX: usize = 1;
const SOCK_SEQPACKET_CLOEXEC: usize = 5 | O_CLOEXEC;
const LONGEST_PATH: usize = 107;
const O_RDWR: usize = 2;
const CREATE_RULESET_VERSION: usize = 1;

const EMSGSIZE: u32 = 90;

/// What tells it to go on: how many instructions of a filter follow.
#[repr(C)]
struct Go {
    words: [u32; 4],
    filter: [u64; MOST_FILTER_INSTRUCTIONS],
}

#[repr(C)]
struct Address {
    family: u16,
    path: [u8; LONGEST_PATH + 1],
}

/// Connects, then serves as pid 1. Without a supervisor it ends at once. Not `fenced`: a test shows that Landlock is missed.
///
/// # Safety
/// `path` ends in NUL.
pub unsafe fn main_loop(path: *const u8, fenced: bool) -> ! {
    let mut address = Address { family: AF_UNIX as u16, path: [0; LONGEST_PATH + 1] };
    for index in 0..LONGEST_PATH {
        // SAFETY: every byte before was not the last, so the string goes on.
        let byte = unsafe { path.add(index).read() };
        if byte == 0 {
            break;
        }
        address.path[index] = byte;
    }
    let socket = sys!(SOCKET, AF_UNIX, SOCK_SEQPACKET_CLOEXEC, 0);
    if socket < 0 || sys!(CONNECT, socket, &raw const address, size_of::<Address>()) < 0 {
        exit();
    }
    // Meanwhile the supervisor changes what is mounted here.
    let (mut go, mut fds) = (Go { words: [0; 4], filter: [0; MOST_FILTER_INSTRUCTIONS] }, [-1; 2]);
    let got = receive_bytes(socket as i32, (&raw mut go).cast(), size_of::<Go>(), &mut fds);
    if got < 16 || go.words[0] != REQUEST_GO {
        exit();
    }
    // Only the whole of it is a filter.
    let whole = got as usize == 16 + 8 * go.words[1] as usize;
    let filter = || {
        if whole { Ok(()) } else { Err(Failure { stage: SETUP_FILTER, errno: EMSGSIZE, step: 0 }) }?;
        install_filter(go.filter.as_ptr().cast(), go.words[1])
    };
    if let Err(failure) = settle(socket, fenced).and_then(|()| filter()) {
        send_to(socket as i32, [REPLY_SETUP_FAILED, 0, failure.stage, failure.errno], &[]);
        exit();
    }
    pid_one::main_loop(true)
}

/// 0 to 2: the null device; 3: control; nothing else. Then Landlock, as far as the kernel has it.
fn settle(socket: isize, fenced: bool) -> Result<(), Failure> {
    let check = |result: isize| {
        if result < 0 { Err(Failure { stage: SETUP_DESCRIPTORS, errno: (-result) as u32, step: 0 }) } else { Ok(result) }
    };
    let null = check(sys!(OPENAT, AT_FDCWD, c"/dev/null".as_ptr(), O_RDWR | O_CLOEXEC, 0))?;
    if socket != CONTROL as isize {
        check(sys!(DUP3, socket, CONTROL, O_CLOEXEC))?;
    }
    for standard in 0..3 {
        check(sys!(DUP3, null, standard, 0))?;
    }
    sys!(FCNTL, CONTROL, crate::F_SETFD, FD_CLOEXEC);
    close(if null > CONTROL as isize { null as i32 } else { -1 });
    if !fenced {
        return Ok(());
    }
    let version = sys!(LANDLOCK_CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION);
    landlock(u32::try_from(version).unwrap_or(0))
}
