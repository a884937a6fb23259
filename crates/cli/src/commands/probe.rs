//! The hidden `cofferdam probe`: runs inside a sandbox.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the named probes, or all.
pub fn run(names: &[OsString]) -> ExitCode {
    let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if cofferdam_probe::run(&names) { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
