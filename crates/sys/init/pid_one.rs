//! Pid 1 of a sandbox: starts the processes it is told to, reaps everything, and ends the sandbox when the main process
//! ends or the supervisor goes away.
//!
//! It runs as uid 0 of the sandbox's own range behind the sandbox's system call filter, non-dumpable, so that nothing
//! inside can trace or read it. Start reading at `main_loop`.

use crate::channel::{CONTROL, Message, receive, send};
use crate::spec::Spec;
use crate::wire::{
    FLAG_GATED, FLAG_JOIN, FLAG_MAIN, FLAG_TTY, REPLY_EXECUTED, REPLY_EXITED, REPLY_FAILED, REPLY_SPAWNED, REQUEST_SIGNAL, REQUEST_SPAWN,
    SIGNAL_EVERYTHING, SIGNAL_GROUP, STAGE_FORK, STAGE_SPEC, STAGE_TERMINAL, at,
};
use crate::{AT_FDCWD, F_SETFD, FD_CLOEXEC, O_CLOEXEC, SIGCHLD, close, exit, launch, sys};

const MOST_PROCESSES: usize = 256;
static SIGCHLD_BIT: u64 = 1 << 16;
const CLONE_PIDFD: usize = 0x1000;
const O_RDWR_NOCTTY_CLOEXEC: usize = 0o2_000_402;
const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGPTPEER: usize = 0x5441;
const TIOCSWINSZ: usize = 0x5414;
const TTY_GROUP: u32 = 5;
const WNOHANG: usize = 1;
const POLLIN: i16 = 1;
/// Keeps the sandbox's id range leased while pid 1 lives; nothing is read from it.
const LEASE: i32 = 4;
const EAGAIN: u32 = 11;
const ESRCH: u32 = 3;
const SIGKILL: usize = 9;

#[repr(C)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

#[derive(Clone, Copy)]
struct Child {
    pid: i32,
    id: u32,
    main: bool,
}

struct Init {
    children: [Child; MOST_PROCESSES],
    count: usize,
    /// Whether it outlives the main process.
    stays: bool,
    /// Whether the main process has ended, and it has stayed.
    over: bool,
}

/// Serves the supervisor until it goes away or the main process ends. One that `stays` ends everything with the main process, but itself: whoever
/// made its control groups would remove them with it, before the supervisor has asked them why.
pub fn main_loop(stays: bool) -> ! {
    for fd in [CONTROL, LEASE] {
        sys!(FCNTL, fd, F_SETFD, FD_CLOEXEC);
    }
    let signals = sys!(SIGNALFD4, -1isize, &raw const SIGCHLD_BIT, 8, O_CLOEXEC) as i32;
    let mut init = Init { children: [Child { pid: 0, id: 0, main: false }; MOST_PROCESSES], count: 0, stays, over: false };
    let mut polled = [PollFd { fd: CONTROL, events: POLLIN, revents: 0 }, PollFd { fd: signals, events: POLLIN, revents: 0 }];
    loop {
        sys!(POLL, polled.as_mut_ptr(), 2, 0, 0, 8, 0);
        if polled[1].revents != 0 {
            let mut drained = [0u64; 16];
            sys!(READ, signals, drained.as_mut_ptr(), 128);
            init.reap();
        }
        if polled[0].revents != 0 {
            match receive() {
                Some(message) => init.handle(&message),
                None => exit(),
            }
        }
    }
}

impl Init {
    fn handle(&mut self, message: &Message) {
        match message.words[0] {
            REQUEST_SPAWN if self.over => fail(message.words[1], STAGE_FORK, ESRCH),
            REQUEST_SPAWN => self.spawn(message),
            REQUEST_SIGNAL => self.signal(message.words),
            _ => {}
        }
        for fd in message.fds {
            close(fd);
        }
    }

    fn signal(&self, words: [u32; 4]) {
        if words[3] == SIGNAL_EVERYTHING {
            sys!(KILL, -1isize, words[2]);
            return;
        }
        for child in &self.children[..self.count] {
            if child.id == words[1] {
                let target = if words[3] == SIGNAL_GROUP { -child.pid } else { child.pid };
                sys!(KILL, target as isize, words[2]);
            }
        }
    }

    fn spawn(&mut self, message: &Message) {
        let id = message.words[1];
        if self.count == MOST_PROCESSES {
            return fail(id, STAGE_FORK, EAGAIN);
        }
        let Some(spec) = Spec::map(message.fds[0]) else {
            return fail(id, STAGE_SPEC, 0);
        };
        let flags = spec.word(at::FLAGS);
        let (stdio, master) = if flags & FLAG_TTY == 0 {
            ([message.fds[1], message.fds[2], message.fds[3]], -1)
        } else {
            match open_terminal(&spec) {
                Ok((master, slave)) => ([slave; 3], master),
                Err(errno) => {
                    spec.unmap();
                    return fail(id, STAGE_TERMINAL, errno);
                }
            }
        };
        let gate = if flags & (FLAG_GATED | FLAG_JOIN) == 0 { -1 } else { message.fds[if master < 0 { 4 } else { 1 }] };
        self.fork(id, &spec, stdio, master, gate);
        if master >= 0 {
            close(stdio[0]);
            close(master);
        }
        spec.unmap();
    }

    fn fork(&mut self, id: u32, spec: &Spec, stdio: [i32; 3], master: i32, gate: i32) {
        let mut pipe = [-1i32; 2];
        if sys!(PIPE2, pipe.as_mut_ptr(), O_CLOEXEC) < 0 {
            return fail(id, STAGE_FORK, EAGAIN);
        }
        let mut pidfd = -1i32;
        let pid = sys!(CLONE, CLONE_PIDFD | SIGCHLD, 0, &raw mut pidfd);
        if pid == 0 {
            close(pipe[0]);
            let failure = launch::become_process(spec, stdio, gate);
            let report = [failure.stage, failure.errno as u32];
            sys!(WRITE, pipe[1], report.as_ptr(), 8);
            exit();
        }
        close(pipe[1]);
        if pid < 0 {
            close(pipe[0]);
            return fail(id, STAGE_FORK, (-pid) as u32);
        }
        let both = [pidfd, master];
        send([REPLY_SPAWNED, id, pid as u32, 0], if master < 0 { &both[..1] } else { &both });
        close(pidfd);
        let mut report = [0u32; 2];
        let failed = sys!(READ, pipe[0], report.as_mut_ptr(), 8) == 8;
        close(pipe[0]);
        if failed {
            fail(id, report[0], report[1]);
        } else {
            send([REPLY_EXECUTED, id, 0, 0], &[]);
            self.children[self.count] = Child { pid: pid as i32, id, main: spec.word(at::FLAGS) & FLAG_MAIN != 0 };
            self.count += 1;
        }
    }

    /// Takes every ended process; when the main one is among them the sandbox ends with it.
    fn reap(&mut self) {
        loop {
            let mut status = 0i32;
            let pid = sys!(WAIT4, -1isize, &raw mut status, WNOHANG, 0) as i32;
            if pid <= 0 {
                return;
            }
            if let Some(index) = self.children[..self.count].iter().position(|child| child.pid == pid) {
                let child = self.children[index];
                self.count -= 1;
                self.children[index] = self.children[self.count];
                send([REPLY_EXITED, child.id, status as u32, 0], &[]);
                if child.main && !self.stays {
                    exit();
                }
                if child.main {
                    self.over = true;
                    sys!(KILL, -1isize, SIGKILL);
                }
            }
        }
    }
}

/// A terminal pair from the sandbox's own devpts, the slave owned by the process's user.
fn open_terminal(spec: &Spec) -> Result<(i32, i32), u32> {
    let master = sys!(OPENAT, AT_FDCWD, c"/dev/ptmx".as_ptr(), O_RDWR_NOCTTY_CLOEXEC, 0);
    if master < 0 {
        return Err((-master) as u32);
    }
    let unlock = 0i32;
    sys!(IOCTL, master, TIOCSPTLCK, &raw const unlock);
    let size = [spec.word(at::ROWS) as u16, spec.word(at::COLUMNS) as u16, 0, 0];
    sys!(IOCTL, master, TIOCSWINSZ, size.as_ptr());
    let slave = sys!(IOCTL, master, TIOCGPTPEER, O_RDWR_NOCTTY_CLOEXEC);
    if slave < 0 {
        close(master as i32);
        return Err((-slave) as u32);
    }
    sys!(FCHOWN, slave, spec.word(at::UID), TTY_GROUP);
    Ok((master as i32, slave as i32))
}

fn fail(id: u32, stage: u32, errno: u32) {
    send([REPLY_FAILED, id, stage, errno], &[]);
}
