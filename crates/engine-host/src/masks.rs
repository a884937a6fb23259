//! Paths of `/proc` that a sandbox must not read, and those it must not write. The child
//! skips one that this kernel lacks. Sources: the OCI runtime defaults, and section b of the security reference (probes B3).
//! Of `/sys` a sandbox sees `devices/system` only (CPUs, memory nodes), read-only.

/// Hidden files: an empty one stands there instead.
pub const MASKED_FILES: &[&str] = &[
    "proc/cmdline",
    "proc/config.gz",
    "proc/interrupts",
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
    "proc/timer_list",
    "proc/timer_stats",
    "proc/vmallocinfo",
];

/// Hidden directories: an empty one stands there instead.
pub const MASKED_DIRECTORIES: &[&str] = &["proc/acpi", "proc/asound", "proc/bus", "proc/driver", "proc/fs", "proc/irq", "proc/scsi"];

/// Shown, not changeable.
pub const READ_ONLY: &[&str] = &["proc/sys", "proc/sysrq-trigger"];
