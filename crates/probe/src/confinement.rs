//! What `/proc`, `/sys` and the namespaces show (B3, B5).

use crate::Probe;
use crate::report::{Finding, check, contained, open, unavailable};
use std::fs;
use std::path::Path;

fn kernel_settings() -> Finding {
    const FILES: &[&str] = &[
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/kernel/shmmax",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sysrq-trigger",
    ];
    for file in FILES {
        if fs::OpenOptions::new().write(true).open(file).is_ok() {
            return open(format!("{file} can be written"));
        }
    }
    contained(format!("none of {} can be written", FILES.len()))
}

fn masked() -> Finding {
    const FILES: &[&str] = &[
        "/proc/kcore",
        "/proc/keys",
        "/proc/key-users",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/latency_stats",
        "/proc/interrupts",
        "/proc/kmsg",
        "/proc/config.gz",
        "/proc/vmallocinfo",
        "/proc/kpagecount",
    ];
    const DIRECTORIES: &[&str] = &["/proc/scsi", "/proc/acpi", "/proc/asound", "/proc/bus", "/proc/irq", "/proc/fs", "/proc/driver"];
    for file in FILES {
        if fs::File::open(file).is_ok_and(|mut file| std::io::Read::read(&mut file, &mut [0]).is_ok_and(|length| length > 0)) {
            return open(format!("{file} can be read"));
        }
    }
    for directory in DIRECTORIES {
        if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
            return open(format!("{directory} can be listed"));
        }
    }
    contained("all empty or absent")
}

fn boot_arguments() -> Finding {
    let text = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    check(text.is_empty(), format!("{} bytes of boot arguments", text.len()))
}

fn kernel_symbols() -> Finding {
    let text = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let shown = text.lines().any(|line| !line.starts_with("0000000000000000"));
    check(!shown, format!("{} bytes", text.len()))
}

fn own_processes() -> Finding {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())).count();
    check(pids < 50, format!("{pids} processes are visible"))
}

/// The table of mounts must not tell where things are on the host.
fn mountinfo_paths() -> Finding {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = table.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
    let told = ["/var/lib", "/run/", "/tmp/", "sandboxes", "/dev/"].iter().find(|part| root.contains(**part));
    check(told.is_none(), format!("the root's entry is {root:?}"))
}

fn private_propagation() -> Finding {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let shared = table.lines().find(|line| line.contains(" shared:") || line.contains(" master:"));
    check(shared.is_none(), format!("shared mount: {shared:?}"))
}

/// The runner says what the host's namespaces are; none of ours may be among them.
fn namespaces() -> Finding {
    let host = std::env::var("COFFERDAM_PROBE_NAMESPACES").unwrap_or_default();
    let host: Vec<&str> = host.split_whitespace().collect();
    if host.is_empty() {
        return open("the runner did not tell the host's namespaces");
    }
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        match fs::read_link(format!("/proc/self/ns/{kind}")) {
            Ok(own) if host.contains(&own.to_string_lossy().as_ref()) => return open(format!("{} is the host's", own.display())),
            Ok(_) => {}
            Err(error) => return open(format!("{kind}: {error}")),
        }
    }
    contained("seven namespaces of its own")
}

fn sysfs() -> Finding {
    for path in [
        "/sys/kernel/uevent_helper",
        "/sys/kernel/security",
        "/sys/fs/bpf",
        "/sys/kernel/tracing",
        "/sys/kernel/debug",
        "/sys/firmware",
        "/sys/power/state",
    ] {
        if Path::new(path).exists() && (fs::read_dir(path).is_ok_and(|mut e| e.next().is_some()) || fs::File::open(path).is_ok()) {
            return open(format!("{path} is there"));
        }
    }
    let writable = fs::OpenOptions::new().write(true).open("/sys/devices/system/cpu/cpu0/online").is_ok();
    check(!writable && fs::write("/sys/probe", "").is_err(), "little of it is there, nothing can be written")
}

fn control_groups() -> Finding {
    for file in ["release_agent", "notify_on_release", "cgroup.procs", "devices.allow", "memory.limit_in_bytes"] {
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"] {
            if Path::new(root).join(file).exists() {
                return open(format!("{root}/{file} is there"));
            }
        }
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let told = own.lines().find(|line| line.contains("cofferdam"));
    check(told.is_none(), format!("no cgroup file system; own groups look like {:?}", own.lines().last().unwrap_or_default()))
}

fn descriptors() -> Finding {
    let mut foreign = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number: u32 = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0);
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if number > 2 && !target.starts_with("/proc") {
            foreign.push(target.display().to_string());
        }
    }
    check(foreign.is_empty(), format!("beyond 0, 1 and 2: {foreign:?}"))
}

/// CVE-2024-21626: a working directory or descriptor that leads out.
fn working_directory() -> Finding {
    let cwd = std::env::current_dir();
    let leads_out = cwd.as_ref().is_err() || cwd.as_ref().is_ok_and(|path| path.to_string_lossy().contains("unreachable"));
    for number in 3..21 {
        if fs::read_dir(format!("/proc/self/fd/{number}/..")).is_ok_and(|mut entries| entries.next().is_some()) {
            return open(format!("descriptor {number} is a directory"));
        }
    }
    check(!leads_out, format!("working directory {cwd:?}"))
}

fn landlock() -> Finding {
    /// What the kernel allows in all.
    const MOST: u32 = 16;
    match cofferdam_sys::raw::landlock_layers_left() {
        None => unavailable("the kernel has no Landlock"),
        Some(left) => check(left < MOST, format!("{left} of {MOST} domains can still be entered")),
    }
}

/// All of them.
pub const PROBES: &[Probe] = &[
    Probe { name: "landlock", reference: "B2.35", control: Some("landlock"), attempt: landlock },
    Probe { name: "kernel-settings", reference: "B3.39", control: None, attempt: kernel_settings },
    Probe { name: "masked-paths", reference: "B3.41", control: Some("masks"), attempt: masked },
    Probe { name: "proc-cmdline", reference: "B3.42", control: Some("masks"), attempt: boot_arguments },
    Probe { name: "kernel-symbols", reference: "B3.42", control: None, attempt: kernel_symbols },
    Probe { name: "own-processes", reference: "B3.43", control: None, attempt: own_processes },
    Probe { name: "mountinfo-paths", reference: "B3.44", control: None, attempt: mountinfo_paths },
    Probe { name: "namespaces", reference: "B3.45", control: None, attempt: namespaces },
    Probe { name: "sysfs", reference: "B3.47", control: None, attempt: sysfs },
    Probe { name: "control-groups", reference: "B3.48", control: None, attempt: control_groups },
    Probe { name: "propagation", reference: "B4.56", control: None, attempt: private_propagation },
    Probe { name: "descriptors", reference: "B5.70", control: None, attempt: descriptors },
    Probe { name: "working-directory", reference: "B5.61", control: None, attempt: working_directory },
];
