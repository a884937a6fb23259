//! A new sandbox: `clone3`, and what its first process does before it executes pid 1.
//!
//! The child is a copy of a small single-threaded process and makes raw system calls only: no allocation, no lock, no
//! libc state but errno. Its first call makes it non-dumpable. Order:
//!
//! ```text
//! parent                                     child
//! clone3 ───────────────────────────────────▶ PR_SET_DUMPABLE 0
//! write id maps, attach cgroups, make mounts  wait on the control socket
//! send GO with the mounts ──────────────────▶ cgroup namespace, uid 0 of its own range
//!                                             attach root, attach and mask mounts, pivot, detach the old root
//!                                             limits, Landlock, capabilities, no_new_privs, seccomp
//! requests of `init_wire` ──────────────────▶ execute pid 1 (control socket = descriptor 3)
//! ```
//! Parent and child share one table of descriptors until the child's second call, which takes a copy of its lowest part
//! only (`CLOSE_RANGE_UNSHARE`): a process with thousands of sandboxes clones as fast as one with ten. What the child needs lies
//! in [`Slots`] at the bottom of the table; the parent must not touch them before the child has said `REPLY_UNSHARED`.
//!
//! A step that fails is reported as `REPLY_SETUP_FAILED` with its stage and errno, and the child exits.

use crate::bpf::Instruction;
use crate::error::check;
use crate::{Error, Result};
use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Request: the child may go on. Descriptors: the root mount, then those that steps name by index.
pub const REQUEST_GO: u32 = 32;
/// Reply: set-up stopped at stage `a` (see [`stage_name`]) with errno `b`; `id` is the index of the mount step if any.
pub const REPLY_SETUP_FAILED: u32 = 33;

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CONTROL_FD: c_int = 3;
const LEASE_FD: c_int = 4;
const FIRST_FREE_FD: c_int = 5;
/// Reply: the child has a table of descriptors of its own.
pub const REPLY_UNSHARED: u32 = 34;
/// Most descriptors handed over with GO.
pub const MOST_MOUNTS: usize = 200;

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_IN_ROOT: u64 = 0x10;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const OPEN_TREE_CLONE: u32 = 1;

/// One thing to do to the new root before it becomes the root. Paths are relative to it and resolved inside it without
/// following any link.
#[derive(Debug)]
pub enum Step {
    /// Attach the handed-over mount with this index (0 is the root itself).
    Attach(usize, CString),
    /// Mount a proc file system of the new pid namespace.
    Proc(CString),
    /// Make what is there read-only, by a mount of it onto itself. Skipped where it does not exist.
    ReadOnly(CString),
    /// Hide a file or directory behind the handed-over mounts with these indexes (an empty file, an empty
    /// directory). Skipped where it does not exist.
    Mask(CString, usize, usize),
}

impl Step {
    /// Where it acts, relative to the new root.
    pub fn place(&self) -> String {
        let (Self::Attach(_, path) | Self::Proc(path) | Self::ReadOnly(path) | Self::Mask(path, ..)) = self;
        path.to_string_lossy().into_owned()
    }
}

/// Everything the child needs, prepared before it exists.
#[derive(Debug)]
pub struct Plan {
    /// A directory of the host that exists; the new root is attached there in the child's mount namespace only.
    pub staging: CString,
    /// What to mount, in order.
    pub steps: Vec<Step>,
    /// Host name inside.
    pub hostname: CString,
    /// Capabilities that pid 1 keeps, a bit each.
    pub capabilities: u64,
    /// The system call filter; empty for none.
    pub filter: Vec<Instruction>,
    /// Landlock version to use; None for none.
    pub landlock: Option<u32>,
    /// Resource limits: `RLIMIT_*`, soft and hard.
    pub limits: Vec<(u32, u64)>,
}

/// A child that waits for GO.
#[derive(Debug)]
pub struct Cloned {
    /// Its pid in the caller's pid namespace.
    pub pid: u32,
    /// Its descriptor.
    pub pidfd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Descriptor numbers at the bottom of the table, reserved while the process has few open files.
#[derive(Debug)]
pub struct Slots {
    fds: Vec<OwnedFd>,
}

impl Slots {
    /// Control, program, lease, and a `tasks` file for each of version 1's controllers.
    const COUNT: usize = 3 + 8;
    const LOWEST: c_int = 10;

    /// Reserves them.
    pub fn reserve() -> Result<Self> {
        let error = |e| Error::new("reserve descriptors", e);
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()).map_err(error)?;
        let fds: std::result::Result<Vec<OwnedFd>, _> =
            (0..Self::COUNT).map(|_| rustix::io::fcntl_dupfd_cloexec(&null, Self::LOWEST)).collect();
        Ok(Self { fds: fds.map_err(error)? })
    }

    fn put(&mut self, index: usize, fd: BorrowedFd<'_>) -> Result<c_int> {
        let slot = self.fds.get_mut(index).ok_or_else(|| Error::new("dup3 into a slot", rustix::io::Errno::MFILE))?;
        rustix::io::dup3(fd, slot, rustix::io::DupFlags::CLOEXEC).map_err(|e| Error::new("dup3 into a slot", e))?;
        Ok(slot.as_raw_fd())
    }

    /// Empties them: a control socket that stayed open here would keep a dead sandbox looking alive.
    pub fn clear(&mut self) -> Result<()> {
        let error = |e| Error::new("clear descriptors", e);
        let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()).map_err(error)?;
        self.fds.iter_mut().try_for_each(|slot| rustix::io::dup3(&null, slot, rustix::io::DupFlags::CLOEXEC)).map_err(error)
    }

    fn highest(&self) -> c_int {
        self.fds.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(0)
    }
}

/// Waits until a cloned child has a table of descriptors of its own, or has ended: the slots keep its end of the
/// socket open, so its death would not show there.
pub fn wait_unshared(control: BorrowedFd<'_>, pidfd: BorrowedFd<'_>) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut polled = [PollFd::new(&control, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
    while let Err(error) = poll(&mut polled, None) {
        if error != rustix::io::Errno::INTR {
            return Err(Error::new("poll", error));
        }
    }
    if polled[0].revents().is_empty() {
        return Err(Error::new("wait for the new process", std::io::Error::other("it ended")));
    }
    match crate::channel::receive_words(control)? {
        Some(([REPLY_UNSHARED, ..], _)) => Ok(()),
        _ => Err(Error::new("wait for the new process", std::io::Error::other("it ended"))),
    }
}

/// Clones a child into new user, mount, pid, ipc and uts namespaces (the network namespace is the caller's current one,
/// the cgroup namespace comes once it is attached). `control` is the child's end of a socket pair, `init` the program it
/// will execute, `lease` a descriptor that it keeps open for as long as it lives.
pub fn clone(
    plan: &Plan,
    control: BorrowedFd<'_>,
    init: BorrowedFd<'_>,
    lease: BorrowedFd<'_>,
    cgroups: &Cgroups,
    slots: &mut Slots,
) -> Result<Cloned> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: c_int = -1;
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let mut arguments = CloneArgs {
        flags: (namespaces | libc::CLONE_PIDFD | libc::CLONE_FILES) as u64 | if cgroups.entrance.is_some() { CLONE_INTO_CGROUP } else { 0 },
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroups.entrance.as_ref().map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    let mut fds = Inherited {
        control: slots.put(0, control)?,
        init: slots.put(1, init)?,
        lease: slots.put(2, lease)?,
        tasks: [-1; Slots::COUNT],
        highest: slots.highest(),
    };
    for (index, tasks) in cgroups.tasks.iter().enumerate() {
        fds.tasks[index] = slots.put(3 + index, tasks.as_fd())?;
    }
    // SAFETY: without CLONE_VM the child has its own copy of memory and runs only `run`, which never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    if pid == 0 {
        run(plan, &fds);
    }
    let pid = check(pid, "clone3")? as u32;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Cloned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// The control groups that the child enters. It enters version 1's by itself: a thread that moves itself takes no lock
/// of the kernel's, while moving another process waits for a grace period of several milliseconds.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// A version 2 group to be created in.
    pub entrance: Option<OwnedFd>,
    /// The `tasks` files of version 1 groups, open for writing.
    pub tasks: Vec<OwnedFd>,
}

struct Inherited {
    control: c_int,
    init: c_int,
    lease: c_int,
    tasks: [c_int; Slots::COUNT],
    highest: c_int,
}

/// Where set-up failed.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Stage {
    Namespace = 1,
    Identity,
    AttachRoot,
    MountStep,
    Pivot,
    Hostname,
    Descriptors,
    Limits,
    Landlock,
    Capabilities,
    Seccomp,
    Execute,
    Cgroups,
}

/// A stage of [`REPLY_SETUP_FAILED`] in words.
pub fn stage_name(stage: u32) -> &'static str {
    match stage {
        1 => "cgroup namespace",
        2 => "identity",
        3 => "attaching the root",
        4 => "mounting",
        5 => "changing the root",
        6 => "host name",
        7 => "descriptors",
        8 => "resource limits",
        9 => "Landlock",
        10 => "capabilities",
        11 => "seccomp",
        12 => "executing pid 1",
        13 => "entering the cgroups",
        _ => "an unknown step",
    }
}

/// Fails with the stage if a raw call did.
macro_rules! raw {
    ($stage:expr, $number:expr $(, $argument:expr)*) => {{
        // SAFETY: every pointer passed refers to live memory of this process; the kernel validates the rest.
        let result = unsafe { libc::syscall($number $(, $argument)*) };
        if result < 0 {
            return Err(($stage, 0));
        }
        result
    }};
}

type StepResult = std::result::Result<(), (Stage, u32)>;

fn run(plan: &Plan, fds: &Inherited) -> ! {
    // SAFETY: raw calls with constant arguments.
    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    // SAFETY: constant arguments; from here on the table of descriptors is the child's own.
    if unsafe { libc::syscall(libc::SYS_close_range, fds.highest + 1, u32::MAX, CLOSE_RANGE_UNSHARE) } < 0 {
        exit();
    }
    say(fds.control, [REPLY_UNSHARED, 0, 0, 0]);
    let mut handed = [-1; MOST_MOUNTS];
    if !receive_go(fds.control, &mut handed) {
        exit();
    }
    let Err((stage, index)) = set_up(plan, fds, &handed);
    // SAFETY: errno is thread-local memory.
    let errno = unsafe { *libc::__errno_location() };
    let words = [REPLY_SETUP_FAILED, index, stage as u32, errno as u32];
    // The control socket may have moved to its final number already; one of the two sends reaches the supervisor.
    if !say(fds.control, words) {
        say(CONTROL_FD, words);
    }
    exit()
}

/// Sends a message to the supervisor.
fn say(socket: c_int, words: [u32; 4]) -> bool {
    // SAFETY: sends 16 bytes from a live array.
    let sent = unsafe { libc::syscall(libc::SYS_sendto, socket, words.as_ptr(), 16, libc::MSG_NOSIGNAL, 0, 0) };
    sent == 16
}

fn exit() -> ! {
    loop {
        // SAFETY: ends the process without running anything of the copied one.
        unsafe { libc::syscall(libc::SYS_exit_group, 125) };
    }
}

fn set_up(plan: &Plan, fds: &Inherited, handed: &[c_int; MOST_MOUNTS]) -> std::result::Result<std::convert::Infallible, (Stage, u32)> {
    for tasks in fds.tasks.iter().take_while(|tasks| **tasks >= 0) {
        raw!(Stage::Cgroups, libc::SYS_write, *tasks, c"0".as_ptr(), 1);
    }
    raw!(Stage::Namespace, libc::SYS_unshare, libc::CLONE_NEWCGROUP);
    raw!(Stage::Identity, libc::SYS_setgroups, 0, 0);
    raw!(Stage::Identity, libc::SYS_setresgid, 0, 0, 0);
    raw!(Stage::Identity, libc::SYS_setresuid, 0, 0, 0);
    // Changing ids to the mounter's makes some kernels reset it.
    raw!(Stage::Identity, libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    attach_root(plan, handed[0])?;
    for (index, step) in plan.steps.iter().enumerate() {
        if mount_step(step, handed).is_err() {
            return Err((Stage::MountStep, index as u32));
        }
    }
    pivot()?;
    raw!(Stage::Hostname, libc::SYS_sethostname, plan.hostname.as_ptr(), plan.hostname.as_bytes().len());
    descriptors(fds)?;
    for (resource, value) in &plan.limits {
        let limit = [*value, *value];
        raw!(Stage::Limits, libc::SYS_prlimit64, 0, *resource, limit.as_ptr(), 0);
    }
    if let Some(version) = plan.landlock {
        landlock(version)?;
    }
    capabilities(plan.capabilities)?;
    if !plan.filter.is_empty() {
        filter(&plan.filter)?;
    }
    execute()
}

fn attach_root(plan: &Plan, root: c_int) -> StepResult {
    let nothing = std::ptr::null::<c_char>();
    raw!(Stage::AttachRoot, libc::SYS_mount, nothing, c"/".as_ptr(), nothing, libc::MS_REC | libc::MS_PRIVATE, nothing);
    raw!(Stage::AttachRoot, libc::SYS_move_mount, root, c"".as_ptr(), libc::AT_FDCWD, plan.staging.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
    raw!(Stage::AttachRoot, libc::SYS_fchdir, root);
    Ok(())
}

/// Opens a path inside the new root (the working directory) without following any link; -1 if that fails.
fn open_inside(path: &CStr) -> c_long {
    let how = [libc::O_PATH as u64 | libc::O_CLOEXEC as u64, 0, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS];
    // SAFETY: the path and the structure are live; the size is the structure's.
    unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), 24) }
}

fn attach(mount: c_long, place: c_long) -> StepResult {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    raw!(Stage::MountStep, libc::SYS_move_mount, mount, c"".as_ptr(), place, c"".as_ptr(), flags);
    Ok(())
}

fn close(fd: c_long) {
    // SAFETY: closes a descriptor of ours.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

fn mount_step(step: &Step, handed: &[c_int; MOST_MOUNTS]) -> StepResult {
    match step {
        Step::Attach(index, path) => {
            let place = open_inside(path);
            if place < 0 {
                return Err((Stage::MountStep, 0));
            }
            attach(c_long::from(handed[*index]), place)?;
            close(place);
            Ok(())
        }
        Step::Proc(path) => mount_proc(path),
        Step::ReadOnly(path) => read_only(path),
        Step::Mask(path, file, directory) => mask(path, handed[*file], handed[*directory]),
    }
}

fn mount_proc(path: &CStr) -> StepResult {
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const NOSUID_NODEV_NOEXEC: u32 = 0xE;
    let null = std::ptr::null::<c_char>();
    let context = raw!(Stage::MountStep, libc::SYS_fsopen, c"proc".as_ptr(), 1);
    raw!(Stage::MountStep, libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, null, null, 0);
    let mount = raw!(Stage::MountStep, libc::SYS_fsmount, context, 1, NOSUID_NODEV_NOEXEC);
    let place = open_inside(path);
    attach(mount, place)?;
    for fd in [context, mount, place] {
        close(fd);
    }
    Ok(())
}

fn read_only(path: &CStr) -> StepResult {
    let place = open_inside(path);
    if place < 0 {
        return Ok(());
    }
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    let mount = raw!(Stage::MountStep, libc::SYS_open_tree, place, c"".as_ptr(), flags);
    let attributes = [crate::mount::attr::READ_ONLY, 0, libc::MS_PRIVATE, 0];
    raw!(Stage::MountStep, libc::SYS_mount_setattr, mount, c"".as_ptr(), libc::AT_EMPTY_PATH, attributes.as_ptr(), 32);
    attach(mount, place)?;
    close(mount);
    close(place);
    Ok(())
}

fn mask(path: &CStr, file: c_int, directory: c_int) -> StepResult {
    let place = open_inside(path);
    if place < 0 {
        return Ok(());
    }
    // SAFETY: all-zero is a valid stat structure.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is live; fstat on an O_PATH descriptor is allowed.
    if unsafe { libc::fstat(place as c_int, &raw mut stat) } != 0 {
        return Err((Stage::MountStep, 0));
    }
    let cover = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR { directory } else { file };
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    let mount = raw!(Stage::MountStep, libc::SYS_open_tree, cover, c"".as_ptr(), flags);
    attach(mount, place)?;
    close(mount);
    close(place);
    Ok(())
}

fn pivot() -> StepResult {
    raw!(Stage::Pivot, libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr());
    raw!(Stage::Pivot, libc::SYS_umount2, c".".as_ptr(), libc::MNT_DETACH);
    raw!(Stage::Pivot, libc::SYS_chdir, c"/".as_ptr());
    Ok(())
}

/// 0 to 2: the sandbox's own null device; 3: control; 4: lease; nothing else survives the exec. The program to execute
/// is kept aside at a high number first, so that it cannot be in the way.
fn descriptors(fds: &Inherited) -> StepResult {
    const ASIDE: c_int = 100;
    raw!(Stage::Descriptors, libc::SYS_setsid);
    let control = raw!(Stage::Descriptors, libc::SYS_fcntl, fds.control, libc::F_DUPFD, ASIDE) as c_int;
    let lease = raw!(Stage::Descriptors, libc::SYS_fcntl, fds.lease, libc::F_DUPFD, ASIDE) as c_int;
    let init = raw!(Stage::Descriptors, libc::SYS_fcntl, fds.init, libc::F_DUPFD, ASIDE) as c_int;
    let null = raw!(Stage::Descriptors, libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR) as c_int;
    let null = raw!(Stage::Descriptors, libc::SYS_fcntl, null, libc::F_DUPFD, ASIDE) as c_int;
    for (from, to) in [(null, 0), (null, 1), (null, 2), (control, CONTROL_FD), (lease, LEASE_FD)] {
        raw!(Stage::Descriptors, libc::SYS_dup3, from, to, 0);
    }
    raw!(Stage::Descriptors, libc::SYS_dup3, init, FIRST_FREE_FD, libc::O_CLOEXEC);
    raw!(Stage::Descriptors, libc::SYS_close_range, FIRST_FREE_FD + 1, u32::MAX, 0);
    Ok(())
}

/// A second fence behind mount options and seccomp: no device nodes can be made, device ioctls work below /dev only,
/// and no signal or abstract socket crosses the sandbox's border.
fn landlock(version: u32) -> StepResult {
    const MAKE_CHAR: u64 = 1 << 6;
    const MAKE_BLOCK: u64 = 1 << 11;
    const REFER: u64 = 1 << 13;
    const IOCTL_DEVICE: u64 = 1 << 15;
    const SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS: u64 = 3;
    if version < 2 {
        return Ok(()); // the first version would forbid every move between directories
    }
    let devices = if version >= 5 { IOCTL_DEVICE } else { 0 };
    let scope = if version >= 6 { SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS } else { 0 };
    let attributes = [MAKE_CHAR | MAKE_BLOCK | REFER | devices, 0, scope];
    let size = if version >= 6 { 24 } else { 8 };
    let rules = raw!(Stage::Landlock, libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0);
    for (path, access) in [(c"/", REFER), (c"/dev", devices)] {
        if access == 0 {
            continue;
        }
        let place = raw!(Stage::Landlock, libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
        #[repr(C, packed)]
        struct PathBeneath {
            access: u64,
            parent: i32,
        }
        let rule = PathBeneath { access, parent: place as i32 };
        raw!(Stage::Landlock, libc::SYS_landlock_add_rule, rules, 1, &raw const rule, 0);
        close(place);
    }
    no_new_privileges(Stage::Landlock)?;
    raw!(Stage::Landlock, libc::SYS_landlock_restrict_self, rules, 0);
    close(rules);
    Ok(())
}

fn no_new_privileges(stage: Stage) -> StepResult {
    raw!(stage, libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    Ok(())
}

fn capabilities(keep: u64) -> StepResult {
    const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    for capability in 0..64 {
        // SAFETY: constant arguments.
        let dropped =
            keep & (1 << capability) != 0 || unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } == 0;
        if !dropped {
            break; // EINVAL: past the kernel's last capability
        }
    }
    let header = [CAPABILITY_VERSION_3, 0];
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    raw!(Stage::Capabilities, libc::SYS_capset, header.as_ptr(), data.as_ptr());
    no_new_privileges(Stage::Capabilities)
}

fn filter(program: &[Instruction]) -> StepResult {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let program = Program { length: program.len() as u16, instructions: program.as_ptr() };
    raw!(Stage::Seccomp, libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program);
    Ok(())
}

fn execute() -> std::result::Result<std::convert::Infallible, (Stage, u32)> {
    let arguments = [c"cofferdam-init".as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<c_char>()];
    raw!(Stage::Execute, libc::SYS_execveat, FIRST_FREE_FD, c"".as_ptr(), arguments.as_ptr(), environment.as_ptr(), libc::AT_EMPTY_PATH);
    Err((Stage::Execute, 0))
}

#[repr(C, align(8))]
struct Control {
    bytes: [u8; 16 + 4 * MOST_MOUNTS],
}

/// Waits for GO and takes the descriptors that come with it.
fn receive_go(socket: c_int, handed: &mut [c_int; MOST_MOUNTS]) -> bool {
    let mut words = [0u32; 4];
    let mut vector = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: 16 };
    let mut control = Control { bytes: [0; 16 + 4 * MOST_MOUNTS] };
    // SAFETY: all-zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header and everything it points to is live.
    let got = unsafe { libc::syscall(libc::SYS_recvmsg, socket, &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    if got != 16 || words[0] != REQUEST_GO || header.msg_controllen < 16 {
        return false;
    }
    let length = u64::from_ne_bytes([
        control.bytes[0],
        control.bytes[1],
        control.bytes[2],
        control.bytes[3],
        control.bytes[4],
        control.bytes[5],
        control.bytes[6],
        control.bytes[7],
    ]) as usize;
    let count = length.saturating_sub(16) / 4;
    for (slot, chunk) in handed.iter_mut().zip(control.bytes[16..].chunks_exact(4)).take(count) {
        *slot = c_int::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    count > 0
}
