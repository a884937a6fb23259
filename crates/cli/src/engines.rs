//! Which engine makes a sandbox, and who sweeps what any of them left.

use crate::args::TrustArgs;
use crate::config;
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use crate::images::Images;
use async_trait::async_trait;
use clap::ValueEnum;
use cofferdam_engine::{CONTROLS, Capabilities, Engine, EngineError, EngineEvent, Sandbox, SandboxSpec};
use cofferdam_engine_docker::{Address, DockerEngine};
use cofferdam_engine_native::{Ahead, NativeEngine};
use cofferdam_model::SandboxId;
use cofferdam_model::config::{Docker, GatePlace};
use cofferdam_sys::outer;
use cofferdam_trust::content::{Content, ImageRecord};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// An engine by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// Native, where this host and user can.
    #[default]
    Auto,
    /// Containers on this host, no daemon.
    Native,
    /// Containers of a Docker daemon on this host (`DOCKER_HOST`).
    Docker,
}

impl EngineName {
    /// As users write it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Docker => "docker",
        }
    }
}

/// What this program is called as an image.
pub const GATE_IMAGE: &str = concat!("localhost/cofferdam/gate:", env!("CARGO_PKG_VERSION"));

/// Says that sandboxes of a daemon may be there, and where: sweeps look at it.
fn marker(context: &Context) -> PathBuf {
    context.data.path().join("docker")
}

impl Context {
    /// The engine that the user wants. `ahead`: what was begun for a single sandbox of the native engine.
    pub fn engine_named(&self, name: EngineName, ahead: Option<Ahead>, one: bool) -> Result<Box<dyn Engine>, Failure> {
        let required = config::load()?.require;
        if name != EngineName::Docker {
            let native = self.engine()?;
            require(required.iter(), &native.capabilities())?;
            return Ok(if one { Box::new(native.for_one(ahead)) } else { Box::new(native) });
        }
        let address = Address::of_environment()?;
        let kept = address.to_text();
        let engine = self.configured(self.docker(address)?)?;
        require(required.iter(), &engine.capabilities())?;
        // Before the first container is: whoever sweeps finds it.
        if std::fs::read_to_string(marker(self)).ok().as_deref() != Some(&kept) {
            std::fs::write(marker(self), &kept)?;
        }
        Ok(Box::new(engine))
    }

    /// Says what this host cannot enforce for an ordinary user: once, and again when it changes. Every record says it too.
    pub fn say_unenforced(&self, engine: &dyn Engine) -> Result<(), Failure> {
        if outer::is_host_root() || self.global.quiet {
            return Ok(());
        }
        let file = self.data.path().join("unenforced");
        let before = std::fs::read_to_string(&file).unwrap_or_default();
        let told = |control: &String| before.lines().any(|line| line == control);
        let missing = engine.capabilities().missing.into_iter().map(|(control, _)| control);
        let new: Vec<String> = missing.filter(|control| !told(control)).collect();
        if !new.is_empty() {
            let named = new.join(", ");
            crate::output::note!(
                "cofferdam: note: without root, this host does not enforce: {named} (said once; cofferdam doctor tells why)"
            );
            std::fs::write(&file, before + &new.join("\n") + "\n")?;
        }
        Ok(())
    }

    /// The daemon at this address, as an engine.
    pub fn docker(&self, address: Address) -> Result<DockerEngine, Failure> {
        let (content, cache) = (Content::of(self.data.path()), self.data.path().join("docker.json"));
        Ok(self.runtime.block_on(DockerEngine::connect(address, self.data.install(), content, Some(&cache)))?)
    }

    /// As the operator wants it.
    pub fn configured(&self, engine: DockerEngine) -> Result<DockerEngine, Failure> {
        let Docker { gate, runtime } = config::load()?.docker;
        let engine = match runtime {
            Some(name) => engine.with_runtime(name)?,
            None => engine,
        };
        Ok(match gate {
            GatePlace::Host => engine,
            GatePlace::Sidecar => engine.with_sidecar(self.gate_image()?),
        })
    }

    /// This program as an image, whose containers are gates.
    pub fn gate_image(&self) -> Result<ImageRecord, Failure> {
        let reference = GATE_IMAGE.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let images = Images::open(self.data.path(), &TrustArgs::default(), false, true)?;
        images.own_program(&reference)
    }

    /// What sweeps: the native engine, and a daemon if this installation ever used one.
    pub fn sweeper(&self) -> Result<Sweeper, Failure> {
        let address = std::fs::read_to_string(marker(self)).ok();
        let docker = address.map(|address| self.docker(Address::from_text(&address)).map_err(|failure| failure.message()));
        Ok(Sweeper { native: self.engine()?, docker })
    }
}

/// Fails if one of these controls cannot be enforced. Each text may name several, with commas between.
pub fn require<'a>(controls: impl Iterator<Item = &'a String>, capabilities: &Capabilities) -> Result<(), Failure> {
    for control in controls.flat_map(|list| list.split(',')).map(str::trim) {
        if !CONTROLS.iter().any(|(name, _)| *name == control) {
            let known = CONTROLS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("control {control}: there are {known}")));
        }
        if let Some((name, why)) = capabilities.missing.iter().find(|(name, _)| name == control) {
            return Err(Failure::new(FAILED, "unsupported", format!("control {name} is required and not enforceable here: {why}")));
        }
    }
    Ok(())
}

/// Every engine that may have left something.
pub struct Sweeper {
    native: NativeEngine,
    docker: Option<Result<DockerEngine, String>>,
}

#[async_trait]
impl Engine for Sweeper {
    fn capabilities(&self) -> Capabilities {
        self.native.capabilities()
    }

    async fn create(&self, spec: SandboxSpec, events: UnboundedSender<EngineEvent>) -> Result<Arc<dyn Sandbox>, EngineError> {
        self.native.create(spec, events).await
    }

    fn present(&self) -> Vec<SandboxId> {
        let mut present = self.native.present();
        if let Some(Ok(docker)) = &self.docker {
            present.extend(docker.present());
        }
        present
    }

    async fn sweep(&self, id: SandboxId) -> Result<bool, EngineError> {
        let native = self.native.sweep(id).await?;
        match &self.docker {
            None => Ok(native),
            Some(Ok(docker)) => Ok(docker.sweep(id).await? | native),
            Some(Err(why)) => {
                let source = std::io::Error::other(why.clone());
                Err(EngineError::host(format!("look for a container of sandbox {}", id.short()), source))
            }
        }
    }
}
