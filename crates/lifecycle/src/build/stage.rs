//! One stage: what it begins with, and its steps one after the other.

use super::{BuildError, Building, Listed, StepError, cache};
use cofferdam_model::image::{Digest, Reference};
use cofferdam_trust::RunConfig;
use cofferdam_trust::content::{ImageRecord, LayerRecord, sha256};
use cofferdam_trust::copying::{Plan, View, Wanted, absolute};
use cofferdam_trust::dockerfile::{Copy, Dockerfile, Instruction, Source, Step, Variables, expand};
use cofferdam_trust::layout::{FromStore, NewLayer};
use cofferdam_trust::oci::{History, LARGEST_MANIFEST};
use cofferdam_trust::pack::{self, Entry};
use cofferdam_trust::pull::listed;
use cofferdam_trust::unpack::{Found, Lowers};
use cofferdam_trust::verify::{Rule, Verification};
use cofferdam_trust::{VerifiedImage, stored_image};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

pub(super) const ESCAPE: char = '\\';
const SHOWN: usize = 100;

/// A stage, as far as it is built.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its layers, lowest first.
    pub layers: Vec<Listed>,
    /// How its processes are started.
    pub config: RunConfig,
    /// How it was made.
    pub history: Vec<History>,
    /// What it was built on, for the record.
    pub origin: String,
    /// Stands for everything so far.
    pub key: Digest,
    /// Arguments that are declared.
    pub arguments: Variables,
    /// The shell of commands that are text.
    pub shell: Vec<String>,
    /// Its layers in the store.
    records: Vec<LayerRecord>,
}

impl Stage {
    /// Nothing.
    fn scratch() -> Self {
        Self {
            layers: Vec::new(),
            config: RunConfig::default(),
            history: Vec::new(),
            origin: "on scratch".into(),
            key: sha256(b"scratch"),
            arguments: Variables::new(),
            shell: vec!["/bin/sh".into(), "-c".into()],
            records: Vec::new(),
        }
    }

    /// ENV over ARG, as in a Dockerfile's text.
    pub fn variables(&self) -> Variables {
        let mut all = self.arguments.clone();
        all.extend(self.config.env.iter().filter_map(|entry| entry.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())));
        all
    }

    /// Where commands start.
    pub fn directory(&self) -> &str {
        if self.config.working_dir.is_empty() { "/" } else { &self.config.working_dir }
    }
}

pub(super) fn meaning(why: String) -> StepError {
    StepError::Meaning(why)
}

impl Building<'_> {
    /// Builds a stage.
    pub async fn stage(&mut self, number: usize) -> Result<Stage, BuildError> {
        let this = &self.build.dockerfile.stages[number];
        let text = format!("FROM {}", this.from.image);
        self.announce(&text, false);
        let mut stage = self.begin(number).map_err(|why| self.failed(this.line, &text, why))?;
        let triggers = std::mem::take(&mut stage.config.on_build);
        for trigger in &triggers {
            let parsed = Dockerfile::parse("ONBUILD", &format!("FROM x\n{trigger}\n"))?;
            for step in &parsed.stages[0].steps {
                self.step(&mut stage, step, number).await.map_err(|why| self.failed(this.line, &step.text, why))?;
            }
        }
        for step in &this.steps {
            self.step(&mut stage, step, number).await.map_err(|why| self.failed(step.line, &step.text, why))?;
        }
        Ok(stage)
    }

    fn failed(&self, line: usize, text: &str, why: StepError) -> BuildError {
        BuildError::Step { file: self.build.file.clone(), line, text: shorten(text), why: Box::new(why) }
    }

    pub(super) fn announce(&mut self, text: &str, cached: bool) {
        self.step += 1;
        let mark = if cached { "  (cached)" } else { "" };
        (self.builder.tell)(&format!("[{}/{}] {}{mark}", self.step, self.steps.max(self.step), shorten(text)));
    }

    fn begin(&self, number: usize) -> Result<Stage, StepError> {
        let from = &self.build.dockerfile.stages[number].from;
        if let Some(platform) = &from.platform {
            let platform = expand(platform, &self.global, ESCAPE).map_err(meaning)?;
            let here = cofferdam_trust::oci::Platform::here().to_string();
            if platform != here {
                return Err(meaning(format!("--platform={platform}: this machine is {here}; images of other machines are not built here")));
            }
        }
        let name = expand(&from.image, &self.global, ESCAPE).map_err(meaning)?;
        if let Some(stage) = self.build.dockerfile.stage(&name, number).and_then(|at| self.done.get(&at)) {
            return Ok(Stage { arguments: Variables::new(), ..stage.clone() });
        }
        if name == "scratch" {
            return Ok(Stage::scratch());
        }
        self.on_image(&name)
    }

    fn on_image(&self, name: &str) -> Result<Stage, StepError> {
        if name.is_empty() {
            return Err(meaning("the name of the image is empty: an ARG without a value?".into()));
        }
        let reference: Reference = name.parse().map_err(|error| meaning(format!("{error}")))?;
        let record = (self.builder.base)(&reference).map_err(meaning)?;
        let layers = listed(self.builder.puller.content, &record)?;
        let shell = if record.config.shell.is_empty() { Stage::scratch().shell } else { record.config.shell.clone() };
        let origin = format!("on {reference}@{} ({})", record.digest, record.verified.rule);
        let history = self.history_of(&record);
        Ok(Stage { layers, history, origin, key: record.digest, shell, records: record.layers, config: record.config, ..Stage::scratch() })
    }

    fn history_of(&self, record: &ImageRecord) -> Vec<History> {
        let config = self.builder.puller.content.read_blob(&record.config_digest, LARGEST_MANIFEST);
        let parsed = config.ok().and_then(|bytes| serde_json::from_slice::<cofferdam_trust::oci::Config>(&bytes).ok());
        parsed.map(|config| config.history).unwrap_or_default()
    }

    async fn step(&mut self, stage: &mut Stage, step: &Step, number: usize) -> Result<(), StepError> {
        match &step.instruction {
            Instruction::Run(run) => return self.run_step(stage, step, run).await,
            Instruction::Copy(copy) => return self.copy(stage, step, copy, number),
            Instruction::Workdir(path) => {
                let path = expand(path, &stage.variables(), ESCAPE).map_err(meaning)?;
                return self.workdir(stage, step, &path);
            }
            Instruction::Arg(arguments) => self.arguments(stage, arguments)?,
            other => stage.set(other)?,
        }
        self.announce(&step.text, false);
        stage.key = cache::key(&stage.key, &[&step.text]);
        self.note(stage, &step.text, true);
        Ok(())
    }

    /// A value that is given counts, then the one before the first FROM, then the default.
    fn arguments(&self, stage: &mut Stage, arguments: &[(String, Option<String>)]) -> Result<(), StepError> {
        for (name, default) in arguments {
            let value = match (self.build.arguments.get(name), default, self.global.get(name)) {
                (Some(given), _, _) => Some(given.clone()),
                (None, Some(default), _) => Some(expand(default, &stage.variables(), ESCAPE).map_err(meaning)?),
                (None, None, global) => global.cloned(),
            };
            if let Some(value) = value {
                stage.arguments.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    fn workdir(&mut self, stage: &mut Stage, step: &Step, path: &str) -> Result<(), StepError> {
        let place = absolute(stage.directory(), path);
        let whole = format!("/{}", place.display());
        let below = self.lowers(stage)?;
        let real = below.canonical(&place);
        stage.config.working_dir.clone_from(&whole);
        if real.as_os_str().is_empty() || matches!(below.look(&real), Ok(Found::Directory(_))) {
            self.announce(&step.text, false);
            stage.key = cache::key(&stage.key, &[&step.text, &whole]);
            self.note(stage, &step.text, true);
            return Ok(());
        }
        let owner = self.owner(stage, Some(stage.config.user.as_str()).filter(|user| !user.is_empty()))?;
        let key = cache::key(&stage.key, &["WORKDIR", &whole, &format!("{owner:?}")]);
        let make = |this: &Self| {
            let content = this.builder.puller.content;
            let mut layer = pack::begin(content, this.build.epoch)?;
            let io = |source| StepError::Io { path: real.clone(), source };
            let mut above: Vec<&Path> = real.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
            above.reverse();
            for path in above {
                let (uid, gid) = owner.unwrap_or_default();
                let entry = match below.look(path) {
                    Ok(Found::Directory(stat)) => Entry::of(&stat),
                    _ => Entry { uid, gid, ..Entry::directory() },
                };
                layer.directory(path, entry).map_err(io)?;
            }
            Ok::<_, StepError>(pack::commit(content, layer)?)
        };
        let cached = self.cached(&key);
        self.announce(&step.text, cached.is_some());
        let layer = match cached {
            Some(layer) => layer,
            None => Some(make(self)?),
        };
        self.add(stage, &step.text, key, layer)
    }

    fn copy(&mut self, stage: &mut Stage, step: &Step, copy: &Copy, number: usize) -> Result<(), StepError> {
        let variables = stage.variables();
        let text = |text: &str| expand(text, &variables, ESCAPE).map_err(meaning);
        let from = copy.from.as_deref().map(text).transpose()?;
        let view = from.map(|name| self.view_of(&name, number)).transpose()?;
        let (mut paths, mut texts) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            match source {
                Source::Path(path) => paths.push(text(path)?),
                Source::Text(heredoc) => {
                    let mut heredoc = heredoc.clone();
                    if heredoc.expand {
                        heredoc.body = expand_body(&heredoc.body, &variables).map_err(meaning)?;
                    }
                    texts.push(heredoc);
                }
            }
        }
        let chown = copy.chown.as_deref().map(text).transpose()?;
        let owner = self.owner(stage, chown.as_deref())?;
        let mode = copy.chmod.as_deref().map(text).transpose()?.map(|text| octal(&text)).transpose().map_err(meaning)?;
        let target = text(&copy.target)?;
        let below = self.lowers(stage)?;
        let workdir = stage.directory().to_owned();
        let wanted =
            Wanted { paths, texts, target: &target, workdir: &workdir, below: &below, owner, mode, add: copy.add, exclude: &copy.exclude };
        let content = self.builder.puller.content;
        let view = view.as_ref().unwrap_or(&self.context);
        let plan = Plan::make(view, &wanted, content)?;
        let key = cache::key(&stage.key, &["COPY", plan.digest(view)?.as_str()]);
        let cached = self.cached(&key);
        let layer = if let Some(layer) = &cached {
            layer.clone()
        } else {
            let mut layer = pack::begin(content, self.build.epoch)?;
            plan.write(view, &mut layer)?;
            Some(pack::commit(content, layer)?)
        };
        self.announce(&step.text, cached.is_some());
        self.add(stage, &step.text, key, layer)
    }

    /// Another stage, or an image.
    fn view_of(&self, name: &str, number: usize) -> Result<View, StepError> {
        let stage = match self.build.dockerfile.stage(name, number).and_then(|at| self.done.get(&at)) {
            Some(stage) => stage.clone(),
            None => self.on_image(name)?,
        };
        let layers = self.open(&stage)?;
        let content = self.builder.puller.content;
        View::of_layers(content, &layers).map_err(|source| StepError::Io { path: name.into(), source })
    }

    /// Lowest first.
    fn open(&self, stage: &Stage) -> Result<Vec<Arc<OwnedFd>>, StepError> {
        let content = self.builder.puller.content;
        let gone = || meaning("a layer went away meanwhile; build again".into());
        stage.records.iter().map(|layer| content.open_layer(&layer.directory).map(Arc::new).ok_or_else(gone)).collect()
    }

    fn lowers(&self, stage: &Stage) -> Result<Lowers, StepError> {
        let mut layers = self.open(stage)?;
        layers.reverse();
        Ok(Lowers::new(layers))
    }

    /// The stage as an image that a sandbox can start from.
    pub fn image(&self, stage: &Stage) -> Result<VerifiedImage, StepError> {
        let reference: Reference = "localhost/build:step".parse().map_err(|error| meaning(format!("{error}")))?;
        let record = ImageRecord {
            reference,
            digest: stage.key.clone(),
            index: None,
            platform: self.builder.puller.platform.clone(),
            created: None,
            pulled_at: self.builder.puller.now,
            layers: stage.records.clone(),
            config_digest: stage.key.clone(),
            config: stage.config.clone(),
            verified: Verification::local(Rule::Built, "a step of a build".into(), self.builder.puller.now),
            attached: Vec::new(),
        };
        Ok(stored_image(self.builder.puller.content, &record)?)
    }

    /// `USER[:GROUP]` as ids of the image so far. A user without a group has its own number for one, as Docker has it for COPY.
    fn owner(&self, stage: &Stage, text: Option<&str>) -> Result<Option<(u32, u32)>, StepError> {
        let Some(text) = text else { return Ok(None) };
        let image = self.image(stage)?;
        let user = image.user(Some(text))?;
        Ok(Some((user.uid, user.gid)))
    }

    /// A remembered layer, if those are used.
    pub fn cached(&self, key: &Digest) -> Option<Option<NewLayer>> {
        if self.build.cached { cache::find(self.builder.puller.content, key) } else { None }
    }

    /// Adds a step's layer, remembers it, and puts it into the store.
    pub fn add(&mut self, stage: &mut Stage, text: &str, key: Digest, layer: Option<NewLayer>) -> Result<(), StepError> {
        let puller = &self.builder.puller;
        cache::keep(puller.content, &key, layer.as_ref())?;
        stage.key = key;
        self.note(stage, text, layer.is_none());
        if let Some(layer) = layer {
            stage.layers.push(layer.listed());
            stage.records = puller.layers(&stage.layers, &FromStore { content: puller.content })?;
        }
        Ok(())
    }

    fn note(&self, stage: &mut Stage, text: &str, empty: bool) {
        let created = cofferdam_model::Timestamp::from_second(self.build.epoch).unwrap_or_default().to_string();
        stage.history.push(History { created: Some(created), created_by: Some(text.to_owned()), empty_layer: empty });
    }
}

fn shorten(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > SHOWN { line.chars().take(SHOWN - 1).chain(['…']).collect() } else { line }
}

fn octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("--chmod={text}: an octal mode such as 755 is wanted"))
}

/// In a here-document quotes stand for themselves.
fn expand_body(body: &str, variables: &Variables) -> Result<String, String> {
    let protected: String = body.chars().flat_map(|c| if c == '\'' || c == '"' { vec![ESCAPE, c] } else { vec![c] }).collect();
    expand(&protected, variables, ESCAPE)
}
