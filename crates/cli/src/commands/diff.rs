//! `cofferdam diff` and `snapshot`: what a sandbox changed of its image.

use crate::args::{Global, TrustArgs};
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use crate::images::Images;
use crate::output::{one, printable};
use crate::{repository, terminal};
use cofferdam_lifecycle::control::{Reply, Request};
use cofferdam_lifecycle::data::now;
use cofferdam_model::image::Reference;
use cofferdam_model::{ImageRef, SandboxRecord};
use cofferdam_trust::content::{Content, ImageRecord};
use cofferdam_trust::layout::{NewImage, NewLayer, compose};
use cofferdam_trust::pull::listed;
use cofferdam_trust::verify::{Rule, Verification};
use cofferdam_trust::{changes, resolve};
use serde::Serialize;
use std::os::fd::AsFd;
use std::process::ExitCode;

#[derive(Serialize)]
struct Changed {
    kind: char,
    path: String,
}

/// Shows it.
pub fn run(global: Global, reference: &str) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let record = Context::find(&mut context.store()?, reference)?;
    if record.view.is_some() {
        return of_repository(&context, &record);
    }
    let (file, _) = changed(&context, &record)?;
    let image = resolve(&record.image, context.data.path())?;
    let found = changes::list(file.path(), &image)?;
    let found: Vec<Changed> =
        found.into_iter().map(|(path, kind)| Changed { kind: kind.letter(), path: path.display().to_string() }).collect();
    one(context.global.output, &found, |out| {
        found.iter().try_for_each(|change| writeln!(out, "{} /{}", change.kind, printable(&change.path)))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// As a patch; on a terminal nothing of it can be taken for a command.
fn of_repository(context: &Context, record: &SandboxRecord) -> Result<ExitCode, Failure> {
    let changed = repository::Changed::of(context, record)?;
    changed.tell_left_out();
    let kind = |difference: &repository::Difference| match (&difference.before, &difference.after) {
        (None, _) => 'A',
        (_, None) => 'D',
        _ => 'C',
    };
    let found: Vec<Changed> = changed
        .differences
        .iter()
        .map(|difference| Changed { kind: kind(difference), path: difference.path.display().to_string() })
        .collect();
    one(context.global.output, &found, |out| {
        let (text, _) = repository::patch(&changed.differences);
        if !terminal::is_output() {
            return out.write_all(text.as_bytes());
        }
        text.lines().try_for_each(|line| writeln!(out, "{}", printable(&line.replace('\t', "    "))))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The changes as a layer's archive, in the store's own place for what is on its way.
fn changed(context: &Context, record: &SandboxRecord) -> Result<(tempfile::NamedTempFile, NewLayer), Failure> {
    let content = Content::of(context.data.path());
    let file = tempfile::Builder::new().prefix("changes-").tempfile_in(content.directory("partial")?)?;
    let client = context.connect(record)?;
    client.send(&Request::Changes { epoch: i64::MAX, of_view: false }, &[file.as_file().as_fd()])?;
    match client.answer()? {
        Reply::Changed(layer) => Ok((file, layer)),
        other => Err(Failure::new(FAILED, "protocol", format!("unexpected answer {other:?}"))),
    }
}

/// Makes an image of it: the layers of its own image, and one more.
pub fn snapshot(global: Global, reference: &str, name: &Reference) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let record = Context::find(&mut context.store()?, reference)?;
    let ImageRef::Registry(base) = &record.image else {
        let message = format!("sandbox {} runs on image {}, which is no image of the store", record.id.short(), record.image);
        return Err(Failure::new(FAILED, "unsupported", message).remedy("run it on one: --image NAME"));
    };
    if name.digest().is_some() {
        return Err(Failure::usage(format!("{name}: a digest is not given but had; name a tag")));
    }
    let images = Images::open(context.data.path(), &TrustArgs::default(), false, context.global.quiet)?;
    let gone = || Failure::new(FAILED, "not_found", format!("image {base} is not here any more"));
    let base = images.content.record(base).ok_or_else(gone)?;
    let _lock = images.content.enter()?;
    let (file, layer) = changed(&context, &record)?;
    let path = file.into_temp_path().keep().map_err(|error| error.error)?;
    images.content.adopt_blob(&path, &layer.digest)?;
    let made = compose(&images.puller(), image_of(&images, &base, &layer, &record, name)?)?;
    images.content.settle()?;
    one(context.global.output, &made, |out| writeln!(out, "{}@{}", made.reference, made.digest))?;
    Ok(ExitCode::SUCCESS)
}

fn image_of(images: &Images, base: &ImageRecord, layer: &NewLayer, record: &SandboxRecord, name: &Reference) -> Result<NewImage, Failure> {
    let mut layers = listed(&images.content, base)?;
    layers.push(layer.listed());
    let how = format!("snapshot of sandbox {} on {}@{} ({})", record.id, base.reference, base.digest, base.verified.rule);
    Ok(NewImage {
        reference: name.clone(),
        created: Some(now().to_string()),
        platform: base.platform.clone(),
        layers,
        config: base.config.clone(),
        history: Vec::new(),
        verified: Verification::local(Rule::Built, how, now().as_second()),
    })
}
