//! Paths of `/proc` that a sandbox must not read, and those it must not write. The child
//! skips one that this kernel lacks. Sources: the OCI runtime defaults, and section b of the security reference (probes B3).
//! Of `/sys` a sandbox sees `devices/system` only (CPUs, memory nodes), read-only.

/// Hidden: an empty file or directory stands there instead.
pub const MASKED: &[&str] = &[
    "proc/acpi",
    "proc/asound",
    "proc/bus",
    "proc/cmdline",
    "proc/config.gz",
    "proc/driver",
    "proc/fs",
    "proc/interrupts",
    "proc/irq",
    "proc/kallsyms",
    "proc/kcore",
    "proc/key-users",
    "proc/keys",
    "proc/kmsg",
    "proc/kpagecgroup",
    "proc/kpagecount",
    "proc/kpageflags",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/vmallocinfo",
];

/// Shown, not changeable.
pub const READ_ONLY: &[&str] = &["proc/sys", "proc/sysrq-trigger"];
