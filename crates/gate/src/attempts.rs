//! What the gate's process could do if it were taken over: each attempt is made, in a process that is confined as the gate is.

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, Signal, Uid, kill_process};
use rustix::thread::set_thread_uid;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;

/// Who has to refuse an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Nobody: the gate needs it.
    None,
    /// Landlock.
    Landlock,
    /// The filter of system calls.
    Filter,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// What was tried.
    pub what: &'static str,
    /// Who has to refuse it.
    pub control: Control,
    /// What the kernel said; none if it was done.
    pub refused: Option<String>,
}

impl Attempt {
    /// Whether it came out as it should.
    pub fn is_as_wanted(&self) -> bool {
        (self.control == Control::None) != self.refused.is_some()
    }
}

type Try = fn() -> io::Result<()>;

/// In this order: what is for the filter may not be reached where a control is missing.
const TRIES: &[(&str, Control, Try)] = &[
    ("read the names of hosts", Control::None, || File::open("/etc/hosts").map(drop)),
    ("send a datagram", Control::None, || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.send_to(b"x", socket.local_addr()?).map(drop)
    }),
    ("read the accounts of this host", Control::Landlock, || File::open("/etc/passwd").map(drop)),
    ("read its own environment", Control::Landlock, || File::open("/proc/self/environ").map(drop)),
    ("write to a terminal or a device", Control::Landlock, || File::options().write(true).open("/dev/null").map(drop)),
    ("list the root directory", Control::Landlock, || std::fs::read_dir("/").map(drop)),
    ("take a TCP port", Control::Landlock, || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
    ("start a program", Control::Filter, || Command::new("/bin/true").spawn().and_then(|mut child| child.wait()).map(drop)),
    ("make a namespace", Control::Filter, || cofferdam_sys::namespace::Network::make().map(drop).map_err(|error| error.source)),
    ("open a raw socket", Control::Filter, || socket(AddressFamily::INET, SocketType::RAW)),
    ("see packets", Control::Filter, || socket(AddressFamily::PACKET, SocketType::RAW)),
    ("change the network's settings", Control::Filter, || socket(AddressFamily::NETLINK, SocketType::RAW)),
    ("become root", Control::Filter, || Ok(set_thread_uid(Uid::ROOT)?)),
    ("signal pid 1", Control::Filter, || Ok(kill_process(Pid::INIT, Signal::WINCH)?)),
];

fn socket(family: AddressFamily, kind: SocketType) -> io::Result<()> {
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None).map(drop)?)
}

/// Makes them. Call it after [`crate::confine::confine`]; without `landlock`, which a kernel may not have, what it would refuse is left out.
pub fn all(landlock: bool) -> Vec<Attempt> {
    let made = TRIES.iter().filter(|(_, control, _)| landlock || *control != Control::Landlock);
    made.map(|(what, control, attempt)| Attempt { what, control: *control, refused: attempt().err().map(|error| error.to_string()) })
        .collect()
}
