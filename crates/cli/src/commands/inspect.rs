//! `cofferdam inspect`.

use crate::args::{Form, Global, SandboxesArg};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::one;
use cofferdam_engine::Observation;
use cofferdam_lifecycle::control::{Client, Reply, Request};
use cofferdam_model::SandboxRecord;
use std::process::ExitCode;

#[derive(serde::Serialize)]
struct Inspected {
    #[serde(flatten)]
    record: SandboxRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Observation>,
}

/// Shows everything recorded, and what a running one uses. Always structured: a table has no room for it.
pub fn run(global: Global, arguments: &SandboxesArg) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let mut all = Vec::new();
    for reference in &arguments.sandboxes {
        let record = Context::find(&mut store, reference)?;
        let client = Client::connect(&context.data.sandbox(record.id)).ok();
        let now = client.and_then(|client| match client.ask(&Request::Observe) {
            Ok(Reply::Observed(observation)) => Some(observation),
            _ => None,
        });
        all.push(Inspected { record, now });
    }
    let form = if context.global.output == Form::Yaml { Form::Yaml } else { Form::Json };
    if let [single] = all.as_slice() {
        one(form, single, |_| Ok(()))?;
    } else {
        one(form, &all, |_| Ok(()))?;
    }
    Ok(ExitCode::SUCCESS)
}
