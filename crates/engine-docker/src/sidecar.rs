//! The gate of one sandbox in a container beside it, for a network that leads out through the daemon's and not through this host's own.
//!
//! ```text
//! gate's container: the daemon's bridge ─▶ splits its network in two, hands its sockets to the supervisor ─▶ serves
//! sandbox's container: --network container:GATE, which is a loopback device and rules by then
//! ```

use crate::container::{INSTALL, SANDBOX};
use crate::daemon::{Daemon, failed};
use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountType};
use bollard::query_parameters::{CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder, StartContainerOptions};
use cofferdam_engine::{EngineError, SandboxSpec, Wiring};
use cofferdam_gate::client::Gate;
use cofferdam_gate::sidecar::{NEEDED, SETTINGS};
use cofferdam_gate::wire::Wire;
use cofferdam_policy::capability;
use futures_util::StreamExt;
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MEMORY_BYTES: i64 = 64 << 20;
const NANO_CPUS: i64 = 500_000_000;
const PIDS: i64 = 32;
/// For the daemon's own list: its supervisor sees at once when it ends.
const HEALTH_EVERY_NANOS: i64 = 60_000_000_000;
const READY_WITHIN: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How many looks are made before the daemon is asked whether it still runs.
const LOOKS_BETWEEN: u32 = 40;
/// Below the sandbox's directory.
const DIRECTORY: &str = "beside";
const INSIDE: &str = "/run/cofferdam";
const SOCKET: &str = "gate.sock";

/// What root of a sandbox beside a gate may hold.
pub const ROOT: u64 = capability::ROOT & !(capability::SETUID | capability::SETGID);

/// A gate that has set up the network and waits for its policy.
#[derive(Debug)]
pub struct Sidecar {
    /// Its container.
    pub id: String,
    /// What it has handed out.
    pub wire: Wire,
    /// Its connection.
    pub gate: OwnedFd,
}

/// Its container. `image` is this program's, of the same build, as the daemon knows it.
fn describe(spec: &SandboxSpec, image: &str, directory: &Path, servers: Vec<String>) -> ContainerCreateBody {
    let open = matches!(spec.wiring, Wiring::Gate { open: true, .. });
    let held: Vec<&str> = capability::names(if spec.user.uid == 0 { ROOT } else { 0 }).collect();
    let held = if held.is_empty() { "none".to_owned() } else { held.join(",") };
    let socket = format!("{INSIDE}/{SOCKET}");
    let words = ["/cofferdam", "gate", "--sidecar", "--socket", &socket, "--workload-capabilities", &held];
    let words = words.into_iter().chain(open.then_some("--open")).map(str::to_owned);
    let own = Mount {
        target: Some(INSIDE.into()),
        source: Some(directory.display().to_string()),
        typ: Some(MountType::BIND),
        bind_options: Some(MountBindOptions { create_mountpoint: Some(false), ..Default::default() }),
        ..Default::default()
    };
    let host_config = HostConfig {
        memory: Some(MEMORY_BYTES),
        memory_swap: Some(MEMORY_BYTES),
        nano_cpus: Some(NANO_CPUS),
        pids_limit: Some(PIDS),
        network_mode: Some("bridge".into()),
        dns: Some(servers).filter(|servers| !servers.is_empty()),
        ipc_mode: Some("private".into()),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(NEEDED.iter().map(|name| (*name).to_owned()).collect()),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        readonly_rootfs: Some(true),
        sysctls: Some(SETTINGS.iter().map(|name| ((*name).to_owned(), "0".to_owned())).collect()),
        mounts: Some(vec![own]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([("max-size".to_owned(), "10m".to_owned()), ("max-file".to_owned(), "3".to_owned())])),
        }),
        ..Default::default()
    };
    ContainerCreateBody {
        // The sandbox's own has its name from here.
        hostname: Some(spec.hostname.clone()),
        user: Some("0:0".into()),
        env: Some(Vec::new()),
        entrypoint: Some(words.collect()),
        image: Some(image.to_owned()),
        labels: Some(HashMap::from([(INSTALL.to_owned(), spec.install.to_string()), (SANDBOX.to_owned(), spec.id.to_string())])),
        healthcheck: Some(HealthConfig {
            test: Some(["CMD", "/cofferdam", "gate", "--healthy", &socket].map(str::to_owned).into()),
            interval: Some(HEALTH_EVERY_NANOS),
            ..Default::default()
        }),
        host_config: Some(host_config),
        ..Default::default()
    }
}

/// The directory of its socket.
fn place(spec: &SandboxSpec) -> PathBuf {
    spec.directory.join(DIRECTORY)
}

/// Takes away what is there of one on the host's disk.
pub fn remove_own(directory: &Path) {
    let _ = std::fs::remove_dir_all(directory.join(DIRECTORY));
}

/// Makes and starts one, and takes its sockets. After an error its container may be there: it has the sandbox's labels.
pub async fn start(daemon: &Daemon, image: &str, spec: &SandboxSpec, made: &mut Vec<String>) -> Result<Sidecar, EngineError> {
    let host = |error| EngineError::host("make the gate's own files", error);
    let directory = place(spec);
    std::fs::create_dir_all(&directory).map_err(host)?;
    let body = describe(spec, image, &daemon.world.of_daemon(&directory)?, name_servers());
    let name = format!("cofferdam-{}-gate", spec.id);
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let created = daemon.client.create_container(Some(options), body).await;
    let id = created.map_err(|error| daemon.failed("create the gate's container", error))?.id;
    made.push(id.clone());
    let started = daemon.client.start_container(&id, None::<StartContainerOptions>).await;
    started.map_err(|error| failed("start the gate's container", error))?;
    let gate = connect(daemon, &id, &directory).await?;
    let wire = gate.sockets().map_err(|error| EngineError::host("take the gate's sockets", error))?;
    Ok(Sidecar { id, wire, gate: gate.into() })
}

/// Waits until it listens.
async fn connect(daemon: &Daemon, id: &str, directory: &Path) -> Result<Gate, EngineError> {
    let failed = |error| EngineError::host("connect to the gate beside the sandbox", error);
    // A socket's address holds 108 bytes, the directory may be deeper.
    let opened = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let opened = opened.map_err(|error| failed(error.into()))?;
    let socket = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()));
    let begun = Instant::now();
    for look in 1.. {
        match Gate::connect(&socket) {
            Ok(gate) => return Ok(gate),
            Err(error) if begun.elapsed() > READY_WITHIN => return Err(failed(error)),
            Err(_) if look % LOOKS_BETWEEN == 0 => check_running(daemon, id).await?,
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    unreachable!("numbers do not end")
}

/// An error with what it said, if it has ended.
async fn check_running(daemon: &Daemon, id: &str) -> Result<(), EngineError> {
    let inspected = daemon.client.inspect_container(id, None::<InspectContainerOptions>).await;
    let running = inspected.ok().and_then(|found| found.state?.running);
    if running != Some(false) {
        return Ok(());
    }
    let options = LogsOptionsBuilder::default().stderr(true).tail("5").build();
    let mut lines = Box::pin(daemon.client.logs(id, Some(options)));
    let mut said = String::new();
    while let Some(Ok(line)) = lines.next().await {
        said += &line.to_string();
    }
    Err(EngineError::host("start the gate beside the sandbox", io::Error::other(said.trim().replace('\n', "; "))))
}

/// Those that this process would ask, as far as they can be asked from another network. Without any the daemon chooses.
fn name_servers() -> Vec<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|server| !server.is_loopback()).map(|server| server.to_string()).collect()
}
