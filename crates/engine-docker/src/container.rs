//! What the daemon is asked for: a pure function of the sandbox's description.

use crate::daemon::Daemon;
use crate::world::World;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountBindOptions, MountType, ResourcesUlimits,
};
use cofferdam_engine::{EngineError, SandboxSpec, UnpluggedControl};
use cofferdam_engine_host::masks;
use cofferdam_policy::{capability, seccomp};
use cofferdam_sys::process;
use cofferdam_trust::Origin;
use std::collections::HashMap;
use std::path::Path;

/// Where our own files stand in a container.
pub const OWN: &str = "/run/cofferdam";
/// There, and in the directory on the host: a place for each tree of the host.
pub const TREES: &str = "trees";
/// The program of pid 1, for the daemon's own look whether a process can be started; whether pid 1 lives is seen by its supervisor at once.
pub const HEALTH: &str = "/sys/cofferdam";
const HEALTH_EVERY_NANOS: i64 = 1_800_000_000_000;
/// The label with the installation's id.
pub const INSTALL: &str = "cofferdam.install";
/// The label with the sandbox's id.
pub const SANDBOX: &str = "cofferdam.sandbox";

const MEMLOCK_BYTES: u64 = 8 << 20;
const PENDING_SIGNALS: u64 = 16_384;
const MESSAGE_QUEUE_BYTES: u64 = 819_200;
/// The container; `beside` is the gate's whose network it shares.
pub fn describe(spec: &SandboxSpec, daemon: &Daemon, beside: Option<&str>) -> Result<ContainerCreateBody, EngineError> {
    let image = match (spec.image.origin(), spec.image.config_digest()) {
        (Origin::Store { .. }, Some(digest)) => digest.to_string(),
        _ => {
            return Err(EngineError::Unsupported {
                what: format!("image {} on the engine docker", spec.image.identity()),
                why: "a daemon starts from images, not from this host's own files".into(),
                remedy: "name an image (--image python:3.12), make one of it (cofferdam image import), or use --engine native".into(),
            });
        }
    };
    let labels = HashMap::from([(INSTALL.to_owned(), spec.install.to_string()), (SANDBOX.to_owned(), spec.id.to_string())]);
    let mut host_config = host_config(spec, daemon)?;
    if let Some(gate) = beside {
        host_config.network_mode = Some(format!("container:{gate}"));
    }
    Ok(ContainerCreateBody {
        // Who shares a network shares the name.
        hostname: beside.is_none().then(|| spec.hostname.clone()),
        user: Some("0:0".into()),
        tty: Some(false),
        env: Some(Vec::new()),
        cmd: Some(pid_one_arguments(spec)),
        entrypoint: Some(vec![format!("{OWN}/init")]),
        image: Some(image),
        working_dir: Some("/".into()),
        labels: Some(labels),
        network_disabled: beside.is_none().then_some(false),
        healthcheck: Some(bollard::models::HealthConfig {
            test: Some(vec!["CMD".into(), HEALTH.into(), "healthy".into()]),
            interval: Some(HEALTH_EVERY_NANOS),
            ..Default::default()
        }),
        host_config: Some(host_config),
        ..Default::default()
    })
}

/// What a test gives to show that the bound is noticed: all that this host has and that old daemons know.
pub fn every_capability() -> u64 {
    const KNOWN: u64 = (1 << 38) - 1;
    process::bounding_set() & KNOWN
}

fn pid_one_arguments(spec: &SandboxSpec) -> Vec<String> {
    let mut words = vec![format!("{OWN}/socket")];
    if spec.unplugged.contains(&UnpluggedControl::Landlock) {
        words.push("unfenced".into());
    }
    words
}

fn host_config(spec: &SandboxSpec, daemon: &Daemon) -> Result<HostConfig, EngineError> {
    let plugged = |control| !spec.unplugged.contains(&control);
    let limits = plugged(UnpluggedControl::Limits);
    let memory = i64::try_from(spec.limits.memory.get()).unwrap_or(i64::MAX);
    let mut security = vec!["no-new-privileges:true".to_owned()];
    security.push(if plugged(UnpluggedControl::Seccomp) { format!("seccomp={}", profile()?) } else { "seccomp=unconfined".into() });
    let masks = plugged(UnpluggedControl::Masks);
    let paths = |paths: &[&[&str]]| Some(paths.concat().into_iter().filter(|_| masks).map(|path| format!("/{path}")).collect::<Vec<_>>());
    let every = !plugged(UnpluggedControl::Capabilities);
    Ok(HostConfig {
        memory: limits.then_some(memory),
        memory_swap: limits.then_some(memory),
        memory_swappiness: limits.then_some(0),
        nano_cpus: limits.then(|| i64::from(spec.limits.cpus.millis()) * 1_000_000),
        pids_limit: limits.then(|| i64::from(spec.limits.pids)),
        ulimits: Some(ulimits(spec)),
        network_mode: Some("none".into()),
        ipc_mode: Some("private".into()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        privileged: Some(false),
        init: Some(false),
        cap_drop: Some(if every { Vec::new() } else { vec!["ALL".into()] }),
        cap_add: Some(capability::names(if every { every_capability() } else { capability::PID_ONE }).map(str::to_owned).collect()),
        security_opt: Some(security),
        readonly_rootfs: Some(true),
        masked_paths: paths(&[masks::MASKED_FILES, masks::MASKED_DIRECTORIES]),
        readonly_paths: paths(&[masks::READ_ONLY]),
        tmpfs: Some(instead_of_volumes(spec)),
        mounts: Some(mounts(spec, &daemon.world)?),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([("max-size".to_owned(), "10m".to_owned()), ("max-file".to_owned(), "3".to_owned())])),
        }),
        oom_score_adj: Some(0),
        ..Default::default()
    })
}

/// As much of the filter as the daemon says quickly: the whole is installed by pid 1 before anything else runs.
fn profile() -> Result<String, EngineError> {
    let calls =
        seccomp::parse(seccomp::TABLE).map_err(|error| EngineError::host("read the system call table", std::io::Error::other(error)))?;
    Ok(seccomp::outline(&calls))
}

fn ulimits(spec: &SandboxSpec) -> Vec<ResourcesUlimits> {
    // Hard limits of the host are never raised: a sandbox gets the lower of the two.
    let limit = |name: &str, resource: u32, value: u64| {
        let value = i64::try_from(value.min(process::hard_limit(resource))).ok();
        ResourcesUlimits { name: Some(name.into()), soft: value, hard: value }
    };
    vec![
        limit("core", 4, 0),
        limit("nofile", 7, u64::from(spec.limits.open_files)),
        limit("memlock", 8, MEMLOCK_BYTES),
        limit("sigpending", 11, PENDING_SIGNALS),
        limit("msgqueue", 12, MESSAGE_QUEUE_BYTES),
    ]
}

/// The daemon would make a volume of each that the image asks for, on its disk and without a bound. Nobody sees these: what a sandbox writes there is
/// written where everything is.
fn instead_of_volumes(spec: &SandboxSpec) -> HashMap<String, String> {
    let asked = spec.image.config().volumes.keys().filter(|volume| is_plain(volume)).map(|volume| volume.trim_end_matches('/'));
    asked.map(|volume| (volume.to_owned(), "ro,nosuid,nodev,noexec,size=4k,nr_inodes=1,mode=700".to_owned())).collect()
}

fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.trim_matches('/').is_empty() && !path.split('/').any(|part| part == "..")
}

/// Where the daemon mounts the tree of this number, which goes where it belongs afterwards (`refit`). What the daemon mounts onto is never the image's: of
/// that it has to follow links.
pub fn place_of_tree(number: usize) -> String {
    format!("{OWN}/{TREES}/{number}")
}

/// Our own files, and trees of the host. The daemon takes paths; whether they led where they led when they were checked is looked at
/// before anything runs (`refit`).
fn mounts(spec: &SandboxSpec, world: &World) -> Result<Vec<Mount>, EngineError> {
    let mount = |source: &Path, target: String, read_only: bool| -> Result<Mount, EngineError> {
        Ok(Mount {
            target: Some(target),
            source: Some(world.of_daemon(source)?.display().to_string()),
            typ: Some(MountType::BIND),
            read_only: Some(read_only),
            bind_options: Some(MountBindOptions { create_mountpoint: Some(false), ..Default::default() }),
            ..Default::default()
        })
    };
    let own = mount(&spec.directory.join("contained"), OWN.to_owned(), true);
    // A volume is no path.
    let trees = spec.mounts.iter().enumerate().filter(|(_, wanted)| !wanted.source.is_volume());
    let trees = trees.map(|(number, wanted)| mount(wanted.source.path(), place_of_tree(number), !wanted.writable));
    std::iter::once(own).chain(trees).collect()
}
