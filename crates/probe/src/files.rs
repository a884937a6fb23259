//! Devices and mounts (B4).

use crate::Probe;
use crate::report::{Finding, check, contained, open};
use std::fs;
use std::path::Path;

fn device_list() -> Finding {
    const KNOWN: &[&str] = &[
        "console", "empty", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
        "mqueue",
    ];
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let foreign: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| !KNOWN.contains(&name.as_str())).collect();
    check(foreign.is_empty(), format!("unexpected: {foreign:?}"))
}

fn mount_flags() -> Finding {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(flags)) = (fields.next(), fields.next()) else { continue };
        let has = |flag: &str| flags.split(',').any(|other| other == flag);
        let device_file_system = point == "/dev" || point.starts_with("/dev/pts") || point.starts_with("/proc/");
        if !has("nosuid") || (has("rw") && !has("nodev") && !device_file_system) {
            return open(format!("{point} is mounted {flags}"));
        }
    }
    contained("nosuid everywhere, nodev on everything that can be written")
}

fn system_is_read_only() -> Finding {
    // The programs of an image lie in the sandbox's own layer, which goes with it; what is mounted there is somebody else's.
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_mounted = |path: &str| mounted.lines().any(|line| line.split(' ').nth(4) == Some(path));
    let programs: &[&str] = if is_mounted("/usr") { &["/usr/probe", "/usr/bin/probe"] } else { &[] };
    for path in programs.iter().copied().chain(["/dev/probe", "/proc/probe", "/sys/probe"]) {
        if fs::write(path, "x").is_ok() {
            let _ = fs::remove_file(path);
            return open(format!("{path} could be written"));
        }
    }
    contained("/dev, /proc, /sys and what is mounted at /usr cannot be written")
}

fn scratch_is_sized() -> Finding {
    for path in ["/dev/shm", "/tmp", "/dev"] {
        match rustix::fs::statvfs(path) {
            Ok(stat) if stat.f_blocks == 0 => return open(format!("{path} has no size")),
            Ok(_) => {}
            Err(error) => return open(format!("{path}: {error}")),
        }
    }
    contained("/tmp, /dev and /dev/shm have a size")
}

fn engine_sockets() -> Finding {
    const SOCKETS: &[&str] = &[
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/crio/crio.sock",
        "/run/podman/podman.sock",
        "/run/cofferdam",
        "/var/lib/cofferdam",
        "/run/systemd/private",
        "/run/dbus/system_bus_socket",
    ];
    let found = SOCKETS.iter().find(|path| Path::new(path).exists());
    check(found.is_none(), format!("found: {found:?}"))
}

/// The runner listens on an abstract socket of the host; it must not be reachable from here.
fn abstract_socket() -> Finding {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let Ok(name) = std::env::var("COFFERDAM_PROBE_ABSTRACT") else { return open("the runner did not name its socket") };
    let address = match SocketAddr::from_abstract_name(name.as_bytes()) {
        Ok(address) => address,
        Err(error) => return open(error.to_string()),
    };
    match UnixStream::connect_addr(&address) {
        Ok(_) => open("connected to a socket of the host"),
        Err(error) => contained(error.to_string()),
    }
}

/// A file of the host that the runner made, world-readable, must not be visible.
fn host_file() -> Finding {
    let Ok(path) = std::env::var("COFFERDAM_PROBE_HOST_FILE") else { return open("the runner did not name its file") };
    let through_links =
        [path.clone(), format!("/proc/1/root{path}"), format!("/proc/self/root/../..{path}"), format!("/workspace/../..{path}")];
    let read = through_links.iter().find(|path| fs::read(path).is_ok());
    check(read.is_none(), format!("read through {read:?}"))
}

/// All of them.
pub const PROBES: &[Probe] = &[
    Probe { name: "device-list", reference: "B4.51", control: None, attempt: device_list },
    Probe { name: "mount-flags", reference: "B4.53", control: None, attempt: mount_flags },
    Probe { name: "read-only-system", reference: "B4.55", control: None, attempt: system_is_read_only },
    Probe { name: "scratch-size", reference: "B4.54", control: None, attempt: scratch_is_sized },
    Probe { name: "engine-sockets", reference: "B4.57", control: None, attempt: engine_sockets },
    Probe { name: "abstract-socket", reference: "B4.57", control: None, attempt: abstract_socket },
    Probe { name: "host-file", reference: "B4.58", control: None, attempt: host_file },
];
