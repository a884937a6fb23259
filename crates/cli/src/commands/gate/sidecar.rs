//! `cofferdam gate --sidecar`: the gate in a container that shares the workload's network.

use super::{GATE_USER, runtime};
use crate::args::GateArgs;
use crate::commands::egress;
use crate::exit::{Failure, UNHEALTHY};
use cofferdam_gate::client::Gate;
use cofferdam_gate::confine::{confine, give_up};
use cofferdam_gate::protocol::{Outside, Request};
use cofferdam_gate::resolver::Resolver;
use cofferdam_gate::sidecar::{self, Alone};
use cofferdam_gate::wire::{Reach, Wire};
use cofferdam_gate::{addresses_of_this_host, server};
use cofferdam_policy::egress::{Policy, Presets};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// How long a sidecar of a supervisor's stays without it.
const IDLE: Duration = Duration::from_secs(15);
/// Between two looks at the policy file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An hour of an idle server is as good as for ever: it is asked to serve again.
const ALWAYS: Duration = Duration::from_hours(1);
const RESOLV_CONF: &str = "/etc/resolv.conf";

fn failed(what: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(crate::exit::FAILED, "sidecar", format!("{what}: {why}"))
}

/// Serves until its supervisor, or its container, ends.
pub fn run(arguments: &GateArgs) -> Result<ExitCode, Failure> {
    check_workload(arguments)?;
    let followed = arguments.policy.as_deref().map(Followed::read).transpose()?;
    let open = followed.as_ref().map_or(arguments.open, |followed| followed.policy.is_open());
    let outside = outside(arguments, followed.is_some())?;
    // What a daemon calls the container's network is that of its first thread, which therefore stays in the shared one and does nothing.
    std::thread::scope(|scope| {
        // In here: an error below ends what the other thread waits for.
        let (set_up, is_set_up) = std::sync::mpsc::channel();
        let (go, may_go) = std::sync::mpsc::channel();
        let serving = scope.spawn(move || serve(arguments, followed, (open, outside), (&set_up, &may_go)));
        if is_set_up.recv().is_ok() {
            give_up(Some(GATE_USER), None)?;
            let _ = go.send(());
        }
        serving.join().unwrap_or_else(|_| Err(failed("serve", "a thread panicked")))
    })
}

/// Sets up the network, gives up its rights when the other thread has given up its own, and serves.
fn serve(
    arguments: &GateArgs,
    followed: Option<Followed>,
    (open, outside): (bool, Outside),
    (set_up, may_go): (&Sender<()>, &Receiver<()>),
) -> Result<ExitCode, Failure> {
    let wire = sidecar::set_up(if open { Reach::OpenGate } else { Reach::Gate }).map_err(|error| {
        failed("set up the sidecar's network", error).remedy("give its container NET_ADMIN, SYS_ADMIN, a network of its own (bridge), and --sysctl net.ipv6.conf.NAME.disable_ipv6=0 for all, default and lo")
    })?;
    if let Some(directory) = arguments.socket.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let listener = server::bind_at(&arguments.socket)?;
    let record = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let names = File::from(rustix::fs::memfd_create("names", rustix::fs::MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?);
    cofferdam_sys::process::raise_open_files();
    let gone = || failed("serve", "the first thread has ended");
    set_up.send(()).map_err(|_| gone())?;
    may_go.recv().map_err(|_| gone())?;
    confine(Some(GATE_USER), followed.as_ref().map(|followed| followed.directory.as_path()))?;
    if let Some(followed) = &followed {
        followed.check_readable()?;
    }
    let runtime = runtime()?;
    match followed {
        None => runtime.block_on(server::run(listener, IDLE, Some(wire)))?,
        Some(followed) => runtime.block_on(alone(listener, wire, followed, outside, (record, names)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the sidecar at this socket answers.
pub fn is_healthy(socket: &Path) -> Result<ExitCode, Failure> {
    let asked = Gate::connect(socket).and_then(|gate| gate.ask(&Request::Health, &[]));
    asked.map(|_| ExitCode::SUCCESS).map_err(|error| Failure::new(UNHEALTHY, "sidecar", format!("{}: {error}", socket.display())))
}

fn check_workload(arguments: &GateArgs) -> Result<(), Failure> {
    let Some(names) = &arguments.workload_capabilities else {
        return Err(Failure::usage("--workload-capabilities is wanted: those that the workload holds, or none".to_owned()));
    };
    if let Some(name) = sidecar::refused_capability(names) {
        return Err(
            failed("the workload", format!("it holds {name}, with which it could undo what the sidecar sets up")).remedy("take it away")
        );
    }
    if let Some((pid, name)) = sidecar::refused_beside() {
        return Err(failed(&format!("process {pid} of this network"), format!("it holds {name}")).remedy("take it away from the workload"));
    }
    Ok(())
}

/// Who is asked for names, and which addresses are the sidecar's own. An error if nobody could be asked.
fn outside(arguments: &GateArgs, alone: bool) -> Result<Outside, Failure> {
    if !alone {
        // Its supervisor says so.
        return Ok(Outside::default());
    }
    let host = addresses_of_this_host().map_err(|error| failed("look at this network", error))?;
    if !arguments.resolver.is_empty() {
        let resolver = Resolver::new(&arguments.resolver, None, None).map_err(|error| Failure::usage(format!("--resolver: {error}")))?;
        return Ok(Outside { resolver: Some(resolver), host: Some(host), ..Outside::default() });
    }
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    if !text.lines().filter_map(name_server).any(|address| !address.is_loopback()) {
        return Err(failed(RESOLV_CONF, "it names no server that can be reached from the sidecar's own network")
            .remedy("put the sidecar on the daemon's default bridge, or name a server: --resolver ADDRESS"));
    }
    Ok(Outside { host: Some(host), ..Outside::default() })
}

fn name_server(line: &str) -> Option<IpAddr> {
    line.trim().strip_prefix("nameserver")?.trim().parse().ok()
}

/// A policy file, read again as it changes: in another file's place too.
struct Followed {
    path: PathBuf,
    directory: PathBuf,
    presets: Presets,
    policy: Policy,
    seen: Option<Stamp>,
}

type Stamp = (u64, i64, i64, u64);

impl Followed {
    fn read(path: &Path) -> Result<Self, Failure> {
        let path = std::path::absolute(path)?;
        let presets = egress::presets()?;
        let policy = compile(&path, &presets)?;
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        let seen = stamp(&path);
        Ok(Self { path, directory, presets, policy, seen })
    }

    fn check_readable(&self) -> Result<(), Failure> {
        let read = std::fs::read(&self.path).map(drop);
        read.map_err(|error| {
            failed(&self.path.display().to_string(), error).remedy("make it readable for everybody: the gate is nobody else")
        })
    }

    /// The policy, if the file has changed and says one.
    fn changed(&mut self) -> Option<Policy> {
        let now = stamp(&self.path)?;
        if self.seen.replace(now) == Some(now) {
            return None;
        }
        match compile(&self.path, &self.presets) {
            Ok(policy) => Some(policy),
            Err(failure) => {
                crate::output::note!(
                    "cofferdam: {} has changed; the old policy stays in force: {}",
                    self.path.display(),
                    failure.message()
                );
                None
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|found| (found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

fn compile(path: &Path, presets: &Presets) -> Result<Policy, Failure> {
    let compiled = egress::read(path)?.compile(presets);
    compiled.map(|(policy, _)| policy).map_err(|error| failed("policy", error))
}

async fn alone(
    listener: OwnedFd,
    wire: Wire,
    mut followed: Followed,
    outside: Outside,
    (record, names): (File, File),
) -> std::io::Result<()> {
    let alone = Alone::serve(wire, followed.policy.clone(), outside, record, names)?;
    let asked = async {
        loop {
            let served = server::run(listener.try_clone()?, ALWAYS, None).await;
            served?;
        }
    };
    let follow = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(policy) = followed.changed() {
                let (generation, closed) = alone.replace(policy);
                crate::output::note!(
                    "cofferdam: {} has changed, and is in force: generation {generation}, {closed} connections closed",
                    followed.path.display()
                );
            }
        }
    };
    let ended = end_asked();
    tokio::select! {
        result = asked => result,
        () = follow => Ok(()),
        () = ended => Ok(()),
    }
}

/// A daemon asks a container to end before it kills it.
async fn end_asked() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut asked) => drop(asked.recv().await),
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        assert_eq!(name_server("nameserver 10.0.0.1"), Some(IpAddr::from([10, 0, 0, 1])));
        assert_eq!(name_server("  nameserver\t::1 "), Some("::1".parse().expect("an address")));
        assert_eq!(name_server("search example"), None);
    }
}
