//! What checks work with: an engine, an image, and short ways to run something.

use crate::{
    Control, Engine, EngineError, EngineEvent, ExitStatus, Mount, MountSource, Observation, Process, ProcessSpec, Sandbox, SandboxSpec,
    Stdio, Wiring,
};
use cofferdam_model::{Bytes, Cpus, Difficulty, InstallId, Limits, SandboxId};
use cofferdam_trust::VerifiedImage;
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Processes of a sandbox of the kit.
pub const PIDS: u32 = 64;
/// Where the program `probe` is inside.
pub const PROBE_PATH: &str = "/opt/probe";
/// Longest that a process of a check may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The surroundings of a check.
pub struct Kit<'a> {
    /// The engine under test.
    pub engine: &'a dyn Engine,
    /// An image with a shell and the usual commands.
    pub image: VerifiedImage,
    /// The installation.
    pub install: InstallId,
    /// A directory of the host for the sandboxes' own files and for what checks put there.
    pub directory: PathBuf,
    /// The program whose first argument `probe` makes it report what it can do.
    pub probe: MountSource,
    /// Environment for `probe`.
    pub probe_environment: Vec<String>,
    serial: AtomicU64,
}

/// A sandbox of a check. It is killed when it is dropped.
pub struct Made {
    /// The sandbox.
    pub sandbox: Arc<dyn Sandbox>,
    /// What it was made from.
    pub spec: SandboxSpec,
    /// What happens in it.
    pub events: UnboundedReceiver<EngineEvent>,
}

/// How a process ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its end.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// One line of `probe`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ProbeResult {
    /// The probe's name.
    pub probe: String,
    /// Its reference.
    pub reference: String,
    /// `contained`, `open` or `unavailable`.
    pub outcome: String,
    /// What happened.
    pub detail: String,
}

impl<'a> Kit<'a> {
    /// For an engine. `directory` exists and is empty.
    pub fn new(engine: &'a dyn Engine, image: VerifiedImage, install: InstallId, directory: PathBuf, probe: MountSource) -> Self {
        Self { engine, image, install, directory, probe, probe_environment: Vec::new(), serial: AtomicU64::new(1) }
    }

    /// A new id.
    fn id(&self) -> SandboxId {
        let mut bytes = [0xC0; 16];
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        bytes[8..].copy_from_slice(&serial.to_be_bytes());
        bytes[4..8].copy_from_slice(&std::process::id().to_be_bytes());
        SandboxId::from_random(bytes)
    }

    /// Small limits, no time limit.
    pub fn limits() -> Limits {
        Limits {
            memory: Bytes::mebibytes(256),
            cpus: Cpus::from_millis(1000).unwrap_or(Limits::one_cpu()),
            disk: Some(Bytes::mebibytes(64)),
            pids: PIDS,
            timeout: None,
            ..Difficulty::Easy.limits()
        }
    }

    /// Makes a sandbox, changed as wanted.
    pub async fn sandbox(&self, change: impl FnOnce(&mut SandboxSpec)) -> Result<Made, String> {
        let id = self.id();
        let directory = self.directory.join(id.to_string());
        std::fs::create_dir_all(&directory).map_err(|e| e.to_string())?;
        let user = self.image.user(None).map_err(|e| e.to_string())?;
        let mut spec = SandboxSpec {
            id,
            install: self.install,
            directory,
            hostname: "conformance".into(),
            image: self.image.clone(),
            limits: Self::limits(),
            user,
            mounts: vec![Mount { source: self.probe.clone(), target: PROBE_PATH.into(), writable: false }],
            view: None,
            directories: Vec::new(),
            files: Vec::new(),
            unplugged: BTreeSet::new(),
            bare: false,
            wiring: Wiring::default(),
        };
        change(&mut spec);
        let (sender, events) = unbounded_channel();
        let sandbox = self.engine.create(spec.clone(), sender).await.map_err(|e| format!("create: {e}"))?;
        Ok(Made { sandbox, spec, events })
    }

    /// Makes a sandbox for this user (None: the image's).
    pub async fn sandbox_of(&self, user: Option<&str>) -> Result<Made, String> {
        let user = self.image.user(user).map_err(|e| e.to_string())?;
        self.sandbox(|spec| spec.user = user).await
    }

    /// Makes a sandbox, runs a shell script as its main process, deletes it.
    pub async fn script(&self, script: &str) -> Result<Ran, String> {
        let made = self.sandbox(|_| {}).await?;
        let ran = made.main(&["/bin/sh", "-c", script]).await?;
        made.delete().await?;
        Ok(ran)
    }

    /// A path of the host for this check alone.
    pub fn host_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}-{name}", self.serial.fetch_add(1, Ordering::Relaxed)))
    }

    /// Opens a mount source of the host.
    pub fn mount_source(&self, path: &Path) -> Result<MountSource, String> {
        MountSource::open(path, None, Path::new("/nonexistent")).map_err(|e| e.to_string())
    }
}

/// A memory file to write into, read from its beginning later.
fn capture() -> Result<OwnedFd, String> {
    memfd_create("capture", MemfdFlags::CLOEXEC).map_err(|e| e.to_string())
}

fn text(fd: &OwnedFd) -> Result<String, String> {
    let mut file = std::fs::File::from(fd.try_clone().map_err(|e| e.to_string())?);
    file.rewind().map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Made {
    /// A process of the default user.
    pub fn process(&self, command: &[&str]) -> ProcessSpec {
        let path = format!("PATH={}", self.spec.image.path_value());
        ProcessSpec {
            command: command.iter().map(|word| word.as_bytes().to_vec()).collect(),
            environment: vec![path.into_bytes(), format!("HOME={}", self.spec.user.home).into_bytes()],
            directory: "/workspace".into(),
            user: self.spec.user.clone(),
            terminal: None,
        }
    }

    /// Starts the main process with nothing to read and nowhere to write.
    pub async fn start(&self, command: &[&str]) -> Result<Process, String> {
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from).map_err(|e| e.to_string());
        let stdio = Stdio::Fds([null()?, null()?, null()?]);
        self.sandbox.start(self.process(command), stdio).await.map_err(|e| format!("start: {e}"))
    }

    /// Runs the main process to its end.
    pub async fn main(&self, command: &[&str]) -> Result<Ran, String> {
        self.run(self.process(command), true, "").await
    }

    /// Runs one more process to its end.
    pub async fn exec(&self, command: &[&str]) -> Result<Ran, String> {
        self.run(self.process(command), false, "").await
    }

    /// Runs a process to its end with this input.
    pub async fn run(&self, process: ProcessSpec, main: bool, input: &str) -> Result<Ran, String> {
        self.try_run(process, main, input).await?.map_err(|e| e.to_string())
    }

    /// The same, with the engine's own error.
    pub async fn try_run(&self, process: ProcessSpec, main: bool, input: &str) -> Result<Result<Ran, EngineError>, String> {
        let (out, err, stdin) = (capture()?, capture()?, capture()?);
        std::io::Write::write_all(&mut std::fs::File::from(stdin.try_clone().map_err(|e| e.to_string())?), input.as_bytes())
            .map_err(|e| e.to_string())?;
        std::fs::File::from(stdin.try_clone().map_err(|e| e.to_string())?).rewind().map_err(|e| e.to_string())?;
        let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned().map_err(|e| e.to_string());
        let stdio = Stdio::Fds([stdin, copy(&out)?, copy(&err)?]);
        let started = if main { self.sandbox.start(process, stdio).await } else { self.sandbox.exec(process, stdio).await };
        let mut process = match started {
            Ok(process) => process,
            Err(error) => return Ok(Err(error)),
        };
        let status = tokio::time::timeout(PATIENCE, process.wait()).await.map_err(|_| "it did not end".to_owned())?;
        if !main {
            self.sandbox.control(Control::End { process: process.id }).await.map_err(|e| e.to_string())?;
        }
        Ok(Ok(Ran { status, out: text(&out)?, err: text(&err)? }))
    }

    /// Runs `probe` as this user, as the main process or as one more.
    pub async fn probe(&self, kit: &Kit<'_>, user: Option<&str>, main: bool) -> Result<Vec<ProbeResult>, String> {
        let mut process = self.process(&[PROBE_PATH, "probe"]);
        process.user = self.spec.image.user(user).map_err(|e| e.to_string())?;
        process.environment.extend(kit.probe_environment.iter().map(|entry| entry.clone().into_bytes()));
        let ran = self.run(process, main, "").await?;
        let results: Result<Vec<ProbeResult>, _> = ran.out.lines().map(serde_json::from_str).collect();
        let results = results.map_err(|e| format!("{e} in {:?} {:?}", ran.out, ran.err))?;
        // One that was killed on the way says nothing of what it would have tried.
        let whole = matches!(ran.status, ExitStatus::Code(_)) && !results.is_empty();
        if whole { Ok(results) } else { Err(format!("probe ended early: {:?} {:?}, {} results", ran.status, ran.err, results.len())) }
    }

    /// What is seen of it.
    pub async fn observe(&self) -> Result<Observation, String> {
        self.sandbox.observe().await.map_err(|e| e.to_string())
    }

    /// Deletes it and makes sure that nothing is left to sweep.
    pub async fn delete(self) -> Result<(), String> {
        self.sandbox.delete().await.map_err(|e| format!("delete: {e}"))?;
        std::fs::remove_dir_all(&self.spec.directory).map_err(|e| e.to_string())
    }
}
