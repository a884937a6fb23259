//! Sequenced-packet sockets: messages with descriptors.

use crate::sys;
use crate::wire::MESSAGE_BYTES;

/// Of pid 1: the supervisor's end is on the other side. When it closes, the sandbox ends.
pub const CONTROL: i32 = 3;
/// Most descriptors that one message to pid 1 carries.
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
struct Rights<const MOST: usize> {
    length: usize,
    level: i32,
    kind: i32,
    fds: [i32; MOST],
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

/// Receives one message into a buffer: its length (0 or less: the other side has gone). The descriptors that came along
/// are close-on-exec; unused places are -1. `MOST` is even.
pub fn receive_bytes<const MOST: usize>(socket: i32, buffer: *mut u8, length: usize, fds: &mut [i32; MOST]) -> isize {
    let mut iov = IoVec { base: buffer, length };
    let mut rights = Rights { length: 0, level: 0, kind: 0, fds: [-1; MOST] };
    let mut header = MsgHdr {
        name: core::ptr::null_mut(),
        name_length: 0,
        iov: &mut iov,
        iov_length: 1,
        control: (&raw mut rights).cast(),
        control_length: size_of::<Rights<MOST>>(),
        flags: 0,
    };
    let got = sys!(RECVMSG, socket, &raw mut header, MSG_CMSG_CLOEXEC);
    fds.fill(-1);
    if got > 0 && header.control_length >= HEADER && rights.level == SOL_SOCKET && rights.kind == SCM_RIGHTS {
        let count = (rights.length - HEADER) / 4;
        for (to, from) in fds.iter_mut().zip(rights.fds.iter().take(count)) {
            *to = *from;
        }
    }
    got
}

/// The next message to pid 1, or None when the supervisor has gone.
pub fn receive() -> Option<Message> {
    let mut words = [0u32; 4];
    let mut all = [-1; MOST_FDS + 1];
    if receive_bytes(CONTROL, words.as_mut_ptr().cast(), MESSAGE_BYTES, &mut all) != MESSAGE_BYTES as isize {
        return None;
    }
    let mut fds = [-1; MOST_FDS];
    for (to, from) in fds.iter_mut().zip(all) {
        *to = from;
    }
    Some(Message { words, fds })
}

/// Sends one message from pid 1; a supervisor that has gone is noticed at the next receive.
pub fn send(words: [u32; 4], fds: &[i32]) {
    send_to(CONTROL, words, fds);
}

/// Sends one message.
pub fn send_to(socket: i32, words: [u32; 4], fds: &[i32]) {
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
    sys!(SENDMSG, socket, &raw const header, MSG_NOSIGNAL);
}
