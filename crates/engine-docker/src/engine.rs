//! The engine: making a container into a sandbox, and finding what is left of one.

use crate::address::Address;
use crate::container::{self, INSTALL, SANDBOX};
use crate::daemon::{Daemon, failed, is_missing};
use crate::files;
use crate::refit::{Refitted, refit};
use crate::sandbox::{DockerSandbox, Parts};
use crate::sidecar::{self, Sidecar};
use crate::starting::Starting;
use async_trait::async_trait;
use bollard::errors::Error;
use bollard::query_parameters::{CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use cofferdam_engine::{Capabilities, Engine, EngineError, EngineEvent, Sandbox, SandboxSpec, UnpluggedControl, Wiring};
use cofferdam_engine_host::cgroup::{Cgroup, Hierarchies};
use cofferdam_engine_host::device::system;
use cofferdam_engine_host::disk;
use cofferdam_engine_host::seccomp::FILTER;
use cofferdam_engine_host::wiring;
use cofferdam_gate::wire::{self, Wire};
use cofferdam_model::{InstallId, SandboxId};
use cofferdam_sys::ids::Ids;
use cofferdam_sys::namespace::Network;
use cofferdam_sys::{channel, mount, outer, plan};
use cofferdam_trust::Origin;
use cofferdam_trust::content::{Content, ImageRecord};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

/// In the names of gVisor's and of Kata's runtime.
const KERNELS_OF_THEIR_OWN: &[&str] = &["runsc", "kata"];
const CONNECTS_WITHIN: Duration = Duration::from_secs(30);

/// Containers of a daemon on this host.
#[derive(Debug)]
pub struct DockerEngine {
    daemon: Daemon,
    install: InstallId,
    hierarchies: Hierarchies,
    /// Where images are taken from that the daemon lacks, and files from in any case.
    store: Content,
    /// Which of the daemon's runtimes makes the containers, if not the one that it prefers.
    runtime: Option<String>,
    /// This program as an image, if each gated sandbox has its gate in a container beside it.
    sidecar: Option<ImageRecord>,
}

impl DockerEngine {
    /// For the installation with this id and this store, on the daemon at this address. What it says of itself is kept in the file `cache`.
    pub async fn connect(address: Address, install: InstallId, store: Content, cache: Option<&Path>) -> Result<Self, EngineError> {
        if !outer::is_host_root() {
            return Err(EngineError::Unsupported {
                what: "the engine docker without root".into(),
                why: "network and files of a container are set up from outside, which only root may".into(),
                remedy: "run the command as root (sudo cofferdam …), or in a container of the daemon (docs/guide.md, On a Docker daemon)"
                    .into(),
            });
        }
        let daemon = Daemon::connect(address, cache).await?;
        Ok(Self { daemon, install, hierarchies: Hierarchies::detect(), store, runtime: None, sidecar: None })
    }

    /// Has the containers made by this runtime of the daemon's.
    pub fn with_runtime(self, name: String) -> Result<Self, EngineError> {
        let refused = |why: String, remedy: &str| {
            Err(EngineError::Unsupported {
                what: format!("the runtime {name} (docker.runtime in config.yaml)"),
                why,
                remedy: remedy.into(),
            })
        };
        let known = &self.daemon.facts.runtimes;
        if !known.contains(&name) {
            return refused(
                format!("the daemon has {}", known.join(", ")),
                "name one of those, or add it to the daemon's daemon.json and restart it",
            );
        }
        if KERNELS_OF_THEIR_OWN.iter().any(|word| name.contains(word)) {
            let why = "its containers have a kernel of their own: their network cannot be set up from outside, nor their mounts".into();
            return refused(why, "name one that uses this host's kernel (runc, crun)");
        }
        Ok(Self { runtime: Some(name), ..self })
    }

    /// Gives each gated sandbox a gate in a container beside it; `image` is this program.
    #[must_use]
    pub fn with_sidecar(self, image: ImageRecord) -> Self {
        Self { sidecar: Some(image), ..self }
    }

    /// Makes the container. An image that the daemon lacks is given to it, if the store has it.
    async fn create_container(&self, spec: &SandboxSpec, beside: Option<&Sidecar>) -> Result<String, EngineError> {
        let mut body = container::describe(spec, &self.daemon, beside.map(|gate| &*gate.id))?;
        if let Some(host_config) = &mut body.host_config {
            host_config.runtime.clone_from(&self.runtime);
        }
        let name = format!("cofferdam-{}", spec.id);
        let create = |image: Option<String>| {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let mut body = body.clone();
            body.image = image.or(body.image);
            self.daemon.client.create_container(Some(options), body)
        };
        let record = match spec.image.origin() {
            Origin::Store { reference, .. } => self.store.record(reference),
            _ => None,
        };
        let created = match (create(None).await, record) {
            (Err(error), Some(record)) if is_missing(&error) => create(Some(self.daemon.load(&self.store, &record).await?.id)).await,
            (other, _) => other,
        };
        let created = created.map_err(|error| {
            if is_missing(&error) {
                EngineError::Invalid {
                    what: format!("image {}", spec.image.identity()),
                    why: "the daemon does not have it; give it: cofferdam image load --engine docker NAME".into(),
                }
            } else {
                self.daemon.failed("create the container", error)
            }
        })?;
        Ok(created.id)
    }

    /// The daemon.
    pub const fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    async fn containers(&self) -> Result<Vec<(String, SandboxId)>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{INSTALL}={}", self.install)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.daemon.client.list_containers(Some(options)).await.map_err(|error| failed("list containers", error))?;
        let of = |one: bollard::models::ContainerSummary| Some((one.id?, one.labels?.get(SANDBOX)?.parse().ok()?));
        Ok(listed.into_iter().filter_map(of).collect())
    }

    /// Makes its containers, and says of each that it is there.
    async fn make(
        &self,
        spec: &SandboxSpec,
        events: UnboundedSender<EngineEvent>,
        made: &mut Vec<String>,
    ) -> Result<DockerSandbox, EngineError> {
        let beside = match (&self.sidecar, &spec.wiring) {
            (Some(image), Wiring::Gate { .. }) => {
                let image = self.daemon.load(&self.store, image).await?.id;
                Some(sidecar::start(&self.daemon, &image, spec, made).await?)
            }
            _ => None,
        };
        let id = self.create_container(spec, beside.as_ref()).await?;
        made.push(id.clone());
        self.bring_up(spec, &id, beside, events).await
    }

    /// Starts the container, waits until its pid 1 has connected, and puts up its network.
    async fn bring_up(
        &self,
        spec: &SandboxSpec,
        id: &str,
        beside: Option<Sidecar>,
        events: UnboundedSender<EngineEvent>,
    ) -> Result<DockerSandbox, EngineError> {
        let socket = spec.directory.join("contained/socket");
        let listener = listen(&socket).map_err(|error| EngineError::host("listen for pid 1", error))?;
        let starting = Arc::new(Starting::begin(&self.daemon, id));
        let connected = async {
            let within = tokio::time::timeout(CONNECTS_WITHIN, accept(listener, id)).await;
            let accepted = within.unwrap_or_else(|_| Err(io::Error::other("its pid 1 does not connect")));
            let (control, pid) = accepted.map_err(|error| EngineError::host("start the container", error))?;
            self.take_over(spec, id, (pid, control), &starting, beside, events)
        };
        let sandbox = tokio::select! {
            biased;
            sandbox = connected => sandbox,
            error = starting.failed() => Err(error),
        };
        if sandbox.is_err() {
            // What the daemon is still starting cannot be removed.
            let _ = starting.answered().await;
        }
        // Nobody else connects: the socket has no listener any more, and now no name either.
        let _ = std::fs::remove_file(&socket);
        sandbox
    }

    fn take_over(
        &self,
        spec: &SandboxSpec,
        id: &str,
        (pid, control): (u32, OwnedFd),
        starting: &Arc<Starting>,
        beside: Option<Sidecar>,
        events: UnboundedSender<EngineEvent>,
    ) -> Result<DockerSandbox, EngineError> {
        let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(EngineError::Gone)?;
        let pidfd =
            rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).map_err(|e| EngineError::host("open pid 1", e))?;
        let namespace = Network::of(pid).map_err(system)?;
        let (mut wire, gate, beside) = match beside {
            Some(Sidecar { id, wire, gate }) => {
                // A daemon has its own idea of what the network of another container is.
                if !Network::of_socket(&wire.resolver).and_then(|wired| wired.is(&namespace)).map_err(system)? {
                    let why = io::Error::other("the container is in another network than the one that the gate has set up");
                    return Err(EngineError::host("start the container", why));
                }
                (wire, Some(gate), Some(id))
            }
            None => (put_up(spec, &namespace)?, None, None),
        };
        wiring::hand_to_gate(spec, &mut wire, gate)?;
        let first = first_id(pid);
        let ids = Ids::range(first, u32::MAX - first);
        let templates = self.store.directory("disks").map_err(|error| EngineError::host("make a directory", io::Error::other(error)))?;
        let Refitted { root, changes } = refit(pid, &ids, spec, &templates)?;
        let cgroup = Cgroup::of_process(&self.hierarchies, pid).ok_or_else(|| EngineError::Unsupported {
            what: "limits of a container".into(),
            why: "it is in no control group of its own that this process can see".into(),
            remedy: "run Cofferdam where the daemon runs, with /sys/fs/cgroup mounted".into(),
        })?;
        // Now it fences itself in, and serves.
        let filter = if spec.unplugged.contains(&UnpluggedControl::Seccomp) { &[] } else { FILTER };
        channel::send(&control, &plan::go_contained(filter), &[]).map_err(system)?;
        let starting = Arc::clone(starting);
        let parts = Parts { control, pidfd, wire, namespace, root, changes, ids, cgroup, beside, starting };
        DockerSandbox::adopt(self.daemon.clone(), id.to_owned(), parts, spec, events)
    }
}

/// The first id of the container's range on this host: 0 unless the daemon remaps users.
fn first_id(pid: u32) -> u32 {
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    map.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 1)?;
    // Any user of a remapped range is root's of the container; nothing else runs there yet.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    Ok(socket)
}

/// The connection of the container's first process, and of no other: its groups carry the container's id, and nothing else of the container
/// runs yet.
async fn accept(listener: OwnedFd, container: &str) -> io::Result<(OwnedFd, u32)> {
    let listener = cofferdam_sys::readiness::register(listener)?;
    loop {
        let mut ready = listener.readable().await?;
        let accepted = ready.try_io(|listener| Ok(rustix::net::accept_with(listener.get_ref(), SocketFlags::CLOEXEC)?));
        let Ok(accepted) = accepted else { continue };
        let socket = accepted?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?.pid.as_raw_nonzero().get();
        let groups = std::fs::read_to_string(format!("/proc/{peer}/cgroup")).unwrap_or_default();
        if let (true, Ok(pid)) = (groups.contains(container), u32::try_from(peer)) {
            return Ok((socket, pid));
        }
    }
}

/// Rules, routes and listeners in the container's network. In a thread of its own: it stays there to its end.
fn put_up(spec: &SandboxSpec, namespace: &Network) -> Result<Wire, EngineError> {
    let reach = wiring::reach(spec);
    let unplugged = wire::Unplugged { rules: spec.unplugged.contains(&UnpluggedControl::Rules) };
    let panicked = |_| EngineError::host("set up the container's network", io::Error::other("its thread panicked"));
    std::thread::scope(|scope| {
        let work = || {
            namespace.enter().map_err(system)?;
            // One of our own: in a container settings are for reading.
            let proc = mount::new_fs("proc", &[], 0).map_err(system)?;
            // The daemon turns IPv6 off where it gives no addresses; the rules are for both families, and the gate speaks both.
            wire::install_beside(reach, unplugged, proc.as_fd()).map_err(system)
        };
        scope.spawn(work).join().map_err(panicked)?
    })
}

#[async_trait]
impl Engine for DockerEngine {
    fn capabilities(&self) -> Capabilities {
        let facts = &self.daemon.facts;
        let mut missing: Vec<(String, String)> = Vec::new();
        let remapped = facts.security.iter().any(|option| option.starts_with("name=userns"));
        let whose = if remapped { "the same range of ids" } else { "the host's ids; see its setting userns-remap" };
        missing.push(("id range".into(), format!("this daemon gives all containers {whose}")));
        if let Some(why) = disk::obstacle() {
            missing.push(("disk limit".into(), format!("{why}: what a sandbox writes is kept in its memory, whose limit may come first")));
        }
        let cgroups = self.hierarchies.missing().into_iter();
        missing
            .extend(cgroups.map(|name| (format!("{name} limit"), format!("no cgroup hierarchy on this host has the {name} controller"))));
        let mut exceptions = Vec::new();
        if !remapped {
            exceptions.push(("id-range".into(), "the host's ids".into()));
            exceptions.push(("namespaces".into(), "the host's user namespace".into()));
        }
        Capabilities { name: "docker", host_image: false, pause: true, usage: true, changes: true, missing, exceptions }
    }

    async fn create(&self, spec: SandboxSpec, events: UnboundedSender<EngineEvent>) -> Result<Arc<dyn Sandbox>, EngineError> {
        files::write_own(&spec)?;
        let mut made = Vec::new();
        match self.make(&spec, events, &mut made).await {
            Ok(sandbox) => Ok(Arc::new(sandbox)),
            Err(error) => {
                // The one that has another's network goes before it.
                for id in made.iter().rev() {
                    // What stays is the sweep's; told is what went wrong first.
                    let _ = remove(&self.daemon, id).await;
                }
                files::remove_own(&spec.directory);
                sidecar::remove_own(&spec.directory);
                Err(error)
            }
        }
    }

    fn brings_gate(&self) -> bool {
        self.sidecar.is_some()
    }

    fn present(&self) -> Vec<SandboxId> {
        // Called where no runtime is to be blocked on: by the sweep, in a thread of its own.
        let handle = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let found = std::thread::scope(|scope| {
            let work = || handle.ok().and_then(|runtime| runtime.block_on(self.containers()).ok());
            scope.spawn(work).join().ok().flatten()
        });
        found.unwrap_or_default().into_iter().map(|(_, id)| id).collect()
    }

    async fn sweep(&self, id: SandboxId) -> Result<bool, EngineError> {
        let mut any = false;
        for (container, _) in self.containers().await?.into_iter().filter(|(_, other)| *other == id) {
            any |= remove(&self.daemon, &container).await?;
        }
        Ok(any)
    }
}

/// Kills and removes a container; true if it was there. One that ends by itself meanwhile cannot be killed, says the daemon: then once more.
pub async fn remove(daemon: &Daemon, id: &str) -> Result<bool, EngineError> {
    const PATIENCE: Duration = Duration::from_secs(2);
    const LONGEST: Duration = Duration::from_millis(64);
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(2));
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match daemon.client.remove_container(id, Some(options)).await {
            Err(error) if is_missing(&error) => return Ok(false),
            // Somebody else is at it.
            Err(Error::DockerResponseServerError { status_code: 409, message }) if message.contains("in progress") => return Ok(true),
            Ok(()) => return Ok(true),
            Err(Error::DockerResponseServerError { message, .. }) if begun.elapsed() < PATIENCE && message.contains("is not running") => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
            Err(error) => return Err(failed("remove the container", error)),
        }
    }
}
