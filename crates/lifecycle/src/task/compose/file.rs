//! The parts of a compose file that are used, all of which docker-compose 1.29 and Compose 2 know.
//! <https://github.com/compose-spec/compose-spec/blob/main/spec.md>

use cofferdam_gate::sidecar::{NEEDED, SETTINGS};
use cofferdam_model::{Bytes, Difficulty, Limits};
use cofferdam_policy::capability;
use cofferdam_trust::User;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The file.
#[derive(Debug, Default, Serialize)]
pub struct Project {
    /// Containers.
    pub services: BTreeMap<String, Container>,
    /// In memory, of a fixed size.
    volumes: BTreeMap<String, VolumeDriver>,
}

#[derive(Debug, Serialize)]
struct VolumeDriver {
    driver: &'static str,
    driver_opts: BTreeMap<&'static str, String>,
}

impl Project {
    /// A volume of so many bytes.
    pub fn volume(&mut self, name: &str, bytes: u64) {
        const BYTES_OF_A_FILE: u64 = 4096;
        let options = format!("size={bytes},nr_inodes={},mode=755,nosuid,nodev", (bytes / BYTES_OF_A_FILE).max(1024));
        let driver_opts = BTreeMap::from([("type", "tmpfs".to_owned()), ("device", "tmpfs".to_owned()), ("o", options)]);
        self.volumes.insert(name.to_owned(), VolumeDriver { driver: "local", driver_opts });
    }

    /// Those that share the network of a gate ask it for names, and not whom the daemon asks.
    pub fn share_network(&mut self, gate: &str, resolver: &str) {
        let mode = format!("service:{gate}");
        for container in self.services.values_mut().filter(|container| container.network_mode == mode) {
            container.volumes.push(Volume::host(resolver, "/etc/resolv.conf"));
        }
    }

    /// Variables that stand without their values.
    pub fn secrets(&self) -> BTreeSet<&str> {
        let variables = self.services.values().flat_map(|container| &container.environment);
        variables.filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str()).collect()
    }
}

/// What has to be before.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "condition")]
pub enum Condition {
    /// Its check has succeeded.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// It runs.
    #[serde(rename = "service_started")]
    Started,
    /// It has ended with status 0.
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

/// How it is known to be well.
#[derive(Debug, Serialize)]
pub struct Health {
    test: Vec<String>,
    interval: String,
    timeout: String,
    retries: u64,
}

impl Health {
    /// A command; seconds between two looks and for each.
    pub fn of(command: &[&str], interval: u64, timeout: u64, retries: u64) -> Self {
        let test = ["CMD"].iter().chain(command).map(|word| (*word).to_owned()).collect();
        Self { test, interval: format!("{interval}s"), timeout: format!("{timeout}s"), retries }
    }
}

/// Where a volume is from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Bind,
    Volume,
}

/// A volume in a container.
#[derive(Debug, Serialize)]
pub struct Volume {
    r#type: Source,
    source: String,
    target: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<NoCopy>,
}

/// What an image has in a volume's place stays out of it.
#[derive(Debug, Serialize)]
struct NoCopy {
    nocopy: bool,
}

impl Volume {
    /// One of the project's.
    pub fn named(name: &str, target: &str) -> Self {
        let volume = Some(NoCopy { nocopy: true });
        Self { r#type: Source::Volume, source: name.to_owned(), target: target.to_owned(), read_only: false, volume }
    }

    /// A path of the host, read-only.
    pub fn host(path: &str, target: &str) -> Self {
        Self { r#type: Source::Bind, source: escape(path), target: target.to_owned(), read_only: true, volume: None }
    }

    /// The same, read-only.
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}

#[derive(Debug, Serialize)]
struct FileLimit {
    soft: u64,
    hard: u64,
}

#[derive(Debug, Serialize)]
struct Ulimits {
    core: u64,
    nofile: FileLimit,
}

#[derive(Debug, Serialize)]
struct Logging {
    driver: &'static str,
    options: BTreeMap<&'static str, &'static str>,
}

const GATE_SOCKETS: &str = "/run/cofferdam";
/// Where a gate is asked whether it is there.
pub const GATE_SOCKET: &str = "/run/cofferdam/gate.sock";
/// The directory of a gate's policy.
pub const GATE_POLICY: &str = "/etc/cofferdam";

/// A container.
#[derive(Debug, Serialize)]
pub struct Container {
    image: String,
    user: String,
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Without a value it is the caller's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Option<String>>,
    pub network_mode: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Condition>,
    pub healthcheck: Health,
    pub volumes: Vec<Volume>,
    tmpfs: Vec<String>,
    pub read_only: bool,
    cap_drop: [&'static str; 1],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cap_add: Vec<&'static str>,
    security_opt: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sysctls: BTreeMap<&'static str, u32>,
    init: bool,
    ipc: &'static str,
    mem_limit: u64,
    memswap_limit: u64,
    shm_size: u64,
    cpus: f64,
    pids_limit: u32,
    ulimits: Ulimits,
    logging: Logging,
    labels: BTreeMap<String, String>,
    restart: &'static str,
    stop_grace_period: &'static str,
}

impl Container {
    /// With every control that a container of ours has and a compose file can say. No command, health check, volume yet, and no open files.
    pub fn hardened(image: String, user: &User, limits: &Limits, labels: BTreeMap<String, String>) -> Self {
        const MILLIS: f64 = 1000.0;
        let memory = limits.memory.get();
        let disk = limits.disk.unwrap_or(limits.memory).get();
        // Everybody but root only loses what they could not do.
        let read_only = user.uid != 0;
        let mut container = Self {
            image,
            user: format!("{}:{}", user.uid, user.gid),
            entrypoint: Vec::new(),
            working_dir: None,
            environment: BTreeMap::new(),
            network_mode: "none".into(),
            depends_on: BTreeMap::new(),
            healthcheck: Health { test: vec!["NONE".into()], interval: "30s".into(), timeout: "10s".into(), retries: 3 },
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            read_only,
            cap_drop: ["ALL"],
            cap_add: capability::names(capability::of_user(user.uid)).collect(),
            security_opt: vec!["no-new-privileges:true".into(), format!("seccomp:./{}", super::SECCOMP)],
            sysctls: BTreeMap::new(),
            init: true,
            ipc: "private",
            mem_limit: memory,
            memswap_limit: memory,
            shm_size: memory,
            cpus: f64::from(limits.cpus.millis()) / MILLIS,
            pids_limit: limits.pids,
            ulimits: Ulimits { core: 0, nofile: FileLimit { soft: 0, hard: 0 } },
            logging: Logging { driver: "json-file", options: BTreeMap::from([("max-file", "3"), ("max-size", "10m")]) },
            labels,
            restart: "no",
            stop_grace_period: "10s",
        };
        container.add_tmpfs("/tmp", disk, 0o1777, (0, 0));
        if read_only {
            container.add_tmpfs("/var/tmp", disk, 0o1777, (0, 0));
            container.add_tmpfs("/run", disk, 0o755, (0, 0));
            if user.home != "/" {
                container.add_tmpfs(&user.home, disk, 0o755, (user.uid, user.gid));
            }
        }
        container
    }

    /// A gate for those that share its network: `words` are its command, `policy` the directory of its policy file, both beside the compose file.
    /// It splits its network in two before it becomes nobody, for which it needs rights that nothing else here has.
    pub fn gate(image: String, words: Vec<String>, policy: &str, labels: BTreeMap<String, String>) -> Self {
        let root = User { uid: 0, gid: 0, groups: Vec::new(), name: "root".into(), home: "/".into() };
        let limits = Limits { memory: Bytes::mebibytes(64), pids: 32, disk: None, ..Difficulty::Easy.limits() };
        let mut gate = Self::hardened(image, &root, &limits, labels);
        gate.cpus = 0.5;
        gate.limit_files(4096);
        gate.entrypoint = words;
        gate.network_mode = "bridge".into();
        gate.cap_add = NEEDED.to_vec();
        // Ours forbids what it has to do first; it puts a narrower one over the daemon's.
        gate.security_opt = vec!["no-new-privileges:true".into()];
        gate.sysctls = SETTINGS.iter().map(|name| (*name, 0)).collect();
        gate.read_only = true;
        gate.init = false;
        gate.tmpfs.clear();
        gate.add_tmpfs(GATE_SOCKETS, 1 << 20, 0o755, (0, 0));
        gate.volumes = vec![Volume::host(&format!("./{policy}"), GATE_POLICY)];
        gate.healthcheck = Health::of(&["/cofferdam", "gate", "--healthy", GATE_SOCKET], 1, 5, 15);
        gate
    }

    /// Shares the network of a gate: who does may not become somebody else.
    pub fn share_network(&mut self, gate: &str) {
        self.network_mode = format!("service:{gate}");
        self.cap_add.retain(|name| !matches!(*name, "SETUID" | "SETGID"));
    }

    /// So many open files for each process.
    pub fn limit_files(&mut self, files: u64) {
        self.ulimits.nofile = FileLimit { soft: files, hard: files };
    }

    /// A place in memory.
    pub fn add_tmpfs(&mut self, path: &str, bytes: u64, mode: u32, (uid, gid): (u32, u32)) {
        self.tmpfs.push(format!("{}:rw,nosuid,nodev,exec,size={bytes},mode={mode:o},uid={uid},gid={gid}", escape(path)));
    }

    /// Variables. What is a secret by its name is taken from whoever brings the project up, and written nowhere.
    pub fn set_environment(&mut self, all: BTreeMap<String, String>) {
        self.environment = all.into_iter().map(|(name, value)| (name.clone(), (!is_secret(&name)).then(|| escape(&value)))).collect();
    }
}

/// Whether a variable holds what is nobody's business, as its name says.
fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIALS"]
        .iter()
        .any(|word| name.strip_suffix(word).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')))
}

/// A `$` that compose leaves alone.
pub fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::{escape, is_secret};

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in ["OPENAI_API_KEY", "token", "GITHUB_TOKEN", "DB_PASSWORD", "KEY"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["KEYBOARD", "MONKEY", "TOKENIZERS_PARALLELISM", "PATH"] {
            assert!(!is_secret(name), "{name}");
        }
        assert_eq!(escape("$A ${B} $$"), "$$A $${B} $$$$");
    }
}
