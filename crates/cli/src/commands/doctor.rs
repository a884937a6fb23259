//! `cofferdam doctor`: every control of the security model, shown on a real sandbox, not looked up by version.

mod docker;

use crate::args::{DoctorArgs, Global};
use crate::context::{Context, data_path};
use crate::exit::{Failure, UNHEALTHY};
use crate::output::{one, table};
use cofferdam_engine::conformance::{Kit, Made, ProbeResult};
use cofferdam_engine::{Engine, GateSockets, MountSource, Wiring};
use cofferdam_engine_native::NativeEngine;
use cofferdam_model::{Bytes, ImageRef};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Enforced,
    NotEnforceableHere,
    Misconfigured,
}

#[derive(serde::Serialize)]
struct Control {
    control: &'static str,
    state: State,
    detail: String,
}

/// A control and the probes that show it at work.
const SHOWN: &[(&str, &[&str])] = &[
    ("seccomp", &["seccomp", "call-bpf", "call-io_uring_setup", "socket-vsock", "unshare", "foreign-entry"]),
    ("capabilities", &["capabilities"]),
    ("no_new_privs", &["no-new-privileges", "set-user-id", "become-root"]),
    ("id range", &["id-range", "groups"]),
    ("namespaces", &["namespaces", "own-processes", "propagation"]),
    ("masked paths", &["masked-paths", "proc-cmdline", "kernel-settings", "sysfs"]),
    ("devices", &["device-list", "device-node", "mount-flags", "terminals"]),
    ("network rules", &["interfaces", "rules", "udp", "tcp-v4", "tcp-v6", "metadata", "dns"]),
    ("process limit", &["process-limit"]),
    ("landlock", &["landlock"]),
    ("pid 1", &["pid-1-closed", "pid-1-survives", "descriptors"]),
];

/// Checks; with `--fix` first mends what it can. Exit status 3 if something is misconfigured.
pub fn run(global: Global, arguments: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut controls = Vec::new();
    if let Err(error) = crate::outer::enter_for_sandboxes(false) {
        let detail = crate::outer::explain(&error).message();
        controls.push(Control { control: "user namespaces", state: State::Misconfigured, detail });
        return report(&global, &controls);
    }
    if arguments.fix {
        mend(&global)?;
    }
    let context = Context::open(global)?;
    let mut store = context.store()?;
    let swept = context.sweep(&mut store)?;
    let state = if swept.left.is_empty() { State::Enforced } else { State::Misconfigured };
    controls.push(Control { control: "nothing left behind", state, detail: format!("{} dead sandboxes were ended", swept.ended.len()) });
    examine(&context, &mut controls)?;
    report(&context.global, &controls)
}

/// The data directory's own permissions are what a user most often gets wrong.
fn mend(global: &Global) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let path = data_path(global);
    if path.is_dir() {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn examine(context: &Context, controls: &mut Vec<Control>) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(context.data.path())?.permissions().mode() & 0o777;
    let (state, detail) = if mode == 0o700 {
        (State::Enforced, format!("{} is its owner's alone", context.data.path().display()))
    } else {
        (State::Misconfigured, format!("{} has mode {mode:o}: doctor --fix makes it 700", context.data.path().display()))
    };
    controls.push(Control { control: "data directory", state, detail });
    let engine = context.engine()?;
    for (name, why) in engine.capabilities().missing {
        let control = match name.as_str() {
            "landlock" => "landlock",
            "id range" => "id range",
            _ => "cgroup limits",
        };
        controls.push(Control { control, state: State::NotEnforceableHere, detail: format!("{name}: {why}") });
    }
    controls.extend(copies(&engine)?);
    docker::examine(context, controls);
    let directory = context.data.path().join(format!("doctor-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let program = directory.join("probe");
    std::fs::copy("/proc/self/exe", &program)?;
    let result = context.runtime.block_on(async {
        let image = cofferdam_trust::resolve(&ImageRef::Host, context.data.path())?;
        let probe = MountSource::open(&program, None, Path::new("/nonexistent"))?;
        let _unrecorded = context.data.hold_unrecorded()?;
        let mut kit = Kit::new(&engine, image, context.data.install(), directory.clone(), probe);
        let namespaces = std::fs::read_link("/proc/self/ns/user")?.display().to_string();
        kit.probe_environment = vec![format!("COFFERDAM_PROBE_NAMESPACES={namespaces}")];
        show(&kit, controls).await;
        Ok::<(), Failure>(())
    });
    std::fs::remove_dir_all(&directory)?;
    result
}

/// Said only where it costs something.
fn copies(engine: &NativeEngine) -> Result<Option<Control>, Failure> {
    let said = engine.without_overlays()?.map(|why| format!("{why}: images and repositories are copied into memory for each sandbox"));
    Ok(said.map(|detail| Control { control: "overlays", state: State::NotEnforceableHere, detail }))
}

async fn show(kit: &Kit<'_>, controls: &mut Vec<Control>) {
    match probed(kit).await {
        Ok(results) => {
            let missing: Vec<&str> = controls.iter().map(|control| control.control).collect();
            let shown = SHOWN.iter().filter(|(control, _)| !missing.contains(control));
            let judged: Vec<Control> = shown.map(|(control, probes)| judge(control, probes, &results)).collect();
            controls.extend(judged);
        }
        Err(why) => controls.push(Control { control: "sandbox", state: State::Misconfigured, detail: why }),
    }
    controls.push(match gate(kit).await {
        Ok(()) => {
            Control { control: "gate", state: State::Enforced, detail: "a connection to a synthetic address came to its listener".into() }
        }
        Err(why) => Control { control: "gate", state: State::NotEnforceableHere, detail: why },
    });
    controls.push(gate_process());
    if !kit.engine.capabilities().missing.iter().any(|(name, _)| name == "memory limit") {
        controls.push(memory(kit).await);
    }
    let on_disk = limited(
        kit,
        Bytes::mebibytes(64),
        Bytes::mebibytes(128),
        "dd if=/dev/zero of=/tmp/f bs=1M count=200 2>/dev/null && exit 1; exit 0",
    )
    .await;
    controls.push(match on_disk {
        Ok(_) => Control { control: "disk limit", state: State::Enforced, detail: "a file beyond it met a full disk".into() },
        Err(why) => Control { control: "disk limit", state: State::NotEnforceableHere, detail: why },
    });
}

async fn memory(kit: &Kit<'_>) -> Control {
    let out_of_memory = limited(kit, Bytes::mebibytes(32), Bytes::mebibytes(8), "x=$(head -c 200000000 /dev/zero | tr '\\0' x)").await;
    match out_of_memory {
        Ok(made) if made.observe().await.is_ok_and(|seen| seen.out_of_memory_kills > 0) => {
            Control { control: "memory limit", state: State::Enforced, detail: "a process beyond it was killed, and told so".into() }
        }
        Ok(_) => Control { control: "memory limit", state: State::Misconfigured, detail: "a process went beyond it".into() },
        Err(why) => Control { control: "memory limit", state: State::Misconfigured, detail: why },
    }
}

/// Whether the rules of a gated network can be made here, and lead where they should.
async fn gate(kit: &Kit<'_>) -> Result<(), String> {
    const SYNTHETIC: &str = "198.18.0.99:80";
    let taken: Arc<Mutex<Option<GateSockets>>> = Arc::default();
    let keep = Arc::clone(&taken);
    let take = move |sockets| {
        *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(sockets);
        Ok(())
    };
    let made = kit.sandbox(|spec| spec.wiring = Wiring::Gate { open: false, take: Arc::new(take) }).await?;
    made.main(&["/bin/bash", "-c", "exec 3<>/dev/tcp/198.18.0.99/80"]).await?;
    made.delete().await?;
    let sockets = taken.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or("no sockets were made")?;
    let (accepted, _) = TcpListener::from(sockets.tcp_v4).accept().map_err(|error| format!("nothing came to the listener: {error}"))?;
    let dialled = accepted.local_addr().map_err(|error| error.to_string())?.to_string();
    if dialled == SYNTHETIC { Ok(()) } else { Err(format!("it came as {dialled}")) }
}

/// What the gate's process could do if it were taken over: it is tried in one.
fn gate_process() -> Control {
    let tried = Command::new("/proc/self/exe").args(["gate", "--attempts"]).env_clear().output();
    let attempts = tried.map_err(|error| error.to_string()).and_then(|output| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout).map_err(|error| format!("{error} {said}"))
    });
    let (state, detail) = match attempts {
        Err(why) => (State::Misconfigured, why),
        Ok(attempts) => {
            let possible = |attempt: &&serde_json::Value| attempt["control"] != "none" && attempt["refused"].is_null();
            match attempts.iter().find(possible) {
                Some(attempt) => (State::Misconfigured, format!("it can {}", attempt["what"].as_str().unwrap_or_default())),
                None => (State::Enforced, format!("{} attempts contained", attempts.iter().filter(|one| one["control"] != "none").count())),
            }
        }
    };
    Control { control: "gate's process", state, detail }
}

async fn probed(kit: &Kit<'_>) -> Result<Vec<ProbeResult>, String> {
    let made = kit.sandbox(|_| {}).await?;
    let results = made.probe(kit, None, true).await;
    made.delete().await?;
    results
}

async fn limited(kit: &Kit<'_>, memory: Bytes, disk: Bytes, script: &str) -> Result<Made, String> {
    let made = kit.sandbox(|spec| (spec.limits.memory, spec.limits.disk) = (memory, Some(disk))).await?;
    made.main(&["/bin/sh", "-c", script]).await?;
    Ok(made)
}

fn judge(control: &'static str, probes: &[&str], results: &[ProbeResult]) -> Control {
    let relevant: Vec<&ProbeResult> = results.iter().filter(|result| probes.contains(&result.probe.as_str())).collect();
    match relevant.iter().find(|result| result.outcome == "open") {
        Some(open) => Control { control, state: State::Misconfigured, detail: format!("{}: {}", open.probe, open.detail) },
        None if relevant.len() < probes.len() => Control { control, state: State::Misconfigured, detail: "a probe did not answer".into() },
        None => Control { control, state: State::Enforced, detail: format!("{} probes contained", relevant.len()) },
    }
}

fn report(global: &Global, controls: &[Control]) -> Result<ExitCode, Failure> {
    one(global.output, &controls, |out| {
        let rows: Vec<Vec<String>> = controls
            .iter()
            .map(|control| {
                let state = match control.state {
                    State::Enforced => "enforced",
                    State::NotEnforceableHere => "not enforceable here",
                    State::Misconfigured => "misconfigured",
                };
                vec![control.control.to_owned(), state.to_owned(), control.detail.clone()]
            })
            .collect();
        table(out, &["CONTROL", "STATE", "DETAIL"], &rows)
    })?;
    let sick = controls.iter().any(|control| control.state == State::Misconfigured);
    Ok(ExitCode::from(if sick { UNHEALTHY } else { 0 }))
}
