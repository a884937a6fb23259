//! Registries: a real one, and one that answers as a test wants.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use crate::eventually;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Debian's docker-registry, on a port of its own.
pub struct Registry {
    child: Child,
    directory: tempfile::TempDir,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

impl Registry {
    /// Without TLS, for anybody.
    pub fn start() -> Self {
        Self::with("")
    }

    /// With more lines of configuration; `DIR` in them is its directory.
    pub fn with(extra: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::within(directory, extra, "")
    }

    /// The same with more of the part on HTTP.
    pub fn within(directory: tempfile::TempDir, extra: &str, http: &str) -> Self {
        let port = free_port();
        let place = directory.path().display().to_string();
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n{http}{extra}"
        );
        fs::write(directory.path().join("config.yml"), text.replace("DIR", &place)).expect("written");
        let log = fs::File::create(directory.path().join("log")).expect("a log");
        let child = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(directory.path())
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self { child, directory, host: format!("127.0.0.1:{port}") };
        Self::wait(port);
        registry
    }

    fn wait(port: u16) {
        eventually("the registry listens", || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok());
    }

    /// Its own files.
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers with what a Python function `answer(method, path, headers)` gives: status, headers, body.
pub struct Answering {
    child: Child,
    _directory: tempfile::TempDir,
    /// `127.0.0.1:PORT`.
    pub host: String,
}

const SERVER: &str = r#"
import http.server, json, hashlib, sys, time, os
exec(open("answer.py").read())
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do(self):
        result = answer(self.command, self.path, self.headers)
        if result is None:
            self.close_connection = True
            return
        status, headers, body = result
        self.send_response(status)
        for key, value in headers.items(): self.send_header(key, value)
        if "Content-Length" not in headers: self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)
        if headers.get("X-Break"): self.close_connection = True
    do_GET = do_HEAD = do_POST = do_PUT = do
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

impl Answering {
    /// Starts it.
    pub fn start(answer: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("server.py"), SERVER).expect("written");
        fs::write(directory.path().join("answer.py"), answer).expect("written");
        let port = free_port();
        let child = Command::new("python3")
            .args(["server.py", &port.to_string()])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("python3 starts");
        eventually("the server listens", || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok());
        Self { child, _directory: directory, host: format!("127.0.0.1:{port}") }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// A root file system with busybox, and something in it.
pub fn busybox_root(path: &Path) {
    for directory in ["bin", "etc", "app", "usr/lib", "tmp"] {
        fs::create_dir_all(path.join(directory)).expect("made");
    }
    fs::copy("/bin/busybox", path.join("bin/busybox")).expect("busybox-static is installed");
    for name in [
        "sh", "cat", "ls", "id", "env", "echo", "mkdir", "rm", "touch", "chmod", "chown", "ln", "true", "false", "pwd", "wc", "sed",
        "grep", "cp", "mv", "find", "sleep", "stat", "adduser", "printf", "test", "seq", "head", "sort", "tar", "dd", "wget",
    ] {
        std::os::unix::fs::symlink("busybox", path.join("bin").join(name)).expect("linked");
    }
    fs::write(path.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/app:/bin/sh\n").expect("written");
    fs::write(path.join("etc/group"), "root:x:0:\nweb:x:34:\n").expect("written");
    fs::write(path.join("app/file"), "from the base\n").expect("written");
    std::os::unix::fs::symlink("usr/lib", path.join("lib")).expect("linked");
}

/// The same with bash, as an image of a distribution has it.
pub fn debian_root(path: &Path) {
    busybox_root(path);
    let listed = Command::new("ldd").arg("/bin/bash").output().expect("ldd");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/bash"]) {
        let target = path.join(file.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("a parent")).expect("made");
        fs::copy(file, target).expect("copied");
    }
}
