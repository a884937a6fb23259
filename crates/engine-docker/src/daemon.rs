//! The daemon: where it is, what it can do, what its errors mean.

use crate::address::Address;
use crate::world::World;
use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use cofferdam_engine::EngineError;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Docker 20.10.
const OLDEST_API: (u32, u32) = (1, 41);
const KEPT_FOR: Duration = Duration::from_mins(5);

/// A connection.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The client.
    pub client: Docker,
    /// Where it is.
    address: Address,
    /// What was found out.
    pub facts: Facts,
    /// Which of its paths are ours.
    pub world: World,
}

/// What a daemon says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// Its socket, or its port.
    pub address: String,
    /// Its version.
    pub version: String,
    /// The version of its interface.
    pub api: String,
    /// How it stores layers.
    pub storage: String,
    /// Whether its images are in containerd's store.
    pub containerd_store: bool,
    /// `name=…` of its security options.
    pub security: Vec<String>,
    /// Its runtimes.
    pub runtimes: Vec<String>,
}

impl Daemon {
    /// By its address. What one at a socket says of itself takes it a while, so that is kept in `cache` for some minutes.
    pub async fn connect(address: Address, cache: Option<&Path>) -> Result<Self, EngineError> {
        if let Some(facts) = cache.zip(address.socket()).and_then(|(cache, socket)| kept(cache, socket)) {
            let client = address.client(&version_of(&facts.api))?;
            let world = World::find(&client).await?;
            return Ok(Self { client, address, facts, world });
        }
        let error = |error| address.unreachable(&error);
        let client = address.client(API_DEFAULT_VERSION)?.negotiate_version().await.map_err(error)?;
        let facts = ask(&client, address.shown()).await.map_err(error)?;
        check(&facts)?;
        if let (Some(cache), Some(mark)) = (cache, address.socket().and_then(mark)) {
            // Without it the next one asks again.
            let _ = serde_json::to_vec(&Kept { mark, facts: facts.clone() }).map(|bytes| std::fs::write(cache, bytes));
        }
        let world = World::find(&client).await?;
        Ok(Self { client, address, facts, world })
    }

    /// What an answer means to who asked for `operation`, if there was one.
    pub fn failed(&self, operation: &str, error: Error) -> EngineError {
        let gone = matches!(error, Error::HyperLegacyError { ref err } if err.is_connect());
        if gone { self.address.unreachable(&error) } else { failed(operation, error) }
    }

    /// Whether it is there at all.
    pub async fn answers(&self) -> bool {
        self.client.ping().await.is_ok()
    }
}

async fn ask(client: &Docker, address: &str) -> Result<Facts, Error> {
    let (version, info) = tokio::try_join!(client.version(), client.info())?;
    let backing = info.driver_status.unwrap_or_default();
    let is = |name: &str, value: &str| backing.iter().any(|pair| pair.len() == 2 && pair[0] == name && pair[1].starts_with(value));
    let containerd_store = is("driver-type", "io.containerd.snapshotter");
    let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
    runtimes.sort_unstable();
    Ok(Facts {
        version: version.version.unwrap_or_default(),
        api: client.client_version().to_string(),
        storage: info.driver.unwrap_or_default(),
        containerd_store,
        runtimes,
        security: info.security_options.unwrap_or_default(),
        address: address.to_owned(),
    })
}

/// What was found out a while ago, and of which socket.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    mark: (u64, i64, i64),
    facts: Facts,
}

/// Inode and time of a socket: another after most restarts of its daemon.
fn mark(socket: &str) -> Option<(u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(socket).ok()?;
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn kept(cache: &Path, socket: &str) -> Option<Facts> {
    let age = std::fs::metadata(cache).ok()?.modified().ok()?.elapsed().ok()?;
    let kept: Kept = serde_json::from_slice(&std::fs::read(cache).ok()?).ok()?;
    let same = age < KEPT_FOR && kept.facts.address == socket && mark(socket) == Some(kept.mark) && check(&kept.facts).is_ok();
    same.then_some(kept.facts)
}

fn version_of(api: &str) -> ClientVersion {
    let mut parts = api.split('.').filter_map(|part| part.parse().ok());
    let (major_version, minor_version) = (parts.next().unwrap_or(1), parts.next().unwrap_or(41));
    ClientVersion { major_version, minor_version }
}

fn check(facts: &Facts) -> Result<(), EngineError> {
    let api: Vec<u32> = facts.api.split('.').filter_map(|part| part.parse().ok()).collect();
    if api.first().zip(api.get(1)).is_none_or(|(major, minor)| (*major, *minor) < OLDEST_API) {
        return Err(EngineError::Unsupported {
            what: "the engine docker".into(),
            why: format!("the daemon at {} has API {}, 1.41 is the oldest that is known", facts.address, facts.api),
            remedy: "update it to Docker 20.10 or later".into(),
        });
    }
    if facts.security.iter().any(|option| option.starts_with("name=rootless")) {
        return Err(EngineError::Unsupported {
            what: "the engine docker".into(),
            why: "the daemon runs without root: the network of its containers cannot be entered from outside".into(),
            remedy: "use --engine native, or a daemon that runs as root".into(),
        });
    }
    if facts.security.iter().any(|option| option.starts_with("name=selinux")) {
        return Err(EngineError::Unsupported {
            what: "the engine docker".into(),
            why: "the daemon labels its containers for SELinux, which keeps them from what Cofferdam puts into them".into(),
            remedy: "use --engine native, or a daemon without it (\"selinux-enabled\": false in its daemon.json)".into(),
        });
    }
    if !facts.security.iter().any(|option| option.starts_with("name=seccomp")) {
        return Err(EngineError::Unsupported {
            what: "the engine docker".into(),
            why: "the daemon was built without seccomp: system calls would not be filtered".into(),
            remedy: "use --engine native, or a daemon with seccomp".into(),
        });
    }
    Ok(())
}

/// What an answer means to who asked for `operation`.
pub fn failed(operation: &str, error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code: 409, message } => {
            EngineError::Invalid { what: operation.to_owned(), why: format!("the daemon says: {message}") }
        }
        Error::DockerResponseServerError { message, .. } if message.contains("bind source path does not exist") => {
            EngineError::Unsupported {
                what: operation.to_owned(),
                why: format!("the daemon does not see the files of this process ({message})"),
                remedy: "run Cofferdam where the daemon runs, with its data directory at the same path".into(),
            }
        }
        Error::DockerResponseServerError { message, .. } => said(operation, message),
        other => said(operation, other.to_string()),
    }
}

/// What a daemon's word means that comes in an answer or in a stream of them.
pub fn said(operation: &str, message: String) -> EngineError {
    if message.contains("no space left on device") {
        let (what, remedy) = ("the disk of the Docker daemon".into(), "free some space (docker system prune)".into());
        return EngineError::Exhausted { what, why: message, remedy };
    }
    EngineError::host(format!("docker: {operation}"), io::Error::other(message))
}

/// Whether it is that something is not there.
pub fn is_missing(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(api: &str, security: &[&str]) -> Facts {
        Facts { api: api.into(), security: security.iter().map(|option| (*option).to_owned()).collect(), ..Facts::default() }
    }

    #[test]
    fn what_cannot_do_is_refused() {
        assert!(check(&facts("1.41", &["name=seccomp,profile=default"])).is_ok());
        assert!(check(&facts("1.51", &["name=apparmor", "name=seccomp,profile=builtin"])).is_ok());
        for (api, security, word) in [
            ("1.40", &["name=seccomp"][..], "1.41 is the oldest"),
            ("", &["name=seccomp"][..], "1.41 is the oldest"),
            ("1.45", &["name=seccomp", "name=rootless"][..], "without root"),
            ("1.45", &["name=seccomp", "name=selinux"][..], "SELinux"),
            ("1.45", &[][..], "without seccomp"),
        ] {
            let error = check(&facts(api, security)).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
