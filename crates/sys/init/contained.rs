//! Pid 1 of a container that another runtime made: the mounts, namespaces, limits, capabilities and the filter are there already.
//!
//! It is executed with the path of a socket that its supervisor listens at, connects once, waits until the supervisor has set up network and
//! mounts, fences itself in with Landlock, and is from then on pid 1 as in any sandbox. Nothing of the image has run before that.

use crate::channel::{CONTROL, receive_bytes, send_to};
use crate::plan_wire::{REPLY_SETUP_FAILED, REQUEST_GO, SETUP_DESCRIPTORS};
use crate::setup::{Failure, landlock};
use crate::{AT_FDCWD, FD_CLOEXEC, O_CLOEXEC, close, exit, pid_one, sys};

const AF_UNIX: usize = 1;
const SOCK_SEQPACKET_CLOEXEC: usize = 5 | O_CLOEXEC;
const LONGEST_PATH: usize = 107;
const O_RDWR: usize = 2;
const CREATE_RULESET_VERSION: usize = 1;

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
    let (mut words, mut fds) = ([0u32; 4], [-1; 2]);
    if receive_bytes(socket as i32, words.as_mut_ptr().cast(), 16, &mut fds) != 16 || words[0] != REQUEST_GO {
        exit();
    }
    if let Err(failure) = settle(socket, fenced) {
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
