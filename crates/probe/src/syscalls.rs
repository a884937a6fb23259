//! System calls that must be refused (B2).

use crate::Probe;
use crate::report::{Finding, check, contained, open, refused, unavailable};
use cofferdam_sys::raw;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const SOCK_STREAM: u64 = 1;
const AF_NETLINK: u64 = 16;
const AF_UNSPECIFIC_KINDS: u64 = SOCK_STREAM;

/// A call by name must fail with EPERM or ENOSYS, whatever its arguments.
fn call_is_refused(name: &str, arguments: [u64; 6]) -> Finding {
    let Some(number) = raw::number(name) else { return open(format!("no number is known for {name}")) };
    match raw::call(number, arguments) {
        Ok(value) => open(format!("returned {value}")),
        Err(error) if matches!(error.raw_os_error(), Some(EPERM | ENOSYS)) => contained(error.to_string()),
        Err(error) => open(format!("reached the kernel: {error}")),
    }
}

macro_rules! calls {
    ($($probe:ident = $name:literal, $reference:literal, $arguments:expr;)*) => {
        $(fn $probe() -> Finding { call_is_refused($name, $arguments) })*
        const CALLS: &[Probe] = &[
            $(Probe { name: concat!("call-", $name), reference: $reference, control: Some("seccomp"), attempt: $probe },)*
        ];
    };
}

const BAD: u64 = u64::MAX;

calls! {
    bpf = "bpf", "B2.13", [BAD, 0, 0, 0, 0, 0];
    perf = "perf_event_open", "B2.14", [0, 0, BAD, BAD, BAD, 0];
    keyctl = "keyctl", "B2.15", [0, BAD, 0, 0, 0, 0];
    add_key = "add_key", "B2.15", [0; 6];
    request_key = "request_key", "B2.15", [0; 6];
    userfaultfd = "userfaultfd", "B2.16", [1, 0, 0, 0, 0, 0];
    kexec_load = "kexec_load", "B2.17", [0, 0, 0, BAD, 0, 0];
    init_module = "init_module", "B2.17", [0; 6];
    finit_module = "finit_module", "B2.17", [BAD, 0, 0, 0, 0, 0];
    delete_module = "delete_module", "B2.17", [0; 6];
    mount = "mount", "B2.18", [0; 6];
    umount2 = "umount2", "B2.18", [0, BAD, 0, 0, 0, 0];
    open_tree = "open_tree", "B2.18", [BAD, 0, 0, 0, 0, 0];
    move_mount = "move_mount", "B2.18", [BAD, 0, BAD, 0, 0, 0];
    fsopen = "fsopen", "B2.18", [0; 6];
    fsmount = "fsmount", "B2.18", [BAD, 0, 0, 0, 0, 0];
    mount_setattr = "mount_setattr", "B2.18", [BAD, 0, 0, 0, 0, 0];
    pivot_root = "pivot_root", "B2.18", [0; 6];
    chroot = "chroot", "B2.18", [0; 6];
    handle_open = "open_by_handle_at", "B2.19", [BAD, 0, 0, 0, 0, 0];
    handle_name = "name_to_handle_at", "B2.19", [BAD, 0, 0, 0, 0, BAD];
    reboot = "reboot", "B2.20", [0; 6];
    swapon = "swapon", "B2.20", [0; 6];
    swapoff = "swapoff", "B2.20", [0; 6];
    acct = "acct", "B2.20", [1, 0, 0, 0, 0, 0];
    quotactl = "quotactl", "B2.20", [BAD, 0, 0, 0, 0, 0];
    settimeofday = "settimeofday", "B2.20", [1, 1, 0, 0, 0, 0];
    clock_settime = "clock_settime", "B2.20", [BAD, 0, 0, 0, 0, 0];
    clock_adjtime = "clock_adjtime", "B2.20", [0, 1, 0, 0, 0, 0];
    sethostname = "sethostname", "B2.20", [0, BAD, 0, 0, 0, 0];
    setdomainname = "setdomainname", "B2.20", [0, BAD, 0, 0, 0, 0];
    syslog = "syslog", "B2.21", [3, 0, 0, 0, 0, 0];
    lookup_dcookie = "lookup_dcookie", "B2.23", [0; 6];
    io_uring = "io_uring_setup", "B2.24", [1, 0, 0, 0, 0, 0];
    setns = "setns", "B1.7", [BAD, 0, 0, 0, 0, 0];
    clone3 = "clone3", "B1.6", [0; 6];
    memfd_secret = "memfd_secret", "B2.35", [BAD, 0, 0, 0, 0, 0];
    fanotify = "fanotify_init", "B6.82", [BAD, 0, 0, 0, 0, 0];
    pidfd_getfd = "pidfd_getfd", "B1.8", [BAD, 0, 0, 0, 0, 0];
    process_read = "process_vm_readv", "B1.8", [1, 0, 0, 0, 0, 1];
    process_write = "process_vm_writev", "B1.8", [1, 0, 0, 0, 0, 1];
    kcmp = "kcmp", "B1.8", [1, 1, BAD, 0, 0, 0];
    vmsplice = "vmsplice", "B2.38", [BAD, 0, 0, 0, 0, 0];
}

/// The filter answers as a kernel without the protocol does. The kernel itself looks at the socket's kind first, and netlink has no streams.
fn netlink_is_refused(protocol: u64) -> Finding {
    const EPROTONOSUPPORT: i32 = 93;
    let Some(number) = raw::number("socket") else { return open("no number is known for socket") };
    match raw::call(number, [AF_NETLINK, SOCK_STREAM, protocol, 0, 0, 0]) {
        Err(error) if matches!(error.raw_os_error(), Some(EPERM | ENOSYS | EPROTONOSUPPORT)) => contained(error.to_string()),
        Err(error) => open(format!("reached the kernel: {error}")),
        Ok(value) => open(format!("returned {value}")),
    }
}

fn family_is_refused(family: u64, kind: u64, protocol: u64) -> Finding {
    if family == AF_NETLINK {
        return netlink_is_refused(protocol);
    }
    call_is_refused("socket", [family, kind, protocol, 0, 0, 0])
}

macro_rules! families {
    ($($probe:ident = $name:literal, $reference:literal, $family:expr, $kind:expr, $protocol:expr;)*) => {
        $(fn $probe() -> Finding { family_is_refused($family, $kind, $protocol) })*
        const FAMILIES: &[Probe] = &[
            $(Probe { name: concat!("socket-", $name), reference: $reference, control: Some("seccomp"), attempt: $probe },)*
        ];
    };
}

families! {
    vsock = "vsock", "B2.25", 40, AF_UNSPECIFIC_KINDS, 0;
    alg = "alg", "B2.26", 38, 5, 0;
    packet = "packet", "B2.27", 17, 3, 0;
    raw_ip = "raw", "B2.27", 2, 3, 1;
    raw_ip6 = "raw6", "B2.27", 10, 3, 58;
    netfilter = "netlink-netfilter", "B2.28", 16, 3, 12;
    audit = "netlink-audit", "B2.28", 16, 3, 9;
    uevent = "netlink-uevent", "B2.28", 16, 3, 15;
    generic = "netlink-generic", "B2.28", 16, 3, 16;
    xdp = "xdp", "B2.29", 44, 3, 0;
    tipc = "tipc", "B2.29", 30, 5, 0;
    kcm = "kcm", "B2.29", 41, 5, 0;
    can = "can", "B2.29", 29, 3, 1;
    bluetooth = "bluetooth", "B2.29", 31, 3, 0;
    nfc = "nfc", "B2.29", 39, 5, 0;
    rds = "rds", "B2.29", 21, 5, 0;
}

fn unshare_namespaces() -> Finding {
    const NAMESPACES: &[(&str, u64)] = &[
        ("user", 0x1000_0000),
        ("mount", 0x0002_0000),
        ("network", 0x4000_0000),
        ("pid", 0x2000_0000),
        ("cgroup", 0x0200_0000),
        ("uts", 0x0400_0000),
        ("ipc", 0x0800_0000),
        ("time", 0x80),
    ];
    for (name, flag) in NAMESPACES {
        let finding = call_is_refused("unshare", [*flag, 0, 0, 0, 0, 0]);
        if finding.outcome != crate::Outcome::Contained {
            return open(format!("{name} namespace: {}", finding.detail));
        }
    }
    contained("every namespace is refused")
}

fn personality() -> Finding {
    const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;
    call_is_refused("personality", [ADDR_NO_RANDOMIZE, 0, 0, 0, 0, 0])
}

fn ptrace_attach() -> Finding {
    const PTRACE_SEIZE: u64 = 0x4206;
    call_is_refused("ptrace", [PTRACE_SEIZE, 1, 0, 0, 0, 0])
}

fn seccomp_listener() -> Finding {
    const SET_MODE_FILTER: u64 = 1;
    const NEW_LISTENER: u64 = 8;
    call_is_refused("seccomp", [SET_MODE_FILTER, NEW_LISTENER, 0, 0, 0, 0])
}

fn foreign_entry() -> Finding {
    match raw::foreign_entry() {
        None => unavailable("this architecture has no other entry"),
        Some(Ok(true)) => open("a 32-bit system call worked"),
        Some(Ok(false)) => contained("the process that tried was killed"),
        Some(Err(error)) => open(format!("could not try: {error}")),
    }
}

/// In a process of its own: some filters refuse the call, others end who makes it.
fn x32_entry() -> Finding {
    use std::os::unix::process::ExitStatusExt;
    if cfg!(not(target_arch = "x86_64")) {
        return unavailable("only x86-64 has it");
    }
    match std::process::Command::new("/proc/self/exe").args(["probe", "x32-call"]).output() {
        Ok(ended) if ended.status.signal().is_some() => contained("the process that tried was killed"),
        Ok(ended) if ended.status.success() => contained("Function not implemented"),
        Ok(ended) => open(format!("the call went through: {}", ended.status)),
        Err(error) => open(format!("could not try: {error}")),
    }
}

/// Makes a call by x32's entry; true if it is refused as one that is not known.
pub fn x32_call_is_refused() -> bool {
    const X32_BIT: i64 = 0x4000_0000;
    const GETPID: i64 = 39;
    raw::call(X32_BIT | GETPID, [0; 6]).is_err_and(|error| error.raw_os_error() == Some(ENOSYS))
}

fn unknown_call() -> Finding {
    match raw::call(999, [0; 6]) {
        Err(error) if error.raw_os_error() == Some(ENOSYS) => contained(error.to_string()),
        other => open(format!("a C library would not fall back: {other:?}")),
    }
}

/// Characters pushed into a terminal would be read by whoever owns it.
fn terminal_injection() -> Finding {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    const TIOCSTI: u64 = 0x5412;
    const TIOCLINUX: u64 = 0x541C;
    let slave = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).and_then(|master| {
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        Ok((master, slave))
    });
    let (_master, slave) = match slave {
        Ok(pair) => pair,
        Err(error) => return open(format!("no terminal to try on: {error}")),
    };
    let fd = std::os::fd::AsRawFd::as_raw_fd(&slave) as u64;
    let byte = b"x";
    for request in [TIOCSTI, TIOCLINUX] {
        let finding = call_is_refused("ioctl", [fd, request, byte.as_ptr() as u64, 0, 0, 0]);
        if finding.outcome != crate::Outcome::Contained {
            return open(format!("request {request:#x}: {}", finding.detail));
        }
    }
    contained("TIOCSTI and TIOCLINUX are refused")
}

fn filter_everywhere() -> Finding {
    let mut checked = 0;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let tasks = entry.path().join("task");
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
            match mode {
                Some("2") => checked += 1,
                None => {}
                Some(mode) => return open(format!("{} has mode {mode}", task.path().display())),
            }
        }
    }
    check(checked > 0, format!("{checked} threads, pid 1 among them, are filtered"))
}

fn device_node() -> Finding {
    const CHARACTER_DEVICE: u64 = 0o020_666;
    let path = c"/tmp/probe-device";
    let memory_device = rustix::fs::makedev(1, 1);
    let at = rustix::fs::CWD;
    let number = std::os::fd::AsRawFd::as_raw_fd(&at) as u64;
    let Some(call) = raw::number("mknodat") else { return open("no number is known") };
    let finding = refused(raw::call(call, [number, path.as_ptr() as u64, CHARACTER_DEVICE, memory_device, 0, 0]));
    let _ = std::fs::remove_file("/tmp/probe-device");
    finding
}

const OTHERS: &[Probe] = &[
    Probe { name: "unshare", reference: "B1.6", control: Some("seccomp"), attempt: unshare_namespaces },
    Probe { name: "personality", reference: "B2.22", control: Some("seccomp"), attempt: personality },
    Probe { name: "ptrace-others", reference: "B1.8", control: None, attempt: ptrace_attach },
    Probe { name: "seccomp-listener", reference: "B2.36", control: None, attempt: seccomp_listener },
    Probe { name: "foreign-entry", reference: "B2.30", control: Some("seccomp"), attempt: foreign_entry },
    Probe { name: "x32-entry", reference: "B2.31", control: None, attempt: x32_entry },
    Probe { name: "unknown-call", reference: "B2.32", control: None, attempt: unknown_call },
    Probe { name: "terminal-injection", reference: "B2.33", control: None, attempt: terminal_injection },
    Probe { name: "seccomp", reference: "B1.11", control: Some("seccomp"), attempt: filter_everywhere },
    Probe { name: "device-node", reference: "B4.52", control: None, attempt: device_node },
];

/// All of them.
pub static PROBES: std::sync::LazyLock<Vec<Probe>> =
    std::sync::LazyLock::new(|| CALLS.iter().chain(FAMILIES).chain(OTHERS).copied().collect());
