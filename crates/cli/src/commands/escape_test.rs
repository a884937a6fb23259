//! `cofferdam escape-test`: every probe inside real sandboxes, as the default user, as root, in an exec; then with each
//! control left out, where the probes that it stops must get through.

use crate::args::{EscapeArgs, Global, TrustArgs};
use crate::context::{Context, random};
use crate::exit::{FAILED, Failure, UNHEALTHY};
use crate::output::{one, table};
use cofferdam_engine::conformance::{Kit, ProbeResult};
use cofferdam_engine::{MountSource, SandboxSpec, UnpluggedControl};
use cofferdam_probe::{Probe, all};
use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::ExitCode;

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

#[derive(serde::Serialize)]
struct Row {
    probe: String,
    reference: String,
    user: String,
    root: String,
    exec: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    without: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_off: Option<String>,
    detail: String,
}

/// Runs it. Exit status 0 if every attempt was contained and every probe showed that it can fail, else 3.
pub fn run(global: Global, arguments: &EscapeArgs) -> Result<ExitCode, Failure> {
    let context = Context::open(global)?;
    let engine = context.engine_named(arguments.engine, None, false)?;
    let directory = context.data.path().join(format!("escape-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let image = crate::images::start_from(&context, &arguments.image, &TrustArgs::default())?;
    let result = context.runtime.block_on(async {
        // The program is shown from a copy: where it is installed is the host's own affair.
        let program = directory.join("probe");
        std::fs::copy("/proc/self/exe", &program)?;
        let probe = MountSource::open(&program, None, Path::new("/nonexistent"))?;
        let _unrecorded = context.data.hold_unrecorded()?;
        let mut kit = Kit::new(&*engine, image, context.data.install(), directory.clone(), probe);
        let _listener = describe_host(&mut kit, &directory)?;
        attempt(&kit, arguments).await
    });
    std::fs::remove_dir_all(&directory)?;
    report(&context.global, &result?, &engine.capabilities().exceptions)
}

/// Tells the probes what of the host they must not find.
pub fn describe_host(kit: &mut Kit<'_>, directory: &Path) -> Result<UnixListener, Failure> {
    let name = format!("cofferdam-escape-{:032x}", u128::from_be_bytes(random()));
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?;
    let host_file = directory.join("host-file");
    std::fs::write(&host_file, "of the host")?;
    let mut namespaces = Vec::new();
    for kind in NAMESPACES {
        namespaces.push(std::fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string());
    }
    kit.probe_environment = vec![
        format!("COFFERDAM_PROBE_NAMESPACES={}", namespaces.join(" ")),
        format!("COFFERDAM_PROBE_ABSTRACT={name}"),
        format!("COFFERDAM_PROBE_HOST_FILE={}", host_file.display()),
    ];
    Ok(listener)
}

/// What each probe found, by its name.
pub type Results = BTreeMap<String, ProbeResult>;

async fn attempt(kit: &Kit<'_>, arguments: &EscapeArgs) -> Result<Vec<Row>, Failure> {
    let user = probes(kit, None, false, None).await?;
    let root = probes(kit, Some("0"), false, None).await?;
    let exec = probes(kit, None, true, None).await?;
    let mut off = BTreeMap::new();
    if !arguments.only_contained {
        for control in UnpluggedControl::ALL {
            if all().iter().any(|probe| probe.control == Some(control.name())) {
                let user = if control == UnpluggedControl::Capabilities { Some("0") } else { None };
                off.insert(control.name(), probes(kit, user, false, Some(control)).await?);
            }
        }
    }
    Ok(all().iter().map(|probe| row(probe, &user, &root, &exec, &off)).collect())
}

/// Runs the probes in a sandbox of this user; `without` a control, to show that they notice.
pub async fn probes(kit: &Kit<'_>, user: Option<&str>, exec: bool, without: Option<UnpluggedControl>) -> Result<Results, Failure> {
    let failed = |why: String| Failure::new(FAILED, "escape_test", why);
    let of = kit.image.user(user).map_err(|error| failed(error.to_string()))?;
    let change = |spec: &mut SandboxSpec| {
        spec.user = of;
        spec.unplugged.extend(without);
    };
    let made = kit.sandbox(change).await.map_err(failed)?;
    let _main = if exec { Some(made.start(&["/bin/sleep", "600"]).await.map_err(failed)?) } else { None };
    let results = made.probe(kit, user, !exec).await.map_err(failed)?;
    made.delete().await.map_err(failed)?;
    Ok(results.into_iter().map(|result| (result.probe.clone(), result)).collect())
}

fn row(probe: &Probe, user: &Results, root: &Results, exec: &Results, off: &BTreeMap<&str, Results>) -> Row {
    let outcome = |results: &Results| results.get(probe.name).map_or_else(|| "missing".to_owned(), |result| result.outcome.clone());
    let without = probe.control.filter(|control| off.contains_key(control));
    let worst = [user, root, exec].into_iter().filter_map(|results| results.get(probe.name)).max_by_key(|result| result.outcome == "open");
    Row {
        probe: probe.name.to_owned(),
        reference: probe.reference.to_owned(),
        user: outcome(user),
        root: outcome(root),
        exec: outcome(exec),
        without: without.map(str::to_owned),
        control_off: without.and_then(|control| off.get(control)).map(outcome),
        detail: worst.map(|result| result.detail.clone()).unwrap_or_default(),
    }
}

fn report(global: &Global, rows: &[Row], exceptions: &[(String, String)]) -> Result<ExitCode, Failure> {
    let why = |row: &Row| exceptions.iter().find(|(name, _)| *name == row.probe).map(|(_, why)| why);
    let finds = |row: &Row| [&row.user, &row.root, &row.exec].into_iter().any(|outcome| outcome == "open" || outcome == "missing");
    let is_open = |row: &&Row| finds(row) && why(row).is_none();
    let holes = rows.iter().filter(is_open).count();
    let controls: std::collections::BTreeSet<&str> = rows.iter().filter_map(|row| row.without.as_deref()).collect();
    // A control whose absence nothing notices is not being tested.
    let unnoticed: Vec<&str> = controls
        .into_iter()
        .filter(|control| !rows.iter().any(|row| row.without.as_deref() == Some(control) && row.control_off.as_deref() == Some("open")))
        .collect();
    one(global.output, &rows, |out| {
        let cells: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                let off = row.control_off.as_ref().map(|off| format!("{off} without {}", row.without.as_deref().unwrap_or_default()));
                vec![
                    row.reference.clone(),
                    row.probe.clone(),
                    row.user.clone(),
                    row.root.clone(),
                    row.exec.clone(),
                    off.unwrap_or_default(),
                ]
            })
            .collect();
        table(out, &["REF", "PROBE", "USER", "ROOT", "EXEC", "CONTROL OFF"], &cells)?;
        for row in rows.iter().filter(is_open) {
            writeln!(out, "OPEN  {}: {}", row.probe, crate::output::printable(&row.detail))?;
        }
        for row in rows.iter().filter(|row| finds(row)) {
            if let Some(why) = why(row) {
                writeln!(out, "NAMED {}: this engine has it not: {why}", row.probe)?;
            }
        }
        writeln!(out, "{} attempts, {holes} open", rows.len())
    })?;
    if !unnoticed.is_empty() {
        crate::output::note!("cofferdam: no probe noticed that these were left out: {}", unnoticed.join(", "));
    }
    Ok(ExitCode::from(if holes == 0 && unnoticed.is_empty() { 0 } else { UNHEALTHY }))
}
