//! The engine docker, on a host that has a daemon or names one: what the daemon says of itself, and what a container of it lets through.

use super::{Control, State};
use crate::commands::escape_test;
use crate::context::Context;
use crate::exit::Failure;
use cofferdam_engine::conformance::{Kit, ProbeResult};
use cofferdam_engine::{Engine, MountSource};
use cofferdam_engine_docker::{Address, DockerEngine};
use cofferdam_trust::content::Content;
use cofferdam_trust::stored_image;
use std::path::Path;

const SOCKET: &str = "/var/run/docker.sock";
/// Attempts by which holes of runtimes were used: descriptors and a directory that lead out (CVE-2024-21626), the runtime's own program
/// (CVE-2019-5736), masks and terminals that are put elsewhere (CVE-2025-31133, 52565, 52881), mounts that are seen outside.
const HOLES: &[&str] = &["descriptors", "working-directory", "pid-1-closed", "masked-paths", "kernel-settings", "terminals", "propagation"];

/// Examines it.
pub fn examine(context: &Context, controls: &mut Vec<Control>) {
    let address = Address::of_environment();
    if address.as_ref().is_ok_and(|address| !address.is_named()) && !Path::new(SOCKET).exists() {
        return;
    }
    let mut say = |state, detail| controls.push(Control { control: "engine docker", state, detail });
    let engine = address.map_err(Into::into).and_then(|address| context.configured(context.docker(address)?));
    match engine {
        Err(failure) => say(State::NotEnforceableHere, failure.message()),
        Ok(engine) => {
            say(State::Enforced, described(&engine));
            for (name, why) in engine.capabilities().missing {
                say(State::NotEnforceableHere, format!("{name}: {why}"));
            }
            match attempts(context, &engine) {
                Ok(results) => {
                    let (state, detail) = judge(&engine, &results);
                    say(state, detail);
                }
                Err(failure) => say(State::Misconfigured, format!("no container can be made: {}", failure.message())),
            }
        }
    }
}

fn described(engine: &DockerEngine) -> String {
    let facts = &engine.daemon().facts;
    let option = |text: &String| text.split(',').find_map(|part| part.strip_prefix("name=")).map(str::to_owned);
    let security = facts.security.iter().filter_map(option).collect::<Vec<_>>().join(", ");
    format!("Docker {} (API {}) at {}; storage {}; {security}", facts.version, facts.api, facts.address, facts.storage)
}

/// Every attempt to get out, in containers of this program, as an ordinary user and as root.
fn attempts(context: &Context, engine: &DockerEngine) -> Result<Vec<ProbeResult>, Failure> {
    let record = context.gate_image()?;
    let image = stored_image(&Content::of(context.data.path()), &record)?;
    let directory = context.data.path().join(format!("doctor-docker-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let program = directory.join("probe");
    std::fs::copy("/proc/self/exe", &program)?;
    let results = context.runtime.block_on(async {
        let probe = MountSource::open(&program, None, Path::new("/nonexistent"))?;
        let _unrecorded = context.data.hold_unrecorded()?;
        let mut kit = Kit::new(engine, image, context.data.install(), directory.clone(), probe);
        let _listener = escape_test::describe_host(&mut kit, &directory)?;
        let mut results = Vec::new();
        for user in [None, Some("0")] {
            results.extend(escape_test::probes(&kit, user, false, None).await?.into_values());
        }
        Ok(results)
    });
    std::fs::remove_dir_all(&directory)?;
    results
}

fn judge(engine: &DockerEngine, results: &[ProbeResult]) -> (State, String) {
    let exceptions = engine.capabilities().exceptions;
    let is_open = |result: &&ProbeResult| result.outcome == "open" && !exceptions.iter().any(|(name, _)| *name == result.probe);
    if let Some(open) = results.iter().find(is_open) {
        return (State::Misconfigured, format!("{}: {}", open.probe, open.detail));
    }
    if let Some(hole) = HOLES.iter().find(|hole| !results.iter().any(|result| result.probe == **hole)) {
        return (State::Misconfigured, format!("{hole}: the attempt did not answer"));
    }
    let failed = results.iter().filter(|result| result.outcome != "open").count();
    (State::Enforced, format!("{failed} attempts to get out of a container fail, known holes of runtimes among them"))
}
