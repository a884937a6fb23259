//! A Docker daemon of a test's own: its data, its socket, its end.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running daemon.
pub struct Dockerd {
    child: Child,
    directory: tempfile::TempDir,
}

impl Dockerd {
    /// Starts one.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("docker-of-a-test").tempdir_in("/var/tmp").expect("a directory");
        let place = |name: &str| directory.path().join(name).display().to_string();
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = Command::new("dockerd")
            .args(["--iptables=false", "--bridge=none", "-H", &format!("unix://{}", place("sock"))])
            .args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker.io is installed");
        let daemon = Self { child, directory };
        let begun = Instant::now();
        while !daemon.docker(&["version"]).0 {
            assert!(begun.elapsed() < Duration::from_mins(1), "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    /// `unix://…`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    /// A command of the client: whether it succeeded, and what it said.
    pub fn docker(&self, words: &[&str]) -> (bool, String) {
        let ended = Command::new("/usr/bin/docker").args(words).env("DOCKER_HOST", self.host()).output().expect("started");
        (ended.status.success(), String::from_utf8_lossy(&ended.stdout).into_owned())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
