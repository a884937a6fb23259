//! The capabilities that a sandbox's processes may hold. Numbers: `linux/capability.h`.

/// Change owners, within the sandbox's own id range.
pub const CHOWN: u64 = 1 << 0;
/// Pass permission checks on files, within the range.
pub const DAC_OVERRIDE: u64 = 1 << 1;
/// Act as owner of files, within the range.
pub const FOWNER: u64 = 1 << 3;
/// Signal processes of other users of the sandbox.
pub const KILL: u64 = 1 << 5;
/// Become another group of the sandbox.
pub const SETGID: u64 = 1 << 6;
/// Become another user of the sandbox.
pub const SETUID: u64 = 1 << 7;
/// Drop capabilities from the bounding set.
pub const SETPCAP: u64 = 1 << 8;

/// What uid 0 of a sandbox holds: enough for a package manager and for switching users, in its own id range only.
pub const ROOT: u64 = CHOWN | DAC_OVERRIDE | FOWNER | KILL | SETGID | SETUID;

/// What pid 1 holds: what it may hand on to uid 0, and the right to drop the rest.
pub const PID_ONE: u64 = ROOT | SETPCAP;

/// Every capability that there is: what a test gives to show that the bound is noticed.
pub const EVERY: u64 = (1 << 41) - 1;

/// Names, by number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The names of these capabilities, without `CAP_`.
pub fn names(set: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(number, _)| set & (1 << number) != 0).map(|(_, name)| *name)
}

/// What a process of this user holds. Every user but uid 0 holds nothing.
pub const fn of_user(uid: u32) -> u64 {
    if uid == 0 { ROOT } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        let shown: Vec<&str> = names(PID_ONE).collect();
        assert_eq!(shown, ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SETPCAP"]);
        assert_eq!(names(EVERY).last(), Some("CHECKPOINT_RESTORE"));
    }

    #[test]
    fn only_uid_zero_holds_anything() {
        assert_eq!(of_user(0), 0b1110_1011);
        for uid in [1, 1000, 10001, 65534, u32::MAX] {
            assert_eq!(of_user(uid), 0);
        }
    }
}
