//! The engine: what is the same for every sandbox of this process, and the trait.

use crate::cgroup::{Cgroup, Hierarchies};
use crate::device::system;
use crate::launch::launch;
use crate::sandbox::NativeSandbox;
use async_trait::async_trait;
use cofferdam_engine::{Capabilities, Engine, EngineError, EngineEvent, Sandbox, SandboxSpec};
use cofferdam_model::{InstallId, SandboxId};
use cofferdam_sys::child::Slots;
use cofferdam_sys::{INIT_PROGRAM, process};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
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
    /// Pid 1's program, sealed.
    pub init: OwnedFd,
    /// Where a new child finds its descriptors.
    pub slots: Mutex<Slots>,
    /// Thousandths of a CPU that this machine has.
    pub cpu_millis: u32,
    /// Landlock version of the kernel.
    pub landlock: Option<u32>,
}

/// Containers on this host.
#[derive(Debug)]
pub struct NativeEngine {
    host: Arc<Host>,
    install: InstallId,
}

const RUN_DIRECTORY: &str = "/run/cofferdam";

impl NativeEngine {
    /// For the installation with this id, whose data directory is `data`.
    pub fn new(install: InstallId, data: &Path) -> Result<Self, EngineError> {
        if !rustix::process::geteuid().is_root() {
            return Err(EngineError::Unsupported {
                what: "making sandboxes without root".into(),
                why: "this release has the native engine for root only".into(),
                remedy: "run the command as root (sudo cofferdam …)".into(),
            });
        }
        let run_directory = PathBuf::from(RUN_DIRECTORY);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&run_directory);
        made.map_err(|e| EngineError::host(format!("make {RUN_DIRECTORY}"), e))?;
        let host = Host {
            run_directory,
            templates: data.join("images").join("disks"),
            hierarchies: Hierarchies::detect(),
            slots: Mutex::new(Slots::reserve().map_err(system)?),
            init: process::sealed_file("cofferdam-init", INIT_PROGRAM, true).map_err(system)?,
            cpu_millis: std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32 * 1000,
            landlock: process::landlock_version(),
        };
        Ok(Self { host: Arc::new(host), install })
    }

    /// What sandboxes of this process share.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

#[async_trait]
impl Engine for NativeEngine {
    fn capabilities(&self) -> Capabilities {
        let cgroups = self.host.hierarchies.missing().into_iter();
        let mut missing: Vec<(String, String)> =
            cgroups.map(|name| (format!("{name} limit"), format!("no cgroup hierarchy on this host has the {name} controller"))).collect();
        if self.host.landlock.is_none() {
            missing.push(("landlock".into(), "the kernel has it not, or it is not among the enabled security modules".into()));
        }
        Capabilities { name: "native", host_image: true, pause: true, usage: true, missing }
    }

    async fn create(&self, spec: SandboxSpec, events: UnboundedSender<EngineEvent>) -> Result<Arc<dyn Sandbox>, EngineError> {
        let launched = launch(&spec, &self.host)?;
        Ok(Arc::new(NativeSandbox::adopt(launched, &spec, events)?))
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
