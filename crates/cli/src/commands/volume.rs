//! `cofferdam volume`: named volumes.

use crate::args::{Form, Global, VolumeVerb};
use crate::context::{Context, actor};
use crate::exit::{FAILED, Failure};
use crate::output::{age, one, size, table};
use cofferdam_lifecycle::data::now;
use cofferdam_lifecycle::volume::{Volume, Volumes};
use cofferdam_model::{Name, NewEvent, SandboxRecord, Timestamp};
use rustix::stdio::stdout;
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// A volume as it is printed.
#[derive(Serialize)]
struct Shown {
    name: Name,
    size_bytes: Option<u64>,
    used_bytes: Option<u64>,
    created_at: Timestamp,
    used_by: Vec<UsedBy>,
}

/// A sandbox that has not ended.
#[derive(Serialize)]
struct UsedBy {
    id: cofferdam_model::SandboxId,
    name: Option<Name>,
    target: std::path::PathBuf,
    writable: bool,
}

/// Does what was asked.
pub fn run(global: Global, verb: VolumeVerb) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let volumes = Volumes::of(&context.data);
    match verb {
        VolumeVerb::Create { name, size } => {
            volumes.create(&name, size)?;
            say(&context, &name, "volume.created")?;
        }
        VolumeVerb::Ls => {
            let all = volumes.list()?;
            let shown = show(&context, &volumes, all)?;
            one(context.global.output, &shown, |out| listed(out, &shown))?;
        }
        VolumeVerb::Inspect { names } => {
            let wanted = names.iter().map(|name| volumes.get(name)).collect::<Result<_, _>>()?;
            let shown = show(&context, &volumes, wanted)?;
            // As `inspect` of sandboxes.
            let form = if context.global.output == Form::Yaml { Form::Yaml } else { Form::Json };
            match shown.as_slice() {
                [single] => one(form, single, |_| Ok(()))?,
                all => one(form, &all, |_| Ok(()))?,
            }
        }
        VolumeVerb::Rm { names } => {
            for name in names {
                volumes.remove(&name)?;
                say(&context, &name, "volume.removed")?;
            }
        }
        VolumeVerb::Export { name, file } => export(&volumes, &name, &file)?,
        VolumeVerb::Import { name, file, size } => {
            let archive: Box<dyn Read> = if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(opened(&file)?) };
            volumes.import(&name, size, BufReader::with_capacity(1 << 20, archive))?;
            say(&context, &name, "volume.created")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn opened(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|error| Failure::new(FAILED, "io", format!("{}: {error}", file.display())))
}

/// To a file only when it is whole.
fn export(volumes: &Volumes, name: &Name, file: &Path) -> Result<(), Failure> {
    if file == Path::new("-") {
        if rustix::termios::isatty(stdout()) {
            return Err(
                Failure::usage("an archive is not for a terminal").remedy(format!("name a file: cofferdam volume export {name} FILE"))
            );
        }
        return Ok(volumes.export(name, BufWriter::with_capacity(1 << 20, io::stdout().lock()))?);
    }
    let failed = |error: io::Error| Failure::new(FAILED, "io", format!("write {}: {error}", file.display()));
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut making = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    volumes.export(name, BufWriter::with_capacity(1 << 20, making.as_file_mut()))?;
    making.as_file().sync_all().map_err(failed)?;
    making.persist(file).map(|_| ()).map_err(|error| failed(error.error))
}

/// Records what became of a volume.
pub fn record(context: &Context, name: &Name, kind: &str) -> Result<(), Failure> {
    let event = NewEvent {
        time: now(),
        actor: actor(),
        subject: format!("volume:{name}"),
        kind: kind.to_owned(),
        rule: None,
        reason: None,
        data: serde_json::Value::Null,
    };
    context.store()?.event_insert(&[event])?;
    Ok(())
}

/// The same, and prints the name.
fn say(context: &Context, name: &Name, kind: &str) -> Result<(), Failure> {
    record(context, name, kind)?;
    if !context.global.quiet {
        writeln!(io::stdout(), "{name}")?;
    }
    Ok(())
}

fn show(context: &Context, volumes: &Volumes, wanted: Vec<Volume>) -> Result<Vec<Shown>, Failure> {
    let live = context.store()?.sandbox_list_live()?;
    let shown = |volume: Volume| {
        let used_bytes = volumes.usage(&volume.name)?.map(|(used, _)| used);
        let Volume { name, size_bytes, created_at } = volume;
        let used_by = live.iter().flat_map(|record| uses(record, &name)).collect();
        Ok(Shown { name, size_bytes, used_bytes, created_at, used_by })
    };
    wanted.into_iter().map(shown).collect()
}

fn uses(record: &SandboxRecord, name: &Name) -> Vec<UsedBy> {
    let here = record.volumes.iter().filter(|volume| volume.name == *name);
    here.map(|volume| UsedBy { id: record.id, name: record.name.clone(), target: volume.target.clone(), writable: volume.writable })
        .collect()
}

fn listed(out: &mut dyn Write, shown: &[Shown]) -> io::Result<()> {
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
    let who = |user: &UsedBy| user.name.as_ref().map_or_else(|| user.id.short(), ToString::to_string);
    let row = |volume: &Shown| {
        let users: Vec<String> = volume.used_by.iter().map(who).collect();
        vec![volume.name.to_string(), bytes(volume.size_bytes), bytes(volume.used_bytes), age(volume.created_at, now()), users.join(",")]
    };
    table(out, &["NAME", "SIZE", "USED", "AGE", "SANDBOXES"], &shown.iter().map(row).collect::<Vec<_>>())
}
