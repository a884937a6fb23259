//! `cofferdam image build`.

use crate::args::{BuildArgs, Global, TrustArgs};
use crate::commands::egress::Wanted;
use crate::config;
use crate::context::{Context, actor, random};
use crate::definitions::Definition;
use crate::engines::require;
use crate::exit::{FAILED, Failure};
use crate::host::Machine;
use crate::images::Images;
use crate::output::one;
use cofferdam_engine::Engine;
use cofferdam_lifecycle::build::{BaseBuild, Build, Builder};
use cofferdam_lifecycle::data::now;
use cofferdam_model::image::{Digest, Reference};
use cofferdam_model::{Limits, NetworkLevel, Span};
use cofferdam_trust::attest::{self, Signer};
use cofferdam_trust::content::{ImageRecord, sha256};
use cofferdam_trust::debian::Archive;
use cofferdam_trust::dockerfile::{Dockerfile, Instruction, Variables};
use cofferdam_trust::inventory;
use cofferdam_trust::pack::EPOCH;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// What an image is called that nobody gave a name.
const UNNAMED: &str = "localhost/build:latest";

/// What a definition's Dockerfile calls the base beside it, and the program that builds it.
const BASE: &str = "docker.io/library/base:latest";
const PROGRAM: &str = "docker.io/library/cofferdam:latest";

/// Builds it.
pub fn run(global: Global, arguments: &BuildArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let images = Images::open(context.data.path(), &arguments.trust, false, context.global.quiet)?;
    let definition = Definition::find(&arguments.directory)?;
    // A key that cannot be used is told before anything is built.
    let signer = arguments.sign_key.as_deref().map(Signer::load).transpose()?;
    let engine = context.engine()?;
    require(config::load()?.require.iter(), &engine.capabilities())?;
    let quiet = context.global.quiet;
    let tell = |line: &str| {
        if !quiet {
            crate::output::note!("{line}");
        }
    };
    let described = RefCell::new(None);
    let used = RefCell::new(Vec::new());
    let base = |reference: &Reference| {
        let record = match (reference.to_string().as_str(), &*described.borrow()) {
            (BASE, Some(record)) => ImageRecord::clone(record),
            (PROGRAM, Some(_)) => {
                images.own_program(&program_name().map_err(|failure| failure.message())?).map_err(|failure| failure.message())?
            }
            _ => images.find(reference).map(|(record, _)| record).map_err(|failure| failure.message())?,
        };
        used.borrow_mut().push((record.reference.clone(), record.digest.clone()));
        Ok(record)
    };
    let builder = Builder { data: &context.data, engine: &engine, puller: images.puller(), base: &base, tell: &tell, random };
    let on_top = definition.has_dockerfile() || arguments.file.is_some();
    if definition.has_base() {
        let record = described_base(&context, &builder, &definition, arguments, on_top)?;
        described.replace(Some(record));
    }
    let record = if on_top || described.borrow().is_none() {
        let build = read(arguments, &definition)?;
        let record = context.runtime.block_on(builder.build(&build));
        images.content.remove_record(&program_name()?)?;
        record?
    } else {
        let record = described.take().ok_or_else(|| Failure::usage("nothing to build"))?;
        for tag in &arguments.tags {
            images.content.write_record(&ImageRecord { reference: tag.clone(), ..record.clone() })?;
        }
        record
    };
    let record = if arguments.attest || arguments.sign_key.is_some() {
        attest(&images, &definition, arguments, record, &used.borrow(), signer.as_ref())?
    } else {
        record
    };
    images.content.settle()?;
    let unnamed = arguments.tags.is_empty() && definition.name.is_none();
    let named = if unnamed { record.digest.to_string() } else { format!("{}@{}", record.reference, record.digest) };
    one(context.global.output, &record, |out| writeln!(out, "{named}"))?;
    Ok(ExitCode::SUCCESS)
}

/// The base of a definition: its packages are fetched, then it is built.
fn described_base(
    context: &Context,
    builder: &Builder<'_>,
    definition: &Definition,
    arguments: &BuildArgs,
    on_top: bool,
) -> Result<ImageRecord, Failure> {
    let base = definition.base()?;
    let lock = definition.lock(&base)?;
    let content = builder.puller.content;
    if let Some(packages) = lock.packages.get(&builder.puller.platform.architecture) {
        let missing = packages.iter().filter(|package| !content.has_blob(&package.digest)).count();
        if missing > 0 {
            (builder.tell)(&format!("fetching {missing} packages"));
            let mirrors = crate::debian::mirrors(&config::load()?)?;
            let verbose = context.global.verbose > 0;
            Archive::new(&mirrors, content, now().as_second()).fetch(packages, &|package| {
                if verbose {
                    crate::output::note!("fetched {package}");
                }
            })?;
        }
    }
    let tag = match arguments.tags.first() {
        Some(tag) if !on_top => tag.clone(),
        _ => definition.tag(if on_top { "-base" } else { "" })?,
    };
    let build = BaseBuild {
        sources: definition.sources(&base)?,
        base,
        lock,
        file: definition.shown("base.yaml"),
        tag,
        limits: limits(arguments),
        cached: !arguments.no_cache,
        actor: actor(),
    };
    Ok(context.runtime.block_on(builder.base(&build))?)
}

/// Says what the image holds and how it was made, beside it.
fn attest(
    images: &Images,
    definition: &Definition,
    arguments: &BuildArgs,
    mut record: ImageRecord,
    used: &[(Reference, Digest)],
    signer: Option<&Signer>,
) -> Result<ImageRecord, Failure> {
    let components = inventory::components(&images.content, &record)?;
    let mut sources = Vec::new();
    let dockerfile = arguments.file.clone().unwrap_or_else(|| definition.path.join("Dockerfile"));
    for path in [definition.path.join("base.yaml"), definition.path.join("lock.json"), dockerfile] {
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        sources.push((name, sha256(&bytes)));
    }
    let mut packages = Vec::new();
    if definition.has_base() {
        let lock = definition.lock(&definition.base()?)?;
        let locked = lock.packages.get(&record.platform.architecture).into_iter().flatten();
        packages.extend(locked.map(|package| (package.file.clone(), package.digest.clone())));
    }
    let given: Vec<&str> = arguments.build_args.iter().map(|text| text.split('=').next().unwrap_or(text)).collect();
    let build = attest::Build {
        builder: &arguments.builder_id,
        sources,
        // Names only: a value may be a secret that its user did not think of as one.
        parameters: serde_json::json!({ "target": arguments.target, "buildArgs": given, "platform": record.platform.to_string() }),
        images: used,
        packages,
    };
    let bill = |predicate, media_type, body| attest::Document { predicate, media_type, body };
    let documents = vec![
        bill(inventory::CYCLONEDX, "application/vnd.cyclonedx+json", inventory::cyclonedx(&record, &components)),
        bill(inventory::SPDX, "application/spdx+json", inventory::spdx(&record, &components)),
        attest::provenance(&build),
    ];
    attest::attach(&images.content, &mut record, documents, signer)?;
    for tag in arguments.tags.iter().filter(|tag| **tag != record.reference) {
        images.content.write_record(&ImageRecord { reference: tag.clone(), ..record.clone() })?;
    }
    Ok(record)
}

fn program_name() -> Result<Reference, Failure> {
    "localhost/cofferdam:program".parse().map_err(|error| Failure::usage(format!("{error}")))
}

fn limits(arguments: &BuildArgs) -> Limits {
    let mut limits = Machine::read().defaults();
    if let Some(memory) = arguments.memory {
        limits.memory = memory;
    }
    limits
}

/// Builds the environment of a task: the Dockerfile of a directory, with any public destination for RUN.
pub fn of_task(context: &Context, directory: &Path, name: &str, within: Span, trust: &TrustArgs) -> Result<Reference, Failure> {
    let images = Images::open(context.data.path(), trust, false, context.global.quiet)?;
    let path = directory.join("Dockerfile");
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::new(FAILED, "build", format!("{shown}: {error}")))?;
    let dockerfile = Dockerfile::parse(&shown, &text).map_err(|error| Failure::new(FAILED, "build", error.to_string()))?;
    let (network, gate) = Wanted { network: Some(NetworkLevel::FullWeb), ..Wanted::default() }.compile()?;
    let tag: Reference = name.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let build = Build {
        dockerfile,
        file: shown.clone(),
        context: directory.to_owned(),
        tags: vec![tag.clone()],
        arguments: Variables::new(),
        target: None,
        secrets: BTreeMap::new(),
        network,
        gate,
        limits: Machine::read().defaults(),
        cached: true,
        labels: BTreeMap::new(),
        epoch: epoch()?,
        actor: actor(),
    };
    let engine = context.engine()?;
    require(config::load()?.require.iter(), &engine.capabilities())?;
    let quiet = context.global.quiet;
    let base = |reference: &Reference| images.find(reference).map(|(record, _)| record).map_err(|failure| failure.message());
    let tell = |line: &str| {
        if !quiet && context.global.verbose > 0 {
            crate::output::note!("{line}");
        }
    };
    let builder = Builder { data: &context.data, engine: &engine, puller: images.puller(), base: &base, tell: &tell, random };
    // A runtime of its own: attempts of a suite prepare in threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let built = runtime.block_on(async { tokio::time::timeout(within.duration(), builder.build(&build)).await });
    let slow = |_| Failure::new(FAILED, "build", format!("{shown}: the build took longer than {within}"));
    built.map_err(slow)??;
    images.content.settle()?;
    Ok(tag)
}

fn read(arguments: &BuildArgs, definition: &Definition) -> Result<Build, Failure> {
    let path = arguments.file.clone().unwrap_or_else(|| definition.path.join("Dockerfile"));
    let shown = arguments.file.as_ref().map_or_else(|| definition.shown("Dockerfile"), |file| file.display().to_string());
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::new(FAILED, "build", format!("{shown}: {error}")))?;
    let dockerfile = Dockerfile::parse(&shown, &text).map_err(|error| Failure::new(FAILED, "build", error.to_string()))?;
    let runs = dockerfile
        .stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .any(|step| matches!(&step.instruction, Instruction::Run(run) if !run.no_network));
    let (network, gate) = network(arguments, runs)?;
    let tags = match (arguments.tags.as_slice(), &definition.name) {
        ([], Some(_)) => vec![definition.tag("")?],
        ([], None) => vec![UNNAMED.parse().map_err(|error| Failure::usage(format!("{error}")))?],
        (tags, _) => tags.to_vec(),
    };
    if let Some(pinned) = tags.iter().find(|tag| tag.digest().is_some()) {
        return Err(Failure::usage(format!("--tag {pinned}: a digest is not given but had; name a tag")));
    }
    Ok(Build {
        dockerfile,
        file: shown,
        context: definition.path.clone(),
        tags,
        arguments: build_arguments(arguments)?,
        target: arguments.target.clone(),
        secrets: arguments.secrets.iter().map(|text| secret(text)).collect::<Result<_, _>>()?,
        network,
        gate,
        limits: limits(arguments),
        cached: !arguments.no_cache,
        labels: arguments.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        epoch: epoch()?,
        actor: actor(),
    })
}

/// The default level needs package registries that this host is configured for; a host without any builds without a network.
fn network(arguments: &BuildArgs, runs: bool) -> Result<(NetworkLevel, Option<cofferdam_lifecycle::gating::GateRequest>), Failure> {
    let asked = arguments.network.or(if arguments.allow.is_empty() { None } else { Some(NetworkLevel::LimitedWeb) });
    let wanted = Wanted { network: Some(asked.unwrap_or(NetworkLevel::PackageOnly)), allow: &arguments.allow, ..Wanted::default() };
    match (wanted.compile(), asked) {
        (Err(failure), None) => {
            if runs {
                crate::output::note!("cofferdam: note: RUN has no network: {}", failure.message());
            }
            Ok((NetworkLevel::Isolated, None))
        }
        (result, _) => result,
    }
}

fn build_arguments(arguments: &BuildArgs) -> Result<Variables, Failure> {
    let mut values = Variables::new();
    for text in &arguments.build_args {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() {
            return Err(Failure::usage(format!("--build-arg {text}: K=V is wanted")));
        }
        values.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(values)
}

/// `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`.
fn secret(text: &str) -> Result<(String, Vec<u8>), Failure> {
    let wrong = || Failure::usage("--secret: id=NAME,src=FILE or id=NAME,env=VARIABLE is wanted");
    let fields: BTreeMap<&str, &str> = text.split(',').filter_map(|field| field.split_once('=')).collect();
    let id = fields.get("id").ok_or_else(wrong)?;
    let value = match (fields.get("src").or_else(|| fields.get("source")), fields.get("env")) {
        (Some(path), None) => {
            std::fs::read(path).map_err(|error| Failure::new(FAILED, "build", format!("secret {id}: {path}: {error}")))?
        }
        (None, Some(name)) => std::env::var(name)
            .map_err(|_| Failure::new(FAILED, "build", format!("secret {id}: the environment has no {name}")))?
            .into_bytes(),
        _ => return Err(wrong()),
    };
    Ok(((*id).to_owned(), value))
}

/// `SOURCE_DATE_EPOCH` (reproducible-builds.org), else a fixed time: the same input is the same image.
fn epoch() -> Result<i64, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.trim().parse().map_err(|_| Failure::usage(format!("SOURCE_DATE_EPOCH={text}: seconds since 1970 are wanted"))),
        Err(_) => Ok(EPOCH),
    }
}
