//! Three small programs in one file, chosen by how it is executed: the *spawner* beside a supervisor, *pid 1* of each sandbox, and
//! pid 1 of a container that another runtime made (`contained`).
//!
//! The spawner (`cofferdam-spawner`) is the only process that clones sandboxes. It is executed with an empty environment
//! and holds nothing but its socket and its own program, so there is nothing to read in the memory that a new sandbox
//! starts from. Its child sets the sandbox up (`setup`) and executes the same file as `cofferdam-init`.
//!
//! Nothing here allocates or links a library; it is compiled by the build script of `sys`.
#![no_std]
#![no_main]

mod channel;
mod contained;
mod emptied;
mod launch;
mod pid_one;
#[path = "../src/plan_wire.rs"]
#[allow(dead_code)]
mod plan_wire;
mod setup;
mod spawner;
mod spec;
mod syscall;
#[path = "../src/init_wire.rs"]
#[allow(dead_code)]
mod wire;

const PR_SET_DUMPABLE: usize = 4;
const F_SETFD: usize = 2;
const FD_CLOEXEC: usize = 1;
static ALL_SIGNALS: u64 = !0;
const O_CLOEXEC: usize = 0o2_000_000;
const AT_FDCWD: isize = -100;
const SIGCHLD: usize = 17;

/// Entered from `_start` with the stack as the kernel left it: the number of arguments, then their addresses.
pub extern "C" fn enter(stack: *const *const u8) -> ! {
    sys!(PRCTL, PR_SET_DUMPABLE, 0, 0, 0);
    sys!(SIGPROCMASK, 0, &raw const ALL_SIGNALS, 0, 8);
    // SAFETY: the kernel puts the count there, and at least as many addresses of strings as it says.
    let (spawner, socket, fenced) = unsafe {
        let count = stack.read() as usize;
        let socket = if count > 1 { stack.add(2).read() } else { core::ptr::null() };
        if count > 1 && is(socket, c"healthy") {
            // A daemon asks whether a process can be started here: it can.
            sys!(EXIT_GROUP, 0);
        }
        (count > 0 && is(stack.add(1).read(), c"cofferdam-spawner"), socket, count <= 2)
    };
    match (spawner, socket.is_null()) {
        (true, _) => spawner::main_loop(),
        (false, true) => pid_one::main_loop(false),
        // SAFETY: an argument of this program ends in NUL.
        (false, false) => unsafe { contained::main_loop(socket, fenced) },
    }
}

/// Whether a string is the wanted one.
///
/// # Safety
/// `name` ends in NUL.
unsafe fn is(name: *const u8, wanted: &core::ffi::CStr) -> bool {
    for (index, byte) in wanted.to_bytes_with_nul().iter().enumerate() {
        // SAFETY: every byte before was equal and not the last, so the string goes on.
        if unsafe { name.add(index).read() } != *byte {
            return false;
        }
    }
    true
}

fn close(fd: i32) {
    if fd >= 0 {
        sys!(CLOSE, fd);
    }
}

fn exit() -> ! {
    loop {
        sys!(EXIT_GROUP, 125);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit()
}
