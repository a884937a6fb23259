//! The hidden `cofferdam probe`: runs inside a sandbox.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the named probes, or all; `hoard` is told apart, since it may not survive itself, and what probes execute.
pub fn run(names: &[OsString]) -> ExitCode {
    if names.first().is_some_and(|name| name == "hoard") {
        cofferdam_probe::hoard();
        return ExitCode::SUCCESS;
    }
    if names.first().is_some_and(|name| name == "effective-user") {
        println!("{}", rustix::process::geteuid().as_raw());
        return ExitCode::SUCCESS;
    }
    if names.first().is_some_and(|name| name == "x32-call") {
        return if cofferdam_probe::x32_call_is_refused() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let names: Vec<String> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if cofferdam_probe::run(&names) { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
