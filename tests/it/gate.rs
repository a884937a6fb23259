//! What a sandbox reaches through the gate, and what it does not, in a laboratory of two namespaces.

use cofferdam_tests::lab::{Lab, OTHER, SITE};
use cofferdam_tests::{Home, ended, eventually};

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

    fn shell(&self, options: &[&str], script: &str) -> cofferdam_tests::Ended {
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

/// Each script tries something else that no rule allows; the canary in it must not come out anywhere.
#[test]
pub fn what_is_not_allowed_is_refused_and_nothing_is_asked_outside() {
    let place = Place::new();
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

#[test]
pub fn names_that_lead_inside_are_not_dialled() {
    let place = Place::new();
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
}

#[test]
pub fn an_open_network_is_gated_all_the_same() {
    let place = Place::new();
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
    let script = "for i in $(seq 60); do curl -s -m 3 http://site.test/ >/dev/null && echo yes || echo no; curl -s -m 2 http://93.184.0.3/ && echo ESCAPED; sleep 0.1; done";
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

/// Tightening closes what is no longer allowed, and nothing else; widening needs no restart.
#[test]
pub fn a_policy_is_replaced_while_connections_stand() {
    let place = Place::new();
    let script = "import socket,time,os\n\
        a=socket.create_connection(('site.test',7)); b=socket.create_connection(('other.test',80))\n\
        def ask(): a.sendall(b'x'); return a.recv(10)\n\
        print('first', ask(), flush=True)\n\
        while not os.path.exists('/tmp/go'): time.sleep(0.05)\n\
        try: r=ask(); print('a', r or b'end', flush=True)\n\
        except OSError as e: print('a', type(e).__name__, flush=True)\n\
        b.sendall(b'GET /b HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n'); print('b', len(b.recv(1000))>10, flush=True)\n\
        try: socket.create_connection(('site.test',25),3).recv(10); print('c reached', flush=True)\n\
        except OSError as e: print('c', type(e).__name__, flush=True)\n\
        while not os.path.exists('/tmp/again'): time.sleep(0.05)\n\
        print('d', socket.create_connection(('site.test',25),3).recv(10), flush=True)\n";
    let words = ["run", "-d", "--name", "long", "--allow", "site.test:7", "--allow", "other.test:80", "--", "python3", "-c", script];
    let ran = place.lab.run(&place.home, &words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let log = || place.home.run(&["logs", "long"]).out;
    eventually("it is connected", || log().contains("first"));
    let policy = place.home.path("tighter.yaml");
    std::fs::write(&policy, "version: 1\nnetwork: limited_web\nallow: [\"*\"]\n").expect("written");
    let path = policy.display().to_string();
    let broken = place.home.run(&["policy", "replace", "long", &path]);
    assert!(broken.code == 1 && broken.err.contains("tighter.yaml:3:"), "{broken:?}");
    std::fs::write(&policy, "version: 1\nnetwork: limited_web\nallow: [\"other.test:80\"]\n").expect("written");
    assert_eq!(place.home.ok(&["policy", "replace", "long", &path]), "long: generation 2 is in force, 1 connection closed\n");
    place.home.ok(&["exec", "long", "touch", "/tmp/go"]);
    eventually("it noticed", || log().contains("c "));
    assert!(log().contains("a ConnectionResetError") && log().contains("b True") && !log().contains("c reached"), "{}", log());
    assert_eq!(place.home.ok(&["policy", "allow", "long", "site.test:25"]), "long: generation 3 is in force, 0 connections closed\n");
    let explained = place.home.ok(&["policy", "explain", "long", "site.test:25"]);
    assert!(explained.contains("allowed by site.test:25"), "{explained}");
    place.home.run(&["exec", "long", "touch", "/tmp/again"]);
    eventually("it is let through", || log().contains("d b'220 ready"));
    place.home.ok(&["rm", "-f", "long"]);
}

/// What is changed in the file that a sandbox was given holds at once; a broken file changes nothing; `--always` writes there and nowhere else.
#[test]
pub fn a_policy_file_is_followed_and_edited() {
    let place = Place::new();
    let (policy, home) = (place.home.path("policy.yaml"), &place.home);
    let write = |text: &str| std::fs::write(&policy, text).expect("written");
    let begin = "# Mine.\nversion: 1\nnetwork: limited_web\nallow:\n  - site.test:7 # echo\n";
    write(begin);
    let words = ["run", "-d", "--name", "long", "--policy", &policy.display().to_string(), "--allow", "flag.test:1", "--", "sleep", "100"];
    let ran = place.lab.run(home, &words);
    assert_eq!(ran.code, 0, "{ran:?}");
    let reach = |port: u16| {
        let look = format!(
            "import socket; socket.create_connection(('site.test', {port}), 3).recv(10) if {port} == 25 else socket.create_connection(('site.test', {port}), 3)"
        );
        home.run(&["exec", "long", "python3", "-c", &look]).code == 0
    };
    assert!(reach(7) && !reach(25));
    write(&begin.replace("site.test:7", "site.test:25"));
    eventually("the change is in force", || !reach(7));
    assert!(reach(25));
    let allowed = |what: &str| home.run(&["policy", "explain", "long", what]).code == 0;
    assert!(allowed("flag.test:1"), "what was said by a flag still holds");
    write("version: 1\nnetwork: limited_web\nallow: [\"*\"]\n");
    eventually("the broken file is on record", || home.ok(&["policy", "log", "long"]).contains("policy.refused"));
    assert!(reach(25) && home.ok(&["policy", "log", "long"]).contains("the old policy stays in force"));
    write(begin);
    eventually("it is mended", || !reach(25));
    // Into the file, whose words stay.
    let added = home.ok(&["policy", "allow", "--always", "long", "site.test:25"]);
    assert!(added.contains("is in force") && reach(25), "{added}");
    assert_eq!(std::fs::read_to_string(&policy).expect("there"), format!("{begin}  - \"site.test:25\"\n"));
    // In an editor: of this sandbox, and of the file.
    let edit = |editor: &str, words: &[&str]| ended(home.command(&[&["policy", "edit", "long"], words].concat()).env("VISUAL", editor));
    let once = edit("sed -i /25/d", &[]);
    // Its ports are those that a rule without any has.
    assert!(once.code == 0 && !reach(25) && allowed("site.test:443"), "{once:?}");
    let file = edit("sed -i s/site.test:7/site.test:80/", &["--always"]);
    assert!(file.code == 0 && std::fs::read_to_string(&policy).expect("there").contains("  - site.test:80 # echo\n"), "{file:?}");
    eventually("that is in force", || allowed("site.test:80") && !allowed("site.test:7"));
    let broken = edit("sed -i s/limited_web/everything/", &["--always"]);
    assert!(
        broken.code == 1 && broken.err.contains("the old policy stays in force") && broken.err.contains("what you wrote is in"),
        "{broken:?}"
    );
    assert!(std::fs::read_to_string(&policy).expect("there").contains("limited_web"));
    let kept = broken.err.split("what you wrote is in ").nth(1).and_then(|rest| rest.split(':').next()).expect("a path");
    std::fs::remove_file(kept).expect("it is there");
    assert!(edit("true", &[]).err.contains("nothing was changed"));
    assert_eq!(edit("false", &[]).code, 1);
    home.ok(&["rm", "-f", "long"]);
    // Without a file there is nothing to write to.
    let ran = place.lab.run(home, &["run", "-d", "--name", "none", "--allow", "site.test:7", "--", "sleep", "100"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let refused = home.run(&["policy", "allow", "--always", "none", "x.test"]);
    assert!(refused.code == 1 && refused.err.contains("was given no policy file"), "{refused:?}");
    assert_eq!(home.run(&["policy", "explain", "none", "x.test"]).code, 1, "and nothing changed");
    home.ok(&["rm", "-f", "none"]);
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
    let script = "getent hosts early.test; sleep 1.2; getent hosts late.test; echo asked; sleep 60";
    let mut command = place.lab.command(&place.home, &["run", "--allow", "site.test", "--", "sh", "-c", script]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    let mut word = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut word).expect("reads");
    let found = std::process::Command::new("pgrep").args(["-f", "early.test; sleep 1.2"]).output().expect("pgrep runs");
    for pid in String::from_utf8_lossy(&found.stdout).split_whitespace() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "cofferdam" {
            let _ = std::process::Command::new("kill").args(["-9", pid]).status();
        }
    }
    child.wait().expect("ends");
    // The gate notices, and writes down what it has counted: a sweep that comes first would not find that.
    std::thread::sleep(std::time::Duration::from_secs(1));
    place.home.ok(&["prune"]);
    let log: serde_json::Value = serde_json::from_str(&place.home.ok(&["policy", "log", "-o", "json"])).expect("JSON");
    let counted = |host: &str| -> u64 {
        let events = log.as_array().into_iter().flatten().filter(|event| event["data"]["host"] == host);
        events.filter_map(|event| event["data"]["count"].as_u64()).sum()
    };
    // For each name an A and an AAAA question.
    assert_eq!((counted("early.test"), counted("late.test")), (2, 2), "{log:#}");
}

#[test]
pub fn a_policy_is_learned() {
    let place = Place::new();
    let ran = place.shell(
        &["--learn"],
        "curl -sS -m 9 http://site.test/; curl -sS -m 9 -k https://other.test/ >/dev/null; getent hosts never-dialled.test; true",
    );
    let policy = ran.err.split("would have been enough:\n").nth(1).expect("a policy");
    assert_eq!(policy.trim_end(), "version: 1\nnetwork: limited_web\nallow:\n  - \"other.test:443\"\n  - \"site.test:80\"", "{ran:?}");
    let file = place.home.path("learned.yaml");
    std::fs::write(&file, policy).expect("written");
    let ran = place
        .shell(&["--policy", &file.display().to_string()], "curl -sS -m 9 http://site.test/ && ! curl -sS -m 5 http://site.test:8080/");
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// The agent has its network, the verifier its own.
#[test]
pub fn a_task_has_a_network_for_each_phase() {
    let place = Place::new();
    let task = place.home.path("task");
    std::fs::create_dir_all(&task).expect("made");
    let text = "version: 1\nid: fetch\ninstruction: fetch it\nnetwork: limited_web\nallow: [\"site.test:80\"]\n\
                agent: {command: [sh, -c, 'mkdir -p output && curl -sS -m 9 http://site.test/x > output/page']}\n\
                verify: {command: [sh, -c, 'grep -q site.test output/page && ! curl -sS -m 5 http://site.test/']}\n\
                limits: {memory: 256MiB, disk: 64MiB}\n";
    std::fs::write(task.join("task.yaml"), text).expect("written");
    let ran = place.lab.run(&place.home, &["task", "run", &task.display().to_string(), "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_default();
    assert_eq!(shown["reward"], 1.0, "{ran:?}");
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
}

#[test]
pub fn policies_are_checked_and_explained() {
    let home = Home::new();
    let file = home.path("policy.yaml");
    std::fs::write(&file, "version: 1\nnetwork: limited_web\nallow: [site.test, \"*.example.com:8443\"]\ndeny: [bad.example.com]\n")
        .expect("written");
    let path = file.display().to_string();
    let shown = home.ok(&["policy", "check", &path]);
    assert!(shown.contains("site.test:443") && shown.contains("opaque") && shown.contains("deny bad.example.com"), "{shown}");
    for (destination, code, part) in [
        ("site.test", 0, "allowed by site.test:443"),
        ("site.test:80", 1, "this name is allowed at port 443 only"),
        ("a.example.com:8443", 0, "allowed by *.example.com:8443"),
        ("bad.example.com:8443", 1, "denied by deny bad.example.com"),
        ("10.0.0.1", 1, "no rule allows this address"),
    ] {
        let ran = home.run(&["policy", "explain", &path, destination]);
        assert!(ran.code == code && ran.out.contains(part), "{destination}: {ran:?}");
    }
    for (text, part) in [
        ("version: 1\nnetwork: limited_web\nallow: [\"*\"]\n", "policy.yaml:3:9"),
        ("version: 1\nnetwork: limited_web\n", "nothing is"),
        ("version: 1\nnetwork: isolated\nallow: [a.test]\n", "policy.yaml:2:1"),
    ] {
        std::fs::write(&file, text).expect("written");
        let ran = home.run(&["policy", "check", &path]);
        assert!(ran.code == 1 && ran.err.contains(part), "{text}: {ran:?}");
        let ran = home.run(&["run", "--policy", &path, "--", "true"]);
        assert!(ran.code == 125 && ran.err.contains(part), "{text}: {ran:?}");
    }
    for words in [&["run", "--allow", "*", "--", "true"][..], &["run", "--allow", "https://a.test/x", "--", "true"]] {
        let ran = home.run(words);
        assert!(ran.code == 125 && ran.err.contains("--allow"), "{ran:?}");
    }
    let ran = home.run(&["run", "--network", "limited_web", "--", "true"]);
    assert!(ran.code == 125 && ran.err.contains("nothing is"), "{ran:?}");
    eventually("no gate was started for any of these", || !home.data().join("gate").exists());
}
