//! How a sandbox comes to be, in order:
//!
//! 1. in a thread: a network namespace of the host's user namespace: loopback, rules, resolver, refusal log, sysfs;
//! 2. meanwhile a range of host ids, devices, disk with what goes into it, the cgroups with their limits; then the thread is
//!    joined;
//! 3. the spawner clones the sandbox's first process, which enters the cgroups and waits;
//! 4. id maps, then the mounts, each seen through the sandbox's ids;
//! 5. GO with the mounts: the process attaches them, gives up its rights and executes pid 1 (`sys/init/setup.rs`).
//!
//! Everything is held by descriptors until GO, so an error or a kill at any step leaves only what the sweep removes.

use crate::engine::Host;
use crate::lease::Lease;
use crate::trees::{Wanted, trees};
use cofferdam_engine::{EngineError, SandboxSpec, UnpluggedControl};
use cofferdam_engine_host::cgroup::Cgroup;
use cofferdam_engine_host::copied::Copied;
use cofferdam_engine_host::device::{self, Devices, system};
use cofferdam_engine_host::disk;
use cofferdam_engine_host::masks;
use cofferdam_engine_host::overlay::{Composed, How};
use cofferdam_engine_host::seccomp::FILTER;
use cofferdam_engine_host::staging::Staging;
use cofferdam_engine_host::upper::{Upper, relative};
use cofferdam_engine_host::upperside::Side;
use cofferdam_engine_host::view::Place;
use cofferdam_engine_host::wiring;
use cofferdam_gate::wire::{self, Reach, Wire};
use cofferdam_policy::capability;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::mount::{attr, clone_tree, new_fs, set_attributes};
use cofferdam_sys::namespace::{self, Network};
use cofferdam_sys::plan::{Plan, Step};
use cofferdam_sys::plan_wire::{MOST_MOUNTS, REQUEST_GO};
use cofferdam_sys::spawner::{Cloned, Spawner};
use cofferdam_sys::{channel, outer, process};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const SIGKILL: i32 = 9;
const RLIMIT_CORE: u32 = 4;
const RLIMIT_NPROC: u32 = 6;
const RLIMIT_NOFILE: u32 = 7;
const RLIMIT_MEMLOCK: u32 = 8;
const RLIMIT_SIGPENDING: u32 = 11;
const RLIMIT_MSGQUEUE: u32 = 12;
const MEMLOCK_BYTES: u64 = 8 << 20;
const PENDING_SIGNALS: u64 = 16_384;
const MESSAGE_QUEUE_BYTES: u64 = 819_200;
const NETWORK_STACK_BYTES: usize = 128 << 10;

/// Index of each handed-over mount.
const ROOT: usize = 0;
const DEV: usize = 1;
const PTS: usize = 2;
const SHM: usize = 3;
const SYS: usize = 4;
const NULL: usize = 5;
const EMPTY: usize = 6;
const FIRST_TREE: usize = 7;

/// Where device nodes of the host go, if any do.
const DEVICES: &str = "dev";

/// A sandbox whose pid 1 runs, or is about to.
#[derive(Debug)]
pub struct Launched {
    /// Descriptor of pid 1.
    pub pidfd: OwnedFd,
    /// The supervisor's end of the control socket.
    pub control: OwnedFd,
    /// Where the child mounts, step by step: to explain a failure.
    pub places: Vec<String>,
    /// The sockets of the network namespace.
    pub wire: Wire,
    /// The network namespace.
    pub namespace: Network,
    /// The root mount; works as long as it is open, ended or not.
    pub root: OwnedFd,
    /// What differs from the image.
    pub upper: Side,
    /// The same of the view's tree.
    pub view: Option<Side>,
    /// The leased ids.
    pub lease: Lease,
    /// The cgroups.
    pub cgroup: Cgroup,
}

/// Makes a sandbox. The network namespace is made in a thread of its own meanwhile, or was made ahead: it takes as long as
/// the rest.
pub fn launch(spec: &SandboxSpec, host: &Host) -> Result<Launched, EngineError> {
    let rules = plugged(spec, UnpluggedControl::Rules);
    let reach = wiring::reach(spec);
    // What was begun ahead leads where it was guessed that this would.
    let ahead = host.take_ahead().filter(|ahead| rules && reach == ahead.reach);
    let (network, parts) = thread::scope(|scope| {
        let begun = match ahead {
            Some(ahead) => Ok(Begun::Ahead(ahead)),
            None => thread::Builder::new()
                .stack_size(NETWORK_STACK_BYTES)
                .spawn_scoped(scope, move || make_network(reach, rules, host.proc()))
                .map(Begun::Now)
                .map_err(|e| EngineError::host("start a thread", e)),
        };
        let parts = make_parts(spec, host);
        (begun.and_then(|begun| begun.finish(host)), parts)
    });
    let parts = parts?;
    match network.and_then(|network| launch_in(spec, host, &parts, network)) {
        Ok(Made { pidfd, control, wire, namespace, root, originals }) => {
            let places = parts.plan.steps.iter().map(Step::place).collect();
            // The overlay holds what it needs of it. If no spawner is to be had it is closed here: the sandbox is made.
            if let Ok(spawner) = host.spawner() {
                spawner.discard(vec![parts.disk]);
            }
            Ok(Launched {
                pidfd,
                control,
                places,
                wire,
                namespace,
                root,
                upper: Side::new(parts.upper.into_fd(), originals.0),
                view: parts.view.map(|view| Side::new(view.into_upper(), originals.1)),
                lease: parts.lease,
                cgroup: parts.cgroup,
            })
        }
        Err(error) => {
            parts.cgroup.kill();
            parts.cgroup.remove();
            Err(error)
        }
    }
}

/// A network namespace on its way.
enum Begun<'scope> {
    Ahead(Ahead),
    Now(thread::ScopedJoinHandle<'scope, Result<MadeNetwork, EngineError>>),
}

impl Begun<'_> {
    fn finish(self, host: &Host) -> Result<MadeNetwork, EngineError> {
        let panicked = |_| EngineError::host("make the network namespace", std::io::Error::other("its thread panicked"));
        match self {
            Self::Now(thread) => thread.join().map_err(panicked)?,
            Self::Ahead(ahead) => {
                let (network, spawner) = ahead.thread.join().map_err(panicked)?;
                host.adopt(spawner?);
                network
            }
        }
    }
}

/// A network namespace and a spawner that are being made before it is known what for: they need no more than the right to make
/// them.
#[derive(Debug)]
pub struct Ahead {
    reach: Reach,
    thread: thread::JoinHandle<(Result<MadeNetwork, EngineError>, Result<Spawner, EngineError>)>,
}

impl Ahead {
    /// Begins, for a network that will probably lead there. None if no thread is to be had: everything is then made when it is
    /// needed.
    pub fn begin(reach: Reach) -> Option<Self> {
        // The spawner has waits of its own before it, and leaves the processor to this thread meanwhile.
        let make = move || {
            let spawner = Spawner::start().map_err(system);
            (make_network(reach, true, None), spawner)
        };
        let thread = thread::Builder::new().stack_size(NETWORK_STACK_BYTES).spawn(make).ok()?;
        Some(Self { reach, thread })
    }
}

/// What does not need the sandbox's namespaces.
struct Parts<'a> {
    lease: Lease,
    cgroup: Cgroup,
    plan: Plan,
    devices: Devices,
    upper: Upper<'a>,
    view: Option<Place<'a>>,
    /// A detached mount lives as long as its descriptor.
    disk: OwnedFd,
}

fn make_parts<'a>(spec: &'a SandboxSpec, host: &Host) -> Result<Parts<'a>, EngineError> {
    let lease = Lease::of((spec.user.uid, spec.user.gid), &host.run_directory)?;
    let devices = device::make(&lease.ids)?;
    let plan = plan(spec, host, &lease.ids, &devices)?;
    let disk = disk::make(&spec.limits, &spec.directory, &host.templates)?;
    let upper = Upper::make(&disk, spec, &lease.ids)?;
    upper.populate(spec)?;
    let view = Place::make(&disk, spec, &lease.ids)?;
    let limits = Some(&spec.limits).filter(|_| plugged(spec, UnpluggedControl::Limits));
    // Every CPU of the machine is no limit, and a hierarchy less to be in.
    let unlimited_cpu = spec.limits.cpus.millis() >= host.cpu_millis;
    let hierarchies = if unlimited_cpu { host.hierarchies.without_cpu() } else { host.hierarchies.clone() };
    let cgroup = Cgroup::create(&hierarchies, spec.install, spec.id, limits)?;
    Ok(Parts { lease, cgroup, plan, devices, upper, view, disk })
}

/// A network namespace with its rules, sockets and sysfs.
#[derive(Debug)]
pub struct MadeNetwork {
    namespace: Network,
    wire: Wire,
    sysfs: OwnedFd,
    /// What the part was taken from.
    whole_sysfs: Option<OwnedFd>,
}

/// `proc` is the root of a proc file system; the host's where there is none.
fn make_network(reach: Reach, rules: bool, proc: Option<Arc<OwnedFd>>) -> Result<MadeNetwork, EngineError> {
    let proc = match proc {
        Some(proc) => proc,
        None => Arc::new(std::fs::File::open("/proc").map_err(|e| EngineError::host("open /proc", e))?.into()),
    };
    // Of the sysfs of this process's network, the part that programs ask for the number of CPUs: it says the same everywhere. One of
    // the new network's own would be one more for the kernel to make, and to look through whenever another is made.
    let attributes = attr::READ_ONLY | attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC;
    let (sysfs, whole) = if outer::is_host_root() {
        let whole = new_fs("sysfs", &[], attributes).map_err(system)?;
        match clone_tree(whole.as_fd(), "devices/system", false) {
            Ok(part) => (part, Some(whole)),
            // Before 6.15 only of what is attached.
            Err(_) => (attached_sysfs(attributes)?, None),
        }
    } else {
        (attached_sysfs(attributes)?, None)
    };
    let namespace = Network::make().map_err(system)?;
    let wire = wire::install(reach, wire::Unplugged { rules: !rules }, proc.as_fd()).map_err(system)?;
    Ok(MadeNetwork { namespace, wire, sysfs, whole_sysfs: whole })
}

/// The same part of the sysfs that this process sees.
fn attached_sysfs(attributes: u64) -> Result<OwnedFd, EngineError> {
    let part = clone_tree(rustix::fs::CWD, "/sys/devices/system", false).map_err(system)?;
    set_attributes(&part, attributes, None, false).map_err(system)?;
    Ok(part)
}

struct Made {
    pidfd: OwnedFd,
    control: OwnedFd,
    wire: Wire,
    namespace: Network,
    root: OwnedFd,
    /// What root and view are copies of, where they are.
    originals: (Option<Copied>, Option<Copied>),
}

fn launch_in(spec: &SandboxSpec, host: &Host, parts: &Parts<'_>, mut network: MadeNetwork) -> Result<Made, EngineError> {
    wiring::hand_to_gate(spec, &mut network.wire, None)?;
    let (control, child_control) = channel::pair().map_err(system)?;
    let entrances = parts.cgroup.entrances()?;
    let lease = parts.lease.fd.as_fd();
    let plan = parts.plan.encode();
    let clone = || {
        let asked = host.spawner()?;
        Ok::<_, EngineError>(asked.spawn(&plan, child_control.as_fd(), lease, network.namespace.as_fd(), &entrances))
    };
    let cloned = match clone()? {
        // Somebody killed it meanwhile. One that had been asked may have cloned: then this sandbox's sockets are not used again.
        Err(error) if Spawner::was_not_asked(&error) => clone()?,
        other => other,
    };
    let child = Child(Some(cloned.map_err(system)?));
    drop(child_control);
    let ids = &parts.lease.ids;
    namespace::map_ids(child.pid(), ids).map_err(system)?;
    let userns = if ids.is_range() { Some(namespace::of_process(child.pid(), "user").map_err(system)?) } else { None };
    let userns = userns.as_ref().map(AsFd::as_fd);
    let staging = if host.staged { Some(Staging::make(&parts.disk, &host.run_directory)?) } else { None };
    let how = How { staging: staging.as_ref(), copied: host.copied, room: disk::room(&spec.limits) };
    let Composed { mount: root, mut done_with, original } = parts.upper.compose(userns, &how)?;
    let view = parts.view.as_ref().map(|view| view.compose(ids, &how)).transpose()?;
    let (view, view_original) = match view {
        Some(composed) => {
            done_with.extend(composed.done_with);
            (Some(composed.mount), composed.original)
        }
        None => (None, None),
    };
    let trees = trees(spec, ids, userns, view)?;
    hand_over(&control, &root, &parts.devices, &network.sysfs, &trees)?;
    done_with.push(network.sysfs);
    done_with.extend(network.whole_sysfs);
    done_with.extend(trees);
    host.spawner()?.discard(done_with);
    let originals = (original, view_original);
    Ok(Made { pidfd: child.handed_over()?, control, wire: network.wire, namespace: network.namespace, root, originals })
}

/// A cloned process that waits for its mounts. It is killed and collected unless it was handed over.
struct Child(Option<Cloned>);

impl Child {
    fn pid(&self) -> u32 {
        self.0.as_ref().map_or(0, |cloned| cloned.pid)
    }

    fn handed_over(mut self) -> Result<OwnedFd, EngineError> {
        self.0.take().map(|cloned| cloned.pidfd).ok_or(EngineError::Gone)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        const GONE_WITHIN: Duration = Duration::from_secs(5);
        if let Some(cloned) = &self.0 {
            // One that is gone already is only collected.
            let _ = process::signal(cloned.pidfd.as_fd(), SIGKILL);
            process::wait_ended(cloned.pidfd.as_fd(), GONE_WITHIN);
            process::reap(cloned.pidfd.as_fd());
        }
    }
}

fn plugged(spec: &SandboxSpec, control: UnpluggedControl) -> bool {
    !spec.unplugged.contains(&control)
}

fn hand_over(control: &OwnedFd, root: &OwnedFd, devices: &Devices, sysfs: &OwnedFd, trees: &[OwnedFd]) -> Result<(), EngineError> {
    let Devices { dev, pts, shm, null, empty, nodes } = devices;
    let mut fds: Vec<BorrowedFd<'_>> = [root, dev, pts, shm, sysfs, null, empty].map(AsFd::as_fd).to_vec();
    fds.extend(trees.iter().map(AsFd::as_fd));
    fds.extend(nodes.iter().map(|(_, node)| node.as_fd()));
    channel::send_words(control, [REQUEST_GO, 0, 0, 0], &fds).map_err(system)
}

fn plan(spec: &SandboxSpec, host: &Host, ids: &Ids, devices: &Devices) -> Result<Plan, EngineError> {
    let trees = tree_count(spec);
    if FIRST_TREE + trees + devices.nodes.len() > MOST_MOUNTS {
        return Err(EngineError::Invalid {
            what: format!("{trees} mounts"),
            why: format!("at most {} are possible", MOST_MOUNTS - FIRST_TREE - devices.nodes.len()),
        });
    }
    let owner = ids.of_pid_one();
    let keep = match plugged(spec, UnpluggedControl::Capabilities) {
        false => capability::EVERY,
        // It has nobody else to become, and nothing to do as them.
        true if owner.0 != 0 => 0,
        true => capability::PID_ONE,
    };
    Ok(Plan {
        steps: steps(spec, devices)?,
        hostname: c_string(Path::new(&spec.hostname))?,
        owner,
        unprivileged: !ids.is_range(),
        keep_groups: !ids.groups_settable(),
        capabilities: keep,
        filter: if plugged(spec, UnpluggedControl::Seccomp) { FILTER.to_vec() } else { Vec::new() },
        landlock: host.landlock.filter(|_| plugged(spec, UnpluggedControl::Landlock)),
        limits: resource_limits(spec, host),
    })
}

fn steps(spec: &SandboxSpec, devices: &Devices) -> Result<Vec<Step>, EngineError> {
    let attach = |index: usize, path: &str| Ok::<_, EngineError>(Step::Attach(index, c_string(Path::new(path))?));
    let mut steps = vec![attach(DEV, DEVICES)?, attach(PTS, "dev/pts")?, attach(SHM, "dev/shm")?];
    let first_node = FIRST_TREE + tree_count(spec);
    for (index, (name, _)) in devices.nodes.iter().enumerate() {
        steps.push(attach(first_node + index, &format!("{DEVICES}/{name}"))?);
    }
    steps.push(Step::Proc(c_string(Path::new("proc"))?));
    steps.push(Step::ReadOnly(c_string(Path::new("sys"))?));
    steps.push(attach(SYS, "sys/devices/system")?);
    if plugged(spec, UnpluggedControl::Masks) {
        for path in masks::MASKED_FILES {
            steps.push(Step::MaskFile(c_string(Path::new(path))?, NULL, EMPTY));
        }
        for path in masks::MASKED_DIRECTORIES {
            steps.push(Step::MaskDirectory(c_string(Path::new(path))?, NULL, EMPTY));
        }
        for path in masks::READ_ONLY {
            steps.push(Step::ReadOnly(c_string(Path::new(path))?));
        }
    }
    let image = spec.image.trees().iter().map(|tree| tree.path.as_path());
    let wanted = Wanted::of(spec).into_iter().map(Wanted::target);
    for (index, path) in image.chain(wanted).enumerate() {
        steps.push(Step::Attach(FIRST_TREE + index, c_string(relative(path)?)?));
    }
    debug_assert_eq!(ROOT, 0);
    Ok(steps)
}

fn tree_count(spec: &SandboxSpec) -> usize {
    spec.image.trees().len() + spec.mounts.len() + usize::from(spec.view.is_some())
}

/// Hard limits of the host are never raised: a sandbox gets the lower of the two.
fn resource_limits(spec: &SandboxSpec, host: &Host) -> Vec<(u32, u64)> {
    // Without a group that counts them: the kernel counts each user's, in each user namespace anew.
    let counted = host.hierarchies.limits_processes() || !plugged(spec, UnpluggedControl::Limits);
    let processes = if counted { u64::MAX } else { u64::from(spec.limits.pids) };
    let wanted = [
        (RLIMIT_CORE, 0),
        (RLIMIT_NPROC, processes),
        (RLIMIT_NOFILE, u64::from(spec.limits.open_files)),
        (RLIMIT_MEMLOCK, MEMLOCK_BYTES),
        (RLIMIT_SIGPENDING, PENDING_SIGNALS),
        (RLIMIT_MSGQUEUE, MESSAGE_QUEUE_BYTES),
    ];
    wanted.map(|(resource, value)| (resource, value.min(process::hard_limit(resource)))).to_vec()
}

fn c_string(path: &Path) -> Result<CString, EngineError> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| EngineError::Invalid { what: format!("path {}", path.display()), why: "it holds a NUL byte".into() })
}
