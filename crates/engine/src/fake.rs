//! An engine without containers, for tests of the layers above: processes are scripted, nothing is started.

use crate::{
    Capabilities, Changes, Control, Engine, EngineError, EngineEvent, ExitStatus, Observation, Process, ProcessSpec, Root, Sandbox,
    SandboxSpec, Stdio, Transfer, TransferReport,
};
use async_trait::async_trait;
use cofferdam_model::SandboxId;
use cofferdam_trust::layout::NewLayer;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

const SIGKILL: i32 = 9;

/// How the main process of the next sandboxes behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Ends at once.
    Exit(ExitStatus),
    /// Runs until it is stopped or killed; exits 143 on stop.
    Run,
    /// Cannot be started.
    Missing,
}

/// The engine.
#[derive(Debug)]
pub struct FakeEngine {
    script: Script,
    /// No file can be taken out of its sandboxes.
    sick: bool,
    alive: Arc<Mutex<HashSet<SandboxId>>>,
}

impl FakeEngine {
    /// With one script for every sandbox.
    pub fn new(script: Script) -> Self {
        Self { script, sick: false, alive: Arc::default() }
    }

    /// Whose sandboxes give no file away.
    #[must_use]
    pub fn sick(self) -> Self {
        Self { sick: true, ..self }
    }

    /// Sandboxes that were made and not deleted.
    pub fn alive(&self) -> usize {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "fake",
            host_image: true,
            pause: false,
            usage: false,
            changes: false,
            missing: Vec::new(),
            exceptions: Vec::new(),
        }
    }

    async fn create(&self, spec: SandboxSpec, _events: UnboundedSender<EngineEvent>) -> Result<Arc<dyn Sandbox>, EngineError> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.id);
        Ok(Arc::new(FakeSandbox {
            id: spec.id,
            script: self.script,
            sick: self.sick,
            alive: Arc::clone(&self.alive),
            exit: watch::channel(None).0,
        }))
    }

    fn present(&self) -> Vec<SandboxId> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    async fn sweep(&self, id: SandboxId) -> Result<bool, EngineError> {
        Ok(self.alive.lock().unwrap_or_else(PoisonError::into_inner).remove(&id))
    }
}

struct FakeSandbox {
    id: SandboxId,
    script: Script,
    sick: bool,
    alive: Arc<Mutex<HashSet<SandboxId>>>,
    exit: watch::Sender<Option<ExitStatus>>,
}

impl FakeSandbox {
    fn end(&self, status: ExitStatus) {
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            exit.get_or_insert(status);
            first
        });
    }
}

#[async_trait]
impl Sandbox for FakeSandbox {
    async fn start(&self, process: ProcessSpec, _stdio: Stdio) -> Result<Process, EngineError> {
        match self.script {
            Script::Missing => {
                let program = process.command.first().map(|word| String::from_utf8_lossy(word).into_owned());
                return Err(EngineError::NotFound { program: program.unwrap_or_default() });
            }
            Script::Exit(status) => self.end(status),
            Script::Run => {}
        }
        Ok(Process::new(1, None, self.exit.subscribe()))
    }

    async fn exec(&self, _process: ProcessSpec, _stdio: Stdio) -> Result<Process, EngineError> {
        Err(EngineError::Gone)
    }

    async fn control(&self, control: Control) -> Result<(), EngineError> {
        match control {
            Control::Stop { .. } => self.end(ExitStatus::Code(143)),
            Control::Kill => self.end(ExitStatus::Signal(SIGKILL)),
            Control::Signal { number, .. } => self.end(ExitStatus::Signal(number)),
            Control::End { .. } | Control::HangUp { .. } | Control::Release { .. } | Control::Pause | Control::Resume => {}
        }
        Ok(())
    }

    async fn transfer(&self, _transfer: Transfer) -> Result<TransferReport, EngineError> {
        if self.sick { Err(EngineError::Gone) } else { Ok(TransferReport::default()) }
    }

    async fn connect(&self, _port: u16) -> Result<std::os::fd::OwnedFd, EngineError> {
        Err(EngineError::Gone)
    }

    async fn root(&self) -> Result<Root, EngineError> {
        Err(EngineError::Gone)
    }

    async fn changes(&self, _wanted: Changes) -> Result<NewLayer, EngineError> {
        Err(EngineError::Gone)
    }

    async fn observe(&self) -> Result<Observation, EngineError> {
        Ok(Observation::default())
    }

    async fn delete(&self) -> Result<(), EngineError> {
        self.end(ExitStatus::Signal(SIGKILL));
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        Ok(())
    }
}
