//! What the new process does between fork and exec. It shares nothing with pid 1 but open descriptors.

use crate::spec::Spec;
use crate::sys;
use crate::wire::{
    FLAG_GATED, FLAG_JOIN, FLAG_KEEP_GROUPS, FLAG_SUBREAPER, FLAG_TTY, STAGE_CREDENTIALS, STAGE_DIRECTORY, STAGE_EXECUTE, STAGE_GATE,
    STAGE_LIMITS, STAGE_TERMINAL, at,
};

const TIOCSCTTY: usize = 0x540E;
const PR_SET_CHILD_SUBREAPER: usize = 36;
const PR_CAPBSET_DROP: usize = 24;
const PR_CAP_AMBIENT: usize = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const HIGHEST_CAPABILITY: u32 = 63;
const RLIMIT_NOFILE: usize = 7;
const SIG_SETMASK: usize = 2;
const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;
const ENOTDIR: i32 = 20;

/// A start that failed: which stage, which errno.
pub struct Failure {
    pub stage: u32,
    pub errno: i32,
}

fn check(result: isize, stage: u32) -> Result<isize, Failure> {
    if result < 0 { Err(Failure { stage, errno: -result as i32 }) } else { Ok(result) }
}

/// Turns this process into the described one; returns only on failure.
pub fn become_process(spec: &Spec, stdio: [i32; 3], gate: i32) -> Failure {
    match prepare(spec, stdio, gate) {
        Err(failure) => failure,
        Ok(()) if spec.word(at::ARGUMENTS) == 0 => hold(),
        Ok(()) => Failure { stage: STAGE_EXECUTE, errno: execute(spec) },
    }
}

fn prepare(spec: &Spec, stdio: [i32; 3], gate: i32) -> Result<(), Failure> {
    let flags = spec.word(at::FLAGS);
    check(sys!(SETSID), STAGE_TERMINAL)?;
    if flags & FLAG_TTY != 0 {
        check(sys!(IOCTL, stdio[0], TIOCSCTTY, 0), STAGE_TERMINAL)?;
    }
    for (target, fd) in stdio.iter().enumerate() {
        check(sys!(DUP3, *fd, target, 0), STAGE_TERMINAL)?;
    }
    if flags & FLAG_GATED != 0 {
        let mut byte = 0u8;
        if sys!(READ, gate, &raw mut byte, 1) != 1 {
            return Err(Failure { stage: STAGE_GATE, errno: 0 });
        }
    }
    if flags & FLAG_JOIN != 0 {
        check(sys!(WRITE, gate, c"0".as_ptr(), 1), STAGE_GATE)?;
    }
    if flags & FLAG_SUBREAPER != 0 {
        check(sys!(PRCTL, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), STAGE_GATE)?;
    }
    limits(spec)?;
    credentials(spec)?;
    check(sys!(CHDIR, spec.directory), STAGE_DIRECTORY)?;
    sys!(UMASK, spec.word(at::UMASK));
    reset_signals();
    Ok(())
}

fn limits(spec: &Spec) -> Result<(), Failure> {
    let files = u64::from(spec.word(at::OPEN_FILES));
    if files != 0 {
        let limit = [files, files];
        check(sys!(PRLIMIT64, 0, RLIMIT_NOFILE, limit.as_ptr(), 0), STAGE_LIMITS)?;
    }
    Ok(())
}

/// Bounding set first (it needs SETPCAP), then groups and ids, then exactly the asked capabilities.
fn credentials(spec: &Spec) -> Result<(), Failure> {
    let keep = u64::from(spec.word(at::CAPS_LOW)) | (u64::from(spec.word(at::CAPS_HIGH)) << 32);
    for capability in 0..=HIGHEST_CAPABILITY {
        if keep & (1 << capability) == 0 && sys!(PRCTL, PR_CAPBSET_DROP, capability, 0, 0) < 0 {
            break; // EINVAL: past the kernel's last capability
        }
    }
    sys!(PRCTL, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0);
    let (uid, gid) = (spec.word(at::UID), spec.word(at::GID));
    if spec.word(at::FLAGS) & FLAG_KEEP_GROUPS == 0 {
        check(sys!(SETGROUPS, spec.word(at::GROUPS), spec.groups()), STAGE_CREDENTIALS)?;
    }
    check(sys!(SETRESGID, gid, gid, gid), STAGE_CREDENTIALS)?;
    check(sys!(SETRESUID, uid, uid, uid), STAGE_CREDENTIALS)?;
    let (low, high) = (spec.word(at::CAPS_LOW), spec.word(at::CAPS_HIGH));
    let header = [CAPABILITY_VERSION_3, 0];
    let data = [low, low, 0, high, high, 0];
    check(sys!(CAPSET, header.as_ptr(), data.as_ptr()), STAGE_CREDENTIALS)?;
    Ok(())
}

fn reset_signals() {
    let empty = 0u64;
    sys!(SIGPROCMASK, SIG_SETMASK, &raw const empty, 0, 8);
}

/// Nothing is executed: the process is there until it is signalled, and the sandbox with it. It keeps nothing of pid 1's.
fn hold() -> ! {
    const MOST_DESCRIPTORS: i32 = 1024;
    for fd in 3..MOST_DESCRIPTORS {
        crate::close(fd);
    }
    loop {
        sys!(POLL, 0, 0, 0, 0, 8, 0);
    }
}

/// `execvp`: a name without a slash is looked for along PATH of the new environment. Returns the errno.
fn execute(spec: &Spec) -> i32 {
    // SAFETY: `become_process` made sure that there is at least one argument.
    let name = unsafe { *spec.arguments() };
    if length(name) == 0 {
        return ENOENT;
    }
    if contains_slash(name) {
        return execute_path(spec, name);
    }
    let mut denied = false;
    let mut candidate = [0u8; 4096];
    let mut rest = search_path(spec);
    loop {
        let (taken, more) = join(&mut candidate, rest, name);
        if taken {
            match execute_path(spec, candidate.as_ptr()) {
                ENOENT | ENOTDIR => {}
                EACCES => denied = true,
                errno => return errno,
            }
        }
        match more {
            Some(next) => rest = next,
            None => return if denied { EACCES } else { ENOENT },
        }
    }
}

fn execute_path(spec: &Spec, path: *const u8) -> i32 {
    let errno = -sys!(EXECVE, path, spec.arguments(), spec.environment()) as i32;
    if errno == ENOEXEC { script(spec, path) } else { errno }
}

/// A text file without an interpreter line is run by the shell, as `execvp` does.
fn script(spec: &Spec, path: *const u8) -> i32 {
    const MOST: usize = 64;
    let mut arguments = [core::ptr::null::<u8>(); MOST + 3];
    arguments[0] = c"/bin/sh".as_ptr().cast();
    arguments[1] = path;
    for i in 1..=MOST {
        // SAFETY: the loop stops at the terminating NULL.
        let argument = unsafe { *spec.arguments().add(i) };
        if argument.is_null() {
            sys!(EXECVE, arguments[0], arguments.as_ptr(), spec.environment());
            return ENOEXEC;
        }
        arguments[i + 1] = argument;
    }
    ENOEXEC
}

/// Writes `directory/name` and returns whether it fitted, and the rest of the search path.
fn join(into: &mut [u8; 4096], path: *const u8, name: *const u8) -> (bool, Option<*const u8>) {
    let mut end = 0;
    // SAFETY: both strings are NUL-terminated; every read stops there.
    unsafe {
        while *path.add(end) != 0 && *path.add(end) != b':' {
            end += 1;
        }
        let more = if *path.add(end) == b':' { Some(path.add(end + 1)) } else { None };
        let name_length = length(name);
        if end + name_length + 2 > into.len() {
            return (false, more);
        }
        let mut position = 0;
        while position < end {
            into[position] = *path.add(position);
            position += 1;
        }
        if end > 0 {
            into[position] = b'/';
            position += 1;
        }
        for i in 0..=name_length {
            into[position + i] = *name.add(i);
        }
        (true, more)
    }
}

fn search_path(spec: &Spec) -> *const u8 {
    let mut entry = spec.environment();
    // SAFETY: the environment is NULL-terminated and its strings NUL-terminated.
    unsafe {
        while !(*entry).is_null() {
            let string = *entry;
            if *string == b'P' && *string.add(1) == b'A' && *string.add(2) == b'T' && *string.add(3) == b'H' && *string.add(4) == b'=' {
                return string.add(5);
            }
            entry = entry.add(1);
        }
    }
    c"/usr/local/bin:/usr/bin:/bin".as_ptr().cast()
}

fn contains_slash(string: *const u8) -> bool {
    (0..length(string)).any(|i| {
        // SAFETY: below the string's length.
        unsafe { *string.add(i) == b'/' }
    })
}

fn length(string: *const u8) -> usize {
    // SAFETY: the string is NUL-terminated.
    unsafe { crate::syscall::strlen(string) }
}
