//! What a sandbox reaches through the gate, and what it does not, in a laboratory of two namespaces.

use cofferdam_tests::Home;
use cofferdam_tests::lab::{Lab, OTHER, SITE};

/// A home whose gate is ended with it: it would stay for half a minute.
pub struct Place {
    pub lab: Lab,
    pub home: Home,
}

impl Place {
    pub fn new() -> Self {
        let home = Home::new();
        Self { lab: Lab::new(&home), home }
    }

    pub fn shell(&self, options: &[&str], script: &str) -> cofferdam_tests::Ended {
        let words: Vec<&str> = ["run"].iter().chain(options).copied().chain(["--", "bash", "-c", script]).collect();
        self.lab.run(&self.home, &words)
    }

    pub fn kill_gate(&self) -> usize {
        let pattern = format!("{}.* gate$", self.home.data().display());
        let found = std::process::Command::new("pgrep").args(["-f", &pattern]).output().expect("pgrep runs");
        let pids = String::from_utf8_lossy(&found.stdout).into_owned();
        for pid in pids.split_whitespace() {
            let _ = std::process::Command::new("kill").args(["-9", pid]).status();
        }
        pids.split_whitespace().count()
    }

    pub fn log(&self) -> String {
        self.home.ok(&["policy", "log"])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.kill_gate();
    }
}

const WEB: &[&str] = &["--allow", "site.test", "--allow", "site.test:80"];

#[test]
pub fn what_is_allowed_is_reached_and_on_record() {
    let place = Place::new();
    let ran =
        place.shell(WEB, "curl -sS -m 9 http://site.test/a && curl -sS -k -m 9 https://site.test/b && curl -4sS -m 9 http://site.test/c");
    assert_eq!((ran.code, ran.out.as_str()), (0, "93.184.0.2 site.test /a\n93.184.0.2 site.test /b\n93.184.0.2 site.test /c\n"), "{ran:?}");
    assert!(place.lab.questions().iter().all(|name| name == "site.test"), "{:?}", place.lab.questions());
    let log = place.log();
    assert!(log.contains("allowed  site.test:80  http") && log.contains("by site.test:443"), "{log}");
}

/// Whether a packet of a capture is a question, or opens a connection to the site at one of these ports.
pub fn leads(what: &str, ports: &[u16]) -> bool {
    what == format!("udp {SITE} 53") || ports.iter().any(|port| what == format!("tcp {SITE} {port}"))
}

/// Each script tries something else that no rule allows; the canary in it must not come out anywhere.
#[test]
pub fn what_is_not_allowed_is_refused_and_nothing_is_asked_outside() {
    let place = Place::new();
    let capture = place.lab.capture();
    let attempts: &[(&str, &str)] = &[
        ("another name", "curl -sS -m 5 http://canary-a.other.test/"),
        ("a name below", "getent hosts canary-b.site.test"),
        ("another port", "curl -sS -m 5 http://site.test:8080/canary"),
        ("an address", "curl -sS -m 5 http://93.184.0.2/canary"),
        ("an address with the name", "curl -sS -m 5 --resolve site.test:80:93.184.0.3 http://site.test/canary"),
        ("another resolver", "timeout 3 bash -c 'exec 3<>/dev/udp/93.184.0.2/53; echo canary >&3; timeout 1 cat <&3'; false"),
        ("another resolver over TCP", "timeout 3 bash -c 'exec 3<>/dev/tcp/93.184.0.2/53'"),
        ("a datagram", "echo canary > /dev/udp/93.184.0.2/9999; false"),
        ("an address next to the synthetic ones", "timeout 3 bash -c 'exec 3<>/dev/tcp/198.18.7.7/80 && echo x >&3 && cat <&3 | grep .'"),
        ("the gate's own port", "timeout 3 bash -c 'exec 3<>/dev/tcp/127.0.0.1/15001'"),
        ("another Host", "curl -sS -m 5 -H 'Host: canary.other.test' http://site.test/"),
        (
            "another Host in the request line",
            "printf 'GET http://other.test/canary HTTP/1.1\\r\\nHost: site.test\\r\\n\\r\\n' | timeout 3 nc_ site.test 80",
        ),
        (
            "another Host in a second request",
            "printf 'GET /first HTTP/1.1\\r\\nHost: site.test\\r\\n\\r\\nGET /canary HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n' | timeout 3 nc_ site.test 80 | grep -q canary",
        ),
        ("a tunnel", "printf 'CONNECT other.test:80 HTTP/1.1\\r\\nHost: site.test\\r\\n\\r\\n' | timeout 3 nc_ site.test 80"),
        (
            "another server name",
            "openssl s_client -connect site.test:443 -servername canary.other.test </dev/null 2>/dev/null | grep -q BEGIN",
        ),
        ("no server name", "openssl s_client -connect site.test:443 -noservername </dev/null 2>/dev/null | grep -q BEGIN"),
        ("no TLS", "printf 'GET /canary HTTP/1.1\\r\\nHost: site.test\\r\\n\\r\\n' | timeout 3 nc_ site.test 443"),
    ];
    let connect = "nc_() { exec 3<>/dev/tcp/$1/$2 && cat >&3 && cat <&3 | grep -q .; }; export -f nc_;";
    for (what, script) in attempts {
        let script = format!("{connect} {}", script.replace("timeout 3 nc_", "timeout 3 bash -c 'nc_ $0 $1'"));
        let ran = place.shell(WEB, &script);
        assert_ne!(ran.code, 0, "{what}: {ran:?}");
        assert!(!ran.out.contains("93.184"), "{what}: {ran:?}");
        assert!(ran.err.contains("cofferdam: blocked: "), "{what}: {ran:?}");
    }
    assert_eq!(place.lab.datagrams(), "");
    let asked = place.lab.questions();
    assert!(asked.iter().all(|name| name == "site.test"), "{asked:?}");
    let went = capture.finish();
    assert!(went.iter().all(|what| leads(what, &[80, 443])), "{went:?}");
    let log = place.log();
    for part in [
        "it names canary.other.test",
        "without a server name",
        "a request to tunnel",
        "no TLS",
        "allowed at port 80, 443 only",
        "no name has this address",
    ] {
        assert!(log.contains(part), "{part} in {log}");
    }
}

/// Of one family, of both, and only as far as there is such a network: whatever a program asks for is answered.
#[test]
pub fn names_are_resolved_however_they_are_asked_for() {
    let place = Place::new();
    let script = "import socket\nfor name in ('site.test', 'localhost'):\n  for family in (socket.AF_UNSPEC, socket.AF_INET):\n    for flags in (0, socket.AI_ADDRCONFIG):\n      \
                  print(name, socket.getaddrinfo(name, 80, family, socket.SOCK_STREAM, 0, flags)[0][4][1])";
    let tried = format!(
        "python3 -c \"{script}\"; getent ahostsv4 site.test >/dev/null && echo one; getent ahosts site.test >/dev/null && echo all; getent ahostsv4 localhost > /dev/null && echo local"
    );
    let ran = place.shell(WEB, &tried);
    assert_eq!(ran.out, format!("{}{}one\nall\nlocal\n", "site.test 80\n".repeat(4), "localhost 80\n".repeat(4)), "{ran:?}");
    let isolated = place.shell(&[], "getent ahostsv4 localhost > /dev/null && echo local");
    assert_eq!(isolated.out, "local\n", "{isolated:?}");
}

#[test]
pub fn names_that_lead_inside_are_not_dialled() {
    let place = Place::new();
    let capture = place.lab.capture();
    let names = ["private.test", "meta.test", "self.test", "loop.test"];
    for name in names {
        let ran = place.shell(&["--network", "full_web"], &format!("curl -sS -m 5 http://{name}/"));
        assert!(ran.code != 0 && ran.err.contains("cofferdam: blocked: "), "{name}: {ran:?}");
    }
    let log = place.log();
    for why in [
        "10.0.0.5 is in a private network",
        "169.254.169.254 is metadata",
        "93.184.0.1 is an address of this host",
        "127.0.0.1 is loopback",
    ] {
        assert!(log.contains(why), "{why} in {log}");
    }
    let ran = place.shell(&["--network", "full_web"], "curl -sS -m 9 http://mixed.test/");
    assert!(ran.out.starts_with("93.184.0.2 mixed.test"), "the address that may be dialled is: {ran:?}");
    let went = capture.finish();
    assert!(went.contains(&format!("tcp {SITE} 80")) && went.iter().all(|what| leads(what, &[80])), "{went:?}");
}

#[test]
pub fn an_open_network_is_gated_all_the_same() {
    let place = Place::new();
    let capture = place.lab.capture();
    let options = ["--network", "full_web", "--deny", "other.test", "--deny", OTHER];
    let script = format!(
        "curl -sS -m 9 http://site.test/name; curl -sS -m 9 http://{SITE}:8080/address; curl -sS -m 5 http://other.test/; curl -sS -m 5 http://{OTHER}/; \
         curl -sS -m 5 http://10.0.0.5/; curl -sS -m 5 http://169.254.169.254/; echo canary > /dev/udp/{SITE}/9999; python3 -m http.server 8000 >/dev/null 2>&1 & sleep 1; \
         curl -s -o /dev/null -w '%{{http_code}}\\n' http://127.0.0.1:8000/"
    );
    let ran = place.shell(&options, &script);
    assert_eq!(ran.out, "93.184.0.2 site.test /name\n93.184.0.2 93.184.0.2:8080 /address\n200\n", "{ran:?}");
    assert_eq!(place.lab.datagrams(), "");
    let log = place.log();
    assert!(log.contains("by deny other.test") && log.contains("by full_web"), "{log}");
    let went = capture.finish();
    assert!(went.iter().all(|what| leads(what, &[80, 8080])), "{went:?}");
}

#[test]
pub fn half_closed_and_server_first_connections_work() {
    let place = Place::new();
    let script = "exec 3<>/dev/tcp/site.test/25; read -r first <&3; echo $first; \
                  python3 - <<'P'\nimport socket\ns=socket.create_connection(('site.test',25))\nprint(s.recv(100).decode().strip())\n\
                  s.sendall(b'x'*3000000)\ns.shutdown(socket.SHUT_WR)\nprint(s.makefile().read().strip())\nP\n";
    let ran = place.shell(&["--allow", "site.test:25"], script);
    assert_eq!(ran.out, "220 ready\n220 ready\n3000000 bytes\n", "{ran:?}");
}

/// The gate is killed while a connection stands and others are being made: nothing escapes, the sandbox goes on.
#[test]
pub fn a_killed_gate_is_replaced_and_nothing_escapes() {
    let place = Place::new();
    let script = "ip=$(getent ahostsv4 site.test | head -n 1 | cut -d' ' -f1); for i in $(seq 60); do curl -s -m 3 --resolve site.test:80:$ip http://site.test/ >/dev/null && echo yes || echo no; curl -s -m 2 http://93.184.0.3/ && echo ESCAPED; sleep 0.1; done";
    let mut child = place.lab.command(&place.home, &["run", "--allow", "site.test:80", "--", "bash", "-c", script]);
    let child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("starts");
    let mut killed = 0;
    for _ in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(900));
        killed += place.kill_gate();
    }
    let output = child.wait_with_output().expect("ends");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(killed >= 3, "{killed} gates were killed");
    assert!(!out.contains("ESCAPED"), "{out}");
    assert!(out.trim_end().ends_with("yes"), "it goes on with the new gate: {out} {}", String::from_utf8_lossy(&output.stderr));
    assert!(out.matches("yes").count() > 30, "{out}");
}

/// A host that reaches the internet through a proxy only: what was checked is what the proxy is asked for.
#[test]
pub fn an_upstream_proxy_is_asked_for_what_was_checked() {
    let place = Place::new();
    let words = [
        "run",
        "--allow",
        "site.test:8080",
        "--allow",
        "only-the-proxy-knows.test:8080",
        "--allow",
        "private.test:8080",
        "--",
        "bash",
        "-c",
    ];
    let script = "curl -sS -m 9 http://site.test:8080/x; curl -sS -m 9 http://only-the-proxy-knows.test:8080/y; curl -sS -m 5 http://private.test:8080/z";
    let mut command = place.lab.command(&place.home, &words);
    let ended = cofferdam_tests::ended(command.arg(script).env("HTTPS_PROXY", format!("http://{SITE}:3128")));
    assert_eq!(ended.out, "93.184.0.2 site.test:8080 /x\n93.184.0.2 only-the-proxy-knows.test:8080 /y\n", "{ended:?}");
    assert!(ended.err.contains("10.0.0.5 is in a private network"), "{ended:?}");
    assert_eq!(place.lab.asked_proxy(), ["93.184.0.2:8080", "only-the-proxy-knows.test:8080"]);
}

/// Decisions outlive the supervisor that was to put them into the database: each is there once.
#[test]
pub fn a_killed_supervisors_decisions_are_swept_into_the_record() {
    let place = Place::new();
    let script = "getent hosts early.test; sleep 1.2; getent hosts late.test; getent hosts late.test; echo asked; sleep 60";
    let mut command = place.lab.command(&place.home, &["run", "--allow", "site.test", "--", "sh", "-c", script]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    let mut word = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut word).expect("reads");
    let found = std::process::Command::new("pgrep").args(["-f", "early.test; sleep 1.2"]).output().expect("pgrep runs");
    for pid in String::from_utf8_lossy(&found.stdout).split_whitespace() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_ours = String::from_utf8_lossy(&environment).contains(&place.home.data().display().to_string());
        if name.trim() == "cofferdam" && is_ours {
            let _ = std::process::Command::new("kill").args(["-9", pid]).status();
        }
    }
    child.wait().expect("ends");
    // The gate has counted some that it has not written down yet: the sweep waits for that.
    place.home.ok(&["prune"]);
    let log: serde_json::Value = serde_json::from_str(&place.home.ok(&["policy", "log", "-o", "json"])).expect("JSON");
    let counted = |host: &str| -> u64 {
        let events = log.as_array().into_iter().flatten().filter(|event| event["data"]["host"] == host);
        events.filter_map(|event| event["data"]["count"].as_u64()).sum()
    };
    // For each name an A and an AAAA question.
    assert_eq!((counted("early.test"), counted("late.test")), (2, 4), "{log:#}");
}

#[test]
pub fn the_resolver_answers_what_it_should() {
    let place = Place::new();
    let script = r#"
import socket, struct
def ask(name, kind, klass=1, flags=0x0100, count=1, tail=b"", tcp=False):
    q = struct.pack(">HHHHHH", 7, flags, count, 0, 0, 0) + b"".join(bytes([len(l)]) + l for l in name) + b"\0" + struct.pack(">HH", kind, klass) + tail
    try:
        if tcp:
            s = socket.create_connection(("198.18.0.1", 53), 2); s.sendall(struct.pack(">H", len(q)) + q); s.settimeout(2)
            r = s.recv(4096)[2:]
        else:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(q, ("198.18.0.1", 53)); r = s.recv(4096)
    except OSError: return "silence"
    if not r: return "silence"
    return f"{r[3] & 15} {struct.unpack('>H', r[6:8])[0]} {len(r) - len(q) + len(tail)}"
site = [b"site", b"test"]
print(ask(site, 1), ask(site, 28), ask([b"SITE", b"tEsT"], 1), sep="|")
print("|".join(ask(site, kind) for kind in (2, 5, 6, 10, 12, 15, 16, 33, 64, 65, 255, 252)))
print(ask([b"no", b"test"], 1), ask([b"no", b"test"], 16), ask([b"site", b"test", b"evil", b"test"], 1), ask([b"a", b"site", b"test"], 1), sep="|")
print(ask([b"site\0", b"test"], 1), ask([b"site.test"], 1), ask([b"x" * 63, b"site", b"test"], 1), sep="|")
print(ask(site, 1, klass=3), ask(site, 1, flags=0x8100), ask(site, 1, flags=0x2900), ask(site, 1, count=2), sep="|")
print(ask(site, 1, tail=b"\0\0\x29\x10\0\0\0\0\0\0\x08secret!!"), ask(site, 1, tcp=True), ask([b"no", b"test"], 1, tcp=True), sep="|")
"#;
    let ran = place.shell(&["--allow", "site.test"], &format!("python3 - <<'P'{script}P\n"));
    let lines: Vec<&str> = ran.out.lines().collect();
    let nodata = ["0 0 0"; 12].join("|");
    assert_eq!(
        lines,
        [
            "0 1 16|0 1 28|0 1 16",
            nodata.as_str(),
            "3 0 0|3 0 0|3 0 0|3 0 0",
            "3 0 0|3 0 0|3 0 0",
            "silence|silence|silence|silence",
            "0 1 16|0 1 16|3 0 0"
        ],
        "{ran:?}"
    );
    assert!(place.lab.questions().is_empty(), "a name is resolved when it is dialled: {:?}", place.lab.questions());
}

#[test]
pub fn the_gate_has_no_rights() {
    let place = Place::new();
    place.lab.run(&place.home, &["run", "-d", "--name", "held", "--allow", "site.test:80", "--", "sleep", "60"]);
    let pattern = format!("{}.* gate$", place.home.data().display());
    let found = std::process::Command::new("pgrep").args(["-f", &pattern]).output().expect("pgrep runs");
    let pid = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = |name: &str| {
        status.lines().find(|line| line.starts_with(name)).unwrap_or_default().split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let own = place.home.user().map_or_else(|| "1878982657".to_owned(), |user| user.to_string());
    assert!(line("Uid:").split(' ').all(|uid| uid == own), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!((line("NoNewPrivs:").as_str(), line("Groups:").as_str(), line("Seccomp:").as_str()), ("1", "", "2"));
    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("readable by root");
    assert_eq!(environment, b"");
    place.home.ok(&["rm", "-f", "held"]);
    // From inside: each attempt is made.
    let tried = place.home.ok(&["gate", "--attempts"]);
    let tried: Vec<serde_json::Value> = serde_json::from_str(&tried).expect("JSON");
    for attempt in &tried {
        let wanted = attempt["control"] == "none";
        assert_eq!(attempt["refused"].is_null(), wanted, "{attempt}");
    }
    assert!(tried.len() >= 14, "{tried:?}");
}
