//! What the daemon is asked for: a pure function of the sandbox's description.

use crate::daemon::Daemon;
use crate::refit::PLACEHOLDER_INODES;
use crate::world::World;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountBindOptions, MountType, ResourcesUlimits,
};
use cofferdam_engine::{EngineError, SandboxSpec, UnpluggedControl};
use cofferdam_policy::{capability, seccomp};
use cofferdam_sys::process;
use cofferdam_trust::Origin;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Where our own files stand in a container.
pub const OWN: &str = "/run/cofferdam";
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
const BYTES_OF_A_FILE: u64 = 4096;
/// Hidden: what the native engine hides. `/sys` and `/dev` are replaced.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/driver",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
];
const READ_ONLY: &[&str] = &["/proc/sys", "/proc/sysrq-trigger"];

/// Whether the image's root cannot be changed: everybody but root only loses what they could not do. Where there is more than the image, it
/// is written there first.
pub fn is_read_only(spec: &SandboxSpec) -> bool {
    spec.user.uid != 0 && !spec.bare && spec.image.added_layers().is_empty()
}

/// The container; `beside` is the gate's whose network it shares.
pub fn describe(spec: &SandboxSpec, daemon: &Daemon, beside: Option<&str>) -> Result<ContainerCreateBody, EngineError> {
    if let Some(view) = &spec.view {
        return Err(EngineError::Unsupported {
            what: format!("a private view of {} on the engine docker", view.source.path().display()),
            why: "a daemon shows trees of the host as they are".into(),
            remedy: "use --engine native, or -v with a copy".into(),
        });
    }
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
    let paths = |paths: &[&str]| Some(if masks { paths.iter().map(|path| (*path).to_owned()).collect() } else { Vec::new() });
    let every = !plugged(UnpluggedControl::Capabilities);
    let read_only = is_read_only(spec);
    let quota = spec.limits.disk.filter(|_| !read_only && daemon.facts.disk_quota);
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
        readonly_rootfs: Some(read_only),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        shm_size: Some(memory),
        storage_opt: quota.map(|disk| HashMap::from([("size".to_owned(), disk.get().to_string())])),
        tmpfs: Some(tmpfs(spec)),
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

/// A file system in memory, of the sandbox's size.
pub struct Place {
    /// Its permissions.
    pub mode: u32,
    /// Its user and group inside.
    pub owner: (u32, u32),
    /// Whether it is so whatever the image has there: the daemon gives it what a directory of the image has.
    pub insisted: bool,
}

/// How many files each place holds.
pub fn most_files(spec: &SandboxSpec) -> u64 {
    (place_bytes(spec) / BYTES_OF_A_FILE).max(1024)
}

fn place_bytes(spec: &SandboxSpec) -> u64 {
    spec.limits.disk.unwrap_or(spec.limits.memory).get()
}

/// What can be written to where the root cannot.
pub fn places(spec: &SandboxSpec) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    let user = (spec.user.uid, spec.user.gid);
    places.insert("/tmp".to_owned(), Place { mode: 0o1777, owner: (0, 0), insisted: true });
    if !spec.bare {
        places.insert("/workspace".into(), Place { mode: 0o755, owner: user, insisted: true });
    }
    // The daemon would make a volume of each, on its disk and without a bound.
    for volume in spec.image.config().volumes.keys().filter(|volume| is_plain(volume)) {
        let place = Place { mode: 0o755, owner: user, insisted: false };
        places.entry(volume.trim_end_matches('/').to_owned()).or_insert(place);
    }
    if is_read_only(spec) {
        places.insert("/var/tmp".into(), Place { mode: 0o1777, owner: (0, 0), insisted: false });
        places.insert("/run".into(), Place { mode: 0o755, owner: (0, 0), insisted: false });
        if spec.user.home != "/" {
            places.insert(spec.user.home.clone(), Place { mode: 0o755, owner: user, insisted: true });
        }
        // What is to be put in goes where it can be put.
        for directory in spec.directories.iter().filter(|directory| directory.path != Path::new("/workspace")) {
            let path = directory.path.display().to_string();
            if !places.keys().any(|known| path.starts_with(&format!("{known}/"))) {
                places.insert(path, Place { mode: directory.mode, owner: directory.owner, insisted: true });
            }
        }
    }
    // What the user mounts there counts.
    places.retain(|path, _| !spec.mounts.iter().any(|mount| mount.target == Path::new(path)));
    places
}

/// None of it a device or a program of another user; and something small where a volume will be.
fn tmpfs(spec: &SandboxSpec) -> HashMap<String, String> {
    let (size, files) = (place_bytes(spec), most_files(spec));
    let options = |Place { mode, owner: (uid, gid), .. }: Place| {
        format!("rw,nosuid,nodev,exec,size={size},nr_inodes={files},mode={mode:o},uid={uid},gid={gid}")
    };
    let places = places(spec).into_iter().map(|(path, place)| (path, options(place)));
    let volumes = spec.mounts.iter().filter(|mount| mount.source.is_volume()).map(|volume| {
        let nothing = format!("ro,nosuid,nodev,noexec,size=4k,nr_inodes={PLACEHOLDER_INODES},mode=700");
        (volume.target.display().to_string(), nothing)
    });
    places.chain(volumes).collect()
}

fn is_below(path: &Path, other: &Path) -> bool {
    path != other && path.starts_with(other)
}

fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.trim_matches('/').is_empty() && !path.split('/').any(|part| part == "..")
}

/// Our own files, and trees of the host. The daemon takes paths; whether they led where they led when they were checked is looked at
/// before anything runs (`files::are_as_checked`).
fn mounts(spec: &SandboxSpec, world: &World) -> Result<Vec<Mount>, EngineError> {
    let own = &spec.directory;
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
    let mut mounts = vec![mount(&own.join("contained"), OWN.to_owned(), true)?];
    for name in ["hosts", "hostname", "resolv.conf", "passwd", "group"] {
        let source = own.join("etc").join(name);
        if source.exists() {
            mounts.push(mount(&source, format!("/etc/{name}"), true)?);
        }
    }
    for wanted in &spec.mounts {
        let above = spec.mounts.iter().find(|other| other.source.is_volume() && is_below(&wanted.target, &other.target));
        if let Some(volume) = above {
            return Err(EngineError::Unsupported {
                what: format!("{} below the named volume {}", wanted.target.display(), volume.target.display()),
                why: "the engine docker mounts volumes last".into(),
                remedy: "mount it elsewhere, or use --engine native".into(),
            });
        }
        let target = wanted.target.to_str().filter(|target| is_plain(target));
        let target = target.ok_or_else(|| EngineError::Invalid {
            what: format!("path {}", wanted.target.display()),
            why: "an absolute path inside the sandbox is wanted, without '..'".into(),
        })?;
        // A volume is attached later (`refit`).
        if wanted.source.is_volume() {
            continue;
        }
        mounts.push(mount(wanted.source.path(), target.to_owned(), !wanted.writable)?);
    }
    Ok(mounts)
}
