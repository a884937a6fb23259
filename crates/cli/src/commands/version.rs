//! `cofferdam version`.

use crate::args::Global;
use crate::exit::Failure;
use crate::output::one;
use std::process::ExitCode;

/// Prints it.
pub fn run(global: &Global) -> Result<ExitCode, Failure> {
    let version = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "architecture": std::env::consts::ARCH });
    one(global.output, &version, |out| writeln!(out, "cofferdam {}", env!("CARGO_PKG_VERSION")))?;
    Ok(ExitCode::SUCCESS)
}
