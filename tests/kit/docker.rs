//! A Docker daemon of a test's own: its data, its socket, its end.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use crate::lab::SITE;
use crate::{Ended, ended, eventually};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the package has its programs; another client may stand before them.
const DEBIAN: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A running daemon.
pub struct Docker {
    child: Child,
    directory: tempfile::TempDir,
    more: Vec<String>,
    /// The network that it runs in, if not the host's.
    network: Option<String>,
}

/// Addresses of its bridge's network, where it has one.
pub const BRIDGE: &str = "172.29.0.0/24";

const CERTIFICATES: &str = "certificates";

/// An authority, a server's certificate for 127.0.0.1 and a client's.
fn write_certificates(directory: &Path) {
    let write = |name: &str, text: String| std::fs::write(directory.join(name), text).expect("written");
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    write("ca.pem", parameters.self_signed(&key).expect("signed").pem());
    let authority = Issuer::new(parameters, key);
    for (prefix, usage) in [("server-", ExtendedKeyUsagePurpose::ServerAuth), ("", ExtendedKeyUsagePurpose::ClientAuth)] {
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
        parameters.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("a key");
        let signed = parameters.signed_by(&key, &authority).expect("signed");
        write(&format!("{prefix}cert.pem"), signed.pem());
        write(&format!("{prefix}key.pem"), key.serialize_pem());
    }
}

fn spawn(directory: &Path, more: &[String], network: Option<&str>) -> Child {
    let place = |name: &str| directory.join(name).display().to_string();
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).expect("a log");
    // Not `ip netns exec`, which hides the control groups.
    let mut command = Command::new(if network.is_some() { "nsenter" } else { "dockerd" });
    match network {
        Some(name) => command.args([&format!("--net=/run/netns/{name}"), "dockerd", "--bip=172.29.0.1/24", &format!("--dns={SITE}")]),
        None => command.arg("--bridge=none"),
    };
    command
        .args(["--iptables=false", "-H", &format!("unix://{}", place("sock"))])
        .args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")])
        .args(more)
        .env("PATH", DEBIAN)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("docker.io is installed")
}

impl Default for Docker {
    fn default() -> Self {
        Self::start()
    }
}

impl Docker {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with more arguments.
    pub fn start_with(more: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("docker-of-a-test").tempdir_in("/var/tmp").expect("a directory");
        Self::start_in(directory, more.iter().map(|word| (*word).to_owned()).collect())
    }

    fn start_in(directory: tempfile::TempDir, more: Vec<String>) -> Self {
        let child = spawn(directory.path(), &more, None);
        let docker = Self { child, directory, more, network: None };
        docker.wait();
        docker
    }

    /// Starts one whose data are on a file system of so many bytes, in memory.
    pub fn start_small(bytes: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("docker-of-a-test").tempdir_in("/var/tmp").expect("a directory");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("made");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(&data).status().expect("mount");
        assert!(mounted.success());
        let child = spawn(directory.path(), &[], None);
        let docker = Self { child, directory, more: Vec::new(), network: None };
        docker.wait();
        docker
    }

    /// Starts one that remaps users: root of a container is none of this host's users.
    pub fn start_remapped() -> Self {
        let directory = tempfile::Builder::new().prefix("docker-of-a-test").tempdir_in("/var/tmp").expect("a directory");
        // What is below is its runtime's to reach, as a user of the range.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o711)).expect("set");
        Self::start_in(directory, vec!["--userns-remap=default".to_owned()])
    }

    /// Starts one that listens on this port too, with TLS; [`Self::certificates`] are for its clients.
    pub fn start_with_tls(port: u16) -> Self {
        let directory = tempfile::Builder::new().prefix("docker-of-a-test").tempdir_in("/var/tmp").expect("a directory");
        let certificates = directory.path().join(CERTIFICATES);
        std::fs::create_dir(&certificates).expect("made");
        write_certificates(&certificates);
        let file = |name: &str| certificates.join(name).display().to_string();
        let more = vec![
            format!("--host=tcp://127.0.0.1:{port}"),
            "--tlsverify".to_owned(),
            format!("--tlscacert={}", file("ca.pem")),
            format!("--tlscert={}", file("server-cert.pem")),
            format!("--tlskey={}", file("server-key.pem")),
        ];
        Self::start_in(directory, more)
    }

    /// What clients of its port need: `ca.pem`, `cert.pem`, `key.pem`.
    pub fn certificates(&self) -> PathBuf {
        self.directory.path().join(CERTIFICATES)
    }

    /// Where its data are.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts one with a bridge, in a network of its own.
    pub fn start_bridged() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let network = format!("cfd-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &network]).status().expect("ip");
        assert!(made.success());
        let directory = tempfile::Builder::new().prefix("docker-of-a-test").tempdir_in("/var/tmp").expect("a directory");
        let child = spawn(directory.path(), &[], Some(&network));
        let docker = Self { child, directory, more: Vec::new(), network: Some(network) };
        docker.wait();
        docker
    }

    /// The network that it runs in, if not the host's.
    pub fn network(&self) -> Option<&str> {
        self.network.as_deref()
    }

    fn wait(&self) {
        eventually("the daemon answers", || self.run("docker version").code == 0);
    }

    /// Ends it with a signal.
    pub fn end(&mut self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("sent");
        assert!(sent.success());
        self.child.wait().expect("ended");
    }

    /// Starts it again after that.
    pub fn again(&mut self) {
        // One that was killed leaves these, and the pids in them may be somebody else's by now, or a zombie's.
        for left in ["pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.directory.path().join(left));
        }
        self.child = spawn(self.directory.path(), &self.more, self.network.as_deref());
        self.wait();
    }

    /// A line for a shell, with this daemon.
    pub fn run(&self, line: &str) -> Ended {
        ended(Command::new("sh").args(["-c", line]).env("DOCKER_HOST", self.host()).env("PATH", DEBIAN))
    }

    /// The same, and it must succeed.
    pub fn ok(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 0, "{line}: {ended:?}");
        ended.out
    }

    /// Gives a line to something that runs it, with this daemon in its environment.
    pub fn describe(&self, line: &str, describe: impl FnOnce(&str) -> String) -> String {
        describe(&format!("export DOCKER_HOST={} PATH={DEBIAN}; ({line})", self.host()))
    }

    /// Its address.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        // What lies in memory is mounted there; elsewhere nothing is.
        let _ = Command::new("umount").args(["-R", "-q"]).arg(self.data()).stderr(Stdio::null()).status();
        if let Some(network) = &self.network {
            let _ = Command::new("ip").args(["netns", "del", network]).status();
        }
    }
}
