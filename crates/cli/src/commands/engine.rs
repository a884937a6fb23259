//! `cofferdam engine ls`.

use crate::args::Global;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{one, table};
use cofferdam_engine::Engine;
use std::process::ExitCode;

/// Lists engines.
pub fn ls(global: Global) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let engine = context.engine()?;
    let capabilities = engine.capabilities();
    let cgroups = engine.host().hierarchies.describe();
    let missing: Vec<String> = capabilities.missing.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    let row = vec![
        capabilities.name.to_owned(),
        "yes".to_owned(),
        cgroups.to_owned(),
        if missing.is_empty() { "nothing".to_owned() } else { missing.join("; ") },
    ];
    one(context.global.output, &[&capabilities], |out| table(out, &["ENGINE", "USABLE", "CGROUPS", "NOT ENFORCEABLE HERE"], &[row]))?;
    Ok(ExitCode::SUCCESS)
}
