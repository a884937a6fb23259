//! `cofferdam engine`: what each engine can do here.

use crate::args::Global;
use crate::context::Context;
use crate::exit::Failure;
use crate::outer;
use crate::output::{one, table};
use cofferdam_engine::{CONTROLS, Capabilities, Engine};
use cofferdam_engine_docker::{Address, Facts};
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// An engine of this host.
#[derive(Serialize)]
struct Shown {
    name: &'static str,
    usable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroups: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<Facts>,
}

/// A control, and each engine's word on it.
#[derive(Serialize)]
struct Word {
    control: &'static str,
    promise: &'static str,
    /// By engine: yes, or why not.
    engines: BTreeMap<&'static str, String>,
}

/// Shows them control by control.
pub fn info(global: Global) -> Result<ExitCode, Failure> {
    enter_if_possible()?;
    let context = Context::open(global)?;
    let all = engines(&context);
    let word = |shown: &Shown, control: &str| match (&shown.why, &shown.capabilities) {
        (None, Some(capabilities)) => {
            let lacks = capabilities.missing.iter().chain(&capabilities.exceptions).find(|(name, _)| name == control);
            lacks.map_or_else(|| "yes".to_owned(), |(_, why)| format!("no: {why}"))
        }
        _ => "not usable here".to_owned(),
    };
    let words: Vec<Word> = CONTROLS
        .iter()
        .map(|(control, promise)| Word { control, promise, engines: all.iter().map(|shown| (shown.name, word(shown, control))).collect() })
        .collect();
    let row = |line: &Word| {
        let engines = all.iter().map(|shown| line.engines[shown.name].clone());
        [line.control.to_owned(), line.promise.to_owned()].into_iter().chain(engines).collect()
    };
    let rows: Vec<Vec<String>> = words.iter().map(row).collect();
    one(context.global.output, &words, |out| {
        table(out, &["CONTROL", "PROMISE", "NATIVE", "DOCKER"], &rows)?;
        all.iter().filter_map(|shown| Some((shown.name, shown.why.as_ref()?))).try_for_each(|(name, why)| writeln!(out, "{name}: {why}"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Lists engines.
pub fn ls(global: Global) -> Result<ExitCode, Failure> {
    enter_if_possible()?;
    let context = Context::open(global)?;
    let all = engines(&context);
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    one(context.global.output, &all, |out| table(out, &["ENGINE", "USABLE", "HERE", "NOT ENFORCEABLE HERE"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// A host that gives no user namespace has other things to tell, too. One that gives half of one leaves this process unable to.
fn enter_if_possible() -> Result<(), Failure> {
    match outer::enter_for_sandboxes(false) {
        Err(error) if !error.call.starts_with("unshare") => Err(outer::explain(&error)),
        _ => Ok(()),
    }
}

fn engines(context: &Context) -> [Shown; 2] {
    let native = match context.engine() {
        Ok(engine) => usable(engine.capabilities(), Some(engine.host().hierarchies.describe()), None),
        Err(failure) => unusable("native", &failure),
    };
    let docker = match Address::of_environment().map_err(Into::into).and_then(|address| context.docker(address)) {
        Ok(engine) => usable(engine.capabilities(), None, Some(engine.daemon().facts.clone())),
        Err(failure) => unusable("docker", &failure),
    };
    [native, docker]
}

fn usable(capabilities: Capabilities, cgroups: Option<&'static str>, daemon: Option<Facts>) -> Shown {
    Shown { name: capabilities.name, usable: true, why: None, capabilities: Some(capabilities), cgroups, daemon }
}

fn unusable(name: &'static str, failure: &Failure) -> Shown {
    Shown { name, usable: false, why: Some(failure.message()), capabilities: None, cgroups: None, daemon: None }
}

fn row(shown: &Shown) -> Vec<String> {
    let missing = shown.capabilities.iter().flat_map(|capabilities| &capabilities.missing);
    let missing: Vec<String> = missing.map(|(name, why)| format!("{name} ({why})")).collect();
    let here = match (&shown.cgroups, &shown.daemon) {
        (Some(cgroups), _) => format!("cgroup {cgroups}"),
        (_, Some(daemon)) => format!("Docker {} (API {}, {})", daemon.version, daemon.api, daemon.storage),
        _ => String::new(),
    };
    let what = match &shown.why {
        Some(why) => why.clone(),
        None if missing.is_empty() => "nothing".to_owned(),
        None => missing.join("; "),
    };
    vec![shown.name.to_owned(), if shown.usable { "yes" } else { "no" }.to_owned(), here, what]
}
