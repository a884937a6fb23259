//! `cofferdam image build`.

use crate::args::{BuildArgs, Global, TrustArgs};
use crate::commands::egress::Wanted;
use crate::context::{Context, actor, random};
use crate::exit::{FAILED, Failure};
use crate::host::Machine;
use crate::images::Images;
use crate::output::one;
use cofferdam_lifecycle::build::{Build, Builder};
use cofferdam_model::image::Reference;
use cofferdam_model::{NetworkLevel, Span};
use cofferdam_trust::dockerfile::{Dockerfile, Variables};
use cofferdam_trust::pack::EPOCH;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// What an image is called that nobody gave a name.
const UNNAMED: &str = "localhost/build:latest";

/// Builds it.
pub fn run(global: Global, arguments: &BuildArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let images = Images::open(context.data.path(), &arguments.trust, false, context.global.quiet)?;
    let build = read(arguments)?;
    let engine = context.engine()?;
    let quiet = context.global.quiet;
    let base = |reference: &Reference| images.find(reference).map(|(record, _)| record).map_err(|failure| failure.message());
    let builder = Builder {
        data: &context.data,
        engine: &engine,
        puller: images.puller(),
        base: &base,
        tell: &|line| {
            if !quiet {
                crate::output::note!("{line}");
            }
        },
        random,
    };
    let record = context.runtime.block_on(builder.build(&build))?;
    images.content.settle()?;
    let named = if arguments.tags.is_empty() { record.digest.to_string() } else { format!("{}@{}", record.reference, record.digest) };
    one(context.global.output, &record, |out| writeln!(out, "{named}"))?;
    Ok(ExitCode::SUCCESS)
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

fn read(arguments: &BuildArgs) -> Result<Build, Failure> {
    let path = arguments.file.clone().unwrap_or_else(|| arguments.directory.join("Dockerfile"));
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::new(FAILED, "build", format!("{shown}: {error}")))?;
    let dockerfile = Dockerfile::parse(&shown, &text).map_err(|error| Failure::new(FAILED, "build", error.to_string()))?;
    let (network, gate) = network(arguments)?;
    let mut limits = Machine::read().defaults();
    if let Some(memory) = arguments.memory {
        limits.memory = memory;
    }
    let tags = if arguments.tags.is_empty() {
        vec![UNNAMED.parse().map_err(|error| Failure::usage(format!("{error}")))?]
    } else {
        arguments.tags.clone()
    };
    if let Some(pinned) = tags.iter().find(|tag| tag.digest().is_some()) {
        return Err(Failure::usage(format!("--tag {pinned}: a digest is not given but had; name a tag")));
    }
    Ok(Build {
        dockerfile,
        file: shown,
        context: arguments.directory.clone(),
        tags,
        arguments: build_arguments(arguments)?,
        target: arguments.target.clone(),
        secrets: arguments.secrets.iter().map(|text| secret(text)).collect::<Result<_, _>>()?,
        network,
        gate,
        limits,
        cached: !arguments.no_cache,
        labels: arguments.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        epoch: epoch()?,
        actor: actor(),
    })
}

/// The default level needs package registries that this host is configured for; a host without any builds without a network.
fn network(arguments: &BuildArgs) -> Result<(NetworkLevel, Option<cofferdam_lifecycle::gating::GateRequest>), Failure> {
    let asked = arguments.network.or(if arguments.allow.is_empty() { None } else { Some(NetworkLevel::LimitedWeb) });
    let wanted = Wanted { network: Some(asked.unwrap_or(NetworkLevel::PackageOnly)), allow: &arguments.allow, ..Wanted::default() };
    match (wanted.compile(), asked) {
        (Err(failure), None) => {
            crate::output::note!("cofferdam: note: RUN has no network: {}", failure.message());
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
