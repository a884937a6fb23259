//! Who a process inside is, and what it may not become (B1).

use crate::Probe;
use crate::report::{Finding, check, contained, open, refused};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(|value| value.trim().to_owned())
}

/// Nothing for an ordinary user; for uid 0 the six, in the range only.
fn capabilities() -> Finding {
    const SIX: u64 = 0b1110_1011;
    let allowed = if rustix::process::getuid().is_root() { SIX } else { 0 };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let held = status_field(set).and_then(|value| u64::from_str_radix(&value, 16).ok());
        match held {
            Some(held) if held & !allowed == 0 => {}
            other => return open(format!("{set} is {other:x?}")),
        }
    }
    contained(format!("no set holds more than {allowed:#x}"))
}

fn no_new_privileges() -> Finding {
    check(status_field("NoNewPrivs").as_deref() == Some("1"), format!("NoNewPrivs is {:?}", status_field("NoNewPrivs")))
}

/// A copy of this program with the set-user-id bit must not change who runs it.
fn set_user_id() -> Finding {
    let copy = "/tmp/probe-id";
    let made = fs::copy("/proc/self/exe", copy).and_then(|_| fs::set_permissions(copy, fs::Permissions::from_mode(0o6755)));
    if let Err(error) = made {
        return contained(format!("not even made: {error}"));
    }
    let printed = Command::new(copy).args(["probe", "effective-user"]).output();
    let _ = fs::remove_file(copy);
    let own = rustix::process::getuid().as_raw().to_string();
    match printed {
        Ok(output) => {
            let uid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            check(uid == own, format!("ran as {uid}"))
        }
        Err(error) => contained(error.to_string()),
    }
}

fn id_range() -> Finding {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<u64> = map.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    match fields.as_slice() {
        [0, base, 65_536] if *base >= 65_536 => contained("uid 0 inside is an unprivileged id outside"),
        other => open(format!("{other:?}")),
    }
}

fn groups() -> Finding {
    /// What a group of the host looks like that has no id inside.
    const UNKNOWN: &str = "65534";
    let groups = status_field("Groups").unwrap_or_default();
    let own = rustix::process::getgid().as_raw().to_string();
    let foreign = |group: &str| (group == "0" || group == UNKNOWN) && group != own;
    check(!groups.split_whitespace().any(foreign), format!("supplementary groups: {groups:?}"))
}

fn pid_one_is_closed() -> Finding {
    for file in ["mem", "environ", "maps", "syscall", "stack"] {
        if let Ok(bytes) = fs::read(format!("/proc/1/{file}"))
            && !bytes.is_empty()
        {
            return open(format!("/proc/1/{file} gave {} bytes", bytes.len()));
        }
    }
    for link in ["root", "cwd", "exe", "fd/3", "ns/mnt"] {
        if let Ok(target) = fs::read_link(format!("/proc/1/{link}")) {
            return open(format!("/proc/1/{link} leads to {}", target.display()));
        }
    }
    contained("memory, environment, links and descriptors of pid 1 cannot be read")
}

fn pid_one_survives() -> Finding {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(pid) = Pid::from_raw(1) else { return open("no pid 1") };
    let kill = kill_process(pid, Signal::KILL);
    let term = kill_process(pid, Signal::TERM);
    contained(format!("still here after KILL ({kill:?}) and TERM ({term:?})"))
}

/// Nothing of the host's in the environment.
fn environment() -> Finding {
    const KNOWN: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "COLUMNS", "LINES"];
    let foreign: Vec<String> = std::env::vars()
        .map(|(name, _)| name)
        .filter(|name| !KNOWN.contains(&name.as_str()) && !name.starts_with("COFFERDAM_PROBE"))
        .collect();
    check(foreign.is_empty(), format!("unexpected variables: {foreign:?}"))
}

fn become_root() -> Finding {
    if rustix::process::getuid().is_root() {
        return contained("is uid 0 of its own range already");
    }
    let number = if cfg!(target_arch = "x86_64") { 105 } else { 146 }; // setuid
    refused(cofferdam_sys::raw::call(number, [0; 6]))
}

/// All of them.
pub const PROBES: &[Probe] = &[
    Probe { name: "capabilities", reference: "B1.1", control: Some("capabilities"), attempt: capabilities },
    Probe { name: "no-new-privileges", reference: "B1.2", control: None, attempt: no_new_privileges },
    Probe { name: "set-user-id", reference: "B1.3", control: None, attempt: set_user_id },
    Probe { name: "id-range", reference: "B1.4", control: None, attempt: id_range },
    Probe { name: "groups", reference: "B1.5", control: None, attempt: groups },
    Probe { name: "pid-1-closed", reference: "B1.9", control: None, attempt: pid_one_is_closed },
    Probe { name: "pid-1-survives", reference: "B6.84", control: None, attempt: pid_one_survives },
    Probe { name: "environment", reference: "B1.10", control: None, attempt: environment },
    Probe { name: "become-root", reference: "B1.3", control: None, attempt: become_root },
];
