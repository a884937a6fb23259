//! A Docker daemon of a test's own: its data, its socket, its end.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use crate::{Ended, ended, eventually};
use std::process::{Child, Command, Stdio};

/// Where the package has its programs; another client may stand before them.
const DEBIAN: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A running daemon.
pub struct Docker {
    child: Child,
    directory: tempfile::TempDir,
}

impl Default for Docker {
    fn default() -> Self {
        Self::start()
    }
}

impl Docker {
    /// Starts one.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("docker-of-a-test").tempdir_in("/var/tmp").expect("a directory");
        let place = |name: &str| directory.path().join(name).display().to_string();
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = Command::new("dockerd")
            .args(["--iptables=false", "--bridge=none", "-H", &format!("unix://{}", place("sock"))])
            .args(["--data-root", &place("data"), "--exec-root", &place("exec"), "--pidfile", &place("pid")])
            .env("PATH", DEBIAN)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker.io is installed");
        let docker = Self { child, directory };
        eventually("the daemon answers", || docker.run("docker version").code == 0);
        docker
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
    }
}
