//! System calls by number, for probes that ask what the kernel allows.

use std::io;

/// Any system call with six word arguments. Pointers are passed as addresses of live memory by the caller; the kernel
/// checks them, but a call that writes through one can break the process: probes run in processes of their own.
pub fn call(number: i64, arguments: [u64; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the kernel validates every argument; see above for what callers accept.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The number of a system call on this architecture, for the calls that probes use.
pub fn number(name: &str) -> Option<i64> {
    let table: &[(&str, i64)] = &[
        ("acct", libc::SYS_acct),
        ("add_key", libc::SYS_add_key),
        ("bpf", libc::SYS_bpf),
        ("chroot", libc::SYS_chroot),
        ("clock_adjtime", libc::SYS_clock_adjtime),
        ("clock_settime", libc::SYS_clock_settime),
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("delete_module", libc::SYS_delete_module),
        ("execveat", libc::SYS_execveat),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("finit_module", libc::SYS_finit_module),
        ("fsmount", libc::SYS_fsmount),
        ("fsopen", libc::SYS_fsopen),
        ("init_module", libc::SYS_init_module),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("ioctl", libc::SYS_ioctl),
        ("kcmp", libc::SYS_kcmp),
        ("kexec_load", libc::SYS_kexec_load),
        ("keyctl", libc::SYS_keyctl),
        ("lookup_dcookie", libc::SYS_lookup_dcookie),
        ("memfd_secret", 447),
        ("mknodat", libc::SYS_mknodat),
        ("mount", libc::SYS_mount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("move_mount", libc::SYS_move_mount),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("open_tree", libc::SYS_open_tree),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("personality", libc::SYS_personality),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("pivot_root", libc::SYS_pivot_root),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("process_vm_writev", libc::SYS_process_vm_writev),
        ("ptrace", libc::SYS_ptrace),
        ("quotactl", libc::SYS_quotactl),
        ("reboot", libc::SYS_reboot),
        ("request_key", libc::SYS_request_key),
        ("seccomp", libc::SYS_seccomp),
        ("setdomainname", libc::SYS_setdomainname),
        ("sethostname", libc::SYS_sethostname),
        ("setns", libc::SYS_setns),
        ("settimeofday", libc::SYS_settimeofday),
        ("socket", libc::SYS_socket),
        ("swapoff", libc::SYS_swapoff),
        ("swapon", libc::SYS_swapon),
        ("syslog", libc::SYS_syslog),
        ("umount2", libc::SYS_umount2),
        ("unshare", libc::SYS_unshare),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("vmsplice", libc::SYS_vmsplice),
    ];
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// `getpid` through the 32-bit entry (`int 0x80`), in a child process: Ok(true) if it worked, Ok(false) if the child was
/// killed or the call refused. None where the architecture has no such entry.
pub fn foreign_entry() -> Option<io::Result<bool>> {
    #[cfg(target_arch = "x86_64")]
    return Some(foreign_entry_x86());
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(target_arch = "x86_64")]
fn foreign_entry_x86() -> io::Result<bool> {
    const GETPID_32: u64 = 20;
    // SAFETY: the child calls nothing but the probe and `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let result: i64;
            // SAFETY: getpid has no arguments and no side effects; r8 to r11 may be clobbered by the 32-bit entry.
            unsafe {
                core::arch::asm!("int 0x80", inlateout("rax") GETPID_32 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
                libc::_exit(i32::from(result <= 0));
            }
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            Ok(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0)
        }
    }
}

/// How many more Landlock domains a process can enter, found out by a child that enters them; None without Landlock. The
/// kernel allows 16 in all (`LANDLOCK_MAX_NUM_LAYERS`), so fewer than that shows that there is one already.
pub fn landlock_layers_left() -> Option<u32> {
    const MAKE_BLOCK: u64 = 1 << 11;
    const PR_SET_NO_NEW_PRIVS: i32 = 38;
    const MOST: i32 = 16;
    crate::process::landlock_version()?;
    // SAFETY: the child makes raw system calls only, and `_exit`.
    match unsafe { libc::fork() } {
        -1 => None,
        0 => {
            let handled = MAKE_BLOCK;
            let mut layers = 0;
            // SAFETY: the attribute is live and 8 bytes long; the other arguments are numbers.
            unsafe {
                libc::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                while layers < MOST {
                    let rules = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, 8usize, 0u32);
                    if rules < 0 || libc::syscall(libc::SYS_landlock_restrict_self, rules, 0u32) != 0 {
                        break;
                    }
                    layers += 1;
                }
                libc::_exit(layers)
            }
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status) as u32)
        }
    }
}
