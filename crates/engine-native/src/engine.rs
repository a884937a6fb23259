//! The engine: what is the same for every sandbox of this process, and the trait.

use crate::launch::{Ahead, launch};
use crate::sandbox::NativeSandbox;
use async_trait::async_trait;
use cofferdam_engine::{Capabilities, Engine, EngineError, EngineEvent, Sandbox, SandboxSpec};
use cofferdam_engine_host::cgroup::{Cgroup, Hierarchies};
use cofferdam_engine_host::device::system;
use cofferdam_engine_host::overlay;
use cofferdam_engine_host::staging;
use cofferdam_model::{InstallId, SandboxId};
use cofferdam_sys::mount::{attr, new_fs};
use cofferdam_sys::spawner::Spawner;
use cofferdam_sys::{outer, process};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What every sandbox of this process shares.
#[derive(Debug)]
pub struct Host {
    /// Host-wide directory for locks; also where a new root is attached, in the sandbox's mount namespace only.
    pub run_directory: PathBuf,
    /// Formatted disk images.
    pub templates: PathBuf,
    /// Control group hierarchies.
    pub hierarchies: Hierarchies,
    /// What clones every sandbox, once it is needed.
    spawner: Mutex<Option<Arc<Spawner>>>,
    /// What was begun before it was known what for.
    ahead: Mutex<Option<Ahead>>,
    /// A proc file system, and how many network namespaces were reached through it.
    proc: Mutex<Option<(Arc<OwnedFd>, u32)>>,
    /// Whether overlays are made as older kernels need it.
    pub staged: bool,
    /// Whether everything is copied, as where there are no overlays.
    pub copied: bool,
    /// Thousandths of a CPU that this machine has.
    pub cpu_millis: u32,
    /// Landlock version of the kernel.
    pub landlock: Option<u32>,
}

impl Host {
    /// The spawner; started at the first call, and again if it was lost.
    pub fn spawner(&self) -> Result<Arc<Spawner>, EngineError> {
        let mut current = self.current_spawner();
        if let Some(spawner) = current.as_ref().filter(|spawner| !spawner.is_lost()) {
            return Ok(Arc::clone(spawner));
        }
        let started = Arc::new(Spawner::start().map_err(system)?);
        *current = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Uses a spawner that was started ahead.
    pub fn adopt(&self, spawner: Spawner) {
        self.current_spawner().get_or_insert_with(|| Arc::new(spawner));
    }

    fn current_spawner(&self) -> MutexGuard<'_, Option<Arc<Spawner>>> {
        self.spawner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A proc file system for the settings of a new network namespace; None where it cannot be had. The kernel finds a
    /// namespace's settings by going through those of every other that the same file system has shown, so it is
    /// replaced now and then.
    pub fn proc(&self) -> Option<Arc<OwnedFd>> {
        const MOST_NAMESPACES: u32 = 64;
        let mut proc = self.proc.lock().unwrap_or_else(PoisonError::into_inner);
        let (current, uses) = match proc.take() {
            Some((current, uses)) if uses < MOST_NAMESPACES => (current, uses),
            _ => (Arc::new(new_fs("proc", &[], attr::NO_SUID | attr::NO_DEV | attr::NO_EXEC).ok()?), 0),
        };
        *proc = Some((Arc::clone(&current), uses + 1));
        Some(current)
    }

    fn missing_controllers(&self) -> Vec<(String, String)> {
        let missing = self.hierarchies.missing().into_iter();
        missing.map(|name| (format!("{name} limit"), format!("no cgroup hierarchy on this host has the {name} controller"))).collect()
    }

    /// What an ordinary user cannot have here, or has in a weaker form.
    fn missing_without_root(&self) -> Vec<(String, String)> {
        let several = outer::entered().is_some_and(|outer| outer.subordinate.is_some());
        let mut missing = vec![("id range".to_owned(), "sandboxes of one user share that user's ids".to_owned())];
        if outer::entered().is_some_and(|outer| outer.wanted && !several) {
            let why = "no subordinate ids (usermod --add-subuids, --add-subgids), or no newuidmap to use them: there is one user inside";
            missing.push(("users".to_owned(), why.to_owned()));
        }
        for name in self.hierarchies.missing() {
            let instead = match name {
                "memory" => "the supervisor watches, and kills what uses too much",
                "pids" if several => "the kernel counts each user of the sandbox",
                // As strict as a group: all its processes are one user's, whom the kernel counts in its user namespace.
                "pids" => continue,
                _ => "it may use every CPU",
            };
            missing.push((format!("{name} limit"), format!("{NO_GROUP} the {name} controller; {instead}")));
        }
        if !several && foreign_groups() {
            missing.push(("groups".to_owned(), "files that are open to this user's supplementary groups stay so in a sandbox".to_owned()));
        }
        if !self.hierarchies.limits_processes() || several {
            let instead = "what an exec'd process leaves behind when it ends by itself may stay until the sandbox ends";
            missing.push(("exec groups".to_owned(), format!("{NO_GROUP} room for them; {instead}")));
        }
        missing.push(("volume quota".to_owned(), "a named volume is a directory of this user's, as large as the disk".to_owned()));
        missing
    }

    fn exceptions_without_root(&self) -> Vec<(String, String)> {
        let missing = self.missing_without_root().into_iter();
        missing.filter_map(|(control, why)| Some((probe_of(&control)?.to_owned(), why))).collect()
    }

    /// What was begun ahead, if nobody has taken it.
    pub fn take_ahead(&self) -> Option<Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The probe that finds a control missing, where one does.
fn probe_of(control: &str) -> Option<&'static str> {
    match control {
        "id range" => Some("id-range"),
        "groups" => Some("groups"),
        _ => None,
    }
}

/// Whether this process has groups that nobody below it can give up.
fn foreign_groups() -> bool {
    let own = rustix::process::getegid();
    rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|group| *group != own))
}

/// Containers on this host.
#[derive(Debug)]
pub struct NativeEngine {
    host: Arc<Host>,
    install: InstallId,
    one: bool,
}

const RUN_DIRECTORY: &str = "/run/cofferdam";
/// Why a control of cgroups is missing for an ordinary user.
const NO_GROUP: &str = "this user has no cgroup of its own (a login session of systemd's, or loginctl enable-linger, gives one) with";

impl NativeEngine {
    /// For the installation with this id, whose data directory is `data`.
    pub fn new(install: InstallId, data: &Path) -> Result<Self, EngineError> {
        let run_directory = if outer::is_host_root() { PathBuf::from(RUN_DIRECTORY) } else { data.join("run") };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&run_directory);
        made.map_err(|e| EngineError::host(format!("make {}", run_directory.display()), e))?;
        let host = Host {
            run_directory,
            templates: data.join("images").join("disks"),
            hierarchies: if outer::is_host_root() { Hierarchies::detect() } else { Hierarchies::detect_own() },
            spawner: Mutex::new(None),
            ahead: Mutex::new(None),
            proc: Mutex::new(None),
            staged: staging::is_needed(),
            copied: false,
            cpu_millis: process::cpus() * 1000,
            landlock: process::landlock_version(),
        };
        Ok(Self { host: Arc::new(host), install, one: false })
    }

    /// For a process that makes one sandbox, with what was begun ahead for it: no threads, and the spawner ends when it has
    /// done its work.
    #[must_use]
    pub fn for_one(self, ahead: Option<Ahead>) -> Self {
        *self.host.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
        Self { one: true, ..self }
    }

    /// Makes overlays as kernels before 6.15 need it, on whatever kernel. For tests.
    #[must_use]
    pub fn staged(mut self) -> Self {
        if let Some(host) = Arc::get_mut(&mut self.host) {
            host.staged = true;
        }
        self
    }

    /// Copies what overlays would show, on whatever host. For tests.
    #[must_use]
    pub fn copied(mut self) -> Self {
        if let Some(host) = Arc::get_mut(&mut self.host) {
            host.copied = true;
        }
        self
    }

    /// Why this host gives no overlays, so that everything is copied; None where it does.
    pub fn without_overlays(&self) -> Result<Option<String>, EngineError> {
        overlay::refusal(self.host.staged, &self.host.run_directory)
    }

    /// What sandboxes of this process share.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

/// Collects a spawner that was let go. Not at once: a short run ends before, and leaves that to the kernel.
async fn collect_spawner(host: Arc<Host>) {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        tokio::time::sleep(PAUSE).await;
        if host.current_spawner().as_ref().is_none_or(|spawner| spawner.collect()) {
            return;
        }
    }
}

#[async_trait]
impl Engine for NativeEngine {
    fn capabilities(&self) -> Capabilities {
        let mut missing = if outer::is_host_root() { self.host.missing_controllers() } else { self.host.missing_without_root() };
        if self.host.landlock.is_none() {
            missing.push(("landlock".into(), "the kernel has it not, or it is not among the enabled security modules".into()));
        }
        let exceptions = if outer::is_host_root() { Vec::new() } else { self.host.exceptions_without_root() };
        Capabilities { name: "native", host_image: true, pause: true, usage: true, changes: true, missing, exceptions }
    }

    async fn create(&self, spec: SandboxSpec, events: UnboundedSender<EngineEvent>) -> Result<Arc<dyn Sandbox>, EngineError> {
        let (launched, spec) = if self.one {
            let launched = launch(&spec, &self.host)?;
            self.host.spawner()?.finish();
            tokio::spawn(collect_spawner(Arc::clone(&self.host)));
            (launched, spec)
        } else {
            let host = Arc::clone(&self.host);
            let work = move || launch(&spec, &host).map(|launched| (launched, spec));
            let joined = tokio::task::spawn_blocking(work).await;
            joined.map_err(|e| EngineError::host("make a sandbox", std::io::Error::other(e)))??
        };
        Ok(Arc::new(NativeSandbox::adopt(launched, spec, events)?))
    }

    fn present(&self) -> Vec<SandboxId> {
        Cgroup::present(&self.host.hierarchies, self.install)
    }

    async fn sweep(&self, id: SandboxId) -> Result<bool, EngineError> {
        let cgroup = Cgroup::existing(&self.host.hierarchies, self.install, id);
        if !cgroup.exists() {
            return Ok(false);
        }
        cgroup.kill();
        if cgroup.remove() {
            return Ok(true);
        }
        let source = std::io::Error::other("its processes do not end");
        Err(EngineError::host(format!("remove the cgroups of sandbox {id}"), source))
    }
}
