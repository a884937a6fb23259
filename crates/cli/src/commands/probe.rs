//! The hidden `cofferdam probe`: runs inside a sandbox.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the named probes, or all; `hoard` is told apart, since it may not survive itself.
pub fn run(names: &[OsString]) -> ExitCode {
    if names.first().is_some_and(|name| name == "hoard") {
        cofferdam_probe::hoard();
        return ExitCode::SUCCESS;
    }
    let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if cofferdam_probe::run(&names) { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
