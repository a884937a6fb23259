//! The control socket: descriptor 3, messages of four words.

use crate::sys;
use crate::wire::MESSAGE_BYTES;

/// The supervisor's end is on the other side of this descriptor. When it closes, the sandbox ends.
pub const CONTROL: i32 = 3;
/// Most descriptors that one message carries.
pub const MOST_FDS: usize = 5;

#[repr(C)]
struct IoVec {
    base: *mut u8,
    length: usize,
}

#[repr(C)]
struct MsgHdr {
    name: *mut u8,
    name_length: u32,
    iov: *mut IoVec,
    iov_length: usize,
    control: *mut u8,
    control_length: usize,
    flags: i32,
}

#[repr(C, align(8))]
struct Rights {
    length: usize,
    level: i32,
    kind: i32,
    fds: [i32; 6],
}

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
const MSG_NOSIGNAL: i32 = 0x4000;
const HEADER: usize = 16;

/// One message with the descriptors that came along.
pub struct Message {
    /// The four words.
    pub words: [u32; 4],
    /// Received descriptors; unused ones are -1.
    pub fds: [i32; MOST_FDS],
}

/// The next message, or None when the supervisor has gone.
pub fn receive() -> Option<Message> {
    let mut words = [0u32; 4];
    let mut iov = IoVec { base: words.as_mut_ptr().cast(), length: MESSAGE_BYTES };
    let mut rights = Rights { length: 0, level: 0, kind: 0, fds: [-1; 6] };
    let mut header = MsgHdr {
        name: core::ptr::null_mut(),
        name_length: 0,
        iov: &mut iov,
        iov_length: 1,
        control: (&raw mut rights).cast(),
        control_length: size_of::<Rights>(),
        flags: 0,
    };
    let got = sys!(RECVMSG, CONTROL, &raw mut header, MSG_CMSG_CLOEXEC);
    if got != MESSAGE_BYTES as isize {
        return None;
    }
    let mut fds = [-1; MOST_FDS];
    if header.control_length >= HEADER && rights.level == SOL_SOCKET && rights.kind == SCM_RIGHTS {
        let count = (rights.length - HEADER) / 4;
        for (to, from) in fds.iter_mut().zip(rights.fds.iter().take(count)) {
            *to = *from;
        }
    }
    Some(Message { words, fds })
}

/// Sends one message; a supervisor that has gone is noticed at the next receive.
pub fn send(words: [u32; 4], fds: &[i32]) {
    let mut words = words;
    let mut iov = IoVec { base: words.as_mut_ptr().cast(), length: MESSAGE_BYTES };
    let mut rights = Rights { length: HEADER + 4 * fds.len(), level: SOL_SOCKET, kind: SCM_RIGHTS, fds: [-1; 6] };
    for (to, from) in rights.fds.iter_mut().zip(fds) {
        *to = *from;
    }
    let control_length = if fds.is_empty() { 0 } else { HEADER + (4 * fds.len()).next_multiple_of(8) };
    let header = MsgHdr {
        name: core::ptr::null_mut(),
        name_length: 0,
        iov: &mut iov,
        iov_length: 1,
        control: if fds.is_empty() { core::ptr::null_mut() } else { (&raw mut rights).cast() },
        control_length,
        flags: 0,
    };
    sys!(SENDMSG, CONTROL, &raw const header, MSG_NOSIGNAL);
}
