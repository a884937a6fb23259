//! RUN: a command in a sandbox on the layers so far; what it changed is the next layer.

use super::stage::Stage;
use super::{Building, PROXY_ARGUMENTS, StepError, cache};
use crate::supervisor::{LOG_BYTES, Request, Streams, Supervisor};
use cofferdam_engine::{Changes, Directory, EngineError, File, Mount, MountSource};
use cofferdam_model::image::Digest;
use cofferdam_model::{ImageRef, NetworkLevel, Phase, SandboxId};
use cofferdam_trust::content::ContentError;
use cofferdam_trust::dockerfile::{Form, MountKind, Run, Step};
use cofferdam_trust::layout::NewLayer;
use cofferdam_trust::{User, VerifiedImage};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tokio::sync::mpsc::unbounded_channel;

/// A layer with nothing in it: the two empty blocks that end an archive.
const EMPTY_ARCHIVE: u64 = 1024;
const SCRIPT: &str = "/run/cofferdam-script";

/// What a RUN gets besides its image.
#[derive(Default)]
struct Extras {
    mounts: Vec<Mount>,
    files: Vec<File>,
    directories: Vec<Directory>,
    leave_out: Vec<PathBuf>,
    /// Directories that go when the step has ended.
    kept: Vec<tempfile::TempDir>,
}

impl Building<'_> {
    /// Runs it, unless an earlier build did.
    pub(super) async fn run_step(&mut self, stage: &mut Stage, step: &Step, run: &Run) -> Result<(), StepError> {
        let image = self.image(stage)?;
        let user = image.user(Some(if stage.config.user.is_empty() { "root" } else { &stage.config.user }))?;
        let (command, script) = command(run, &stage.shell);
        let environment = self.environment(stage, &image, &user);
        let mounted: Vec<String> = run.mounts.iter().map(|mount| format!("{mount:?}")).collect();
        let shown: Vec<String> = environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (directory, user_shown) = (stage.directory().to_owned(), format!("{}:{}", user.uid, user.gid));
        let parts =
            ["RUN", &command.join("\0"), script.as_deref().unwrap_or(""), &shown.join("\0"), &directory, &user_shown, &mounted.join("\0")];
        let key = cache::key(&stage.key, &parts);
        if let Some(layer) = self.cached(&key) {
            self.announce(&step.text, true);
            return self.add(stage, &step.text, key, layer);
        }
        self.announce(&step.text, false);
        let mut extras = self.extras(run, &user)?;
        if let Some(script) = script {
            extras.files.push(File { path: SCRIPT.into(), mode: 0o755, owner: (0, 0), contents: script.into_bytes() });
        }
        let exists = image.has_directory(Path::new(&directory)) || directory == "/";
        if !exists {
            extras.directories.push(Directory { path: directory.clone().into(), mode: 0o755, owner: (user.uid, user.gid) });
        }
        let isolated = run.no_network || self.build.network == NetworkLevel::Isolated;
        let request = Request {
            id: SandboxId::from_random((self.builder.random)()),
            name: None,
            kept: false,
            actor: self.build.actor.clone(),
            image_name: ImageRef::Registry(self.build.tags[0].clone()),
            image,
            command: command.into_iter().map(String::into_bytes).collect(),
            environment: environment.into_iter().map(|(key, value)| format!("{key}={value}").into_bytes()).collect(),
            directory,
            user,
            limits: self.build.limits,
            network: if isolated { NetworkLevel::Isolated } else { self.build.network },
            gate: if isolated { None } else { self.build.gate.clone() },
            publish: Vec::new(),
            mounts: extras.mounts.clone(),
            view: None,
            volumes: Vec::new(),
            directories: extras.directories.clone(),
            files: extras.files.clone(),
            labels: [("cofferdam.build".to_owned(), self.build.tags[0].to_string())].into(),
            log_bytes: LOG_BYTES,
            streams: streams()?,
            health: None,
            kept_for: None,
            unplugged: BTreeSet::new(),
            bare: true,
        };
        let layer = self.in_sandbox(request, extras.leave_out.clone()).await?;
        drop(extras.kept);
        self.add(stage, &step.text, key, Some(layer).filter(|layer| layer.size > EMPTY_ARCHIVE))
    }

    async fn in_sandbox(&self, request: Request, leave_out: Vec<PathBuf>) -> Result<NewLayer, StepError> {
        let content = self.builder.puller.content;
        let partial = content.directory("partial")?;
        let io = |source| StepError::Content(ContentError::Io { path: partial.clone(), source });
        let file = tempfile::Builder::new().prefix("layer-").tempfile_in(&partial).map_err(io)?;
        let out = file.reopen().map_err(io)?;
        let epoch = self.build.epoch;
        let changed: Rc<RefCell<Option<Result<NewLayer, EngineError>>>> = Rc::default();
        let seen = Rc::clone(&changed);
        let supervisor = Supervisor::new(self.builder.data, self.builder.engine).on_end(Box::new(move |sandbox| {
            Box::pin(async move {
                let result = sandbox.changes(Changes { out, epoch, leave_out, of_view: false }).await;
                seen.replace(Some(result));
            })
        }));
        let (outcome, _) = supervisor.run(request, unbounded_channel()).await?;
        let record = &outcome.record;
        for refused in &outcome.decisions {
            if refused.decision.verdict != cofferdam_gate::ledger::Verdict::Allowed {
                let (host, port) = (&refused.decision.host, refused.decision.port);
                (self.builder.tell)(&format!("blocked: {host}:{port}; to allow it: image build --allow {host}:{port}"));
            }
        }
        match (record.phase, record.exit_code) {
            (Phase::Completed, Some(0)) => {}
            (Phase::Completed, Some(code)) => return Err(StepError::Exit(code)),
            _ => {
                let reason = record.reason.map(|reason| reason.name().replace('_', " ")).unwrap_or_default();
                return Err(StepError::Ended(record.detail.clone().unwrap_or(reason)));
            }
        }
        let layer = changed.take().ok_or(StepError::Engine(EngineError::Gone))??;
        let path = file.into_temp_path().keep().map_err(|error| io(error.error))?;
        content.adopt_blob(&path, &layer.digest)?;
        Ok(layer)
    }

    /// The image's environment, the arguments that are declared, and what every process has.
    fn environment(&self, stage: &Stage, image: &VerifiedImage, user: &User) -> BTreeMap<String, String> {
        let mut environment = stage.variables();
        for name in PROXY_ARGUMENTS {
            if let Some(value) = self.build.arguments.get(*name) {
                environment.entry((*name).to_owned()).or_insert_with(|| value.clone());
            }
        }
        let epoch = self.build.epoch.to_string();
        for (key, value) in [("PATH", image.path_value()), ("HOME", &user.home), ("SOURCE_DATE_EPOCH", &epoch)] {
            environment.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        environment
    }

    fn extras(&self, run: &Run, user: &User) -> Result<Extras, StepError> {
        let mut extras = Extras::default();
        for mount in &run.mounts {
            let target = PathBuf::from(&mount.target);
            if !target.is_absolute() {
                return Err(StepError::Meaning(format!("RUN --mount: target {} is not absolute", mount.target)));
            }
            let inside = target.strip_prefix("/").unwrap_or(&target).to_owned();
            let (source, writable) = match &mount.kind {
                MountKind::Temporary => {
                    extras.directories.push(Directory { path: target, mode: 0o1777, owner: (0, 0) });
                    extras.leave_out.push(inside);
                    continue;
                }
                MountKind::Secret { id, required } => match self.build.secrets.get(id) {
                    None if *required => {
                        return Err(StepError::Meaning(format!("secret {id} is required: image build --secret id={id},src=FILE")));
                    }
                    None => continue,
                    Some(secret) => (secret_file(secret, &mut extras)?, false),
                },
                MountKind::Cache { id } => (self.cache_directory(id, user)?, true),
                MountKind::Context { source } => {
                    let path = self.build.context.join(source.trim_start_matches('/'));
                    let io = |source| StepError::Io { path: path.clone(), source };
                    let (real, root) = (path.canonicalize().map_err(io)?, self.build.context.canonicalize().map_err(io)?);
                    if !real.starts_with(&root) {
                        return Err(StepError::Meaning(format!("RUN --mount: {source} leaves the build context")));
                    }
                    (real, false)
                }
            };
            extras.mounts.push(Mount { source: MountSource::of_own(&source)?, target, writable });
            extras.leave_out.push(inside);
        }
        Ok(extras)
    }

    /// A directory that outlives the build, for each name and user.
    fn cache_directory(&self, id: &str, user: &User) -> Result<PathBuf, StepError> {
        let name: Digest = cofferdam_trust::content::sha256(format!("{id} {}", user.uid).as_bytes());
        let path = self.builder.puller.content.directory("build-mounts")?.join(name.hex());
        let io = |source| StepError::Io { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(io)?;
        // An ordinary user's files are the sandbox's user's anyway.
        if cofferdam_sys::outer::is_host_root() {
            std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid)).map_err(io)?;
        }
        Ok(path)
    }
}

/// In memory, readable by root alone; gone with the step.
fn secret_file(secret: &[u8], extras: &mut Extras) -> Result<PathBuf, StepError> {
    use std::os::unix::fs::PermissionsExt;
    let base = Path::new("/dev/shm");
    let io = |source| StepError::Io { path: base.to_owned(), source };
    let directory =
        tempfile::Builder::new().prefix("cofferdam-").permissions(std::fs::Permissions::from_mode(0o700)).tempdir_in(base).map_err(io)?;
    let path = directory.path().join("secret");
    std::fs::write(&path, secret).map_err(io)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).map_err(io)?;
    extras.kept.push(directory);
    Ok(path)
}

/// The words to execute, and the script that stands in a here-document.
fn command(run: &Run, shell: &[String]) -> (Vec<String>, Option<String>) {
    match &run.form {
        Form::Exec(words) => (words.clone(), None),
        Form::Shell(text) => {
            match (run.heredocs.as_slice(), text.trim_start().starts_with("<<") && !text.trim().contains(char::is_whitespace)) {
                ([script], true) if script.body.starts_with("#!") => (vec![SCRIPT.into()], Some(script.body.clone())),
                ([script], true) => (shell.iter().cloned().chain([script.body.clone()]).collect(), None),
                (heredocs, _) => {
                    let bodies = heredocs.iter().fold(String::new(), |all, heredoc| all + "\n" + &heredoc.body + &heredoc.name);
                    (shell.iter().cloned().chain([format!("{text}{bodies}")]).collect(), None)
                }
            }
        }
    }
}

/// What a command writes is shown as it comes, on standard error: standard output is for the result.
fn streams() -> Result<Streams, StepError> {
    let clone = || std::io::stderr().as_fd().try_clone_to_owned();
    let io = |source| StepError::Io { path: "standard error".into(), source };
    Ok(Streams { foreground: Some((clone().map_err(io)?, clone().map_err(io)?)), ..Streams::detached() })
}
