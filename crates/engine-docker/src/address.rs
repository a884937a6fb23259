//! Where a daemon is: at a unix socket, or at a port of this host, with TLS or without. Named as for the command `docker`
//! (`DOCKER_HOST`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`, `DOCKER_CONTEXT`, `docker context use`).

use crate::context::{self, Named};
use bollard::errors::Error;
use bollard::{ClientVersion, Docker};
use cofferdam_engine::EngineError;
use std::env::var_os;
use std::io;
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
const ANSWER_SECONDS: u64 = 120;

/// A daemon's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// `unix://…` or `tcp://…`; empty is the system's socket.
    host: String,
    /// Where `ca.pem`, `cert.pem` and `key.pem` are, for a port with TLS.
    certificates: Option<PathBuf>,
}

/// What an address comes to.
enum Place<'a> {
    Socket(&'a str),
    Port(&'a str),
}

impl Address {
    /// Without TLS.
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), certificates: None }
    }

    /// The same with TLS: the daemon is verified by `ca.pem` of this directory, and shown `cert.pem`.
    #[must_use]
    pub fn with_certificates(self, directory: PathBuf) -> Self {
        Self { certificates: Some(directory), ..self }
    }

    /// What the environment names; else the context in use.
    pub fn of_environment() -> Result<Self, EngineError> {
        let named = |name: &str| var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| named(name).map(|value| value.to_string_lossy().into_owned());
        // Whoever reads it again may be in another directory.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let files = || PathBuf::from(named("HOME").unwrap_or_default()).join(".docker");
        let host = text("DOCKER_HOST");
        if host.is_none() {
            let directory = named("DOCKER_CONFIG").map_or_else(files, PathBuf::from);
            if let Some(Named { host, certificates }) = context::in_use(text("DOCKER_CONTEXT"), &directory)? {
                return Ok(Self { host, certificates: certificates.map(absolute) });
            }
        }
        let address = Self { host: host.unwrap_or_default(), certificates: None };
        if named("DOCKER_TLS_VERIFY").is_none() {
            return Ok(address);
        }
        Ok(address.with_certificates(absolute(named("DOCKER_CERT_PATH").map_or_else(files, PathBuf::from))))
    }

    /// Whether the environment named it.
    pub fn is_named(&self) -> bool {
        !self.host.is_empty()
    }

    /// From [`Self::to_text`].
    pub fn from_text(text: &str) -> Self {
        let (host, certificates) = text.split_once('\n').map_or((text, None), |(host, rest)| (host, Some(PathBuf::from(rest))));
        Self { host: host.to_owned(), certificates }
    }

    /// For a file.
    pub fn to_text(&self) -> String {
        match &self.certificates {
            Some(directory) => format!("{}\n{}", self.host, directory.display()),
            None => self.host.clone(),
        }
    }

    /// The socket, if it is one.
    pub(crate) fn socket(&self) -> Option<&str> {
        match self.place() {
            Ok(Place::Socket(path)) => Some(path),
            _ => None,
        }
    }

    /// For people.
    pub(crate) fn shown(&self) -> &str {
        if self.host.is_empty() { DEFAULT_SOCKET } else { self.host.strip_prefix("unix://").unwrap_or(&self.host) }
    }

    /// A client; nothing is asked yet.
    pub(crate) fn client(&self, version: &ClientVersion) -> Result<Docker, EngineError> {
        let client = match (self.place()?, &self.certificates) {
            (Place::Socket(path), _) => Docker::connect_with_unix(path, ANSWER_SECONDS, version),
            (Place::Port(_), None) => Docker::connect_with_http(&self.host, ANSWER_SECONDS, version),
            (Place::Port(_), Some(directory)) => {
                let file = |name: &str| directory.join(name);
                // Read here first: an error then names the file and why.
                for name in ["ca.pem", "cert.pem", "key.pem"] {
                    std::fs::File::open(file(name)).map_err(|error| {
                        self.unusable(
                            format!("{}: {error}", file(name).display()),
                            "name the directory of ca.pem, cert.pem and key.pem in DOCKER_CERT_PATH",
                        )
                    })?;
                }
                Docker::connect_with_ssl(&self.host, &file("key.pem"), &file("cert.pem"), &file("ca.pem"), ANSWER_SECONDS, version)
            }
        };
        client.map_err(|error| self.unreachable(&error))
    }

    fn place(&self) -> Result<Place<'_>, EngineError> {
        if self.host.is_empty() {
            return Ok(Place::Socket(DEFAULT_SOCKET));
        }
        if let Some(path) = self.host.strip_prefix("unix://") {
            return Ok(Place::Socket(path));
        }
        let remote = |why: &str| {
            let why = format!("{why}; only a daemon on this host lets the network of a sandbox be set up from outside");
            Err(self.unusable(why, "name one: DOCKER_HOST=unix:///var/run/docker.sock, or tcp://127.0.0.1:PORT"))
        };
        let Some(port) = self.host.strip_prefix("tcp://") else { return remote("it is neither unix:// nor tcp://") };
        let Ok(addresses) = port.to_socket_addrs() else { return remote("it is not tcp://ADDRESS:PORT with an address that is known") };
        // What can be bound to is an address of this host.
        let is_own = addresses.into_iter().all(|address| UdpSocket::bind((address.ip(), 0)).is_ok());
        if is_own { Ok(Place::Port(port)) } else { remote("it is not an address of this host") }
    }

    /// Why nothing came of it.
    pub(crate) fn unreachable(&self, error: &Error) -> EngineError {
        let connected = match self.place() {
            Ok(Place::Socket(path)) => UnixStream::connect(path).map(|_| ()),
            Ok(Place::Port(port)) => TcpStream::connect(port).map(|_| ()),
            Err(error) => return error,
        };
        let (why, remedy) = match connected.err().map(|error| error.kind()) {
            Some(io::ErrorKind::NotFound) => ("there is no such socket".to_owned(), "start Docker, or name its socket in DOCKER_HOST"),
            Some(io::ErrorKind::PermissionDenied) => {
                ("this user may not connect to it".to_owned(), "run the command as root, or join the group docker")
            }
            Some(io::ErrorKind::ConnectionRefused) => ("nobody listens there".to_owned(), "start Docker"),
            _ if error.to_string().contains("HTTPS server") => (
                "it speaks TLS".to_owned(),
                "set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem",
            ),
            _ => (innermost(error), "see what docker version says"),
        };
        self.unusable(why, remedy)
    }

    fn unusable(&self, why: String, remedy: &str) -> EngineError {
        EngineError::Unsupported { what: format!("the Docker daemon at {}", self.shown()), why, remedy: remedy.into() }
    }
}

/// What the last cause says: of TLS, that is what was wrong with it.
fn innermost(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_daemons_on_this_host_are_asked() {
        for host in ["tcp://192.0.2.1:2375", "tcp://no.such.name.invalid:2375", "tcp://127.0.0.1", "ssh://127.0.0.1", "http://127.0.0.1:1"]
        {
            let error = Address::new(host).client(bollard::API_DEFAULT_VERSION).expect_err(host).to_string();
            assert!(error.contains("only a daemon on this host") && error.contains(host), "{error}");
        }
        for host in ["tcp://127.0.0.1:2375", "tcp://localhost:2375"] {
            assert!(Address::new(host).client(bollard::API_DEFAULT_VERSION).is_ok(), "{host}");
        }
    }

    #[test]
    fn it_is_kept_as_text() {
        for address in [Address::default(), Address::new("unix:///a"), Address::new("tcp://[::1]:2").with_certificates("/a b/c".into())] {
            assert_eq!(Address::from_text(&address.to_text()), address);
        }
    }

    #[test]
    fn certificates_that_are_missing_are_named() {
        let address = Address::new("tcp://127.0.0.1:2376").with_certificates("/no/such".into());
        let error = address.client(bollard::API_DEFAULT_VERSION).expect_err("nothing there").to_string();
        assert!(error.contains("/no/such/ca.pem") && error.contains("DOCKER_CERT_PATH"), "{error}");
    }
}
