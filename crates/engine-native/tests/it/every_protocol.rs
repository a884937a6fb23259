//! All 256 protocols of IP, raw frames and what else scapy can send, from root inside with every capability and no filter: nothing comes out.

use crate::with_kit;
use cofferdam_engine::UnpluggedControl;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Which frames of the host's interfaces hold a word.
const CAPTURE: &str = "
import socket, sys
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
print('ready', flush=True)
while True:
    frame, where = packets.recvfrom(65535)
    if sys.argv[1].encode() in frame: print(where[0], flush=True)
";

/// Says how many of its attempts the kernel took.
const SEND: &str = "
import logging, socket, sys
logging.getLogger('scapy').setLevel(logging.CRITICAL)
word, taken, tried = sys.argv[1].encode(), [], 0
def attempt(what, send):
    global tried
    tried += 1
    try:
        send()
        taken.append(what)
    except (OSError, PermissionError, socket.error): pass
for protocol in range(256):
    for family, to in ((socket.AF_INET, '127.0.0.9'), (socket.AF_INET, '192.0.2.9'), (socket.AF_INET6, '2001:db8::9')):
        attempt(f'raw {protocol} {to}', lambda: socket.socket(family, socket.SOCK_RAW, protocol).sendto(word, (to, 0)))
    if protocol not in (socket.IPPROTO_TCP,):
        attempt(f'datagram {protocol}', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, protocol).sendto(word, ('192.0.2.9', 9)))
for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
    def frame():
        packets = socket.socket(socket.AF_PACKET, kind, socket.ntohs(3))
        packets.bind(('lo', 0x0800))
        packets.send(b'\\xff' * 12 + b'\\x08\\x00' + word)
    attempt(f'frame {kind}', frame)
try:
    from scapy.all import IP, IPv6, ICMP, UDP, TCP, SCTP, Ether, ARP, Raw, conf, send, sendp
    conf.verb = 0
    for protocol in range(256):
        attempt(f'scapy {protocol}', lambda: send(IP(dst='192.0.2.9', proto=protocol) / Raw(word)))
    for layer in (ICMP(), UDP(dport=53), TCP(dport=443, flags='S'), SCTP()):
        attempt(f'scapy {layer.name}', lambda: send(IP(dst='192.0.2.9') / layer / Raw(word)))
        attempt(f'scapy {layer.name} 6', lambda: send(IPv6(dst='2001:db8::9') / layer / Raw(word)))
    attempt('scapy ARP', lambda: sendp(Ether() / ARP(pdst='192.0.2.9') / Raw(word), iface='lo'))
except (OSError, PermissionError): tried = -1
print(tried, taken)
";

struct Capture {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Capture {
    fn start(word: &str) -> Self {
        let child = Command::new("/usr/bin/python3").args(["-c", CAPTURE, word]).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("python3");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut ready = String::new();
        lines.read_line(&mut ready).expect("begins");
        assert_eq!(ready, "ready\n");
        Self { child, lines }
    }

    fn finish(mut self) -> Vec<String> {
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(self.child.try_wait().expect("known").is_none(), "the capture goes on");
        self.child.kill().and_then(|()| self.child.wait()).expect("ended");
        self.lines.lines().map_while(Result::ok).collect()
    }
}

#[test]
fn nothing_comes_out() {
    let word = format!("canary-{}-{:x}", std::process::id(), std::process::id().wrapping_mul(0x9e37_79b1));
    for unplugged in [
        vec![UnpluggedControl::Capabilities, UnpluggedControl::Seccomp],
        // Who owns the network is enough.
        vec![UnpluggedControl::Capabilities, UnpluggedControl::Seccomp, UnpluggedControl::Rules, UnpluggedControl::Landlock],
    ] {
        let capture = Capture::start(&word);
        let ran = with_kit(async |kit| {
            let root = kit.image.user(Some("0")).expect("root");
            let change = |spec: &mut cofferdam_engine::SandboxSpec| {
                spec.user = root;
                spec.unplugged.extend(unplugged.iter().copied());
            };
            let made = kit.sandbox(change).await.expect("made");
            let ran = made.main(&["/usr/bin/python3", "-c", SEND, &word]).await.expect("ran");
            made.delete().await.expect("deleted");
            ran
        });
        let (tried, taken) = ran.out.trim().split_once(' ').unwrap_or_default();
        assert!(tried.parse::<u32>().is_ok_and(|tried| tried > 1000), "{ran:?}");
        // A datagram is taken by a socket, and goes no further than the sandbox's loopback.
        let raw: Vec<&str> = taken.split(", ").filter(|what| !what.contains("datagram")).filter(|what| what.len() > 2).collect();
        assert!(raw.is_empty(), "{raw:?}");
        assert_eq!(capture.finish(), Vec::<String>::new(), "{unplugged:?}");
    }
    // The capture sees what is sent.
    let capture = Capture::start(&word);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.send_to(word.as_bytes(), socket.local_addr().expect("bound")).expect("sent");
    let seen = capture.finish();
    assert!(!seen.is_empty() && seen.iter().all(|interface| interface == "lo"), "only what is sent on purpose: {seen:?}");
}
