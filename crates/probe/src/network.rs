//! The network without a gate: nothing answers, everything is refused at once (B8, the part without a policy).

use crate::Probe;
use crate::report::{Finding, check, contained, open};
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::from_secs(1);

fn interfaces() -> Finding {
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names: Vec<&str> = table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect();
    check(names == ["lo"], format!("interfaces: {names:?}"))
}

fn tcp_is_refused(addresses: &[&str]) -> Finding {
    for address in addresses {
        let Ok(parsed) = address.parse::<SocketAddr>() else { return open(format!("{address} is no address")) };
        let begun = Instant::now();
        match TcpStream::connect_timeout(&parsed, Duration::from_secs(5)) {
            Ok(_) => return open(format!("connected to {address}")),
            Err(_) if begun.elapsed() > AT_ONCE => return open(format!("{address} was not refused at once")),
            Err(_) => {}
        }
    }
    contained(format!("{} refused at once", addresses.len()))
}

fn addresses_v4() -> Finding {
    tcp_is_refused(&["1.1.1.1:443", "10.0.0.1:22", "172.17.0.1:2375", "192.168.1.1:80", "100.64.0.1:80", "198.18.0.1:443", "224.0.0.1:80"])
}

fn addresses_v6() -> Finding {
    tcp_is_refused(&["[2606:4700::1111]:443", "[fe80::1]:80", "[fd00::1]:80", "[::ffff:1.1.1.1]:443", "[64:ff9b::101:101]:443"])
}

fn metadata() -> Finding {
    tcp_is_refused(&["169.254.169.254:80", "[fd00:ec2::254]:80", "[::ffff:169.254.169.254]:80"])
}

fn datagrams() -> Finding {
    for (bind, to) in [("0.0.0.0:0", "1.1.1.1:443"), ("0.0.0.0:0", "8.8.8.8:53"), ("[::]:0", "[2606:4700::1111]:443")] {
        let sent = UdpSocket::bind(bind).and_then(|socket| socket.send_to(b"x", to));
        if sent.is_ok() {
            return open(format!("a datagram to {to} was taken"));
        }
    }
    contained("refused when they are sent")
}

fn names() -> Finding {
    let begun = Instant::now();
    match ("example.com", 443).to_socket_addrs() {
        Ok(mut addresses) => open(format!("resolved to {:?}", addresses.next())),
        Err(_) if begun.elapsed() > AT_ONCE => open("not answered at once"),
        Err(error) => contained(error.to_string()),
    }
}

/// Every address is local to the namespace: only the rules keep a service on a foreign address from being reached.
fn rules_stand() -> Finding {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else { return open("no listener") };
    let Ok(own) = listener.local_addr() else { return open("no address") };
    if let Err(error) = TcpStream::connect_timeout(&own, AT_ONCE) {
        return open(format!("its own loopback does not work: {error}"));
    }
    let any = TcpListener::bind(("0.0.0.0", 0)).and_then(|listener| Ok((listener.local_addr()?.port(), listener)));
    let Ok((port, _listener)) = any else { return open("no listener") };
    let foreign = SocketAddr::from(([203, 0, 113, 7], port));
    match TcpStream::connect_timeout(&foreign, AT_ONCE) {
        Ok(_) => open("a packet to a foreign address was not refused"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => contained("refused by rule"),
        Err(error) => open(format!("not refused at once: {error}")),
    }
}

fn own_loopback() -> Finding {
    let works = ["127.0.0.1:0", "[::1]:0"].iter().all(|address| {
        let listener = TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        listener.is_ok_and(|(address, _listener)| TcpStream::connect_timeout(&address, AT_ONCE).is_ok())
    });
    check(works, "a server inside can be reached from inside")
}

/// All of them.
pub const PROBES: &[Probe] = &[
    Probe { name: "interfaces", reference: "B8.109", control: None, attempt: interfaces },
    Probe { name: "tcp-v4", reference: "B8.109", control: None, attempt: addresses_v4 },
    Probe { name: "tcp-v6", reference: "B8.109", control: None, attempt: addresses_v6 },
    Probe { name: "metadata", reference: "B8.109", control: None, attempt: metadata },
    Probe { name: "udp", reference: "B8.109", control: Some("rules"), attempt: datagrams },
    Probe { name: "dns", reference: "B8.109", control: None, attempt: names },
    Probe { name: "rules", reference: "B8.109", control: Some("rules"), attempt: rules_stand },
    Probe { name: "own-loopback", reference: "B8.109", control: None, attempt: own_loopback },
];
