//! A small internet for one test: two network namespaces, the *host* that Cofferdam runs in and the *net* with a DNS server and sites.
//! Nothing leaves the machine.

use crate::Home;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// The address of the host in its network.
pub const HOST: &str = "93.184.0.1";
/// The first server: DNS, HTTP, TLS, an echo that speaks first.
pub const SITE: &str = "93.184.0.2";
/// The second: HTTP and TLS.
pub const OTHER: &str = "93.184.0.3";

/// What comes to the net, each destination once: `tcp ADDRESS PORT` for what opens a connection, `udp ADDRESS PORT`, else the number of the protocol.
const CAPTURE: &str = r#"
import socket
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(3))
packets.bind(("v1", 3))
print("ready", flush=True)
seen = set()
while True:
    packet, (_, kind, direction, *_) = packets.recvfrom(65535)
    if direction == socket.PACKET_OUTGOING or kind == 0x0806:
        continue
    if kind != 0x0800:
        # Neighbours are looked for by the kernels themselves.
        what = None if kind == 0x86dd and packet[6] in (0, 58) else f"kind {kind:04x}"
    else:
        protocol, to, rest = packet[9], socket.inet_ntoa(packet[16:20]), packet[(packet[0] & 15) * 4:]
        port = int.from_bytes(rest[2:4], "big")
        if protocol == 6:
            what = f"tcp {to} {port}" if rest[13] & 0x12 == 2 else None
        else:
            what = f"udp {to} {port}" if protocol == 17 else f"protocol {protocol} {to}"
    if what and what not in seen:
        seen.add(what)
        print(what, flush=True)
"#;

/// DNS with a log of every question, and TCP servers, in one program.
const SERVERS: &str = r#"
import socket, ssl, struct, sys, threading, http.server
directory = sys.argv[1]
names = {"site.test": ["93.184.0.2"], "other.test": ["93.184.0.3"], "private.test": ["10.0.0.5"], "meta.test": ["169.254.169.254"],
         "self.test": ["93.184.0.1"], "loop.test": ["127.0.0.1"], "mixed.test": ["10.0.0.5", "93.184.0.2"], "closed.test": ["93.184.0.2"]}
log = open(directory + "/dns.log", "a", buffering=1)
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("93.184.0.2", 53))
def answer_names():
    while True:
        query, asker = dns.recvfrom(2048)
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode("latin1"))
            at += 1 + query[at]
        name, kind = ".".join(labels).lower(), struct.unpack(">H", query[at + 1:at + 3])[0]
        log.write(f"{name} {kind}\n")
        found = names.get(name, [])
        shown = found if kind == 1 else []
        reply = query[:2] + (b"\x81\x80" if found else b"\x81\x83") + query[4:6] + struct.pack(">HHH", len(shown), 0, 0) + query[12:at + 5]
        for address in shown:
            reply += b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4" + socket.inet_aton(address)
        dns.sendto(reply, asker)
class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{self.server.server_address[0]} {self.headers.get('Host')} {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
def serve(address, port, tls):
    server = http.server.ThreadingHTTPServer((address, port), Site)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory + "/site.pem", directory + "/site.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
def each(port, work):
    listener = socket.create_server(("93.184.0.2", port))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=tolerant, args=(work, connection), daemon=True).start()
def tolerant(work, connection):
    try: work(connection)
    except OSError: pass
def banner(connection):  # speaks first, then echoes to the end, then says how much it was
    connection.sendall(b"220 ready\n")
    total = 0
    while True:
        data = connection.recv(65536)
        if not data: break
        total += len(data)
    connection.sendall(f"{total} bytes\n".encode())
    connection.close()
def echo(connection):
    while True:
        data = connection.recv(65536)
        if not data: return connection.close()
        connection.sendall(data)
def proxy(connection):  # CONNECT; every name leads to the first server
    head = b""
    while not head.endswith(b"\r\n\r\n"): head += connection.recv(1)
    target = head.split(b" ")[1].decode()
    open(directory + "/proxy.log", "a").write(target + "\n")
    server = socket.create_connection(("93.184.0.2", int(target.rsplit(":", 1)[1])))
    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    def copy(a, b):
        while data := a.recv(65536): b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    threading.Thread(target=tolerant, args=(lambda s: copy(s, connection), server), daemon=True).start()
    copy(connection, server)
def sink():  # everything that comes over UDP
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("93.184.0.2", 9999))
    while True:
        data, _ = sock.recvfrom(65536)
        open(directory + "/udp.log", "ab").write(data + b"\n")
work = [(answer_names, ()), (each, (25, banner)), (each, (7, echo)), (each, (3128, proxy)), (sink, ())]
work += [(serve, (address, port, tls)) for address in ("93.184.0.2", "93.184.0.3") for port, tls in ((80, False), (443, True), (8080, False))]
for target, arguments in work: threading.Thread(target=target, args=arguments, daemon=True).start()
import time
for _ in range(200):
    try:
        for port in (80, 443, 25, 7): socket.create_connection(("93.184.0.2", port), 1).close()
        break
    except OSError: time.sleep(0.05)
open(directory + "/ready", "w").close()
threading.Event().wait()
"#;

/// The two namespaces and what runs in them.
pub struct Lab {
    host: String,
    net: String,
    directory: PathBuf,
    servers: Child,
}

/// A running capture.
pub struct Capture {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Capture {
    /// Where packets went.
    ///
    /// # Panics
    /// If it had ended before.
    pub fn finish(mut self) -> BTreeSet<String> {
        // What was sent last is on its way.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(self.child.try_wait().is_ok_and(|ended| ended.is_none()), "the capture goes on");
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.unwrap_or_else(|error| crate::fail(&error.to_string()));
        self.lines.lines().map_while(Result::ok).collect()
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {words}");
}

/// Lets containers of a daemon's bridge out to the net, through the host.
fn connect(daemon: &str, host: &str, net: &str) {
    let bridge = crate::docker::BRIDGE;
    ip(&format!("link add d0 netns {host} type veth peer name d1 netns {daemon}"));
    for (namespace, link, address) in [(host, "d0", "93.185.0.1"), (daemon, "d1", "93.185.0.2")] {
        ip(&format!("-n {namespace} addr add {address}/24 dev {link}"));
        ip(&format!("-n {namespace} link set {link} up"));
    }
    ip(&format!("-n {daemon} route add default via 93.185.0.1"));
    ip(&format!("-n {host} route add {bridge} via 93.185.0.2"));
    ip(&format!("-n {net} route add {bridge} via {HOST}"));
    let status = Command::new("ip").args(["netns", "exec", host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).status();
    assert!(status.is_ok_and(|status| status.success()), "the host forwards");
}

impl Lab {
    /// Makes it; `home` gives the directory.
    ///
    /// # Panics
    /// Without root, `ip`, `openssl` or `python3`.
    pub fn new(home: &Home) -> Self {
        let serial = format!("{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let (host, net) = (format!("cfh-{serial}"), format!("cfn-{serial}"));
        let directory = home.path("lab");
        let resolver = Path::new("/etc/netns").join(&host);
        fs::create_dir_all(&directory).and_then(|()| fs::create_dir_all(&resolver)).unwrap_or_else(|error| crate::fail(&error.to_string()));
        fs::write(resolver.join("resolv.conf"), format!("nameserver {SITE}\n")).unwrap_or_else(|error| crate::fail(&error.to_string()));
        ip(&format!("netns add {host}"));
        ip(&format!("netns add {net}"));
        ip(&format!("link add v0 netns {host} type veth peer name v1 netns {net}"));
        for (namespace, link, address) in [(&host, "v0", HOST), (&net, "v1", SITE), (&net, "v1", OTHER)] {
            ip(&format!("-n {namespace} addr add {address}/24 dev {link}"));
            ip(&format!("-n {namespace} link set {link} up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!("-n {host} route add default via {SITE}"));
        if let Some(daemon) = crate::BRIDGED.with_borrow(Clone::clone) {
            connect(&daemon, &host, &net);
        }
        let key = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=site.test",
            ])
            .args(["-addext", "subjectAltName=DNS:site.test,DNS:other.test", "-keyout", "site.key", "-out", "site.pem"])
            .current_dir(&directory)
            .stderr(Stdio::null())
            .status();
        assert!(key.is_ok_and(|status| status.success()), "openssl");
        fs::write(directory.join("servers.py"), SERVERS).unwrap_or_else(|error| crate::fail(&error.to_string()));
        let servers = Command::new("ip")
            .args(["netns", "exec", &net, "python3", "servers.py", "."])
            .current_dir(&directory)
            .spawn()
            .unwrap_or_else(|error| crate::fail(&format!("python3: {error}")));
        let lab = Self { host, net, directory, servers };
        crate::eventually("the servers are ready", || lab.directory.join("ready").exists());
        lab
    }

    /// The binary, run in the host's namespace.
    pub fn command(&self, home: &Home, words: &[&str]) -> Command {
        let plain = home.command(words);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host]).arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
        for (key, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command
    }

    /// Watches what comes to the net from here on.
    ///
    /// # Panics
    /// Without python3.
    pub fn capture(&self) -> Capture {
        let mut command = self.in_net(&["python3", "-c", CAPTURE]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| crate::fail(&format!("python3: {error}")));
        let mut lines = BufReader::new(child.stdout.take().unwrap_or_else(|| crate::fail("no pipe")));
        let mut ready = String::new();
        let read = lines.read_line(&mut ready);
        assert!(read.is_ok() && ready == "ready\n", "the capture began: {ready}");
        Capture { child, lines }
    }

    /// A program of the net.
    pub fn in_net(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.net]).args(words).stdin(Stdio::null());
        command
    }

    /// A program of the host.
    pub fn in_host(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host]).args(words).stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub fn run(&self, home: &Home, words: &[&str]) -> crate::Ended {
        crate::ended(&mut self.command(home, words))
    }

    /// Names that the DNS server was asked for.
    pub fn questions(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("dns.log")).unwrap_or_default();
        text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    }

    /// What the proxy was asked to connect to.
    pub fn asked_proxy(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("proxy.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Bytes that came over UDP.
    pub fn datagrams(&self) -> String {
        fs::read_to_string(self.directory.join("udp.log")).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "pids", &self.net]).output().map(|output| {
            for pid in String::from_utf8_lossy(&output.stdout).split_whitespace() {
                let _ = Command::new("kill").args(["-9", pid]).status();
            }
        });
        let _ = self.servers.wait();
        for name in [&self.host, &self.net] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
        let _ = fs::remove_dir_all(Path::new("/etc/netns").join(&self.host));
    }
}
