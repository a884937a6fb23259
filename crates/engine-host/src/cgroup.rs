//! Control groups: version 1, version 2, and both at once (hybrid: limits in version 1, kill and freeze in version 2).
//!
//! A sandbox is `cofferdam/<install-id>/<sandbox-id>` in every hierarchy that it uses; an exec'd process has a group of
//! its own below that, so that it can be ended with everything it started.

mod hierarchy;
pub mod scope;

pub use hierarchy::Hierarchies;
use hierarchy::{Controller, Version};

use cofferdam_engine::{EngineError, Usage};
use cofferdam_model::{InstallId, Limits, SandboxId};
use cofferdam_sys::process::read_kernel_file;
use cofferdam_sys::spawner::Cgroups;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const PERIOD_MICROS: u64 = 100_000;
const KILL_ROUNDS: u32 = 200;
const KILL_PAUSE: Duration = Duration::from_millis(1);

/// The groups of one sandbox.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Hierarchies,
    relative: PathBuf,
}

impl Cgroup {
    /// Makes the groups and sets the limits. After an error nothing is left.
    pub fn create(hierarchies: &Hierarchies, install: InstallId, id: SandboxId, limits: Option<&Limits>) -> Result<Self, EngineError> {
        let group = Self::existing(hierarchies, install, id);
        group.make().and_then(|()| limits.map_or(Ok(()), |limits| group.limit(limits))).map_err(|(path, source)| {
            group.remove();
            EngineError::host(format!("cgroup {}", path.display()), source)
        })?;
        Ok(group)
    }

    /// The groups that a sandbox has, or had.
    pub fn existing(hierarchies: &Hierarchies, install: InstallId, id: SandboxId) -> Self {
        let relative = Path::new("cofferdam").join(install.to_string()).join(id.to_string());
        Self { hierarchies: hierarchies.clone(), relative }
    }

    /// Sandboxes of an install that have a group in any hierarchy.
    pub fn present(hierarchies: &Hierarchies, install: InstallId) -> Vec<SandboxId> {
        let relative = Path::new("cofferdam").join(install.to_string());
        let groups = hierarchies.roots().flat_map(|root| fs::read_dir(root.join(&relative)).into_iter().flatten().flatten());
        let mut found: Vec<SandboxId> = groups.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The groups that somebody else made around a process, if they are its own.
    pub fn of_process(hierarchies: &Hierarchies, pid: u32) -> Option<Self> {
        let groups = read_kernel_file(Path::new(&format!("/proc/{pid}/cgroup"))).ok()?;
        let (hierarchies, relative) = hierarchies.of_process(&groups)?;
        Some(Self { hierarchies, relative })
    }

    /// Whether there is any group.
    pub fn has_groups(&self) -> bool {
        self.hierarchies.roots().next().is_some()
    }

    /// Whether one limits memory.
    pub fn limits_memory(&self) -> bool {
        self.hierarchies.of(Controller::Memory).is_some()
    }

    /// A group below this one, for one exec'd process.
    pub fn child(&self, name: &str) -> Result<Self, EngineError> {
        let group = Self { hierarchies: self.hierarchies.for_exec(), relative: self.relative.join(name) };
        group.make().map_err(|(path, source)| EngineError::host(format!("cgroup {}", path.display()), source))?;
        Ok(group)
    }

    fn make(&self) -> Result<(), (PathBuf, io::Error)> {
        for root in self.hierarchies.roots() {
            make_group(root, &self.relative, &self.hierarchies)?;
        }
        Ok(())
    }

    fn path(&self, controller: Controller) -> Option<(PathBuf, Version)> {
        let (root, version) = self.hierarchies.of(controller)?;
        Some((root.join(&self.relative), version))
    }

    fn limit(&self, limits: &Limits) -> Result<(), (PathBuf, io::Error)> {
        let memory = limits.memory.get().to_string();
        match self.path(Controller::Memory) {
            Some((path, Version::One)) => {
                write(&path.join("memory.limit_in_bytes"), &memory)?;
                write_if_there(&path.join("memory.memsw.limit_in_bytes"), &memory)?;
                write_if_there(&path.join("memory.swappiness"), "0")?;
            }
            Some((path, Version::Two)) => {
                write(&path.join("memory.max"), &memory)?;
                write_if_there(&path.join("memory.swap.max"), "0")?;
            }
            None => {}
        }
        if let Some((path, _)) = self.path(Controller::Pids) {
            write(&path.join("pids.max"), &limits.pids.to_string())?;
        }
        let quota = u64::from(limits.cpus.millis()) * PERIOD_MICROS / 1000;
        match self.path(Controller::Cpu) {
            Some((path, Version::One)) => write(&path.join("cpu.cfs_quota_us"), &quota.to_string()),
            Some((path, Version::Two)) => write(&path.join("cpu.max"), &format!("{quota} {PERIOD_MICROS}")),
            None => Ok(()),
        }
    }

    /// What a new process needs to be in these groups from its start.
    pub fn entrances(&self) -> Result<Cgroups, EngineError> {
        let mut entrances = Cgroups::default();
        for root in self.hierarchies.roots() {
            let path = root.join(&self.relative);
            let error = |e| EngineError::host(format!("cgroup {}", path.display()), e);
            if Some(root) == self.hierarchies.unified() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                entrances.entrance = Some(rustix::fs::open(&path, flags, Mode::empty()).map_err(error)?);
            } else {
                let tasks = rustix::fs::open(path.join("tasks"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
                entrances.tasks.push(tasks.map_err(error)?);
            }
        }
        Ok(entrances)
    }

    /// Moves a process into the version 2 group.
    pub fn attach(&self, pid: u32) -> Result<(), EngineError> {
        let Some(root) = self.hierarchies.unified() else { return Ok(()) };
        let file = root.join(&self.relative).join("cgroup.procs");
        write(&file, &pid.to_string()).map_err(|(path, source)| EngineError::host(path.display().to_string(), source))
    }

    /// Kills everything in the groups and below. A frozen version 1 group is thawed first: its processes would ignore
    /// the signal.
    pub fn kill(&self) {
        self.freeze(false);
        if let Some(unified) = self.hierarchies.unified()
            && fs::write(unified.join(&self.relative).join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        let Some(root) = self.hierarchies.roots().next() else { return };
        let path = root.join(&self.relative);
        // Nothing new may be forked while what is there is being killed.
        let _ = fs::write(path.join("pids.max"), "0");
        for _ in 0..KILL_ROUNDS {
            let pids = pids_below(&path);
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            sleep(KILL_PAUSE);
        }
    }

    /// Stops every instruction, or lets them go on. False where no hierarchy can.
    pub fn freeze(&self, frozen: bool) -> bool {
        if let Some(unified) = self.hierarchies.unified() {
            let file = unified.join(&self.relative).join("cgroup.freeze");
            return fs::write(file, if frozen { "1" } else { "0" }).is_ok();
        }
        match self.path(Controller::Freezer) {
            Some((path, _)) => fs::write(path.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" }).is_ok(),
            None => false,
        }
    }

    /// Processes killed for want of memory so far.
    pub fn out_of_memory_kills(&self) -> u64 {
        let text = match self.path(Controller::Memory) {
            Some((path, Version::One)) => read_kernel_file(&path.join("memory.oom_control")),
            Some((path, Version::Two)) => read_kernel_file(&path.join("memory.events")),
            None => return 0,
        };
        text.ok().and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
    }

    /// What is used now.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        match self.path(Controller::Memory) {
            Some((path, Version::One)) => {
                usage.memory_bytes = number(&path.join("memory.usage_in_bytes"));
                usage.memory_peak_bytes = number(&path.join("memory.max_usage_in_bytes"));
            }
            Some((path, Version::Two)) => {
                usage.memory_bytes = number(&path.join("memory.current"));
                usage.memory_peak_bytes = number(&path.join("memory.peak"));
            }
            None => {}
        }
        if let Some((path, _)) = self.path(Controller::Pids) {
            usage.pids = number(&path.join("pids.current"));
        }
        if let Some(unified) = self.hierarchies.unified() {
            let stat = read_kernel_file(&unified.join(&self.relative).join("cpu.stat")).unwrap_or_default();
            usage.cpu_micros = field(&stat, "usage_usec").unwrap_or(0);
        } else if let Some((path, Version::One)) = self.path(Controller::Account) {
            usage.cpu_micros = number(&path.join("cpuacct.usage")) / 1000;
        }
        usage
    }

    /// Removes the groups; empty parents of ours go too. Waits a little for processes that are on their way out.
    /// False if one could not be removed.
    pub fn remove(&self) -> bool {
        let mut gone = true;
        for root in self.hierarchies.roots() {
            let path = root.join(&self.relative);
            gone &= remove_tree(&path);
            let parents = path.ancestors().skip(1).take_while(|parent| *parent != root);
            for parent in parents {
                // Others may be removing it too; one that is in use stays, and so do those above it.
                match fs::remove_dir(parent) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => break,
                    _ => {}
                }
            }
        }
        gone
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.hierarchies.roots().all(|root| pids_below(&root.join(&self.relative)).is_empty())
    }

    /// Whether any of the groups is there.
    pub fn exists(&self) -> bool {
        self.hierarchies.roots().any(|root| root.join(&self.relative).is_dir())
    }
}

/// Makes a group and its missing parents. Someone else may remove an empty parent meanwhile: then once more.
fn make_group(root: &Path, relative: &Path, hierarchies: &Hierarchies) -> Result<(), (PathBuf, io::Error)> {
    const TRIES: u32 = 50;
    let path = root.join(relative);
    for _ in 0..TRIES {
        match fs::create_dir(&path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_parents(root, relative, hierarchies)?,
            Err(error) => return Err((path, error)),
        }
    }
    Err((path, io::ErrorKind::NotFound.into()))
}

fn make_parents(root: &Path, relative: &Path, hierarchies: &Hierarchies) -> Result<(), (PathBuf, io::Error)> {
    let delegate = hierarchies.delegated(root);
    let mut path = root.to_owned();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        if let Some(delegate) = &delegate {
            delegate_to_children(root, &path, delegate)?;
        }
        path.push(part);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && error.kind() != io::ErrorKind::NotFound => {
                return Err((path, error));
            }
            _ => {}
        }
    }
    match &delegate {
        Some(delegate) => write(&path.join("cgroup.subtree_control"), delegate).or_else(|(path, error)| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err((path, error)),
        }),
        None => Ok(()),
    }
}

/// The group of an ordinary user holds this process: it makes room first.
fn delegate_to_children(root: &Path, path: &Path, delegate: &str) -> Result<(), (PathBuf, io::Error)> {
    const TRIES: u32 = 50;
    let file = path.join("cgroup.subtree_control");
    for _ in 0..TRIES {
        match write(&file, delegate) {
            // What starts while room is made is in the way once more.
            Err((_, error)) if error.kind() == io::ErrorKind::ResourceBusy && path == root => make_room(root)?,
            other => return other,
        }
    }
    write(&file, delegate)
}

fn make_room(root: &Path) -> Result<(), (PathBuf, io::Error)> {
    let aside = root.join(hierarchy::SUPERVISORS.trim_start_matches('/'));
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err((aside, error)),
        _ => {}
    }
    for pid in read_kernel_file(&root.join("cgroup.procs")).unwrap_or_default().lines() {
        // One that has ended meanwhile is not in the way.
        let _ = write(&aside.join("cgroup.procs"), pid);
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), (PathBuf, io::Error)> {
    // No truncation: cgroup files take a plain write, and `open` with O_TRUNC costs a call.
    let result = fs::OpenOptions::new().write(true).open(path).and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    result.map_err(|error| (path.to_owned(), error))
}

fn write_if_there(path: &Path, text: &str) -> Result<(), (PathBuf, io::Error)> {
    match write(path, text) {
        Err((_, error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn number(path: &Path) -> u64 {
    read_kernel_file(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The number behind a key in a file of `key number` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn pids_below(path: &Path) -> Vec<i32> {
    let own = read_kernel_file(&path.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(path) {
        pids.extend(pids_below(&child));
    }
    pids
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn remove_tree(path: &Path) -> bool {
    for round in 0..KILL_ROUNDS {
        match fs::remove_dir(path) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(_) => {}
        }
        for child in children(path) {
            remove_tree(&child);
        }
        if round > 0 {
            sleep(KILL_PAUSE);
        }
    }
    false
}

#[cfg(test)]
mod tests;
