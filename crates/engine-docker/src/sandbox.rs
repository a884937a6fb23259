//! One container as a sandbox.

use crate::container::every_capability;
use crate::daemon::Daemon;
use crate::engine::remove;
use crate::files;
use crate::sidecar;
use crate::starting::Starting;
use async_trait::async_trait;
use bollard::query_parameters::InspectContainerOptions;
use cofferdam_engine::{
    Changes, Control, EngineError, EngineEvent, Observation, Process, ProcessSpec, Root, Sandbox, SandboxSpec, Stdio, Transfer,
    TransferReport, UnpluggedControl, Usage, Wiring, signal_number,
};
use cofferdam_engine_host::cgroup::Cgroup;
use cofferdam_engine_host::pid_one::PidOne;
use cofferdam_engine_host::processes::Processes;
use cofferdam_engine_host::refused::{Refused, serve};
use cofferdam_engine_host::upperside::Upperside;
use cofferdam_engine_host::{transfer, wiring};
use cofferdam_gate::wire::Wire;
use cofferdam_policy::capability;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::namespace::Network;
use cofferdam_trust::layout::NewLayer;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

const SIGTERM: i32 = 15;

/// What there is of a container that has come up.
pub struct Parts {
    /// The connection of its pid 1.
    pub control: OwnedFd,
    /// Descriptor of its pid 1.
    pub pidfd: OwnedFd,
    /// Sockets of its network.
    pub wire: Wire,
    /// Its network.
    pub namespace: Network,
    /// Everything it sees mounted, detached.
    pub root: OwnedFd,
    /// What it has changed.
    pub changes: Upperside,
    /// First id of its range on this host.
    pub ids: Ids,
    /// Its groups.
    pub cgroup: Cgroup,
    /// The container of its gate, if that is beside it.
    pub beside: Option<String>,
    /// What the daemon has yet to answer.
    pub starting: Arc<Starting>,
}

/// A live or ended container.
pub struct DockerSandbox {
    daemon: Daemon,
    id: String,
    beside: Option<String>,
    starting: Arc<Starting>,
    directory: PathBuf,
    processes: Arc<Processes>,
    root: OwnedFd,
    changes: Upperside,
    ids: Ids,
    stop_signal: i32,
    namespace: Arc<Network>,
    refused: Arc<Refused>,
    network: Vec<tokio::task::AbortHandle>,
    /// Of a gated sandbox: keeps the resolver's port.
    _resolver: Option<std::net::UdpSocket>,
    /// What its groups said last: the daemon removes them with its last process.
    last: Arc<Mutex<Last>>,
    deleted: Mutex<bool>,
}

impl DockerSandbox {
    /// Takes over a container whose pid 1 waits.
    pub fn adopt(
        daemon: Daemon,
        id: String,
        parts: Parts,
        spec: &SandboxSpec,
        events: UnboundedSender<EngineEvent>,
    ) -> Result<Self, EngineError> {
        let Parts { control, pidfd, wire, namespace, root, changes, ids, cgroup, beside, starting } = parts;
        let refused = Arc::new(Refused::new(events));
        let gated = matches!(spec.wiring, Wiring::Gate { .. });
        let (resolver, kept) = if gated { (None, Some(wire.resolver)) } else { (Some(wire.resolver), None) };
        let network = serve(resolver, wire.refusals, &refused).map_err(|e| EngineError::host("serve the sandbox's resolver", e))?;
        let pid_one = PidOne::connect(control, Vec::new()).map_err(|e| EngineError::host("connect to pid 1", e))?;
        let every = spec.unplugged.contains(&UnpluggedControl::Capabilities);
        let of_root = match (every, &beside) {
            (true, _) => every_capability(),
            (false, Some(_)) => sidecar::ROOT,
            (false, None) => capability::ROOT,
        };
        Ok(Self {
            daemon,
            id,
            beside,
            starting,
            directory: spec.directory.clone(),
            processes: Arc::new(Processes::new(pid_one, pidfd, cgroup, ids.clone(), &spec.limits, of_root)),
            root,
            changes,
            ids,
            stop_signal: signal_number(&spec.image.config().stop_signal).unwrap_or(SIGTERM),
            namespace: Arc::new(namespace),
            refused,
            network,
            _resolver: kept,
            last: Arc::default(),
            deleted: Mutex::new(false),
        })
    }

    /// What its groups say, or said last.
    fn usage(&self) -> (Usage, u64) {
        sample(&self.processes, &self.last)
    }
}

impl DockerSandbox {
    /// What the daemon says of a container whose groups are gone, because its pid 1 was killed with the rest. The daemon is told by others, so
    /// it is asked until it knows that the container has ended.
    async fn was_out_of_memory(&self) -> bool {
        const TRIES: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(20);
        let _ = self.starting.answered().await;
        for _ in 0..TRIES {
            let inspected = self.daemon.client.inspect_container(&self.id, None::<InspectContainerOptions>).await;
            let Some(state) = inspected.ok().and_then(|found| found.state) else { return false };
            if state.oom_killed == Some(true) || state.running != Some(true) {
                return state.oom_killed == Some(true);
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }
}

/// What a container's groups said.
#[derive(Debug, Default)]
struct Last {
    usage: Usage,
    out_of_memory_kills: u64,
    /// Whether they were there when the main process had ended: there is nothing that they have not said.
    is_whole: bool,
}

fn sample(processes: &Processes, last: &Mutex<Last>) -> (Usage, u64) {
    let cgroup = processes.cgroup();
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if cgroup.exists() {
        let now = (cgroup.usage(), cgroup.out_of_memory_kills());
        // Removed between two files, it says nothing.
        if now.0.cpu_micros >= last.usage.cpu_micros && now.1 >= last.out_of_memory_kills {
            (last.usage, last.out_of_memory_kills) = now;
        }
    }
    (last.usage, last.out_of_memory_kills)
}

#[async_trait]
impl Sandbox for DockerSandbox {
    async fn start(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError> {
        let main = self.processes.start(&process, &stdio).await?;
        let (mut watched, processes, last) = (main.watch(), Arc::clone(&self.processes), Arc::clone(&self.last));
        tokio::spawn(async move {
            watched.wait().await;
            let whole = processes.cgroup().exists();
            sample(&processes, &last);
            last.lock().unwrap_or_else(PoisonError::into_inner).is_whole |= whole;
            // Pid 1 has waited for that.
            processes.kill_now();
        });
        Ok(main)
    }

    async fn exec(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError> {
        self.processes.exec(&process, &stdio).await
    }

    async fn control(&self, control: Control) -> Result<(), EngineError> {
        match control {
            Control::Signal { process, number } => self.processes.signal(process, number).await,
            Control::Stop { grace } => self.processes.stop(self.stop_signal, grace).await,
            Control::Kill => {
                self.usage();
                self.processes.kill().await;
            }
            Control::End { process } => self.processes.end(process),
            Control::HangUp { process } => self.processes.hang_up(process).await,
            Control::Release { process } => self.processes.release(process),
            Control::Pause | Control::Resume => self.processes.pause(control == Control::Pause).await,
        }
        Ok(())
    }

    async fn transfer(&self, transfer: Transfer) -> Result<TransferReport, EngineError> {
        match &transfer {
            Transfer::In { .. } => files::as_its_root(&self.ids, || transfer::run(&self.root, &self.ids, &transfer)),
            Transfer::Out { .. } => transfer::run(&self.root, &self.ids, &transfer),
        }
    }

    async fn root(&self) -> Result<Root, EngineError> {
        let mount = self.root.try_clone().map_err(|e| EngineError::host("duplicate a descriptor", e))?;
        Ok(Root { mount, ids: self.ids.clone() })
    }

    async fn connect(&self, port: u16) -> Result<OwnedFd, EngineError> {
        wiring::connect(Arc::clone(&self.namespace), port).await
    }

    async fn changes(&self, wanted: Changes) -> Result<NewLayer, EngineError> {
        self.changes.write(wanted)
    }

    async fn observe(&self) -> Result<Observation, EngineError> {
        let (refused, refused_unnamed) = self.refused.snapshot();
        let (usage, mut out_of_memory_kills) = self.usage();
        let whole = self.last.lock().unwrap_or_else(PoisonError::into_inner).is_whole;
        if out_of_memory_kills == 0 && !whole && !self.processes.cgroup().exists() {
            out_of_memory_kills = u64::from(self.was_out_of_memory().await);
        }
        Ok(Observation { usage, out_of_memory_kills, refused, refused_unnamed })
    }

    async fn delete(&self) -> Result<(), EngineError> {
        self.usage();
        self.processes.kill().await;
        for task in &self.network {
            task.abort();
        }
        self.starting.noticed_end().await;
        for id in [Some(&self.id), self.beside.as_ref()].into_iter().flatten() {
            match remove(&self.daemon, id).await {
                // The daemon is away. Everything in the container has ended; the sweep finds what the daemon still knows of it.
                Err(EngineError::Host { .. }) if !self.daemon.answers().await => {}
                other => {
                    other?;
                }
            }
        }
        files::remove_own(&self.directory);
        sidecar::remove_own(&self.directory);
        *self.deleted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(())
    }
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        for task in &self.network {
            task.abort();
        }
        // The container itself is removed by the next sweep: nothing here may wait for the daemon.
        if !self.deleted.get_mut().is_ok_and(|deleted| *deleted) {
            self.processes.kill_now();
        }
    }
}
