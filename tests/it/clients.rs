//! Programs that people use, through the gate, unchanged: what the policy names works, and the same program gets nowhere without it.

use cofferdam_tests::lab::{Lab, SITE};
use cofferdam_tests::{Ended, Home, ended, eventually};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Files over TLS, with the certificate of the lab.
const FILES: &str = "
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])
server = http.server.ThreadingHTTPServer(('93.184.0.2', int(sys.argv[1])), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('site.pem', 'site.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";
const WEBSOCKET: &str = "
import asyncio, websockets
async def echo(socket):
    async for message in socket: await socket.send(message[::-1])
async def main():
    async with websockets.serve(echo, '93.184.0.2', 9001): await asyncio.Future()
asyncio.run(main())
";

/// A place with servers of its own in the lab's net.
struct Place {
    lab: Lab,
    home: Home,
    servers: Vec<Child>,
}

impl Place {
    fn new() -> Self {
        let home = Home::new();
        let lab = Lab::new(&home);
        fs::create_dir_all(home.path("ca")).expect("made");
        fs::copy(home.path("lab/site.pem"), home.path("ca/site.pem")).expect("copied");
        Self { lab, home, servers: Vec::new() }
    }

    /// Starts a server and waits until it accepts.
    fn serve(&mut self, port: u16, words: &[&str]) {
        let log = fs::File::create(self.home.path(&format!("server-{port}.log"))).expect("a log");
        let child = self.lab.in_net(words).current_dir(self.home.path("lab")).stdout(Stdio::null()).stderr(log).spawn().expect("started");
        self.servers.push(child);
        let look = format!("import socket; socket.create_connection(('{SITE}', {port}), 1)");
        eventually(&format!("port {port} accepts"), || ended(&mut self.lab.in_net(&["python3", "-c", &look])).code == 0);
    }

    fn www(&self) -> PathBuf {
        let www = self.home.path("www");
        fs::create_dir_all(&www).expect("made");
        www
    }

    /// The directory of files, at a port.
    fn files(&mut self, port: u16) {
        let www = self.www().display().to_string();
        self.serve(port, &["python3", "-c", FILES, &port.to_string(), &www]);
    }

    /// A script in a sandbox that may reach these.
    fn shell(&self, allow: &[&str], options: &[&str], script: &str) -> Ended {
        let ca = format!("{}:/ca", self.home.path("ca").display());
        let mut words = vec!["run", "-v", &ca];
        words.extend(allow.iter().flat_map(|entry| ["--allow", entry]));
        words.extend(options);
        words.extend(["--", "bash", "-c", script]);
        self.lab.run(&self.home, &words)
    }

    /// It works with the policy, and not without it.
    fn works(&self, entry: &str, options: &[&str], script: &str, expected: &str) {
        let with = self.shell(&[entry], options, script);
        assert!(with.code == 0 && with.out.contains(expected), "{script}: {with:?}");
        let without = self.shell(&["other.test"], options, script);
        assert!(without.code != 0 && !without.out.contains(expected), "{script}: {without:?}");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn sh(line: &str, at: &Path) {
    let done = ended(Command::new("sh").args(["-ec", line]).current_dir(at));
    assert_eq!(done.code, 0, "{line}: {done:?}");
}

#[test]
pub fn git_over_https_and_its_own_protocol() {
    let mut place = Place::new();
    let www = place.www();
    sh(
        "git init -q work && cd work && git config user.email a@b && git config user.name n && echo content > file && git add . && git commit -qm first && \
         cd .. && git clone -q --bare work repo.git && cd repo.git && git update-server-info && touch git-daemon-export-ok",
        &www,
    );
    place.files(4443);
    let base = www.display().to_string();
    place.serve(
        9418,
        &[
            "git",
            "-c",
            "safe.directory=*",
            "daemon",
            "--listen=93.184.0.2",
            "--reuseaddr",
            "--export-all",
            &format!("--base-path={base}"),
            &base,
        ],
    );
    let tls = "GIT_SSL_CAINFO=/ca/site.pem git clone -q https://site.test:4443/repo.git /tmp/r && cat /tmp/r/file";
    place.works("site.test:4443", &[], tls, "content");
    place.works("site.test:9418", &[], "git clone -q git://site.test/repo.git /tmp/r && cat /tmp/r/file", "content");
}

#[test]
pub fn ssh_git_over_ssh_sftp_and_scp() {
    let mut place = Place::new();
    let www = place.www();
    sh(
        "git init -q work && cd work && git config user.email a@b && git config user.name n && echo by-ssh > file && git add . && git commit -qm first && cd .. && git clone -q --bare work repo.git",
        &www,
    );
    let keys = place.home.path("ca");
    sh("ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -f key && chmod 644 key", &keys);
    fs::create_dir_all("/run/sshd").expect("made");
    let configuration = format!(
        "ListenAddress 93.184.0.2:2222\nHostKey {0}/host\nAuthorizedKeysFile {0}/key.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
         PidFile none\nSubsystem sftp internal-sftp\nAcceptEnv GIT_*\n",
        keys.display()
    );
    fs::write(place.home.path("sshd_config"), configuration).expect("written");
    let file = place.home.path("sshd_config").display().to_string();
    place.serve(2222, &["/usr/sbin/sshd", "-D", "-e", "-f", &file]);
    let options = "-i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes";
    let prepare = "cp /ca/key /tmp/key; chmod 600 /tmp/key;";
    let entry = "site.test:2222";
    place.works(entry, &[], &format!("{prepare} ssh {options} -p 2222 root@site.test 'echo logged in'"), "logged in");
    let repository = format!("ssh://root@site.test:2222{}/repo.git", www.display());
    let git = "git config --global safe.directory '*';";
    let clone = format!("{prepare} {git} GIT_SSH_COMMAND='ssh {options}' git clone -q {repository} /tmp/r && cat /tmp/r/file");
    place.works(entry, &[], &clone, "by-ssh");
    let remote = www.join("work/file").display().to_string();
    place.works(entry, &[], &format!("{prepare} scp -q {options} -P 2222 root@site.test:{remote} /tmp/x && cat /tmp/x"), "by-ssh");
    let sftp = format!("{prepare} echo 'get {remote} /tmp/y' | sftp -q {options} -P 2222 root@site.test > /dev/null && cat /tmp/y");
    place.works(entry, &[], &sftp, "by-ssh");
}

#[test]
pub fn pip_and_apt_fetch_packages() {
    let mut place = Place::new();
    let www = place.www();
    let wheel = "import zipfile; z = zipfile.ZipFile('demo-1.0-py3-none-any.whl', 'w'); z.writestr('demo.py', 'word = \"from a wheel\"\\n'); \
                 z.writestr('demo-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n'); \
                 z.writestr('demo-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'); \
                 z.writestr('demo-1.0.dist-info/RECORD', '')";
    let simple = www.join("simple/demo");
    fs::create_dir_all(&simple).expect("made");
    let made = ended(Command::new("python3").args(["-c", wheel]).current_dir(&simple));
    assert_eq!(made.code, 0, "{made:?}");
    fs::write(simple.join("index.html"), "<a href='demo-1.0-py3-none-any.whl'>demo-1.0-py3-none-any.whl</a>\n").expect("written");
    sh(
        "mkdir -p apt deb/DEBIAN deb/usr/share/demo && printf 'Package: demo\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: n <n@x>\\nDescription: d\\n' > deb/DEBIAN/control && \
         echo from-a-package > deb/usr/share/demo/word && dpkg-deb -b deb apt/demo_1.0_all.deb > /dev/null && cd apt && \
         { cat ../deb/DEBIAN/control; printf 'Filename: ./demo_1.0_all.deb\\nSize: %s\\nSHA256: %s\\n\\n' $(stat -c %s demo_1.0_all.deb) $(sha256sum demo_1.0_all.deb | cut -d' ' -f1); } > Packages",
        &www,
    );
    place.files(4443);
    let pip = "/usr/bin/python3 -m pip install -q --disable-pip-version-check --no-input --index-url https://site.test:4443/simple/ --cert /ca/site.pem --target /tmp/t demo 2>&1 \
               && PYTHONPATH=/tmp/t python3 -c 'import demo; print(demo.word)'";
    place.works("site.test:4443", &[], pip, "from a wheel");
    let apt = "mkdir -p /tmp/a/lists/partial /tmp/a/archives/partial /tmp/a/etc /tmp/a/state; touch /tmp/a/status; \
               echo 'deb [trusted=yes] https://site.test:4443/apt ./' > /tmp/a/sources; cd /tmp/a; \
               set -- -qq -o Dir::Etc=/tmp/a/etc -o Dir::Etc::sourcelist=/tmp/a/sources -o Dir::State=/tmp/a/state -o Dir::State::lists=/tmp/a/lists \
               -o Dir::State::status=/tmp/a/status -o Dir::Cache=/tmp/a -o Acquire::https::CAInfo=/ca/site.pem -o APT::Sandbox::User=$(id -un) -o Acquire::Retries=0; \
               apt-get \"$@\" update && apt-get \"$@\" download demo && dpkg-deb --fsys-tarfile demo_1.0_all.deb | tar -xO ./usr/share/demo/word";
    place.works("site.test:4443", &[], apt, "from-a-package");
}

#[test]
pub fn npm_fetches_packages() {
    let mut place = Place::new();
    let www = place.www();
    sh(
        "mkdir -p npm tarballs package && printf '{\"name\":\"demo\",\"version\":\"1.0.0\",\"main\":\"main.js\"}' > package/package.json && \
         echo 'module.exports = \"from a tarball\"' > package/main.js && tar -czf tarballs/demo.tgz package && \
         printf '{\"name\":\"demo\",\"dist-tags\":{\"latest\":\"1.0.0\"},\"versions\":{\"1.0.0\":{\"name\":\"demo\",\"version\":\"1.0.0\",\"dist\":{\"tarball\":\"https://site.test:4443/tarballs/demo.tgz\",\"shasum\":\"%s\"}}}}' \
         $(sha1sum tarballs/demo.tgz | cut -d' ' -f1) > npm/demo",
        &www,
    );
    place.files(4443);
    let npm = "cd /tmp && npm install --silent --no-audit --no-fund --fetch-retries=0 --cache /tmp/cache --registry https://site.test:4443/npm/ --cafile /ca/site.pem demo && \
               node -p 'require(\"demo\")'";
    place.works("site.test:4443", &[], npm, "from a tarball");
}

/// With the toolchain of whoever runs the tests, which is root's.
#[test]
fn cargo_fetches_crates() {
    let mut place = Place::new();
    let www = place.www();
    sh(
        "mkdir -p index/de/mo crates/demo/1.0.0 demo-1.0.0/src && printf '[package]\nname = \"demo\"\nversion = \"1.0.0\"\nedition = \"2021\"\n' > demo-1.0.0/Cargo.toml && \
         echo '// from a crate' > demo-1.0.0/src/lib.rs && tar -czf crates/demo/1.0.0/download demo-1.0.0 && \
         printf '{\"dl\":\"https://site.test:4443/crates\"}' > index/config.json && \
         printf '{\"name\":\"demo\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"%s\",\"features\":{},\"yanked\":false}\\n' \
         $(sha256sum crates/demo/1.0.0/download | cut -d' ' -f1) > index/de/mo/demo",
        &www,
    );
    place.files(4443);
    let cargo = "mkdir -p /tmp/c/src && cd /tmp/c && touch src/lib.rs && export CARGO_HOME=/tmp/home CARGO_HTTP_CAINFO=/ca/site.pem CARGO_NET_RETRY=0 \
                 CARGO_REGISTRIES_LAB_INDEX=sparse+https://site.test:4443/index/ && \
                 printf '[package]\nname = \"c\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ndemo = { version = \"1\", registry = \"lab\" }\n' > Cargo.toml && \
                 cargo fetch -q && cat /tmp/home/registry/src/*/demo-1.0.0/src/lib.rs";
    place.works("site.test:4443", &["--toolchain", "rust"], cargo, "from a crate");
}

#[test]
pub fn psql_a_web_socket_and_openssl() {
    let mut place = Place::new();
    let cluster = tempfile::Builder::new().prefix("postgres-of-a-test").tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(cluster.path(), fs::Permissions::from_mode(0o777)).expect("set");
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let bin = versions.flatten().map(|entry| entry.path().join("bin")).max().expect("a version");
    let data = cluster.path().join("data").display().to_string();
    let at = |program: &str| bin.join(program).display().to_string();
    sh(&format!("runuser -u postgres -- {} -D {data} -A trust -U postgres > /dev/null", at("initdb")), cluster.path());
    fs::write(cluster.path().join("data/pg_hba.conf"), "host all all all trust\n").expect("written");
    let sockets = format!("unix_socket_directories={}", cluster.path().display());
    let listen = ["-c", "listen_addresses=93.184.0.2", "-c", "fsync=off", "-c", &sockets];
    let mut words = vec!["runuser", "-u", "postgres", "--"];
    let (postgres, client) = (at("postgres"), at("psql"));
    words.extend([postgres.as_str(), "-D", &data]);
    words.extend(listen);
    place.serve(5432, &words);
    let psql = format!("{client} -h site.test -U postgres -tAc \"select 'from' || ' postgres'\"");
    place.works("site.test:5432", &[], &psql, "from postgres");

    place.serve(9001, &["/usr/bin/python3", "-c", WEBSOCKET]);
    let socket = "/usr/bin/python3 -c 'import asyncio, websockets\nasync def main():\n    async with websockets.connect(\"ws://site.test:9001/\", open_timeout=5) as s:\n        \
                  for n in range(50):\n            await s.send(\"abc%d\" % n)\n            assert await s.recv() == (\"abc%d\" % n)[::-1]\n        print(\"fifty echoes\")\nasyncio.run(main())'";
    place.works("site.test:9001", &[], socket, "fifty echoes");

    let openssl = "echo | timeout 9 openssl s_client -connect site.test:443 -servername site.test -CAfile /ca/site.pem -verify_return_error 2>/dev/null | grep -q 'Verify return code: 0' && echo verified";
    place.works("site.test:443", &[], openssl, "verified");
}

/// Tools that look for a way out find none; what they tried is on record, and nothing of it reached the net.
#[test]
pub fn tools_that_look_for_a_way_out_find_none() {
    let place = Place::new();
    let capture = place.lab.capture();
    let attempts = [
        // A refusal is answered at once, from inside: to nmap every address looks alive, and every port closed.
        ("nmap", "nmap -Pn -n -sT --max-retries 0 -T5 -p 22,25,53,80,443,8080 93.184.0.2 | grep -E '^[0-9]+/tcp +open'"),
        ("ncat", "echo canary | ncat -w 2 93.184.0.2 25 | grep -q 220"),
        ("ncat over UDP", "echo canary | ncat -u -w 1 93.184.0.2 9999; false"),
        ("DNS over TLS", "kdig +tls +timeout=2 +retry=0 @93.184.0.2 canary.site.test"),
        ("DNS elsewhere", "kdig +timeout=2 +retry=0 @93.184.0.2 site.test | grep -q 'status: NOERROR'"),
        ("DNS over HTTPS", "curl -sS -m 4 --doh-url https://93.184.0.2/dns-query https://canary.test/"),
        ("iodine", "timeout 8 iodine -f -P secret -r 93.184.0.2 canary.site.test"),
        ("iodine by the resolver", "timeout 8 iodine -f -P secret canary.site.test"),
        ("dns2tcp", "timeout 5 dns2tcpc -z canary.site.test -r ssh -l 2222 127.0.0.1 < /dev/null | grep -q Connected"),
        ("hping3", "hping3 -c 1 -S -p 80 93.184.0.2 2>/dev/null | grep -q 'flags=SA'"),
        ("ptunnel", "timeout 3 ptunnel -p 93.184.0.2 -lp 8000 -da 93.184.0.2 -dp 22 2>&1 | grep -q 'session'"),
        ("a raw socket", "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'"),
        ("a packet socket", "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)'"),
    ];
    for user in ["agent", "root"] {
        for (name, script) in attempts {
            let tried = place.shell(&["site.test"], &["--user", user], script);
            assert_ne!(tried.code, 0, "{name} as {user}: {tried:?}");
        }
    }
    assert_eq!(place.lab.datagrams(), "", "no datagram arrived");
    let went = capture.finish();
    assert!(went.iter().all(|what| crate::gate::leads(what, &[443])), "{went:?}");
    let asked = place.lab.questions();
    assert!(asked.iter().all(|name| name == "site.test"), "{asked:?}");
    let record = place.home.ok(&["policy", "log"]);
    for tried in ["93.184.0.2:22 ", "93.184.0.2:25 ", "93.184.0.2:853 ", "93.184.0.2:53  udp", "93.184.0.2:9999  udp"] {
        assert!(record.contains(tried), "{tried} in {record}");
    }
}
