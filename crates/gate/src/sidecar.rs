//! The gate as a sidecar: where a sandbox's network cannot be entered from outside, a container shares it with the workload and makes it into
//! two before the workload starts.
//!
//! ```text
//! shared with the workload                  │ the sidecar's own
//! loopback, rules, listeners ── sockets ────┼─▶ gate ─▶ every link that there was, with its addresses and routes
//! ```
//! Nothing tells the sidecar's packets from the workload's, no mark, user or group: they are in another network. A workload that took away
//! every rule would be left with a loopback device, as everywhere. If the sidecar ends, its network and the links in it go too.

mod pair;

use crate::dial::{Dialer, WayOut};
use crate::protocol::Outside;
use crate::sandbox::{Sandbox, Sockets};
use crate::wire::{self, Listeners, Reach, Unplugged, Wire, read_refusals};
use cofferdam_policy::egress::Policy;
use cofferdam_sys::{Result, mount, readiness};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// With any of these a workload could undo what the sidecar has set up, or be taken for somebody else.
pub const REFUSED: &[&str] = &["NET_RAW", "NET_ADMIN", "SETUID", "SETGID", "SYS_ADMIN"];

/// What a sidecar's container needs: to split the network and read its settings, and to become nobody.
pub const NEEDED: &[&str] = &["NET_ADMIN", "SYS_ADMIN", "SETUID", "SETGID"];

/// Settings of the shared network that have to be 0: both families are on, and low ports are for everybody. A sidecar sets them where it may; a security
/// module may forbid that, then its container is started so.
pub const SETTINGS: &[&str] = &[
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.default.disable_ipv6",
    "net.ipv6.conf.lo.disable_ipv6",
];

/// The first capability of a list of names (`CAP_` before them or not, in any case) that no workload beside a sidecar may hold.
pub fn refused_capability(names: &str) -> Option<&'static str> {
    names.split(',').map(|name| name.trim().to_ascii_uppercase()).find_map(|name| {
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        // Whoever holds every one holds these.
        REFUSED.iter().copied().find(|refused| *refused == name || name == "ALL")
    })
}

/// A process in this one's network, as far as it can see any, that holds one of them.
pub fn refused_beside() -> Option<(u32, &'static str)> {
    const NUMBERS: &[(&str, u32)] = &[("SETGID", 6), ("SETUID", 7), ("NET_ADMIN", 12), ("NET_RAW", 13), ("SYS_ADMIN", 21)];
    let network = std::fs::read_link("/proc/self/ns/net").ok()?;
    let own = std::process::id();
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own && std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other == network)).find_map(
        |pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            // What it may have again counts, too.
            let held = status.lines().filter_map(|line| line.strip_prefix("CapPrm:").or_else(|| line.strip_prefix("CapBnd:")));
            let held = held.filter_map(|hex| u64::from_str_radix(hex.trim(), 16).ok()).fold(0, |all, some| all | some);
            NUMBERS.iter().find(|(_, number)| held >> number & 1 == 1).map(|(name, _)| (pid, *name))
        },
    )
}

/// Splits the network of the calling thread and wires what the workload has of it. Afterwards the thread is in its own, with those that it starts. The
/// process's first thread has to stay behind, so call it in another: whoever joins "the network of the container" joins the first thread's.
pub fn set_up(reach: Reach) -> Result<Wire> {
    let proc = mount::new_fs("proc", &[], 0)?;
    let shared = pair::split()?;
    // A thread of its own stays there to its end.
    let work = || {
        shared.enter()?;
        wire::install_beside(reach, Unplugged::default(), proc.as_fd())
    };
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(cofferdam_sys::Error::new("wire the network", std::io::Error::other("a thread panicked"))))
}

/// A sidecar that no supervisor asks for anything: it has its policy and its record from the start.
pub struct Alone {
    sandbox: Arc<Sandbox>,
    refusals: AbortHandle,
}

impl Alone {
    /// Serves what `wire` delivers. `names` is an empty file for reading and writing, and lasts as long as the network.
    pub fn serve(wire: Wire, policy: Policy, outside: Outside, record: File, names: File) -> io::Result<Self> {
        let Wire { resolver, listeners, refusals } = wire;
        let Some(Listeners { tcp_v4, tcp_v6, dns_tcp }) = listeners else {
            return Err(io::Error::other("the network is wired for no gate"));
        };
        let sockets = Sockets { dns_udp: resolver.into(), dns_tcp, tcp_v4, tcp_v6, record: record.into(), names: names.into() };
        let sandbox = Arc::new(Sandbox::serve(sockets, policy, WayOut::new(&Arc::new(Dialer::default()), outside)?)?);
        rustix::io::ioctl_fionbio(&refusals, true)?;
        let (log, told) = (readiness::register(refusals)?, Arc::clone(&sandbox));
        let refusals = tokio::spawn(async move { read_refusals(&log, |refusal| told.refused(refusal)).await }).abort_handle();
        Ok(Self { sandbox, refusals })
    }

    /// Replaces the policy in one step: its generation, and connections closed for it.
    pub fn replace(&self, policy: Policy) -> (u64, u64) {
        self.sandbox.replace(policy)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.refusals.abort();
        let _ = self.sandbox.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_by_every_name() {
        for (names, refused) in [
            ("", None),
            ("none", None),
            ("CHOWN,KILL", None),
            ("CAP_NET_RAW", Some("NET_RAW")),
            ("chown, cap_setuid", Some("SETUID")),
            ("ALL", Some("NET_RAW")),
        ] {
            assert_eq!(refused_capability(names), refused, "{names}");
        }
    }
}
