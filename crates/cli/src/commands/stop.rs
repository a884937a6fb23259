//! `cofferdam stop`, `kill`, `pause`, `resume`: one request each, to one or more supervisors.

use crate::args::{Global, KillArgs, SandboxesArg, StopArgs};
use crate::commands::wait::until_final;
use crate::context::Context;
use crate::exit::Failure;
use cofferdam_engine::{SIGNALS, signal_number};
use cofferdam_lifecycle::control::Request;
use std::process::ExitCode;

/// Stops and waits until they have ended.
pub fn stop(global: Global, arguments: &StopArgs) -> Result<ExitCode, Failure> {
    ask_all(global, &arguments.which, &Request::Stop { grace_ms: arguments.grace.millis() }, true)
}

/// Kills and waits, or signals.
pub fn kill(global: Global, arguments: &KillArgs) -> Result<ExitCode, Failure> {
    let signal = arguments.signal.as_deref().map(signal).transpose()?;
    ask_all(global, &arguments.which, &Request::Kill { signal }, signal.is_none())
}

/// Pauses.
pub fn pause(global: Global, arguments: &SandboxesArg) -> Result<ExitCode, Failure> {
    ask_all(global, arguments, &Request::Pause, false)
}

/// Resumes.
pub fn resume(global: Global, arguments: &SandboxesArg) -> Result<ExitCode, Failure> {
    ask_all(global, arguments, &Request::Resume, false)
}

fn ask_all(global: Global, which: &SandboxesArg, request: &Request, until_ended: bool) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    for reference in &which.sandboxes {
        let record = Context::find(&mut store, reference)?;
        if until_ended && record.phase.is_final() {
            continue;
        }
        context.connect(&record)?.ask(request)?;
        if until_ended {
            until_final(&context, &mut store, record)?;
        }
        if !context.global.quiet {
            println!("{reference}");
        }
    }
    context.sweep(&mut store)?;
    Ok(ExitCode::SUCCESS)
}

fn signal(text: &str) -> Result<i32, Failure> {
    signal_number(text).ok_or_else(|| {
        let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
        Failure::usage(format!("signal {text:?} is not known: use a number from 1 to 64 or one of {}", names.join(", ")))
    })
}
