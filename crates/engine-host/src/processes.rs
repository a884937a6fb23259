//! The processes of a sandbox, by way of its pid 1: started, joined, signalled, stopped, ended with what they started.

use crate::cgroup::Cgroup;
use crate::pid_one::PidOne;
use crate::watch::{self, Watch};
use cofferdam_engine::{EngineError, Process, ProcessSpec, Stdio, Usage};
use cofferdam_model::Limits;
use cofferdam_policy::capability;
use cofferdam_sys::ids::Ids;
use cofferdam_sys::process;
use cofferdam_sys::spec::{self, Entry};
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
const SIGHUP: i32 = 1;
const UMASK: u32 = 0o022;
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Number of the limit on open files.
const RLIMIT_NOFILE: u32 = 7;

/// An exec'd process: its pid on the host, and its group where it has one.
struct Exec {
    pid: Option<u32>,
    group: Option<Cgroup>,
}

/// The processes of one sandbox.
pub struct Processes {
    pid_one: PidOne,
    pidfd: OwnedFd,
    cgroup: Cgroup,
    open_files: u32,
    of_root: u64,
    ids: Ids,
    /// Where there are no cgroups to do it.
    watch: Option<Watch>,
    main: Mutex<Option<u32>>,
    execs: Mutex<HashMap<u32, Exec>>,
    /// Groups of execs that have ended before what they started.
    left: Mutex<Vec<Cgroup>>,
    next_exec: AtomicU32,
}

impl Processes {
    /// Of the sandbox with this pid 1, whose descriptor is `pidfd`, and these ids. `of_root`: the capabilities of its uid 0.
    pub fn new(pid_one: PidOne, pidfd: OwnedFd, cgroup: Cgroup, ids: Ids, limits: &Limits, of_root: u64) -> Self {
        let alone = !ids.is_range() && !cgroup.limits_memory();
        let watch = if alone { Watch::begin(&pidfd, limits.memory.get()) } else { None };
        let open_files = limits.open_files;
        let (main, execs, left, next_exec) = (Mutex::default(), Mutex::default(), Mutex::default(), AtomicU32::new(1));
        Self { pid_one, pidfd, cgroup, open_files, of_root, ids, watch, main, execs, left, next_exec }
    }

    /// Its groups.
    pub const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Refuses a user that the sandbox's ids have no place for.
    fn check_user(&self, process: &ProcessSpec) -> Result<(), EngineError> {
        let user = &process.user;
        if self.ids.has((user.uid, user.gid)) {
            return Ok(());
        }
        if self.ids.is_range() {
            let what = format!("user {}:{}", user.uid, user.gid);
            return Err(EngineError::Invalid { what, why: "a sandbox has ids from 0 to 65535".into() });
        }
        Err(EngineError::Unsupported {
            what: format!("user {}:{} in this sandbox", user.uid, user.gid),
            why: "it has one user only: this host gives its maker no subordinate ids".into(),
            remedy:
                "start the sandbox as that user (-u), or give yourself subordinate ids (usermod --add-subuids, --add-subgids; newuidmap)"
                    .into(),
        })
    }

    fn describe(&self, process: &ProcessSpec, main: bool) -> spec::ProcessSpec {
        let user = &process.user;
        spec::ProcessSpec {
            arguments: process.command.clone(),
            environment: process.environment.clone(),
            directory: process.directory.clone().into_bytes(),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            keep_groups: !self.ids.groups_settable(),
            capabilities: if user.uid == 0 { self.of_root } else { capability::of_user(user.uid) },
            umask: UMASK,
            open_files: self.open_files.min(u32::try_from(process::hard_limit(RLIMIT_NOFILE)).unwrap_or(u32::MAX)),
            terminal: process.terminal,
            main,
            entry: Entry::None,
        }
    }

    /// Starts the main process.
    pub async fn start(&self, process: &ProcessSpec, stdio: &Stdio) -> Result<Process, EngineError> {
        if !process.command.is_empty() {
            check_command(process)?;
        }
        self.check_user(process)?;
        let spawned = self.pid_one.spawn(&self.describe(process, true), &borrow(stdio)).await?;
        *self.main.lock().unwrap_or_else(PoisonError::into_inner) = Some(spawned.id);
        spawned.executed().await
    }

    /// Starts one more, in a group of its own.
    pub async fn exec(&self, process: &ProcessSpec, stdio: &Stdio) -> Result<Process, EngineError> {
        check_command(process)?;
        self.check_user(process)?;
        if !self.groups_execs() {
            let spec = spec::ProcessSpec { entry: Entry::Subreaper, ..self.describe(process, false) };
            let spawned = self.pid_one.spawn(&spec, &borrow(stdio)).await?;
            let exec = Exec { pid: process::pid_of(spawned.pidfd.as_fd()), group: None };
            self.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(spawned.id, exec);
            return spawned.executed().await;
        }
        let number = self.next_exec.fetch_add(1, Ordering::Relaxed);
        let group = self.cgroup.child(&format!("exec-{number}"))?;
        self.exec_in(&group, process, stdio).await.inspect_err(|_| {
            group.kill();
            group.remove();
        })
    }

    /// Whether there is a group for each exec'd process: its maker may move it there. Subordinate ids are not the maker's to move.
    fn groups_execs(&self) -> bool {
        self.cgroup.has_groups() && (self.ids.is_range() || !self.ids.groups_settable())
    }

    /// Starts a process in a group of its own: it moves itself there where the kernel lets it, else it is moved before
    /// it executes anything.
    async fn exec_in(&self, group: &Cgroup, process: &ProcessSpec, stdio: &Stdio) -> Result<Process, EngineError> {
        let mut entrances = group.entrances()?;
        let (gate_read, gate_write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| EngineError::host("pipe", e))?;
        let tasks = entrances.tasks.pop();
        let mut spec = self.describe(process, false);
        spec.entry = if tasks.is_some() { Entry::Join } else { Entry::Gate };
        let mut fds = borrow(stdio);
        fds.push(tasks.as_ref().unwrap_or(&gate_read).as_fd());
        let spawned = self.pid_one.spawn(&spec, &fds).await?;
        let id = spawned.id;
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Exec { pid: None, group: Some(group.clone()) });
        if spec.entry == Entry::Gate {
            let pid = process::pid_of(spawned.pidfd.as_fd()).ok_or(EngineError::Gone)?;
            group.attach(pid)?;
            std::fs::File::from(gate_write).write_all(&[1]).map_err(|e| EngineError::host("open the process's gate", e))?;
        }
        spawned.executed().await
    }

    /// Signals one.
    pub async fn signal(&self, process: u32, number: i32) {
        self.pid_one.signal(process, number).await;
    }

    /// HUP to an exec'd process and what it has not set free.
    pub async fn hang_up(&self, process: u32) {
        self.pid_one.signal_group(process, SIGHUP).await;
    }

    /// Ends an exec'd process and what it started.
    pub fn end(&self, process: u32) {
        match self.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(&process) {
            Some(Exec { group: Some(group), .. }) => {
                group.kill();
                group.remove();
            }
            Some(Exec { pid: Some(pid), .. }) => watch::end(self.pidfd.as_fd(), pid),
            _ => {}
        }
    }

    /// Forgets an exec'd process that has ended. What it started stays in its group, which goes when it is empty, or with the sandbox.
    pub fn release(&self, process: u32) {
        let exec = self.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.extend(exec.and_then(|exec| exec.group));
        left.retain(|group| !group.is_empty() || !group.remove());
    }

    /// Kills everything, and waits for its end.
    pub async fn kill(&self) {
        if self.pid_one.is_gone() {
            return;
        }
        self.kill_now();
        let _ = tokio::time::timeout(GONE_WITHIN, self.pid_one.wait_gone()).await;
    }

    /// The same without waiting.
    pub fn kill_now(&self) {
        // The process may be gone already: then there is nothing to kill.
        let _ = process::signal(self.pidfd.as_fd(), SIGKILL);
        self.cgroup.kill();
    }

    /// Asks the main process to end, and kills everything that is there after the grace period.
    pub async fn stop(&self, signal: i32, grace: Duration) {
        let main = *self.main.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(main) = main {
            self.pause(false).await;
            self.pid_one.signal(main, signal).await;
            if tokio::time::timeout(grace, self.pid_one.wait_gone()).await.is_ok() {
                return;
            }
        }
        self.kill().await;
    }

    /// Stops every instruction, or goes on. Without a group that freezes, each process is stopped as by job control.
    pub async fn pause(&self, paused: bool) {
        if !self.cgroup.freeze(paused) {
            self.pid_one.signal_everything(if paused { SIGSTOP } else { SIGCONT }).await;
        }
    }

    /// What is used now.
    pub fn usage(&self) -> Usage {
        self.watch.as_ref().map_or_else(|| self.cgroup.usage(), Watch::usage)
    }

    /// Processes killed for want of memory so far.
    pub fn out_of_memory_kills(&self) -> u64 {
        self.watch.as_ref().map_or_else(|| self.cgroup.out_of_memory_kills(), Watch::kills)
    }

    /// Waits until pid 1 has ended with its namespaces; collects it if it is a child of this process.
    pub fn wait_ended(&self) {
        process::wait_ended(self.pidfd.as_fd(), GONE_WITHIN);
        process::reap(self.pidfd.as_fd());
    }
}

fn check_command(process: &ProcessSpec) -> Result<(), EngineError> {
    /// The kernel's own bound on one string (`MAX_ARG_STRLEN`) and ours on all of them.
    const LONGEST_STRING: usize = 131_071;
    const LARGEST_TOTAL: usize = 2 << 20;
    let invalid = |why: &str| Err(EngineError::Invalid { what: "command".into(), why: why.into() });
    if process.command.first().is_none_or(Vec::is_empty) {
        return invalid("it is empty: name a program");
    }
    let strings = || process.command.iter().chain(&process.environment);
    if strings().any(|string| string.contains(&0)) || process.directory.contains('\0') {
        return invalid("an argument, environment entry or directory holds a NUL byte");
    }
    if strings().any(|string| string.len() > LONGEST_STRING) || strings().map(|s| s.len() + 1).sum::<usize>() > LARGEST_TOTAL {
        return invalid("arguments and environment are too long: 128 KiB for one, 2 MiB for all is the most");
    }
    Ok(())
}

fn borrow(stdio: &Stdio) -> Vec<BorrowedFd<'_>> {
    match stdio {
        Stdio::Fds(fds) => fds.iter().map(AsFd::as_fd).collect(),
        Stdio::Terminal => Vec::new(),
    }
}
