//! What end-to-end tests work with: the released binary on a data directory of its own, and a look at what is left.
//!
//! Nothing here knows how Cofferdam works inside; it drives the binary only.

pub mod docker;
pub mod lab;
pub mod registry;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest that a host may take to let go of what a sandbox had.
const PATIENCE: Duration = Duration::from_secs(10);

/// A data directory for one test. When it is dropped, nothing of it may be left on the host.
pub struct Home {
    directory: tempfile::TempDir,
    program: PathBuf,
    /// The kernel's messages from here on.
    messages: Option<fs::File>,
    /// Whose it is, if not root's.
    user: Option<u32>,
    /// The daemon on which it runs sandboxes, if on any.
    docker: Option<String>,
}

thread_local! {
    static WITHOUT_ROOT: Cell<bool> = const { Cell::new(false) };
    static ON_DOCKER: RefCell<Option<String>> = const { RefCell::new(None) };
    /// The network of that daemon, where sandboxes have their gates beside them.
    static BRIDGED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Does a test again on a Docker daemon of its own: `run` of homes that it makes takes that engine, with the host's programs.
///
/// # Panics
/// If a container is left.
pub fn on_docker(test: impl FnOnce()) {
    let docker = docker::Docker::start();
    ON_DOCKER.set(Some(docker.host()));
    test();
    let left = docker.ok("docker ps -aq");
    assert_eq!(left, "", "containers are left");
}

/// Laboratories of this test are connected to the daemon's bridge.
pub fn connect_labs(docker: &docker::Docker) {
    BRIDGED.set(docker.network().map(str::to_owned));
}

/// The same with the gate of each sandbox in a container beside it.
///
/// # Panics
/// If a container is left.
pub fn beside_on_docker(test: impl FnOnce()) {
    let docker = docker::Docker::start_bridged();
    ON_DOCKER.set(Some(docker.host()));
    connect_labs(&docker);
    test();
    let left = docker.ok("docker ps -aq");
    assert_eq!(left, "", "containers are left");
}

/// Does a test again, as an ordinary user that nothing else on this host is: homes that it makes belong to that user.
pub fn without_root(test: impl FnOnce()) {
    WITHOUT_ROOT.set(true);
    test();
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A new one.
    ///
    /// # Panics
    /// Without root, or without the binary.
    pub fn new() -> Self {
        let directory = match tempfile::Builder::new().prefix("cofferdam-e2e").tempdir_in("/var/tmp") {
            Ok(directory) => directory,
            Err(error) => fail(&format!("no directory: {error}")),
        };
        let mut home = Self { directory, program: program(), messages: kernel_messages(), user: None, docker: None };
        if WITHOUT_ROOT.get() {
            home.give_away();
        }
        if let Some(host) = ON_DOCKER.with_borrow(Clone::clone) {
            home.use_docker(host);
        }
        home
    }

    /// What the native engine shows of this host but `/usr`, as an image.
    fn use_docker(&mut self, host: String) {
        self.ok(&["run", "--", "true"]);
        let base = fs::read_dir(self.data().join("images/host")).ok().and_then(|mut entries| entries.next()?.ok());
        let base = base.unwrap_or_else(|| fail("there is no image of the host"));
        self.ok(&["image", "import", &base.path().display().to_string(), "host:1"]);
        self.docker = Some(host);
        // Only there a daemon for tests has a bridge.
        if BRIDGED.with_borrow(Option::is_some) {
            let written = fs::write(self.path("config.yaml"), "docker: {gate: sidecar}\n");
            written.unwrap_or_else(|error| fail(&format!("config.yaml: {error}")));
        }
    }

    /// On a daemon, `run` says so.
    fn words<S: AsRef<OsStr>>(&self, words: &[S]) -> Vec<OsString> {
        const ENGINE: [&str; 4] = ["--engine", "docker", "--image", "host:1"];
        let mut all: Vec<OsString> = words.iter().map(|word| word.as_ref().to_owned()).collect();
        if self.docker.is_some() && all.first().is_some_and(|word| word == "run") {
            let parts =
                fs::read_dir("/usr").into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let shown = parts.flat_map(|part| ["-v".into(), format!("{0}:{0}:ro", part.path().display())]);
            let engine: Vec<OsString> = ENGINE.into_iter().map(str::to_owned).chain(shown).map(OsString::from).collect();
            all.splice(1..1, engine);
        }
        all
    }

    /// To a user without an account.
    fn give_away(&mut self) {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let user = 900_000_000 + (std::process::id() % 1_000_000) * 16 + SERIAL.fetch_add(1, Ordering::Relaxed) % 16;
        // The directories that lead to where it was built need not be open to others.
        let program = self.path("cofferdam");
        let given = fs::copy(&self.program, &program).and_then(|_| chown(self.directory.path(), Some(user), Some(user)));
        given.unwrap_or_else(|error| fail(&format!("give a home away: {error}")));
        (self.program, self.user) = (program, Some(user));
        self.write_ids(user);
        // What this host cannot enforce is said once.
        self.ok(&["run", "--", "true"]);
        self.ok(&["run", "-u", "root", "--", "true"]);
    }

    /// What was put there for the test is the home's owner's too.
    fn hand_over(&self, user: u32) {
        let entries = fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path != &self.data() && path != &self.program);
        let status = Command::new("chown").args(["-Rh", "--from=0", &format!("{user}:{user}")]).args(files).stderr(Stdio::null()).status();
        // With no file there is nothing to do, and chown says so.
        status.unwrap_or_else(|error| fail(&format!("chown: {error}")));
    }

    /// Files of the host that give the user a name and subordinate ids, for this home alone.
    fn write_ids(&self, user: u32) {
        let first = 1_300_000_000 + user % 1000 * 65_536;
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default() + &format!("rootless:x:{user}:{user}::/:/bin/sh\n");
        for (name, text) in [("subordinate", format!("{user}:{first}:65536\n")), ("passwd", accounts)] {
            fs::write(self.path(name), text).unwrap_or_else(|error| fail(&format!("{name}: {error}")));
        }
    }

    fn bind_ids(&self) -> String {
        let bind = |(from, to)| format!("{{ test -e {to} || touch {to}; }} && mount --bind {} {to} && ", self.path(from).display());
        let files = [("subordinate", "/etc/subuid"), ("subordinate", "/etc/subgid"), ("passwd", "/etc/passwd")];
        if self.path("subordinate").exists() { files.map(bind).concat() } else { String::new() }
    }

    /// From now on its owner has one id only.
    pub fn take_ids(&self) {
        let _ = fs::remove_file(self.path("subordinate"));
    }

    /// The words before a command line of the home's owner, and the binary.
    pub fn line(&self) -> String {
        let command = self.command::<&str>(&[]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words = words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
        self.user.map_or_else(|| words.clone(), |_| format!("env 'HOME={}' {words}", self.directory.path().display()))
    }

    /// Whose it is, if not root's.
    pub const fn user(&self) -> Option<u32> {
        self.user
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A place for files of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The binary with this data directory, not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = match self.user {
            None => Command::new(&self.program),
            Some(user) => {
                self.hand_over(user);
                let script = format!("{}exec setpriv --reuid={user} --regid={user} --clear-groups \"$@\"", self.bind_ids());
                let mut command = Command::new("unshare");
                command.args(["--mount", "/bin/sh", "-c", &script, "sh"]).arg(&self.program).env("HOME", self.directory.path());
                command
            }
        };
        if let Some(docker) = &self.docker {
            command.env("DOCKER_HOST", docker);
            let config = self.path("config.yaml");
            if config.exists() {
                command.env("COFFERDAM_CONFIG_PATH", config);
            }
        }
        command
            .args(self.words(words))
            .env("COFFERDAM_DATA_DIR", self.data())
            .env_remove("NO_COLOR")
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ended {
        ended(&mut self.command(words))
    }

    /// Runs it and expects success; returns its output.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, words: &[S]) -> String {
        let ended = self.run(words);
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
        ended.out
    }

    /// The install id, once there is one.
    fn install(&self) -> Option<String> {
        fs::read_to_string(self.data().join("install-id")).ok().map(|id| id.trim().to_owned())
    }

    /// What of this data directory is on the host: cgroups, processes, loop devices, mounts, sandbox directories.
    pub fn residue(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        if let Some(install) = self.install() {
            find(Path::new("/sys/fs/cgroup"), &install, &mut found, 0);
        }
        for entry in fs::read_dir(self.data().join("sandboxes")).into_iter().flatten().flatten() {
            found.insert(entry.path().display().to_string());
        }
        for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if backing.contains(&self.directory.path().display().to_string()) {
                found.insert(backing.trim().to_owned());
            }
        }
        let ours = self.directory.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if [environment, command].iter().any(|bytes| String::from_utf8_lossy(bytes).contains(&ours)) {
                found.insert(entry.path().display().to_string());
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // Disks that another test mounted in its own place are that test's.
        let of_another = |line: &str| line.contains("/cofferdam-e2e") && !line.contains(&ours);
        found.extend(mounts.lines().filter(|line| line.contains("cofferdam") && !of_another(line)).map(str::to_owned));
        found
    }

    /// A gate stays half a minute after its last sandbox; a test does not wait for that.
    fn end_gate(&self) {
        let ours = self.directory.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_gate = command.split(|byte| *byte == 0).any(|word| word == b"gate");
            if is_gate && String::from_utf8_lossy(&command).contains(&ours) {
                let _ = Command::new("kill").arg(entry.file_name()).status();
            }
        }
    }

    /// Waits until nothing is left.
    ///
    /// # Panics
    /// If something stays.
    pub fn assert_clean(&self) {
        self.end_gate();
        let begun = Instant::now();
        loop {
            let left = self.residue();
            if left.is_empty() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "the kernel complained: {complaints:#?}");
    }

    /// What the kernel has said since that sounds like a bug of it.
    fn complaints(&self) -> Vec<String> {
        const SIGNS: &[&str] =
            &["BUG:", "Oops", "general protection fault", "refcount_t:", "WARNING: CPU", "unregister_netdevice: waiting"];
        let mut found = Vec::new();
        let mut record = [0; 8192];
        while let Some(Ok(length)) = self.messages.as_ref().map(|mut messages| messages.read(&mut record)) {
            let text = String::from_utf8_lossy(&record[..length]).into_owned();
            if SIGNS.iter().any(|sign| text.contains(sign)) {
                found.push(text);
            }
        }
        found
    }
}

/// The kernel's messages from now on; None where they cannot be read.
fn kernel_messages() -> Option<fs::File> {
    const O_NONBLOCK: i32 = 0o4000;
    let mut messages = fs::File::options().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").ok()?;
    messages.seek(SeekFrom::End(0)).ok()?;
    Some(messages)
}

impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}

fn find(directory: &Path, install: &str, found: &mut BTreeSet<String>, depth: u32) {
    const DEEPEST: u32 = 6;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if depth < DEEPEST && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            if path.to_string_lossy().contains(install) {
                found.insert(path.display().to_string());
            }
            find(&path, install, found, depth + 1);
        }
    }
}

fn program() -> PathBuf {
    let target = format!("target/{}-unknown-linux-musl/release/cofferdam", std::env::consts::ARCH);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(target);
    let path = std::env::var_os("COFFERDAM_BIN").map_or(built, PathBuf::from);
    if path.is_file() { path } else { fail(&format!("{} is missing: cargo xtask test builds it", path.display())) }
}

/// Runs any command to its end.
pub fn ended(command: &mut Command) -> Ended {
    match command.output() {
        Ok(output) => Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
        Err(error) => fail(&format!("{command:?}: {error}")),
    }
}

/// Waits until something is so.
///
/// # Panics
/// If it does not come to be.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it did not come to be: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::panic, reason = "a test that cannot begin has failed")]
fn fail(why: &str) -> ! {
    panic!("{why}")
}
