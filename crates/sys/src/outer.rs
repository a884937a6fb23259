//! The user namespace around an ordinary user's sandboxes: what it owns (network namespaces, mounts), this process may set up, and the
//! sandbox below it may not touch. Ids in it are those of the host, so that nothing in this process changes its name: this
//! user's own, and the subordinate ones where the host gives some.

use crate::error::check;
use crate::ids::{Extent, Owner};
use crate::process::read_kernel_file;
use crate::{Error, Result};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Fewer subordinate ids than this are no use: images name ids up to here.
const USEFUL_IDS: u32 = 65_536;

/// The namespace that this process is in.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// The caller.
    pub own: Owner,
    /// Users and groups that the host gives to the caller.
    pub subordinate: Option<(Extent, Extent)>,
    /// Whether they were wanted.
    pub wanted: bool,
}

static ENTERED: OnceLock<Outer> = OnceLock::new();
static HOST_ROOT: OnceLock<bool> = OnceLock::new();

/// Whether this process is root of a host, with every id at its disposal: not root of a container's few.
pub fn is_host_root() -> bool {
    *HOST_ROOT.get_or_init(|| rustix::process::geteuid().is_root() && maps_every_id())
}

fn maps_every_id() -> bool {
    let map = read_kernel_file(Path::new("/proc/self/uid_map")).unwrap_or_default();
    extents(&map).iter().any(|extent| extent.inside == 0 && extent.outside == 0 && extent.count == u32::MAX)
}

/// The namespace, if this process is in one.
pub fn entered() -> Option<Outer> {
    ENTERED.get().copied()
}

/// Enters one, unless this process is root of the host or was started in one. With `subordinate`, the ids that the host gives to
/// this user come along where there are any. Call it while the process has one thread. After an error before the first step nothing has
/// changed; after one of a later step this process can do little else.
pub fn enter(subordinate: bool) -> Result<()> {
    if is_host_root() || ENTERED.get().is_some() {
        return Ok(());
    }
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let outer = match inherited(own) {
        Some(outer) => outer,
        None => make(own, subordinate)?,
    };
    let _ = ENTERED.set(outer);
    Ok(())
}

/// The one that a parent made: its children have every capability in it.
fn inherited(own: Owner) -> Option<Outer> {
    let status = read_kernel_file(Path::new("/proc/self/status")).ok()?;
    // Who is root of some other namespace has no ambient ones.
    let ambient = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapAmb:")?.trim(), 16).ok())?;
    if ambient & CAP_SYS_ADMIN == 0 || maps_every_id() {
        return None;
    }
    let of = |file: &str, own: u32| {
        let map = extents(&read_kernel_file(Path::new(file)).ok()?);
        map.iter().any(|extent| extent.inside == own).then_some(())?;
        Some(map.into_iter().find(|extent| extent.inside != own && extent.count >= USEFUL_IDS))
    };
    let (users, groups) = (of("/proc/self/uid_map", own.0)?, of("/proc/self/gid_map", own.1)?);
    let run = |extent: Extent| Extent { inside: 0, outside: extent.inside, count: extent.count };
    let subordinate = users.zip(groups).map(|(users, groups)| (run(users), run(groups)));
    Some(Outer { own, subordinate, wanted: subordinate.is_some() })
}

fn make(own: Owner, wanted: bool) -> Result<Outer> {
    let subordinate = if wanted { Subordinate::of(own.0) } else { None };
    // What maps the ids is executed before: in the namespace its privilege would not count.
    let helper = subordinate.and_then(|ids| Some((ids.helper(own)?, ids)));
    // SAFETY: takes no pointers.
    check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }), "unshare(CLONE_NEWUSER)")?;
    let subordinate = helper.and_then(|(child, ids)| run_helper(child).then_some((ids.users, ids.groups)));
    if subordinate.is_none() {
        map_own(own)?;
    }
    keep_capabilities()?;
    Ok(Outer { own, subordinate, wanted })
}

/// This user's id and no other: any process may do that.
fn map_own((user, group): Owner) -> Result<()> {
    let write = |file: &str, text: &str| std::fs::write(file, text).map_err(|e| Error::new(format!("write {file}"), e));
    // Half of it may be done, by a helper that failed at the other.
    if read_kernel_file(Path::new("/proc/self/uid_map")).unwrap_or_default().is_empty() {
        write("/proc/self/uid_map", &format!("{user} {user} 1\n"))?;
    }
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", &format!("{group} {group} 1\n"))
}

/// What this process executes (the spawner) has its rights over the namespace too.
fn keep_capabilities() -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let mut header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    // SAFETY: both structures are valid for this version, and outlive the calls.
    unsafe {
        check(libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()), "capget")?;
        data[2] = data[1];
        data[5] = data[4];
        check(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()), "capset")?;
    }
    let permitted = u64::from(data[1]) | u64::from(data[4]) << 32;
    for capability in (0..64).filter(|bit| permitted & (1 << bit) != 0) {
        // SAFETY: takes no pointers.
        let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability as libc::c_ulong, 0, 0) };
        check(i64::from(raised), "prctl(PR_CAP_AMBIENT_RAISE)")?;
    }
    Ok(())
}

/// Runs of ids in `/etc/subuid` and `/etc/subgid`.
#[derive(Clone, Copy, Debug)]
struct Subordinate {
    users: Extent,
    groups: Extent,
}

impl Subordinate {
    fn of(user: u32) -> Option<Self> {
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let of_user = |line: &&str| line.split(':').nth(2) == Some(&user.to_string());
        let name = accounts.lines().find(of_user).and_then(|line| line.split(':').next()).map(str::to_owned);
        let of = |file: &str| run_of(&std::fs::read_to_string(file).unwrap_or_default(), name.as_deref(), user);
        Some(Self { users: of("/etc/subuid")?, groups: of("/etc/subgid")? })
    }

    /// `newuidmap` and `newgidmap` for this process, waiting for its namespace.
    fn helper(&self, own: Owner) -> Option<Child> {
        let pid = std::process::id();
        let words = |program: &str, own: u32, run: &Extent| {
            format!("{program} {pid} {own} {own} 1 {start} {start} {count}", start = run.outside, count = run.count)
        };
        let script = format!("read _ && {} && {}", words("newuidmap", own.0, &self.users), words("newgidmap", own.1, &self.groups));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok()
    }
}

fn run_helper(mut child: Child) -> bool {
    let told = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(b"\n").is_ok());
    child.wait().is_ok_and(|status| status.success()) && told
}

/// The first run of a user that is long enough: `name-or-id:first:count`.
fn run_of(text: &str, name: Option<&str>, user: u32) -> Option<Extent> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let who = fields.next()?;
        if Some(who) != name && who != user.to_string() {
            return None;
        }
        let (outside, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count >= USEFUL_IDS && outside.checked_add(count).is_some()).then_some(Extent { inside: 0, outside, count: USEFUL_IDS })
    })
}

fn extents(map: &str) -> Vec<Extent> {
    map.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse);
            let mut next = || fields.next()?.ok();
            Some(Extent { inside: next()?, outside: next()?, count: next()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_ids() {
        let text = "daemon:1:2\nada:100000:65536\n1001:200000:70000\nada:300000:65536\n";
        let found = |name, user| run_of(text, name, user).map(|run| (run.outside, run.count));
        assert_eq!(found(Some("ada"), 1000), Some((100_000, 65_536)));
        assert_eq!(found(None, 1001), Some((200_000, 65_536)));
        assert_eq!(found(Some("daemon"), 1), None, "too few");
        assert_eq!(found(Some("bob"), 1002), None);
        assert_eq!(run_of("ada:4294967290:65536", Some("ada"), 1000), None, "beyond the last id");
    }

    #[test]
    fn maps_of_the_kernel() {
        let all = extents("         0          0 4294967295\n");
        assert_eq!(all, [Extent { inside: 0, outside: 0, count: u32::MAX }]);
        assert_eq!(extents("rubbish\n").len(), 0);
    }
}
