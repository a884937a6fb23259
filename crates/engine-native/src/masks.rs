//! Paths of `/proc` and `/sys` that a sandbox must not read, and those it must not write. The child
//! skips one that this kernel lacks. Sources: the OCI runtime defaults, and section b of the security reference (probes B3).

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
    "sys/dev/block",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/fs",
    "sys/hypervisor",
    "sys/kernel",
    "sys/module",
    "sys/power",
];

/// Shown, not changeable.
pub const READ_ONLY: &[&str] = &["proc/sys", "proc/sysrq-trigger"];
