//! `cofferdam image lock`.

use crate::args::{Global, LockArgs};
use crate::config;
use crate::context::Context;
use crate::debian::mirrors;
use crate::definitions::Definition;
use crate::exit::{FAILED, Failure};
use crate::images::content;
use crate::output::one;
use cofferdam_lifecycle::data::now;
use cofferdam_trust::debian::{Archive, Change, Lock};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;

/// What a lock file is, and what it would be.
#[derive(Serialize)]
struct Report {
    definition: String,
    packages: usize,
    changes: Vec<Change>,
    /// There was none: everything is new.
    first: bool,
    updated: bool,
}

/// Says what the archive has that the lock files have not; takes it if asked to. Exit status 1 if something changed and was not taken.
pub fn run(global: Global, arguments: &LockArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut open = false;
    for said in &arguments.definitions {
        let report = one_of(&context, said, arguments.update)?;
        open |= !report.changes.is_empty() && !report.updated;
        one(context.global.output, &report, |out| {
            let verb = match (report.changes.is_empty(), report.updated) {
                (_, true) => "updated",
                (true, false) => "up to date",
                (false, false) => "out of date",
            };
            writeln!(out, "{}: {verb}, {} packages", report.definition, report.packages)?;
            if report.first {
                return Ok(());
            }
            report.changes.iter().try_for_each(|change| match (&change.from, &change.to) {
                (Some(from), Some(to)) => writeln!(out, "  {} {}: {from} -> {to}", change.architecture, change.name),
                (None, Some(to)) => writeln!(out, "  {} {}: new, {to}", change.architecture, change.name),
                (from, None) => writeln!(out, "  {} {}: gone, was {}", change.architecture, change.name, from.as_deref().unwrap_or("")),
            })
        })?;
    }
    Ok(if open { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn one_of(context: &Context, said: &Path, update: bool) -> Result<Report, Failure> {
    let definition = Definition::find(said)?;
    let base = definition.base()?;
    let shown = definition.shown("lock.json");
    let path = definition.path.join("lock.json");
    // One that cannot be read is as good as none: its successor replaces it.
    let old = std::fs::read_to_string(&path).ok().and_then(|text| Lock::read(&shown, &text).ok());
    let content = content(&context.global);
    let new = if base.packages.is_empty() {
        Lock::empty(&base)
    } else {
        Archive::new(&mirrors(&config::load()?)?, &content, now().as_second()).lock(&base)?
    };
    let changes = old.as_ref().map_or_else(|| Lock::empty(&base).changes(&new), |old| old.changes(&new));
    let stale = old.as_ref().is_none_or(|old| old.definition != new.definition);
    let packages = new.packages.values().map(Vec::len).sum();
    let updated = update && (stale || !changes.is_empty());
    if updated {
        if definition.is_own() {
            let message = format!("{} is part of the program and is not written", definition.shown("lock.json"));
            return Err(Failure::new(FAILED, "definition", message).remedy("copy the definition into a directory of your own"));
        }
        content.write_whole(&path, new.text().as_bytes())?;
    }
    Ok(Report { definition: shown, packages, changes, first: old.is_none(), updated })
}
