//! `cofferdam ports`.

use crate::args::Global;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{one, table};
use std::process::ExitCode;

/// Shows where the host listens for a sandbox.
pub fn run(global: Global, reference: &str) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let record = Context::find(&mut context.store()?, reference)?;
    let ports = if record.phase.is_final() { Vec::new() } else { record.ports };
    let rows: Vec<Vec<String>> = ports.iter().map(|port| vec![port.host.to_string(), port.port.to_string()]).collect();
    one(context.global.output, &ports, |out| table(out, &["HOST", "PORT"], &rows))?;
    Ok(ExitCode::SUCCESS)
}
