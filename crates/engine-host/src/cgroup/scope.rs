//! A control group for an ordinary user, asked of systemd: what a login gives its processes is not theirs to divide.
//!
//! The user's own service manager makes a transient scope, delegated, and moves this process there; when its last process has ended, the
//! scope is gone with everything below it. Asked with `busctl`, which is there wherever systemd is: the answer has to come while this process
//! has one thread, and a D-Bus client that is a library brings threads of its own.

use super::hierarchy::{Hierarchies, SUPERVISORS, of_groups};
use cofferdam_sys::process::read_kernel_file;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

const OWN_GROUPS: &str = "/proc/self/cgroup";
const MOST_WAIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// A scope that was asked for.
#[derive(Debug)]
pub struct Asked {
    child: Child,
    name: String,
}

/// Asks for one, if this process has no group of its own, and this user a service manager. Does not wait.
pub fn ask() -> Option<Asked> {
    let user = rustix::process::geteuid().as_raw();
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let run = named.unwrap_or_else(|| PathBuf::from(format!("/run/user/{user}")));
    let theirs = std::fs::metadata(run.join("bus")).is_ok_and(|bus| bus.uid() == user);
    if !theirs || has_own() {
        return None;
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let pid = std::process::id();
    let name = format!("cofferdam-{pid}-{now:x}.scope");
    let mut tool = Command::new("busctl");
    tool.env("XDG_RUNTIME_DIR", run).args(words(&name, pid)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(Asked { child: tool.spawn().ok()?, name })
}

/// The call, as its tool takes it. <https://www.freedesktop.org/wiki/Software/systemd/dbus/> has its signature.
fn words(name: &str, pid: u32) -> Vec<String> {
    let method =
        "--user --timeout=2 call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager StartTransientUnit";
    let properties =
        format!("5 PIDs au 1 {pid} Delegate b true TasksMax t {} CollectMode s inactive-or-failed Description s cofferdam 0", u64::MAX);
    let arguments = method.split(' ').chain(["ssa(sv)a(sa(sv))", name, "fail"]).chain(properties.split(' '));
    arguments.map(str::to_owned).collect()
}

/// Whether the version 2 group of this process is this user's to divide, or cannot be by way of systemd.
fn has_own() -> bool {
    let host = Hierarchies::detect();
    let groups = read_kernel_file(Path::new(OWN_GROUPS)).unwrap_or_default();
    match (host.describe(), host.unified(), of_groups(&groups, "")) {
        ("v2", Some(root), Some(own)) => own.ends_with(SUPERVISORS) || is_its_alone(&root.join(own.trim_matches('/'))),
        _ => true,
    }
}

/// Whether this process is alone in a group that it may divide. Others would be moved about without being asked.
fn is_its_alone(group: &Path) -> bool {
    let alone = |procs: String| procs.split_whitespace().eq([std::process::id().to_string()]);
    read_kernel_file(&group.join("cgroup.procs")).is_ok_and(alone) && Hierarchies::detect_own().missing().is_empty()
}

impl Asked {
    /// Waits until this process is there. If systemd refuses, it stays where it is.
    pub fn wait(mut self) {
        let until = Instant::now() + MOST_WAIT;
        if !self.child.wait().is_ok_and(|status| status.success()) {
            return;
        }
        while !read_kernel_file(Path::new(OWN_GROUPS)).unwrap_or_default().contains(&self.name) && Instant::now() < until {
            sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn the_call_has_as_many_values_as_it_announces() {
        let words = words("a.scope", 7);
        assert_eq!(words[6..10], ["StartTransientUnit", "ssa(sv)a(sa(sv))", "a.scope", "fail"]);
        let rest = words[10..].join(" ");
        assert_eq!(
            rest,
            "5 PIDs au 1 7 Delegate b true TasksMax t 18446744073709551615 CollectMode s inactive-or-failed Description s cofferdam 0"
        );
    }
}
