//! One sandbox on this host.

use crate::launch::Launched;
use crate::lease::Lease;
use async_trait::async_trait;
use cofferdam_engine::{
    Changes, Control, EngineError, EngineEvent, Observation, Process, ProcessSpec, Root, Sandbox, SandboxSpec, Stdio, Transfer,
    TransferReport, UnpluggedControl, Wiring, signal_number,
};
use cofferdam_engine_host::pid_one::PidOne;
use cofferdam_engine_host::processes::Processes;
use cofferdam_engine_host::refused::{Refused, serve};
use cofferdam_engine_host::upperside::Upperside;
use cofferdam_engine_host::{transfer, wiring};
use cofferdam_policy::capability;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::namespace::Network;
use cofferdam_trust::layout::NewLayer;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

const SIGTERM: i32 = 15;

/// A live or ended sandbox.
pub struct NativeSandbox {
    processes: Processes,
    root: OwnedFd,
    lease: Mutex<Option<Lease>>,
    ids: Ids,
    changes: Upperside,
    stop_signal: i32,
    namespace: Arc<Network>,
    refused: Arc<Refused>,
    network: Vec<tokio::task::AbortHandle>,
    /// Of a gated sandbox: keeps the resolver's port.
    _resolver: Option<std::net::UdpSocket>,
}

impl NativeSandbox {
    /// Takes over a launched sandbox.
    pub fn adopt(launched: Launched, spec: SandboxSpec, events: UnboundedSender<EngineEvent>) -> Result<Self, EngineError> {
        let Launched { pidfd, control, places, wire, namespace, root, upper, view, lease, cgroup } = launched;
        let refused = Arc::new(Refused::new(events));
        let gated = matches!(spec.wiring, Wiring::Gate { .. });
        let (resolver, kept) = if gated { (None, Some(wire.resolver)) } else { (Some(wire.resolver), None) };
        let network = serve(resolver, wire.refusals, &refused).map_err(|e| EngineError::host("serve the sandbox's resolver", e))?;
        let pid_one = PidOne::connect(control, places).map_err(|e| EngineError::host("connect to pid 1", e))?;
        let ids = lease.ids.clone();
        let every = spec.unplugged.contains(&UnpluggedControl::Capabilities);
        let of_root = if every { capability::EVERY } else { capability::ROOT };
        Ok(Self {
            processes: Processes::new(pid_one, pidfd, cgroup, ids.clone(), &spec.limits, of_root),
            root,
            lease: Mutex::new(Some(lease)),
            ids: ids.clone(),
            stop_signal: signal_number(&spec.image.config().stop_signal).unwrap_or(SIGTERM),
            changes: Upperside::of(upper, view, ids, spec),
            namespace: Arc::new(namespace),
            refused,
            network,
            _resolver: kept,
        })
    }
}

#[async_trait]
impl Sandbox for NativeSandbox {
    async fn start(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError> {
        self.processes.start(&process, &stdio).await
    }

    async fn exec(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError> {
        self.processes.exec(&process, &stdio).await
    }

    async fn control(&self, control: Control) -> Result<(), EngineError> {
        match control {
            Control::Signal { process, number } => self.processes.signal(process, number).await,
            Control::Stop { grace } => self.processes.stop(self.stop_signal, grace).await,
            Control::Kill => self.processes.kill().await,
            Control::End { process } => self.processes.end(process),
            Control::HangUp { process } => self.processes.hang_up(process).await,
            Control::Release { process } => self.processes.release(process),
            Control::Pause | Control::Resume => self.processes.pause(control == Control::Pause).await,
        }
        Ok(())
    }

    async fn transfer(&self, transfer: Transfer) -> Result<TransferReport, EngineError> {
        transfer::run(&self.root, &self.ids, &transfer)
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
        let (usage, out_of_memory_kills) = (self.processes.usage(), self.processes.out_of_memory_kills());
        Ok(Observation { usage, out_of_memory_kills, refused, refused_unnamed })
    }

    async fn delete(&self) -> Result<(), EngineError> {
        self.processes.kill().await;
        // Its namespaces are taken down before it counts as ended.
        self.processes.wait_ended();
        for task in &self.network {
            task.abort();
        }
        let removed = self.processes.cgroup().remove();
        if removed {
            self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Ok(());
        }
        Err(EngineError::host("remove the sandbox's cgroups", std::io::Error::other("its processes do not end")))
    }
}

impl Drop for NativeSandbox {
    fn drop(&mut self) {
        for task in &self.network {
            task.abort();
        }
        let deleted = self.lease.get_mut().is_ok_and(|lease| lease.is_none());
        if !deleted {
            self.processes.kill_now();
            self.processes.wait_ended();
            self.processes.cgroup().remove();
        }
    }
}
