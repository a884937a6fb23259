//! `cofferdam image`: the image store.

use crate::args::{Global, ImageVerb, ImportArgs, LoadArgs, PullArgs, SbomFormat, TrustArgs, VerifyArgs};
use crate::commands::{build, lock};
use crate::context::Context;
use crate::engines::{EngineName, GATE_IMAGE};
use crate::exit::{FAILED, Failure};
use crate::images::{Images, content};
use crate::output::{age, one, size, table};
use cofferdam_engine_docker::Address;
use cofferdam_lifecycle::data::now;
use cofferdam_model::image::Reference;
use cofferdam_model::{Span, Timestamp};
use cofferdam_trust::collect::What;
use cofferdam_trust::content::ImageRecord;
use cofferdam_trust::verify::{Rule, Verification};
use cofferdam_trust::{inventory, layout, pack, push};
use serde::Serialize;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Does what was asked.
pub fn run(global: Global, verb: ImageVerb) -> Result<ExitCode, Failure> {
    match verb {
        ImageVerb::Pull(arguments) => pull(global, &arguments),
        ImageVerb::Ls => ls(&global),
        ImageVerb::Inspect { image } => inspect(&global, &image),
        ImageVerb::Verify(arguments) => verify(global, &arguments),
        ImageVerb::Build(arguments) => build::run(global, &arguments),
        ImageVerb::Sbom { image, format } => sbom(&global, &image, format),
        ImageVerb::Lock(arguments) => lock::run(global, &arguments),
        ImageVerb::Load(arguments) => load(global, &arguments),
        ImageVerb::Import(arguments) => import(global, &arguments),
        ImageVerb::Save { image, file } => save(&global, &image, &file),
        ImageVerb::Push { image, target, trust } => give(global, &image, target.as_ref(), &trust),
        ImageVerb::Tag { image, name } => tag(&global, &image, &name),
        ImageVerb::Rm { images } => rm(&global, &images),
        ImageVerb::Gc { unused_for, dry_run } => gc(global, unused_for, dry_run),
    }
}

/// An image as `ls` and `pull` print it.
#[derive(Serialize)]
struct Shown<'a> {
    reference: &'a Reference,
    digest: &'a cofferdam_model::image::Digest,
    platform: String,
    bytes: u64,
    created: Option<&'a str>,
    pulled_at: i64,
    verified: &'a Verification,
}

impl<'a> Shown<'a> {
    fn of(record: &'a ImageRecord) -> Self {
        Self {
            reference: &record.reference,
            digest: &record.digest,
            platform: record.platform.to_string(),
            bytes: bytes(record),
            created: record.created.as_deref(),
            pulled_at: record.pulled_at,
            verified: &record.verified,
        }
    }
}

fn bytes(record: &ImageRecord) -> u64 {
    record.layers.iter().map(|layer| layer.size).sum()
}

fn pull(global: Global, arguments: &PullArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let images = Images::open(context.data.path(), &arguments.trust, arguments.accept, context.global.quiet)?;
    for reference in &arguments.images {
        let record = images.pull(reference)?;
        one(context.global.output, &Shown::of(&record), |out| writeln!(out, "{}@{}", record.reference, record.digest))?;
        if !context.global.quiet {
            crate::output::note!("cofferdam: {}: {}", record.verified.rule, found(&record.verified));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn found(verification: &Verification) -> String {
    verification.steps.iter().map(|step| format!("{}: {}", step.check, step.found)).collect::<Vec<_>>().join("; ")
}

fn ls(global: &Global) -> Result<ExitCode, Failure> {
    let records = content(global).records();
    if global.quiet {
        for record in &records {
            println!("{}", record.reference);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Vec<Shown<'_>> = records.iter().map(Shown::of).collect();
    let head = ["IMAGE", "DIGEST", "SIZE", "HERE", "VERIFIED"];
    let row = |record: &ImageRecord| {
        let here = Timestamp::from_second(record.pulled_at).map(|then| age(then, now())).unwrap_or_default();
        let verified = match &record.verified.identity {
            Some(identity) => format!("{}: {identity}", record.verified.rule),
            None => record.verified.rule.to_string(),
        };
        vec![record.reference.to_string(), record.digest.short().to_owned(), size(bytes(record)), here, verified]
    };
    one(global.output, &shown, |out| table(out, &head, &records.iter().map(row).collect::<Vec<_>>()))?;
    Ok(ExitCode::SUCCESS)
}

fn known(global: &Global, reference: &Reference) -> Result<ImageRecord, Failure> {
    content(global).record(reference).ok_or_else(|| {
        Failure::new(FAILED, "not_found", format!("image {reference} is not here"))
            .remedy(format!("see cofferdam image ls, or pull it: cofferdam image pull {reference}"))
    })
}

fn inspect(global: &Global, reference: &Reference) -> Result<ExitCode, Failure> {
    let record = known(global, reference)?;
    one(global.output, &record, |out| writeln!(out, "{}", serde_json::to_string_pretty(&record)?))?;
    Ok(ExitCode::SUCCESS)
}

/// The document is the output, whatever form outputs have.
fn sbom(global: &Global, reference: &Reference, format: SbomFormat) -> Result<ExitCode, Failure> {
    let record = known(global, reference)?;
    let components = inventory::components(&content(global), &record)?;
    let document = match format {
        SbomFormat::Cyclonedx => inventory::cyclonedx(&record, &components),
        SbomFormat::Spdx => inventory::spdx(&record, &components),
    };
    println!("{}", serde_json::to_string_pretty(&document).map_err(io::Error::from)?);
    Ok(ExitCode::SUCCESS)
}

fn verify(global: Global, arguments: &VerifyArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut record = known(&context.global, &arguments.image)?;
    let images = Images::open(context.data.path(), &arguments.trust, false, context.global.quiet)?;
    let verified = images.verifier.again(&images.content, &record)?;
    one(context.global.output, &verified, |out| {
        writeln!(out, "{}", record.reference)?;
        let rule = verified.entry.clone().unwrap_or_else(|| "the default of trust.yaml".into());
        writeln!(out, "  rule       {} ({rule})", verified.rule)?;
        if let Some(identity) = &verified.identity {
            writeln!(out, "  identity   {identity}")?;
        }
        writeln!(out, "  digest     {}", record.digest)?;
        verified.steps.iter().try_for_each(|step| writeln!(out, "  checked    {}: {}", step.check, step.found))
    })?;
    if !arguments.trust.skip_verify && verified != record.verified {
        record.verified = verified;
        images.content.write_record(&record)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives an image to an engine that has a store of its own.
fn give_to_engine(context: &Context, name: &str, engine: EngineName) -> Result<ExitCode, Failure> {
    if engine != EngineName::Docker {
        return Err(Failure::usage(format!("--engine {}: it has no store of its own; docker has", engine.text())));
    }
    let reference: Reference = name.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    // That of the gate is made of this program when it is asked for.
    let record = if name == GATE_IMAGE { context.gate_image()? } else { known(&context.global, &reference)? };
    let docker = context.docker(Address::of_environment()?)?;
    let loaded = context.runtime.block_on(docker.daemon().load(&content(&context.global), &record))?;
    let said = if loaded.given { "given" } else { "there already" };
    one(context.global.output, &Shown::of(&record), |out| writeln!(out, "{} {} ({said})", record.reference, loaded.id))?;
    Ok(ExitCode::SUCCESS)
}

fn load(global: Global, arguments: &LoadArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    if let Some(engine) = arguments.engine {
        return give_to_engine(&context, &arguments.file.to_string_lossy(), engine);
    }
    let images = Images::open(context.data.path(), &TrustArgs::default(), false, context.global.quiet)?;
    let from_input = arguments.file == Path::new("-");
    let kept = if from_input { Some(spool(&images)?) } else { None };
    let path = kept.as_ref().map_or(arguments.file.as_path(), |file| file.path());
    let records = layout::load(&images.puller(), path, arguments.name.as_ref())?;
    for record in &records {
        one(context.global.output, &Shown::of(record), |out| writeln!(out, "{}@{}", record.reference, record.digest))?;
    }
    images.content.settle()?;
    Ok(ExitCode::SUCCESS)
}

/// Standard input, in a file.
fn spool(images: &Images) -> Result<tempfile::NamedTempFile, Failure> {
    let mut file = tempfile::Builder::new().prefix("stdin-").tempfile_in(images.content.directory("partial")?)?;
    io::copy(&mut io::stdin().lock(), &mut file)?;
    Ok(file)
}

fn import(global: Global, arguments: &ImportArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let images = Images::open(context.data.path(), &TrustArgs::default(), false, context.global.quiet)?;
    let record = pack::import(&images.puller(), &arguments.source, &arguments.name)?;
    one(context.global.output, &Shown::of(&record), |out| writeln!(out, "{}@{}", record.reference, record.digest))?;
    images.content.settle()?;
    Ok(ExitCode::SUCCESS)
}

fn save(global: &Global, reference: &Reference, file: &Path) -> Result<ExitCode, Failure> {
    let record = known(global, reference)?;
    let content = content(global);
    if file == Path::new("-") {
        layout::save(&content, &record, io::stdout().lock())?;
    } else {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut out = tempfile::Builder::new().prefix(".cofferdam-").tempfile_in(parent)?;
        layout::save(&content, &record, io::BufWriter::with_capacity(1 << 20, out.as_file_mut()))?;
        out.persist(file).map_err(|error| error.error)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn give(global: Global, image: &Reference, target: Option<&Reference>, trust: &TrustArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let images = Images::open(context.data.path(), trust, false, context.global.quiet)?;
    let record = known(&context.global, image)?;
    let target = target.unwrap_or(image);
    push::push(&images.content, &images.access, &record, target)?;
    one(context.global.output, &Shown::of(&record), |out| writeln!(out, "{}@{}", target, record.digest))?;
    Ok(ExitCode::SUCCESS)
}

fn tag(global: &Global, image: &Reference, name: &Reference) -> Result<ExitCode, Failure> {
    let mut record = known(global, image)?;
    if name.digest().is_some() {
        return Err(Failure::usage(format!("{name}: a digest is not given but had; name a tag")));
    }
    // What was never looked at stays so under another name.
    if record.verified.rule != Rule::Skipped {
        let how = format!("tagged from {image}: {}", found(&record.verified));
        record.verified = Verification::local(Rule::Loaded, how, now().as_second());
    }
    record.reference = name.clone();
    content(global).write_record(&record)?;
    Ok(ExitCode::SUCCESS)
}

fn rm(global: &Global, images: &[Reference]) -> Result<ExitCode, Failure> {
    let content = content(global);
    for reference in images {
        known(global, reference)?;
        content.remove_record(reference)?;
        if !global.quiet {
            println!("{reference}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn gc(global: Global, unused_for: Option<Span>, dry_run: bool) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let since = unused_for.map(|span| now().as_second() - i64::try_from(span.duration().as_secs()).unwrap_or(i64::MAX));
    let collected = crate::images::content(&context.global).collect(What { unused_since: since, dry_run })?;
    one(context.global.output, &collected, |out| {
        for reference in &collected.images {
            writeln!(out, "{reference}")?;
        }
        let verb = if dry_run { "would free" } else { "freed" };
        let kept = if collected.in_use > 0 { format!("; {} in use by sandboxes", collected.in_use) } else { String::new() };
        writeln!(out, "{verb} {} ({} layers, {} blobs){kept}", size(collected.bytes), collected.layers, collected.blobs)
    })?;
    Ok(ExitCode::SUCCESS)
}
