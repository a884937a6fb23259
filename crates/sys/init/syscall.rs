//! System calls without a C library.

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod arch {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const POLL: usize = 271; // ppoll
    pub const MMAP: usize = 9;
    pub const MUNMAP: usize = 11;
    pub const SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const FCNTL: usize = 72;
    pub const DUP3: usize = 292;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SENDMSG: usize = 46;
    pub const RECVMSG: usize = 47;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FSTAT: usize = 5;
    pub const UMASK: usize = 95;
    pub const CHDIR: usize = 80;
    pub const SETSID: usize = 112;
    pub const SETGROUPS: usize = 116;
    pub const SETRESUID: usize = 117;
    pub const SETRESGID: usize = 119;
    pub const CAPSET: usize = 126;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
    pub const OPENAT: usize = 257;
    pub const FCHOWN: usize = 93;
    pub const SIGNALFD4: usize = 289;
    pub const PIPE2: usize = 293;
    pub const PRLIMIT64: usize = 302;
    pub const MOUNT: usize = 165;
    pub const MKDIRAT: usize = 258;
    pub const FCHDIR: usize = 81;
    pub const PIVOT_ROOT: usize = 155;
    pub const UMOUNT2: usize = 166;
    pub const SETHOSTNAME: usize = 170;
    pub const UNSHARE: usize = 272;
    pub const SETNS: usize = 308;
    pub const SECCOMP: usize = 317;
    pub const EXECVEAT: usize = 322;
    pub const CHROOT: usize = 161;
}

#[cfg(target_arch = "aarch64")]
mod arch {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const POLL: usize = 73;
    pub const MMAP: usize = 222;
    pub const MUNMAP: usize = 215;
    pub const SIGPROCMASK: usize = 135;
    pub const IOCTL: usize = 29;
    pub const FCNTL: usize = 25;
    pub const DUP3: usize = 24;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const SENDMSG: usize = 211;
    pub const RECVMSG: usize = 212;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const FSTAT: usize = 80;
    pub const UMASK: usize = 166;
    pub const CHDIR: usize = 49;
    pub const SETSID: usize = 157;
    pub const SETGROUPS: usize = 159;
    pub const SETRESUID: usize = 147;
    pub const SETRESGID: usize = 149;
    pub const CAPSET: usize = 91;
    pub const PRCTL: usize = 167;
    pub const EXIT_GROUP: usize = 94;
    pub const OPENAT: usize = 56;
    pub const FCHOWN: usize = 55;
    pub const SIGNALFD4: usize = 74;
    pub const PIPE2: usize = 59;
    pub const PRLIMIT64: usize = 261;
    pub const MOUNT: usize = 40;
    pub const MKDIRAT: usize = 34;
    pub const FCHDIR: usize = 50;
    pub const PIVOT_ROOT: usize = 41;
    pub const UMOUNT2: usize = 39;
    pub const SETHOSTNAME: usize = 161;
    pub const UNSHARE: usize = 97;
    pub const SETNS: usize = 268;
    pub const SECCOMP: usize = 277;
    pub const EXECVEAT: usize = 281;
    pub const CHROOT: usize = 51;
}

/// Numbers that are the same everywhere: calls added since 2019.
pub mod nr {
    pub use super::arch::*;
    pub const OPENAT2: usize = 437;
    pub const MOVE_MOUNT: usize = 429;
    pub const OPEN_TREE: usize = 428;
    pub const FSOPEN: usize = 430;
    pub const FSCONFIG: usize = 431;
    pub const FSMOUNT: usize = 432;
    pub const MOUNT_SETATTR: usize = 442;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const LANDLOCK_CREATE_RULESET: usize = 444;
    pub const LANDLOCK_ADD_RULE: usize = 445;
    pub const LANDLOCK_RESTRICT_SELF: usize = 446;
}

/// One system call with up to six arguments; a negative result is `-errno`.
#[inline(always)]
pub fn call(number: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the kernel checks every pointer argument; registers clobbered by the instruction are declared.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
             in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] as isize => result, in("x1") a[1], in("x2") a[2],
             in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
    }
    result
}

/// `call` with the arguments that matter.
#[macro_export]
macro_rules! sys {
    ($nr:ident) => { $crate::syscall::call($crate::syscall::nr::$nr, [0; 6]) };
    ($nr:ident, $a:expr) => { $crate::syscall::call($crate::syscall::nr::$nr, [$a as usize, 0, 0, 0, 0, 0]) };
    ($nr:ident, $a:expr, $b:expr) => { $crate::syscall::call($crate::syscall::nr::$nr, [$a as usize, $b as usize, 0, 0, 0, 0]) };
    ($nr:ident, $a:expr, $b:expr, $c:expr) => {
        $crate::syscall::call($crate::syscall::nr::$nr, [$a as usize, $b as usize, $c as usize, 0, 0, 0])
    };
    ($nr:ident, $a:expr, $b:expr, $c:expr, $d:expr) => {
        $crate::syscall::call($crate::syscall::nr::$nr, [$a as usize, $b as usize, $c as usize, $d as usize, 0, 0])
    };
    ($nr:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        $crate::syscall::call($crate::syscall::nr::$nr, [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, 0])
    };
    ($nr:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::syscall::call($crate::syscall::nr::$nr, [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize])
    };
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {enter}", "ud2", enter = sym crate::enter
);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x0, sp", "bl {enter}", "brk #1", enter = sym crate::enter);

/// Copies bytes; the compiler calls it by name.
///
/// # Safety
/// As the C function of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    let mut i = 0;
    while i < count {
        // SAFETY: the caller promises both ranges; volatile keeps the compiler from turning the loop into a call to itself.
        unsafe { to.add(i).write_volatile(from.add(i).read()) };
        i += 1;
    }
    to
}

/// Fills bytes; the compiler calls it by name.
///
/// # Safety
/// As the C function of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    let mut i = 0;
    while i < count {
        // SAFETY: as in `memcpy`.
        unsafe { to.add(i).write_volatile(byte as u8) };
        i += 1;
    }
    to
}

/// Compares bytes; the compiler calls it by name.
///
/// # Safety
/// As the C function of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    let mut i = 0;
    while i < count {
        // SAFETY: the caller promises both ranges.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// Length of a NUL-terminated string; the compiler calls it by name.
///
/// # Safety
/// As the C function of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the caller promises the terminating NUL; volatile as in `memcpy`.
    while unsafe { string.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}

/// Named by unwind tables in the precompiled core library; nothing here unwinds.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}
