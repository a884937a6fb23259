//! SSH into sandboxes with the clients that people and editors use: OpenSSH's, rsync, git, curl. No port is open for it.

use cofferdam_tests::{Ended, Home, ended, eventually};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A sandbox called `work`, and how ssh reaches it.
pub struct Place {
    home: Home,
    config: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.home.run(&["rm", "-f", "work"]);
    }
}

impl Place {
    fn new(words: &[&str]) -> Self {
        let home = Home::new();
        home.ok(&[&["run", "-d", "--name", "work"], words, &["--", "sleep", "1000"]].concat());
        let text = home.ok(&["ssh-config"]);
        // As the home's owner runs it.
        let (before, program) = text.split_once("ProxyCommand ").expect("a proxy command");
        let (_, rest) = program.split_once(" --data-dir").expect("the data directory");
        let config = home.path("ssh_config");
        fs::write(&config, format!("{before}ProxyCommand {} --data-dir{rest}", home.line())).expect("written");
        Self { home, config }
    }

    fn tool(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["60", program, "-F"]).arg(&self.config).args(words).env("COFFERDAM_DATA_DIR", self.home.data()).stdin(Stdio::null());
        command
    }

    /// A client of the test's own, which ends it.
    fn client(&self, words: &[&str]) -> std::process::Child {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config).args(words).env("COFFERDAM_DATA_DIR", self.home.data()).stdin(Stdio::null());
        command.spawn().expect("ssh runs")
    }

    fn install(&self) -> String {
        fs::read_to_string(self.home.data().join("install-id")).expect("there").trim().to_owned()
    }

    fn ssh(&self, words: &[&str]) -> Ended {
        ended(&mut self.tool("ssh", words))
    }

    /// As the sandbox's own user.
    fn inside(&self, script: &str) -> Ended {
        self.ssh(&["work.cofferdam", script])
    }

    fn with_input(&self, script: &str, input: &[u8]) -> Ended {
        let file = self.home.path("input");
        fs::write(&file, input).expect("written");
        ended(self.tool("ssh", &["work.cofferdam", script]).stdin(fs::File::open(&file).expect("opened")))
    }

    fn sftp(&self, batch: &str) -> Ended {
        let file = self.home.path("batch");
        fs::write(&file, batch).expect("written");
        ended(&mut self.tool("sftp", &["-b", &file.display().to_string(), "work.cofferdam"]))
    }
}

#[test]
pub fn commands_and_their_ends() {
    let place = Place::new(&["-e", "COLOUR=red"]);
    let ran = place.inside("id -un; pwd; echo $COLOUR $HOME; echo problem >&2; exit 7");
    assert_eq!((ran.code, ran.out.as_str(), ran.err.trim()), (7, "agent\n/workspace\nred /home/agent\n", "problem"));
    assert_eq!(place.inside("kill -TERM $$").code, 143);
    assert_eq!(place.inside("no-such-program").code, 127);
    let input: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let sum = ended(Command::new("sha256sum").arg({
        let file = place.home.path("sum");
        fs::write(&file, &input).expect("written");
        file
    }));
    let through = place.with_input("tee /tmp/copy | sha256sum; sha256sum < /tmp/copy", &input);
    let wanted = sum.out.split(' ').next().expect("a sum");
    assert_eq!(through.out.matches(wanted).count(), 2, "{through:?}");
    assert_eq!(place.with_input("head -c 3; exit 5", &input).code, 5, "what is not wanted holds nobody up");
    assert_eq!(place.inside("head -c 20000000 /dev/zero").out.len(), 20_000_000);
    let language = ended(
        place
            .tool("ssh", &["-o", "SetEnv=LC_X=y GIT_PROTOCOL=version=2", "work.cofferdam", "echo $LC_X $GIT_PROTOCOL"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", "/tmp"),
    );
    assert_eq!(language.out, "y version=2\n", "{language:?}");
    let unknown = place.ssh(&["nobody-here@work.cofferdam", "true"]);
    assert!(unknown.code == 255 && unknown.err.contains("Permission denied"), "{unknown:?}");
    let gone = place.ssh(&["other.cofferdam", "true"]);
    assert!(gone.code == 255 && gone.err.contains("no sandbox is called \"other\""), "{gone:?}");
    // Their groups go with them.
    let groups = || {
        ended(Command::new("find").args(["/sys/fs/cgroup", "-path"]).arg(format!("*{}*", place.install())).args(["-name", "exec-*"])).out
    };
    eventually("no group is left", || groups().is_empty());
    // By its id, too.
    let id = place.home.ok(&["inspect", "work"]);
    let id = id.split("\"id\": \"").nth(1).and_then(|rest| rest.get(..12)).expect("an id");
    assert_eq!(place.ssh(&[&format!("{id}.cofferdam"), "echo here"]).out, "here\n");
}

#[test]
fn other_users_are_those_inside() {
    let place = Place::new(&[]);
    let root =
        place.ssh(&["root@work.cofferdam", "id -un; echo $HOME; echo x > /tmp/private; chmod 600 /tmp/private; cat /proc/self/uid_map"]);
    assert!(root.code == 0 && root.out.starts_with("root\n/root\n"), "{root:?}");
    let files = place.home.path("batch");
    fs::write(&files, "get /tmp/private /dev/null\n").expect("written");
    let as_user = |user: &str| ended(&mut place.tool("sftp", &["-b", &files.display().to_string(), &format!("{user}@work.cofferdam")]));
    let refused = as_user("sandbox");
    assert!(refused.code != 0 && refused.err.contains("Permission denied"), "the kernel decides as inside: {refused:?}");
    assert_eq!(as_user("root").code, 0);
    let mine = place.sftp("put /etc/hostname /etc/mine\nput /etc/hostname /workspace/mine\n-mkdir /root/d\nls -ln /workspace\n");
    assert!(mine.err.contains("Permission denied"), "{mine:?}");
    let mine = place.sftp("put /etc/hostname /workspace/mine\nls -ln /workspace\n");
    assert!(mine.out.contains(" 10001    10001 ") && mine.code == 0, "{mine:?}");
    // Root inside changes owners, and only to ids that there are.
    fs::write(&files, "put /etc/hostname /workspace/own\nchown 33 /workspace/own\nls -ln /workspace\n-chown 70000 /workspace/own\n")
        .expect("written");
    let owned = as_user("root");
    assert!(owned.out.contains(" 33 ") && owned.err.contains("Permission denied"), "{owned:?}");
}

#[test]
pub fn files_with_scp_sftp_and_rsync() {
    let place = Place::new(&[]);
    let tree = place.home.path("tree");
    fs::create_dir_all(tree.join("deep/er")).expect("made");
    for (name, text) in [("a", "one\n"), ("deep/b b", "two\n"), ("deep/er/\u{e4}\u{f6}", "three\n")] {
        fs::write(tree.join(name), text).expect("written");
    }
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"deep/not\xfftext");
    fs::write(tree.join(odd), "four\n").expect("written");
    std::os::unix::fs::symlink("a", tree.join("link")).expect("a link");
    fs::write(tree.join("big"), vec![7; 5_000_000]).expect("written");
    ended(Command::new("chmod").arg("750").arg(tree.join("a")));
    let (local, back) = (tree.display().to_string(), place.home.path("back").display().to_string());
    let same = |what: &str| {
        let compared = ended(Command::new("diff").args(["-r", "--no-dereference", &local, &back]));
        assert_eq!((compared.code, compared.out.as_str()), (0, ""), "{what}: {compared:?}");
        fs::remove_dir_all(&back).expect("removed");
    };
    for legacy in [&[][..], &["-O"]] {
        let there = ended(&mut place.tool("scp", &[legacy, &["-rpq", &local, "work.cofferdam:/tmp/tree"]].concat()));
        assert_eq!(there.code, 0, "{there:?}");
        let and_back = ended(&mut place.tool("scp", &[legacy, &["-rpq", "work.cofferdam:/tmp/tree", &back]].concat()));
        assert_eq!(and_back.code, 0, "{and_back:?}");
        // scp follows links.
        fs::remove_file(Path::new(&back).join("link")).expect("a file");
        std::os::unix::fs::symlink("a", Path::new(&back).join("link")).expect("a link");
        assert_eq!(
            fs::metadata(Path::new(&back).join("a")).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777).ok(),
            Some(0o750)
        );
        same("scp");
        place.inside("rm -r /tmp/tree");
    }
    let rsh = format!("ssh -F {}", place.config.display());
    for delta in 0..2 {
        fs::write(tree.join("big"), vec![delta; 5_000_000]).expect("written");
        for words in [[&format!("{local}/"), "work.cofferdam:/tmp/tree/"], ["work.cofferdam:/tmp/tree/", &format!("{back}/")]] {
            let synced = ended(
                Command::new("timeout")
                    .args(["60", "rsync", "-ac", "--delete", "-e", &rsh])
                    .args(words)
                    .env("COFFERDAM_DATA_DIR", place.home.data()),
            );
            assert_eq!(synced.code, 0, "{synced:?}");
        }
        same("rsync");
    }
    let batch = format!(
        "lcd {local}\ncd /tmp\nmkdir s\nput a s/a\nput -r deep s/deep\nrename s/a s/c\nln -s c s/l\nln s/c s/hard\nchmod 600 s/c\nls -la s\nget -r s {back}\nrm s/hard\nput big s/big\ndf\n"
    );
    let session = place.sftp(&batch);
    assert!(session.code == 0 && session.out.contains("-rw------- ") && session.out.contains("lrwxrwxrwx "), "{session:?}");
    assert_eq!(fs::read(Path::new(&back).join("c")).expect("there"), b"one\n");
    assert_eq!(
        place.inside("cat /tmp/s/l; stat -c %s /tmp/s/big; cat /tmp/s/deep/not*text; ls /tmp/s/hard 2>&1 | grep -c No").out,
        "one\n5000000\nfour\n1\n"
    );
}

/// Clone out of a sandbox, push into it.
#[test]
pub fn git_over_ssh() {
    let place = Place::new(&[]);
    let rsh = format!("ssh -F {}", place.config.display());
    let git = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["60", "git", "-c", "user.name=a", "-c", "user.email=a@b"]).args(words);
        ended(command.env("GIT_SSH_COMMAND", &rsh).env("COFFERDAM_DATA_DIR", place.home.data()).current_dir(place.home.path("")))
    };
    let made = place.inside("cd /workspace && git init -q -b main repo && cd repo && git config user.name i && git config user.email i@i && echo inside > f && git add . && git commit -qm first && git config receive.denyCurrentBranch updateInstead");
    assert_eq!(made.code, 0, "{made:?}");
    let cloned = git(&["clone", "-q", "work.cofferdam:repo", "clone"]);
    assert_eq!((cloned.code, fs::read_to_string(place.home.path("clone/f")).unwrap_or_default().as_str()), (0, "inside\n"), "{cloned:?}");
    fs::write(place.home.path("clone/f"), "outside\n").expect("written");
    assert_eq!(git(&["-C", "clone", "commit", "-qam", "second"]).code, 0);
    let pushed = git(&["-C", "clone", "push", "-q", "ssh://work.cofferdam/workspace/repo", "main"]);
    assert_eq!((pushed.code, place.inside("cat repo/f").out.as_str()), (0, "outside\n"), "{pushed:?}");
}

/// Serves one greeting on a port and on a socket of the file system.
const SERVER: &str = "import os, socket, threading
def serve(listener):
    while True:
        client, _ = listener.accept()
        client.sendall(b'hello ' + client.recv(9))
        client.close()
tcp = socket.socket()
tcp.bind(('127.0.0.1', 8000))
tcp.listen(9)
unix = socket.socket(socket.AF_UNIX)
unix.bind('/tmp/inside.sock')
unix.listen(9)
threading.Thread(target=serve, args=(tcp,)).start()
serve(unix)
";

#[test]
pub fn ports_and_sockets_inside_are_reached_and_nothing_else() {
    let place = Place::new(&[]);
    let script = place.home.path("server.py");
    fs::write(&script, SERVER).expect("written");
    assert_eq!(ended(&mut place.tool("scp", &["-q", &script.display().to_string(), "work.cofferdam:/tmp/server.py"])).code, 0);
    // It outlives the command that starts it, as under sshd.
    assert_eq!(place.inside("python3 /tmp/server.py > /dev/null 2>&1 < /dev/null &").code, 0);
    eventually("it listens", || place.inside("test -S /tmp/inside.sock").code == 0);
    let (tcp, socks) = (cofferdam_tests::registry::free_port(), cofferdam_tests::registry::free_port());
    let local = place.home.path("outside.sock").display().to_string();
    let forwards = [format!("127.0.0.1:{tcp}:localhost:8000"), format!("{local}:/tmp/inside.sock"), format!("127.0.0.1:{socks}")];
    let words = ["-N", "-L", &forwards[0], "-L", &forwards[1], "-D", &forwards[2], "work.cofferdam"];
    let mut client = place.client(&words);
    eventually("the forwards are there", || std::net::TcpStream::connect(("127.0.0.1", tcp)).is_ok() && Path::new(&local).exists());
    let say = |mut stream: Box<dyn ReadWrite>| {
        stream.write_all(b"you").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        answer
    };
    assert_eq!(say(Box::new(std::net::TcpStream::connect(("127.0.0.1", tcp)).expect("connected"))), "hello you");
    assert_eq!(say(Box::new(std::os::unix::net::UnixStream::connect(&local).expect("connected"))), "hello you");
    let through = |host: &str| {
        ended(Command::new("curl").args([
            "-sS",
            "--http0.9",
            "-m",
            "10",
            "--socks5-hostname",
            &format!("127.0.0.1:{socks}"),
            &format!("http://{host}:8000/"),
        ]))
    };
    assert!(through("localhost").out.starts_with("hello GET"), "an editor's way in");
    // Nowhere but inside: neither the host's own addresses nor anybody else's.
    for host in ["192.0.2.1", "example.org", "10.0.2.2", "0.0.0.0"] {
        assert_ne!(through(host).code, 0, "{host}");
    }
    client.kill().expect("killed");
    client.wait().expect("collected");
    for (words, what) in [(&["-R", "127.0.0.1:0:localhost:22"][..], "a port"), (&["-R", "/tmp/back.sock:localhost:22"], "a socket")] {
        let refused = place.ssh(&[&["-o", "ExitOnForwardFailure=yes"], words, &["work.cofferdam", "true"]].concat());
        assert!(refused.code == 255 && refused.err.contains("forward"), "from inside to the host, {what}: {refused:?}");
    }
    let agent = place.ssh(&["-A", "-X", "work.cofferdam", "echo agent=$SSH_AUTH_SOCK display=$DISPLAY"]);
    assert_eq!(agent.out, "agent= display=\n", "{agent:?}");
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
pub fn one_connection_for_many() {
    let place = Place::new(&[]);
    let control = place.home.path("control").display().to_string();
    let master = format!("ControlPath={control}");
    let mut client = place.client(&["-M", "-N", "-o", &master, "work.cofferdam"]);
    eventually("the master is there", || Path::new(&control).exists());
    let with = |script: &str| place.ssh(&["-o", &master, "work.cofferdam", script]);
    assert_eq!(with("echo one").out, "one\n");
    std::thread::scope(|scope| {
        let many: Vec<_> =
            (0..12).map(|n| scope.spawn(move || (n, with(&format!("sleep 0.2; head -c 100000 /dev/zero | wc -c; exit {n}"))))).collect();
        for one in many {
            let (n, ran) = one.join().expect("no panic");
            assert_eq!((ran.code, ran.out.as_str()), (n, "100000\n"), "{ran:?}");
        }
    });
    client.kill().expect("killed");
    client.wait().expect("collected");
}

#[test]
pub fn what_a_lost_connection_leaves() {
    let place = Place::new(&[]);
    let count = |what: &str| place.inside(&format!("pgrep -cf '[{}]{}'", &what[..1], &what[1..])).out.trim().parse::<u32>().unwrap_or(99);
    let mut client = place.client(&["work.cofferdam", "sleep 4321"]);
    eventually("it runs", || count("sleep 4321") > 0);
    client.kill().expect("killed");
    client.wait().expect("collected");
    eventually("it was told", || count("sleep 4321") == 0);
    // What was set free stays, and goes with the sandbox.
    assert_eq!(place.inside("setsid sleep 5432 > /dev/null 2>&1 < /dev/null & sleep 0.1").code, 0);
    assert_eq!(count("sleep 5432"), 1);
    // The sandbox's end ends a connection.
    let mut idle = place.client(&["work.cofferdam", "sleep 6543"]);
    eventually("it runs", || count("sleep 6543") > 0);
    let begun = Instant::now();
    place.home.ok(&["rm", "-f", "work"]);
    idle.wait().expect("it ends");
    assert!(begun.elapsed() < Duration::from_secs(30));
    place.home.assert_clean();
}

#[test]
fn a_hostile_sandbox_and_a_broken_client_change_nothing() {
    let place = Place::new(&[]);
    let secret = place.home.path("secret");
    fs::write(&secret, "of the host\n").expect("written");
    let outside = secret.display().to_string();
    let prepare = format!(
        "cd /workspace; ln -s {outside} link; ln -s /proc/1/root{outside} magic; ln -s ../../../../../../../../{outside} up; mkfifo pipe; mkdir d; ln -s {} dir",
        place.home.path("").display()
    );
    assert_eq!(place.inside(&prepare).code, 0);
    for path in ["link", "magic", "up", "dir/secret", "pipe", "/dev/null", "/proc/self/environ", "/proc/1/root/etc/shadow"] {
        let got = place.sftp(&format!("get {path} {}\n", place.home.path("got").display()));
        assert!(got.code != 0 && !place.home.path("got").exists(), "{path}: {got:?}");
        let put = place.sftp(&format!("put /etc/hostname {path}\n"));
        assert!(put.code != 0 || path == "link" || path == "up", "{path}: {put:?}");
        assert_eq!(fs::read_to_string(&secret).expect("there"), "of the host\n", "{path}");
    }
    // What root may do from outside is more than root inside may: no link leads it to the kernel's files.
    let trap = place.ssh(&["root@work.cofferdam", "cat /proc/1/oom_score_adj; ln -s /proc/1/oom_score_adj /workspace/trap"]);
    let batch = place.home.path("trap");
    fs::write(&batch, format!("put {} /workspace/trap\n", batch.display())).expect("written");
    let sprung = ended(&mut place.tool("sftp", &["-b", &batch.display().to_string(), "root@work.cofferdam"]));
    assert!(sprung.code != 0 && sprung.err.contains("Permission denied"), "{sprung:?}");
    assert_eq!(place.inside("cat /proc/1/oom_score_adj").out, trap.out);
    // A directory that is a link every other moment, while files are written through it.
    assert_eq!(
        place
            .inside(&format!(
                "cd /workspace; (while :; do mkdir x 2>/dev/null; rm -rf x; ln -s {} x; rm -f x; done) > /dev/null 2>&1 < /dev/null &",
                place.home.path("").display()
            ))
            .code,
        0
    );
    let flipped = place.sftp(&"-put /etc/hostname x/evil\n-put /etc/hostname x/../evil\n".repeat(200));
    assert_eq!(flipped.code, 0, "{flipped:?}");
    assert!(!place.home.path("evil").exists());
    // Noise instead of SSH, an end in the middle, and a client that goes away: the sandbox and its supervisor stay.
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff", b"", &vec![0; 70_000]]
    {
        let file = place.home.path("noise");
        fs::write(&file, noise).expect("written");
        let proxy = format!("cat {} | timeout 20 {} ssh-proxy work > /dev/null", file.display(), place.home.line());
        ended(Command::new("sh").args(["-c", &proxy]).env("COFFERDAM_DATA_DIR", place.home.data()));
        assert_eq!(place.inside("echo alive").out, "alive\n", "{noise:?}");
    }
    // Noise to SFTP: it ends, and says so by its status.
    for noise in
        [&[0, 0, 0, 0][..], &[255; 64], &[0, 0, 0, 5, 1, 0, 0, 0, 3, 0, 0, 0, 200, 3], &[0, 0, 0, 9, 3, 0, 0, 0, 1, 255, 255, 255, 255]]
    {
        let file = place.home.path("noise");
        fs::write(&file, noise).expect("written");
        ended(place.tool("ssh", &["-s", "work.cofferdam", "sftp"]).stdin(fs::File::open(&file).expect("opened")));
        assert_eq!(place.inside("echo alive").out, "alive\n", "{noise:?}");
    }
}

/// What is printed is what ssh takes, and holds to strict checking.
#[test]
fn the_printed_configuration() {
    let place = Place::new(&[]);
    let printed = place.home.ok(&["ssh-config", "work"]);
    assert!(printed.starts_with("Host work.cofferdam\n    User sandbox\n") && printed.contains("StrictHostKeyChecking yes"), "{printed}");
    assert_eq!(printed, place.home.ok(&["ssh-config", "work"]), "always the same key");
    let key = place.home.data().join("ssh/host_key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
    fs::write(
        place.home.data().join("ssh/known_hosts"),
        "*.cofferdam ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n",
    )
    .expect("written");
    let other = ended(&mut place.tool("ssh", &["-o", "ProxyUseFdpass=no", "-o", "UserKnownHostsFile=/dev/null", "work.cofferdam", "true"]));
    assert!(other.code == 255 && other.err.contains("Host key verification failed"), "{other:?}");
    let missing = place.home.run(&["ssh-config", "nobody"]);
    assert!(missing.code == 1 && missing.err.contains("no sandbox is called"), "{missing:?}");
}
