//! One sandbox on this host.

use crate::cgroup::Cgroup;
use crate::launch::Launched;
use crate::lease::Lease;
use crate::network::{Refused, serve};
use crate::pid_one::PidOne;
use crate::transfer;
use crate::upperside::Upperside;
use async_trait::async_trait;
use cofferdam_engine::{
    Changes, Control, EngineError, EngineEvent, Observation, Process, ProcessSpec, Sandbox, SandboxSpec, Stdio, Transfer, TransferReport,
    UnpluggedControl, Wiring, signal_number,
};
use cofferdam_policy::capability;
use cofferdam_sys::namespace::Network;
use cofferdam_sys::process;
use cofferdam_sys::spec::{self, Entry};
use cofferdam_trust::layout::NewLayer;
use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
const UMASK: u32 = 0o022;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const DIALLER_STACK_BYTES: usize = 64 << 10;
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A live or ended sandbox.
pub struct NativeSandbox {
    pid_one: PidOne,
    pidfd: OwnedFd,
    root: OwnedFd,
    cgroup: Cgroup,
    lease: Mutex<Option<Lease>>,
    base: u32,
    changes: Upperside,
    stop_signal: i32,
    open_files: u32,
    root_keeps_all: bool,
    namespace: Arc<Network>,
    refused: Arc<Refused>,
    network: Vec<tokio::task::AbortHandle>,
    /// Of a gated sandbox: keeps the resolver's port.
    _resolver: Option<std::net::UdpSocket>,
    main: Mutex<Option<u32>>,
    execs: Mutex<HashMap<u32, Cgroup>>,
    next_exec: AtomicU32,
}

impl NativeSandbox {
    /// Takes over a launched sandbox.
    pub fn adopt(launched: Launched, spec: SandboxSpec, events: UnboundedSender<EngineEvent>) -> Result<Self, EngineError> {
        let Launched { pidfd, control, places, wire, namespace, root, upper, lease, cgroup } = launched;
        let refused = Arc::new(Refused::new(events));
        let gated = matches!(spec.wiring, Wiring::Gate { .. });
        let (resolver, kept) = if gated { (None, Some(wire.resolver)) } else { (Some(wire.resolver), None) };
        let network = serve(resolver, wire.refusals, &refused).map_err(|e| EngineError::host("serve the sandbox's resolver", e))?;
        let pid_one = PidOne::connect(control, places).map_err(|e| EngineError::host("connect to pid 1", e))?;
        let base = lease.base;
        Ok(Self {
            pid_one,
            pidfd,
            root,
            cgroup,
            lease: Mutex::new(Some(lease)),
            base,
            stop_signal: stop_signal(&spec),
            open_files: spec.limits.open_files,
            root_keeps_all: spec.unplugged.contains(&UnpluggedControl::Capabilities),
            changes: Upperside::of(upper, base, spec),
            namespace: Arc::new(namespace),
            refused,
            network,
            _resolver: kept,
            main: Mutex::default(),
            execs: Mutex::default(),
            next_exec: AtomicU32::new(1),
        })
    }

    fn describe(&self, process: &ProcessSpec, main: bool) -> spec::ProcessSpec {
        let user = &process.user;
        spec::ProcessSpec {
            arguments: process.command.clone(),
            environment: process.environment.clone(),
            directory: process.directory.clone().into_bytes(),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            capabilities: if self.root_keeps_all && user.uid == 0 { capability::EVERY } else { capability::of_user(user.uid) },
            umask: UMASK,
            open_files: self.open_files.min(u32::try_from(process::hard_limit(7)).unwrap_or(u32::MAX)),
            terminal: process.terminal,
            main,
            entry: Entry::None,
        }
    }

    async fn kill(&self) {
        if self.pid_one.is_gone() {
            return;
        }
        // The process may be gone already: then there is nothing to kill.
        let _ = process::signal(self.pidfd.as_fd(), SIGKILL);
        self.cgroup.kill();
        let _ = tokio::time::timeout(GONE_WITHIN, self.pid_one.wait_gone()).await;
    }

    async fn stop(&self, grace: Duration) {
        let main = *self.main.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(main) = main {
            self.cgroup.freeze(false);
            self.pid_one.signal(main, self.stop_signal).await;
            if tokio::time::timeout(grace, self.pid_one.wait_gone()).await.is_ok() {
                return;
            }
        }
        self.kill().await;
    }

    /// Starts a process in a group of its own: it moves itself there where the kernel lets it, else it is moved before
    /// it executes anything.
    async fn exec_in(&self, group: &Cgroup, process: &ProcessSpec, stdio: &Stdio) -> Result<Process, EngineError> {
        let mut entrances = group.entrances()?;
        let (gate_read, gate_write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| EngineError::host("pipe", e))?;
        let tasks = entrances.tasks.pop();
        let mut spec = self.describe(process, false);
        spec.entry = if tasks.is_some() { Entry::Join } else { Entry::Gate };
        let mut fds = borrow(stdio);
        fds.push(tasks.as_ref().unwrap_or(&gate_read).as_fd());
        let spawned = self.pid_one.spawn(&spec, &fds).await?;
        let id = spawned.id;
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(id, group.clone());
        if spec.entry == Entry::Gate {
            let pid = process::pid_of(spawned.pidfd.as_fd()).ok_or(EngineError::Gone)?;
            group.attach(pid)?;
            std::fs::File::from(gate_write).write_all(&[1]).map_err(|e| EngineError::host("open the process's gate", e))?;
        }
        spawned.executed().await
    }

    fn end_exec(&self, process: u32) {
        let group = self.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
        if let Some(group) = group {
            group.kill();
            group.remove();
        }
    }
}

/// The signal that the image asks for, TERM if it names none that exists.
fn stop_signal(spec: &SandboxSpec) -> i32 {
    signal_number(&spec.image.config().stop_signal).unwrap_or(SIGTERM)
}

fn check_command(process: &ProcessSpec) -> Result<(), EngineError> {
    /// The kernel's own bound on one string (`MAX_ARG_STRLEN`) and ours on all of them.
    const LONGEST_STRING: usize = 131_071;
    const LARGEST_TOTAL: usize = 2 << 20;
    let invalid = |why: &str| Err(EngineError::Invalid { what: "command".into(), why: why.into() });
    if process.command.first().is_none_or(Vec::is_empty) {
        return invalid("it is empty: name a program");
    }
    let strings = || process.command.iter().chain(&process.environment);
    if strings().any(|string| string.contains(&0)) || process.directory.contains('\0') {
        return invalid("an argument, environment entry or directory holds a NUL byte");
    }
    if strings().any(|string| string.len() > LONGEST_STRING) || strings().map(|s| s.len() + 1).sum::<usize>() > LARGEST_TOTAL {
        return invalid("arguments and environment are too long: 128 KiB for one, 2 MiB for all is the most");
    }
    Ok(())
}

fn borrow(stdio: &Stdio) -> Vec<BorrowedFd<'_>> {
    match stdio {
        Stdio::Fds(fds) => fds.iter().map(AsFd::as_fd).collect(),
        Stdio::Terminal => Vec::new(),
    }
}

#[async_trait]
impl Sandbox for NativeSandbox {
    async fn start(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError> {
        check_command(&process)?;
        let spawned = self.pid_one.spawn(&self.describe(&process, true), &borrow(&stdio)).await?;
        *self.main.lock().unwrap_or_else(PoisonError::into_inner) = Some(spawned.id);
        spawned.executed().await
    }

    async fn exec(&self, process: ProcessSpec, stdio: Stdio) -> Result<Process, EngineError> {
        check_command(&process)?;
        let number = self.next_exec.fetch_add(1, Ordering::Relaxed);
        let group = self.cgroup.child(&format!("exec-{number}"))?;
        self.exec_in(&group, &process, &stdio).await.inspect_err(|_| {
            group.kill();
            group.remove();
        })
    }

    async fn control(&self, control: Control) -> Result<(), EngineError> {
        match control {
            Control::Signal { process, number } => self.pid_one.signal(process, number).await,
            Control::Stop { grace } => self.stop(grace).await,
            Control::Kill => self.kill().await,
            Control::End { process } => self.end_exec(process),
            Control::Pause | Control::Resume => {
                if !self.cgroup.freeze(control == Control::Pause) {
                    return Err(EngineError::Unsupported {
                        what: "pausing".into(),
                        why: "no cgroup hierarchy of this host can freeze".into(),
                        remedy: "mount the cgroup version 2 hierarchy, or version 1's freezer".into(),
                    });
                }
            }
        }
        Ok(())
    }

    async fn transfer(&self, transfer: Transfer) -> Result<TransferReport, EngineError> {
        transfer::run(&self.root, self.base, &transfer)
    }

    async fn connect(&self, port: u16) -> Result<OwnedFd, EngineError> {
        let namespace = Arc::clone(&self.namespace);
        let failed = |source| EngineError::host(format!("connect to port {port} of the sandbox"), source);
        // A thread of its own: it stays in the sandbox's network to its end.
        let connect = move || {
            let thread = std::thread::Builder::new().stack_size(DIALLER_STACK_BYTES).spawn(move || {
                namespace.enter().map_err(|error| error.source)?;
                TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), CONNECT_WITHIN)
            })?;
            thread.join().map_err(|_| std::io::Error::other("its thread panicked"))?
        };
        let connected = tokio::task::spawn_blocking(connect).await.map_err(|error| failed(std::io::Error::other(error)))?;
        connected.map(OwnedFd::from).map_err(failed)
    }

    async fn changes(&self, wanted: Changes) -> Result<NewLayer, EngineError> {
        self.changes.write(wanted)
    }

    async fn observe(&self) -> Result<Observation, EngineError> {
        let (refused, refused_unnamed) = self.refused.snapshot();
        let usage = self.cgroup.usage();
        Ok(Observation { usage, out_of_memory_kills: self.cgroup.out_of_memory_kills(), refused, refused_unnamed })
    }

    async fn delete(&self) -> Result<(), EngineError> {
        self.kill().await;
        // Its namespaces are taken down before it counts as ended.
        process::wait_ended(self.pidfd.as_fd(), GONE_WITHIN);
        process::reap(self.pidfd.as_fd());
        for task in &self.network {
            task.abort();
        }
        let removed = self.cgroup.remove();
        if removed {
            self.lease.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Ok(());
        }
        Err(EngineError::host("remove the sandbox's cgroups", std::io::Error::other("its processes do not end")))
    }
}

impl Drop for NativeSandbox {
    fn drop(&mut self) {
        let _ = process::signal(self.pidfd.as_fd(), SIGKILL);
        for task in &self.network {
            task.abort();
        }
        let deleted = self.lease.get_mut().is_ok_and(|lease| lease.is_none());
        if !deleted {
            self.cgroup.kill();
            process::wait_ended(self.pidfd.as_fd(), GONE_WITHIN);
            process::reap(self.pidfd.as_fd());
            self.cgroup.remove();
        }
    }
}
