//! `cofferdam cp`.

use crate::args::{CpArgs, Global};
use crate::context::Context;
use crate::exit::{FAILED, Failure};
use crate::output::one;
use cofferdam_lifecycle::control::{Reply, Request};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

enum Place {
    Sandbox(String, PathBuf),
    Host(PathBuf),
}

/// Copies.
pub fn run(global: Global, arguments: &CpArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let (reference, request) = match (parse(&arguments.source), parse(&arguments.target)) {
        (Place::Sandbox(sandbox, source), Place::Host(target)) => {
            let target = into_directory(absolute(&target)?, &source);
            (sandbox, Request::CopyOut { source, target })
        }
        (Place::Host(source), Place::Sandbox(sandbox, target)) => {
            let source = absolute(&source)?;
            let ends_in_slash = arguments.target.ends_with('/');
            let target = if ends_in_slash { target.join(source.file_name().unwrap_or_default()) } else { target };
            (sandbox, Request::CopyIn { source, target })
        }
        _ => return Err(Failure::usage("one of the two must be SANDBOX:PATH, the other a path of the host")),
    };
    let record = Context::find(&mut store, &reference)?;
    match context.connect(&record)?.ask(&request)? {
        Reply::Copied(report) => {
            for entry in &report.left_out {
                crate::output::note!("cofferdam: left out: {entry}");
            }
            if !context.global.quiet {
                one(context.global.output, &report, |out| writeln!(out, "{} files, {} bytes", report.files, report.bytes))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        other => Err(Failure::new(FAILED, "protocol", format!("unexpected answer {other:?}"))),
    }
}

/// `NAME:PATH` with an absolute path is a sandbox's; anything with a slash before the colon is the host's.
fn parse(text: &str) -> Place {
    match text.split_once(':') {
        Some((sandbox, path)) if !sandbox.is_empty() && !sandbox.contains('/') && path.starts_with('/') => {
            Place::Sandbox(sandbox.to_owned(), PathBuf::from(path))
        }
        _ => Place::Host(PathBuf::from(text)),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    Ok(std::path::absolute(path)?)
}

fn into_directory(target: PathBuf, source: &Path) -> PathBuf {
    match source.file_name() {
        Some(name) if target.is_dir() => target.join(name),
        _ => target,
    }
}
