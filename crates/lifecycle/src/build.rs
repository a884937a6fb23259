//! Building an image from a Dockerfile.
//!
//! Each instruction that changes files makes a layer. A layer's name in the cache is the digest of everything that it was made
//! from: what lies below, the instruction's text with its variables, and the contents of what it copies. RUN happens in a sandbox
//! like any other; what it changed is read from outside.
//!
//! ```text
//! stage ─▶ base image ─▶ step ─▶ cached? ──▶ yes: its layer
//!                          ▲        └──────▶ no: COPY writes it, RUN makes it ─▶ store ─▶ cache
//!                          └─────────────────────── next ◀───────────────────────┘
//! ```

mod base;
mod cache;
mod run;
mod settings;
mod stage;

pub use base::BaseBuild;

use crate::data::DataDir;
use crate::gating::GateRequest;
use crate::supervisor::SupervisorError;
use cofferdam_engine::{Engine, MountError};
use cofferdam_model::image::{Digest, Reference};
use cofferdam_model::{Limits, NetworkLevel};
use cofferdam_trust::content::{ContentError, ImageRecord};
use cofferdam_trust::copying::{CopyError, View};
use cofferdam_trust::dockerfile::{Dockerfile, DockerfileError, Variables};
use cofferdam_trust::layout::{LayoutError, NewImage, compose};
use cofferdam_trust::pull::{PullError, Puller};
use cofferdam_trust::verify::{Rule, Verification};
use cofferdam_trust::{ImageError, UserError};
use stage::Stage;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments that need not be declared: proxies, as Docker has them.
const PROXY_ARGUMENTS: &[&str] =
    &["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"];

/// What is built, and how.
pub struct Build {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// Its name, for messages.
    pub file: String,
    /// The build context.
    pub context: PathBuf,
    /// What the image is called; the first is recorded first.
    pub tags: Vec<Reference>,
    /// Values of arguments.
    pub arguments: Variables,
    /// The stage to stop at.
    pub target: Option<String>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// What RUN may reach.
    pub network: NetworkLevel,
    /// The policy of a network that is not isolated.
    pub gate: Option<GateRequest>,
    /// What RUN may use.
    pub limits: Limits,
    /// Whether layers of earlier builds are used.
    pub cached: bool,
    /// Labels besides those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// No file is later (seconds since 1970).
    pub epoch: i64,
    /// Who asked for it.
    pub actor: String,
}

/// What a build works with.
pub struct Builder<'a> {
    /// The data directory.
    pub data: &'a DataDir,
    /// What runs RUN.
    pub engine: &'a dyn Engine,
    /// Where layers go.
    pub puller: Puller<'a>,
    /// Gives an image to build on: of the store, or pulled and verified.
    pub base: &'a dyn Fn(&Reference) -> Result<ImageRecord, String>,
    /// Is told of each step.
    pub tell: &'a dyn Fn(&str),
    /// New ids for sandboxes.
    pub random: fn() -> [u8; 16],
}

/// An image that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile.
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    /// A step.
    #[error("{file}:{line}: {text}: {why}")]
    Step {
        /// The Dockerfile.
        file: String,
        /// Its line.
        line: usize,
        /// The instruction, shortened.
        text: String,
        /// What went wrong.
        why: Box<StepError>,
    },
    /// No such stage.
    #[error("{file} has no stage {target:?}; it has {stages}")]
    NoStage {
        /// The Dockerfile.
        file: String,
        /// What was asked for.
        target: String,
        /// What there is.
        stages: String,
    },
    /// A described base.
    #[error("{file}: {why}")]
    Base {
        /// Its definition.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// An argument that nothing declares.
    #[error("--build-arg {0}: the Dockerfile declares no such ARG")]
    UnusedArgument(String),
    /// The context.
    #[error("build context {path}: {source}", path = path.display())]
    Context {
        /// Its directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The image cannot be stored.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The store cannot be used.
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// What went wrong in a step.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// What it says cannot be done.
    #[error("{0}")]
    Meaning(String),
    /// Its command failed.
    #[error("the command ended with exit status {0}")]
    Exit(i32),
    /// Its command did not get to its end.
    #[error("the command was ended: {0}")]
    Ended(String),
    /// Nothing to copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Its sandbox.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] cofferdam_engine::EngineError),
    /// A mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The image below it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its user.
    #[error(transparent)]
    User(#[from] UserError),
    /// Its layer.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A file of the host.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// The state of a build: what is shared between its stages.
struct Building<'a> {
    builder: &'a Builder<'a>,
    build: &'a Build,
    context: View,
    /// Arguments before the first FROM.
    global: Variables,
    done: BTreeMap<usize, Stage>,
    step: usize,
    steps: usize,
}

impl Builder<'_> {
    /// Builds it; the record of its first name.
    pub async fn build(&self, build: &Build) -> Result<ImageRecord, BuildError> {
        let _lock = self.puller.content.enter()?;
        let target = match &build.target {
            None => build.dockerfile.stages.len() - 1,
            Some(name) => build.dockerfile.stage(name, build.dockerfile.stages.len()).ok_or_else(|| no_stage(build, name))?,
        };
        refuse_unused(build)?;
        let context = View::context(&build.context).map_err(|source| BuildError::Context { path: build.context.clone(), source })?;
        let needed = needed(build, target);
        let steps = needed.iter().map(|stage| build.dockerfile.stages[*stage].steps.len() + 1).sum();
        let global = global_variables(build).map_err(|why| BuildError::Step {
            file: build.file.clone(),
            line: 1,
            text: "ARG".into(),
            why: Box::new(StepError::Meaning(why)),
        })?;
        let mut building = Building { builder: self, build, context, global, done: BTreeMap::new(), step: 0, steps };
        for stage in needed {
            let built = building.stage(stage).await?;
            building.done.insert(stage, built);
        }
        let stage = building.done.remove(&target).ok_or_else(|| no_stage(build, "the last"))?;
        self.name(build, stage)
    }

    /// Puts the image together and gives it its names.
    fn name(&self, build: &Build, mut stage: Stage) -> Result<ImageRecord, BuildError> {
        stage.config.labels.extend(build.labels.clone());
        let how = format!("built from {}; {}", build.file, stage.origin);
        let verified = Verification::local(Rule::Built, how, self.puller.now);
        let mut first = None;
        for reference in &build.tags {
            let image = NewImage {
                reference: reference.clone(),
                created: Some(cofferdam_model::Timestamp::from_second(build.epoch).unwrap_or_default().to_string()),
                platform: self.puller.platform.clone(),
                layers: stage.layers.clone(),
                config: stage.config.clone(),
                history: stage.history.clone(),
                verified: verified.clone(),
            };
            let record = compose(&self.puller, image)?;
            first.get_or_insert(record);
        }
        first.ok_or_else(|| no_stage(build, "named"))
    }
}

fn no_stage(build: &Build, target: &str) -> BuildError {
    let names: Vec<String> =
        build.dockerfile.stages.iter().enumerate().map(|(at, stage)| stage.name.clone().unwrap_or_else(|| at.to_string())).collect();
    BuildError::NoStage { file: build.file.clone(), target: target.to_owned(), stages: names.join(", ") }
}

/// A value that is given for nothing is a mistyped name.
fn refuse_unused(build: &Build) -> Result<(), BuildError> {
    use cofferdam_trust::dockerfile::Instruction;
    let steps = build.dockerfile.stages.iter().flat_map(|stage| &stage.steps);
    let declared: Vec<&String> = steps
        .filter_map(|step| if let Instruction::Arg(arguments) = &step.instruction { Some(arguments) } else { None })
        .flatten()
        .chain(&build.dockerfile.arguments)
        .map(|(name, _)| name)
        .collect();
    let unused = build.arguments.keys().find(|name| !declared.contains(name) && !PROXY_ARGUMENTS.contains(&name.as_str()));
    unused.map_or(Ok(()), |name| Err(BuildError::UnusedArgument(name.clone())))
}

/// What every stage may declare without a value: the platform.
fn global_variables(build: &Build) -> Result<Variables, String> {
    let machine = cofferdam_trust::oci::Platform::here();
    let mut variables = Variables::new();
    for side in ["TARGET", "BUILD"] {
        variables.insert(format!("{side}PLATFORM"), machine.to_string());
        variables.insert(format!("{side}OS"), machine.os.clone());
        variables.insert(format!("{side}ARCH"), machine.architecture.clone());
        variables.insert(format!("{side}VARIANT"), machine.variant.clone().unwrap_or_default());
    }
    for (name, default) in &build.dockerfile.arguments {
        let given = build.arguments.get(name).cloned();
        let value = match (given, default) {
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(cofferdam_trust::dockerfile::expand(default, &variables, '\\')?),
            (None, None) => None,
        };
        if let Some(value) = value {
            variables.insert(name.clone(), value);
        }
    }
    Ok(variables)
}

/// The stages that the target is made from, in order.
fn needed(build: &Build, target: usize) -> Vec<usize> {
    use cofferdam_trust::dockerfile::Instruction;
    let mut wanted = vec![target];
    let mut needed = std::collections::BTreeSet::new();
    while let Some(stage) = wanted.pop() {
        if !needed.insert(stage) {
            continue;
        }
        let this = &build.dockerfile.stages[stage];
        wanted.extend(build.dockerfile.stage(&this.from.image, stage));
        for step in &this.steps {
            if let Instruction::Copy(copy) = &step.instruction
                && let Some(from) = &copy.from
            {
                wanted.extend(build.dockerfile.stage(from, stage));
            }
        }
    }
    needed.into_iter().collect()
}

/// A layer and the digest of what is not compressed of it.
type Listed = (cofferdam_trust::oci::Descriptor, Digest);
