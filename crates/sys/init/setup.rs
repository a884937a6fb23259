//! What a sandbox's first process does before it executes pid 1. Order:
//!
//! ```text
//! before GO   cgroups, cgroup namespace; a proc file system of its own; the spawner's is covered (`emptied`)
//! after GO    pid 1's user; attach the sandbox's root above the empty one and enter it
//!             attach, mask and protect mounts; host name
//!             descriptors, limits, Landlock, capabilities, no_new_privs, seccomp; execute pid 1
//! ```
//! What lies below the sandbox's root is an empty read-only file system: the process never sees the host's mounts. Every path
//! is resolved inside the new root without following any link. A step that fails is reported as `REPLY_SETUP_FAILED`, and the
//! child ends.

use crate::channel::{CONTROL, receive_bytes, send_to};
use crate::emptied;
use crate::plan_wire::{
    MOST_MOUNTS, REPLY_SETUP_FAILED, REQUEST_GO, SETUP_CAPABILITIES, SETUP_CGROUPS, SETUP_DESCRIPTORS, SETUP_EXECUTE, SETUP_FILTER,
    SETUP_HOSTNAME, SETUP_IDENTITY, SETUP_LANDLOCK, SETUP_LIMITS, SETUP_NAMESPACE, SETUP_PROC, SETUP_ROOT, SETUP_STEP, STEP_ATTACH,
    STEP_MASK_DIRECTORY, STEP_MASK_FILE, STEP_PROC, plan_at as at,
};
use crate::spawner::{PROGRAM, SOCKET};
use crate::{AT_FDCWD, O_CLOEXEC, PR_SET_DUMPABLE, close, exit, sys};

const LEASE: i32 = 4;
const FIRST_FREE: i32 = 5;
const O_PATH: usize = 0o10_000_000;
const O_RDWR: usize = 2;
pub const AT_EMPTY_PATH: usize = 0x1000;
pub const OPEN_TREE_CLONE: usize = 1;
pub const MOVE_FROM_FD: usize = 0x04;
const MOVE_TO_FD: usize = 0x40;
const CLONE_NEWCGROUP: usize = 0x200_0000;
const MS_PRIVATE: u64 = 0x4_0000;
const MS_BIND: usize = 0x1000;
const FSCONFIG_CMD_CREATE: usize = 6;
pub const ATTR_READ_ONLY: u64 = 1;
pub const ATTR_NOSUID_NODEV_NOEXEC: usize = 0xE;
const NO_LINKS_IN_ROOT: u64 = 0x04 | 0x02 | 0x10;
const F_DUPFD: usize = 0;

/// Descriptors that the child starts with.
pub struct Inherited<'a> {
    /// Its end of the control socket.
    pub control: i32,
    /// Keeps the id range leased.
    pub lease: i32,
    /// `tasks` files of version 1 groups.
    pub tasks: &'a [i32],
}

/// A plan in the form of `plan_wire`, checked so far that no offset leaves it.
pub struct Plan {
    base: *const u8,
    length: usize,
}

/// One mount step.
struct Step {
    kind: u32,
    first: usize,
    second: usize,
    path: *const u8,
}

impl Plan {
    /// Checks the offsets.
    ///
    /// # Safety
    /// `base` is aligned to 8 and `length` bytes there stay as they are for as long as the plan is used.
    pub unsafe fn new(base: *const u8, length: usize) -> Option<Self> {
        let plan = Self { base, length };
        let inside = |offset: usize, count: usize, size: usize| {
            let word = |index: usize| plan.word(index) as usize;
            let end = word(count).checked_mul(size).and_then(|bytes| bytes.checked_add(word(offset)));
            end.is_some_and(|end| end <= length) && word(offset) % 4 == 0
        };
        let header = length >= 4 * at::HEADER_WORDS;
        // The last byte ends every string.
        let sound = header
            && inside(at::STEPS, at::STEP_COUNT, 16)
            && inside(at::FILTER, at::FILTER_COUNT, 8)
            && inside(at::LIMITS, at::LIMIT_COUNT, 16)
            && plan.byte(length - 1) == 0;
        sound.then_some(plan)
    }

    /// Whether an ordinary user is to write the maps of its user namespace.
    pub fn is_unprivileged(&self) -> bool {
        self.word(at::UNPRIVILEGED) != 0
    }

    fn byte(&self, offset: usize) -> u8 {
        // SAFETY: callers stay below the length, which `new` was promised.
        unsafe { self.base.add(offset).read() }
    }

    fn word(&self, index: usize) -> u32 {
        // SAFETY: `new` made sure of the header and of every table that is indexed; the base is aligned.
        unsafe { self.base.cast::<u32>().add(index).read() }
    }

    fn string(&self, offset: u32) -> *const u8 {
        let offset = (offset as usize).min(self.length - 1);
        // SAFETY: within the plan, whose last byte is a NUL.
        unsafe { self.base.add(offset) }
    }

    fn step(&self, index: u32) -> Step {
        let first = (self.word(at::STEPS) / 4 + 4 * index) as usize;
        let [kind, a, b, path] = [0, 1, 2, 3].map(|word| self.word(first + word));
        let most = MOST_MOUNTS - 1;
        Step { kind, first: (a as usize).min(most), second: (b as usize).min(most), path: self.string(path) }
    }
}

/// Where set-up failed: stage, errno, index of the step.
pub struct Failure {
    pub stage: u32,
    pub errno: u32,
    pub step: u32,
}

pub type Outcome = Result<(), Failure>;

/// A failure of a stage if the kernel said so.
pub fn check(stage: u32, result: isize) -> Result<isize, Failure> {
    if result < 0 { Err(Failure { stage, errno: (-result) as u32, step: 0 }) } else { Ok(result) }
}

/// Sets up and executes pid 1.
pub fn run(plan: &Plan, fds: &Inherited<'_>) -> ! {
    // A spawner that is killed now must be seen to have ended.
    close(SOCKET);
    let failure = match before_go(plan, fds) {
        Err(failure) => failure,
        Ok(proc) => {
            let mut mounts = [-1; MOST_MOUNTS];
            let mut words = [0u32; 4];
            let got = receive_bytes(fds.control, words.as_mut_ptr().cast(), 16, &mut mounts);
            if got != 16 || words[0] != REQUEST_GO {
                exit();
            }
            after_go(plan, fds, proc, &mounts)
        }
    };
    let words = [REPLY_SETUP_FAILED, failure.step, failure.stage, failure.errno];
    // The control socket may have moved to its final number already.
    send_to(if failure.stage > SETUP_DESCRIPTORS { CONTROL } else { fds.control }, words, &[]);
    exit()
}

/// Returns the mount of proc.
fn before_go(plan: &Plan, fds: &Inherited<'_>) -> Result<isize, Failure> {
    for tasks in fds.tasks {
        check(SETUP_CGROUPS, sys!(WRITE, *tasks, c"0".as_ptr(), 1))?;
    }
    check(SETUP_NAMESPACE, sys!(UNSHARE, CLONE_NEWCGROUP))?;
    let proc = new_mount(SETUP_PROC, c"proc".as_ptr().cast(), ATTR_NOSUID_NODEV_NOEXEC)?;
    emptied::cover(SETUP_PROC)?;
    Ok(proc)
}

/// Returns only what went wrong.
fn after_go(plan: &Plan, fds: &Inherited<'_>, proc: isize, mounts: &[i32; MOST_MOUNTS]) -> Failure {
    let done = identity(plan)
        .and_then(|()| enter_root(mounts[0]))
        .and_then(|()| steps(plan, proc, mounts))
        .and_then(|()| {
            let (name, bytes) = (plan.string(plan.word(at::HOSTNAME)), plan.word(at::HOSTNAME_BYTES));
            check(SETUP_HOSTNAME, sys!(SETHOSTNAME, name, bytes)).map(|_| ())
        })
        .and_then(|()| descriptors(fds))
        .and_then(|()| limits(plan))
        .and_then(|()| landlock(plan.word(at::LANDLOCK)))
        .and_then(|()| capabilities(plan))
        .and_then(|()| filter(plan))
        .and_then(|()| execute());
    match done {
        Err(failure) => failure,
        Ok(()) => exit(),
    }
}

fn identity(plan: &Plan) -> Outcome {
    if plan.word(at::KEEP_GROUPS) == 0 {
        check(SETUP_IDENTITY, sys!(SETGROUPS, 0, 0))?;
    }
    let (user, group) = (plan.word(at::USER), plan.word(at::GROUP));
    check(SETUP_IDENTITY, sys!(SETRESGID, group, group, group))?;
    check(SETUP_IDENTITY, sys!(SETRESUID, user, user, user))?;
    // Changing ids to the mounter's makes some kernels reset it.
    check(SETUP_IDENTITY, sys!(PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0)).map(|_| ())
}

fn enter_root(root: i32) -> Outcome {
    check(SETUP_ROOT, sys!(MOVE_MOUNT, root, c"".as_ptr(), AT_FDCWD, c"/".as_ptr(), MOVE_FROM_FD))?;
    check(SETUP_ROOT, sys!(FCHDIR, root))?;
    check(SETUP_ROOT, sys!(CHROOT, c".".as_ptr())).map(|_| ())
}

fn steps(plan: &Plan, proc: isize, mounts: &[i32; MOST_MOUNTS]) -> Outcome {
    let mut covers = Covers::default();
    for index in 0..plan.word(at::STEP_COUNT) {
        mount_step(&plan.step(index), proc, mounts, &mut covers).map_err(|failure| Failure { step: index, ..failure })?;
    }
    Ok(())
}

/// Places where a mask stands already.
#[derive(Default)]
struct Covers {
    file: Option<*const u8>,
    directory: Option<*const u8>,
}

fn mount_step(step: &Step, proc: isize, mounts: &[i32; MOST_MOUNTS], covers: &mut Covers) -> Outcome {
    if matches!(step.kind, STEP_MASK_FILE | STEP_MASK_DIRECTORY) && covers.copied_to(step) {
        return Ok(());
    }
    let how = [(O_PATH | O_CLOEXEC) as u64, 0, NO_LINKS_IN_ROOT];
    let place = sys!(OPENAT2, AT_FDCWD, step.path, how.as_ptr(), 24);
    if place < 0 && !matches!(step.kind, STEP_ATTACH | STEP_PROC) {
        return Ok(());
    }
    let place = check(SETUP_STEP, place)?;
    match step.kind {
        STEP_ATTACH => attach(mounts[step.first] as isize, place),
        STEP_PROC => attach(proc, place),
        STEP_MASK_FILE | STEP_MASK_DIRECTORY => {
            let (cover, first) = match is_directory(place)? {
                true => (mounts[step.second], &mut covers.directory),
                false => (mounts[step.first], &mut covers.file),
            };
            *first = Some(step.path);
            // Before 6.15 only what is attached can be copied: there it is a mount of its own.
            let copy = copy_of(cover as isize);
            attach(if copy == NOT_ATTACHED { cover as isize } else { check(SETUP_STEP, copy)? }, place)?;
            close(copy as i32);
            Ok(())
        }
        _ => {
            let copy = check(SETUP_STEP, copy_of(place))?;
            let attributes = [ATTR_READ_ONLY, 0, MS_PRIVATE, 0];
            check(SETUP_STEP, sys!(MOUNT_SETATTR, copy, c"".as_ptr(), AT_EMPTY_PATH, attributes.as_ptr(), 32))?;
            attach(copy, place)?;
            close(copy as i32);
            Ok(())
        }
    }
}

impl Covers {
    /// Covers a place with what covers another of its kind; false if that did not work, for whatever reason: then it is done step by step.
    /// One call instead of six: masks lie on the sandbox's own proc file system, where no name of theirs is a link and nobody else changes
    /// anything. The kind is the one that it has on the kernels that we know: a copy that cannot be attached costs a wait for every
    /// processor.
    fn copied_to(&self, step: &Step) -> bool {
        let cover = if step.kind == STEP_MASK_FILE { self.file } else { self.directory };
        cover.is_some_and(|cover| sys!(MOUNT, cover, step.path, 0, MS_BIND, 0) >= 0)
    }
}

/// Attaches a mount and closes the descriptor of the place.
fn attach(mount: isize, place: isize) -> Outcome {
    check(SETUP_STEP, sys!(MOVE_MOUNT, mount, c"".as_ptr(), place, c"".as_ptr(), MOVE_FROM_FD | MOVE_TO_FD))?;
    close(place as i32);
    Ok(())
}

/// EINVAL.
const NOT_ATTACHED: isize = -22;

fn copy_of(mount: isize) -> isize {
    sys!(OPEN_TREE, mount, c"".as_ptr(), OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH)
}

/// A file system of a kind, with mount attributes, attached nowhere.
pub fn new_mount(stage: u32, kind: *const u8, attributes: usize) -> Result<isize, Failure> {
    let context = check(stage, sys!(FSOPEN, kind, 1))?;
    check(stage, sys!(FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0))?;
    let mount = check(stage, sys!(FSMOUNT, context, 1, attributes))?;
    close(context as i32);
    Ok(mount)
}

fn is_directory(place: isize) -> Result<bool, Failure> {
    const STAT_BYTES: usize = 144;
    const TYPE_MASK: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    /// Offset of `st_mode` in the kernel's `struct stat`, in words.
    const MODE: usize = if cfg!(target_arch = "x86_64") { 6 } else { 4 };
    let mut stat = [0u32; STAT_BYTES / 4];
    check(SETUP_STEP, sys!(FSTAT, place, stat.as_mut_ptr()))?;
    Ok(stat[MODE] & TYPE_MASK == DIRECTORY)
}

/// 0 to 2: the sandbox's own null device; 3: control; 4: lease; nothing else survives the exec. The program to execute
/// is kept aside at a high number first, so that it cannot be in the way.
fn descriptors(fds: &Inherited<'_>) -> Outcome {
    const ASIDE: usize = 512;
    let failed = |result| check(SETUP_DESCRIPTORS, result);
    failed(sys!(SETSID))?;
    let control = failed(sys!(FCNTL, fds.control, F_DUPFD, ASIDE))?;
    let lease = failed(sys!(FCNTL, fds.lease, F_DUPFD, ASIDE))?;
    let program = failed(sys!(FCNTL, PROGRAM, F_DUPFD, ASIDE))?;
    let opened = failed(sys!(OPENAT, AT_FDCWD, c"/dev/null".as_ptr(), O_RDWR, 0))?;
    let null = failed(sys!(FCNTL, opened, F_DUPFD, ASIDE))?;
    for (from, to) in [(null, 0), (null, 1), (null, 2), (control, CONTROL), (lease, LEASE)] {
        failed(sys!(DUP3, from, to, 0))?;
    }
    failed(sys!(DUP3, program, FIRST_FREE, O_CLOEXEC))?;
    failed(sys!(CLOSE_RANGE, FIRST_FREE + 1, u32::MAX, 0)).map(|_| ())
}

fn limits(plan: &Plan) -> Outcome {
    for index in 0..plan.word(at::LIMIT_COUNT) {
        let first = (plan.word(at::LIMITS) / 4 + 4 * index) as usize;
        let value = u64::from(plan.word(first + 2)) | u64::from(plan.word(first + 3)) << 32;
        let limit = [value, value];
        check(SETUP_LIMITS, sys!(PRLIMIT64, 0, plan.word(first), limit.as_ptr(), 0))?;
    }
    Ok(())
}

/// A second fence behind mount options and seccomp: no device nodes can be made, device ioctls work below /dev only,
/// and no signal or abstract socket crosses the sandbox's border.
pub fn landlock(version: u32) -> Outcome {
    const MAKE_CHAR: u64 = 1 << 6;
    const MAKE_BLOCK: u64 = 1 << 11;
    const REFER: u64 = 1 << 13;
    const IOCTL_DEVICE: u64 = 1 << 15;
    const SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS: u64 = 3;
    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        parent: i32,
    }
    if version < 2 {
        return Ok(()); // the first version would forbid every move between directories
    }
    let devices = if version >= 5 { IOCTL_DEVICE } else { 0 };
    let scope = if version >= 6 { SCOPE_SIGNALS_AND_ABSTRACT_SOCKETS } else { 0 };
    let attributes = [MAKE_CHAR | MAKE_BLOCK | REFER | devices, 0, scope];
    let failed = |result| check(SETUP_LANDLOCK, result);
    let rules = failed(sys!(LANDLOCK_CREATE_RULESET, attributes.as_ptr(), if version >= 6 { 24 } else { 8 }, 0))?;
    for (path, access) in [(c"/", REFER), (c"/dev", devices)] {
        if access == 0 {
            continue;
        }
        let place = failed(sys!(OPENAT, AT_FDCWD, path.as_ptr(), O_PATH | O_CLOEXEC, 0))?;
        let rule = PathBeneath { access, parent: place as i32 };
        failed(sys!(LANDLOCK_ADD_RULE, rules, 1, &raw const rule, 0))?;
        close(place as i32);
    }
    no_new_privileges(SETUP_LANDLOCK)?;
    failed(sys!(LANDLOCK_RESTRICT_SELF, rules, 0))?;
    close(rules as i32);
    Ok(())
}

fn no_new_privileges(stage: u32) -> Outcome {
    const PR_SET_NO_NEW_PRIVS: usize = 38;
    check(stage, sys!(PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).map(|_| ())
}

fn capabilities(plan: &Plan) -> Outcome {
    const PR_CAPBSET_DROP: usize = 24;
    const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let (low, high) = (plan.word(at::CAPS_LOW), plan.word(at::CAPS_HIGH));
    let keep = u64::from(low) | u64::from(high) << 32;
    for capability in 0..64 {
        if keep & (1 << capability) == 0 && sys!(PRCTL, PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
            break; // EINVAL: past the kernel's last capability
        }
    }
    let header = [CAPABILITY_VERSION_3, 0];
    let data = [low, low, 0, high, high, 0];
    check(SETUP_CAPABILITIES, sys!(CAPSET, header.as_ptr(), data.as_ptr()))?;
    no_new_privileges(SETUP_CAPABILITIES)
}

fn filter(plan: &Plan) -> Outcome {
    install_filter(plan.string(plan.word(at::FILTER)), plan.word(at::FILTER_COUNT))
}

/// From now on this process is under a filter of so many instructions; of none, it is as it was.
pub fn install_filter(instructions: *const u8, count: u32) -> Outcome {
    const SECCOMP_SET_MODE_FILTER: usize = 1;
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const u8,
    }
    if count == 0 {
        return Ok(());
    }
    let program = Program { length: count as u16, instructions };
    check(SETUP_FILTER, sys!(SECCOMP, SECCOMP_SET_MODE_FILTER, 0, &raw const program)).map(|_| ())
}

fn execute() -> Outcome {
    let arguments = [c"cofferdam-init".as_ptr(), core::ptr::null()];
    let environment = [core::ptr::null::<u8>()];
    let (path, flags) = (c"".as_ptr(), AT_EMPTY_PATH);
    check(SETUP_EXECUTE, sys!(EXECVEAT, FIRST_FREE, path, arguments.as_ptr(), environment.as_ptr(), flags)).map(|_| ())
}
