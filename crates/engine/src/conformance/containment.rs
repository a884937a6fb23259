//! Containment, asserted from inside.

use super::{Check, Kit, Verdict, check, expect};
use crate::conformance::ProbeResult;
use crate::{EngineEvent, Mount};

/// All but the engine's named exceptions; one that is none any more is to be taken off the list.
fn all_contained(kit: &Kit<'_>, results: &[ProbeResult]) -> Verdict {
    let exceptions = kit.engine.capabilities().exceptions;
    let named = |probe: &str| exceptions.iter().any(|(name, _)| name == probe);
    let wrong: Vec<String> = results
        .iter()
        .filter(|result| (result.outcome == "open") != named(&result.probe))
        .map(|result| format!("{} ({}): {}: {}", result.probe, result.reference, result.outcome, result.detail))
        .collect();
    expect(wrong.is_empty(), || wrong.join("\n"))
}

async fn probes_as_the_default_user(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let results = made.probe(kit, None, true).await?;
    made.delete().await?;
    all_contained(kit, &results)
}

async fn probes_as_root(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox_of(Some("0")).await?;
    let results = made.probe(kit, Some("0"), true).await?;
    made.delete().await?;
    all_contained(kit, &results)
}

async fn probes_in_an_exec(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let _main = made.start(&["/bin/sleep", "60"]).await?;
    let results = made.probe(kit, None, false).await?;
    made.delete().await?;
    all_contained(kit, &results)
}

async fn refusals_are_recorded(kit: &Kit<'_>) -> Verdict {
    let mut made = kit.sandbox(|_| {}).await?;
    let script = "(exec 3<>/dev/tcp/192.0.2.7/4711) 2>/dev/null; getent hosts canary.example.org; sleep 0.3; true";
    made.main(&["/bin/bash", "-c", script]).await?;
    let seen = made.observe().await?.refused;
    let mut events = Vec::new();
    while let Ok(EngineEvent::Refused(refused)) = made.events.try_recv() {
        events.push(refused.host);
    }
    made.delete().await?;
    let tcp = seen.iter().any(|r| r.host == "192.0.2.7" && r.port == 4711 && r.protocol == "tcp");
    let dns = seen.iter().any(|r| r.host == "canary.example.org" && r.protocol == "dns");
    expect(tcp && dns && events.len() == seen.len(), || format!("{seen:?} {events:?}"))
}

async fn ranges_are_disjoint(kit: &Kit<'_>) -> Verdict {
    let (one, two) = (kit.sandbox(|_| {}).await?, kit.sandbox(|_| {}).await?);
    let first = one.main(&["/bin/cat", "/proc/self/uid_map"]).await?;
    let second = two.main(&["/bin/cat", "/proc/self/uid_map"]).await?;
    one.delete().await?;
    two.delete().await?;
    expect(first.out != second.out, || format!("{first:?} {second:?}"))
}

/// CVE-2019-5736: a program that is the runtime's own.
async fn own_program_as_entry_point(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let script = "for f in /proc/1/exe /proc/self/exe; do (echo x >> $f) 2>/dev/null && echo wrote $f; done; /proc/1/exe 2>/dev/null; true";
    let ran = made.main(&["/bin/sh", "-c", script]).await?;
    made.delete().await?;
    expect(ran.out.is_empty(), || format!("{ran:?}"))
}

/// CVE-2021-30465: a volume of two sandboxes, in which one flips a directory and a link, is the place of a mount of the other.
/// The mount lands on the directory or nowhere.
async fn a_flipped_mount_point_is_not_followed(kit: &Kit<'_>) -> Verdict {
    const STARTS: u32 = 300;
    let (volume, marked) = (kit.host_path("volume"), kit.host_path("marked"));
    for path in [&volume, &marked] {
        std::fs::create_dir_all(path).map_err(|e| e.to_string())?;
    }
    std::fs::write(marked.join("marker"), "").map_err(|e| e.to_string())?;
    let (volume, marked) = (kit.mount_source(&volume)?, kit.mount_source(&marked)?);
    let mount = |source: &crate::MountSource, target: &str| Mount { source: source.clone(), target: target.into(), writable: true };
    let root = kit.image.user(Some("0")).map_err(|e| e.to_string())?;
    let flipper = kit
        .sandbox(|spec| {
            spec.user = root;
            spec.mounts.push(mount(&volume, "/volume"));
        })
        .await?;
    let flip = "cd /volume; while :; do mkdir -p d; rmdir d; ln -s /etc d; rm -f d; ln -s ../../../../../../etc d; rm -f d; done";
    let _main = flipper.start(&["/bin/sh", "-c", flip]).await?;
    for _ in 0..STARTS {
        let mounts = [mount(&volume, "/volume"), mount(&marked, "/volume/d")];
        // The place may be missing, or be a link, when its turn comes: then the sandbox does not start.
        let Ok(made) = kit.sandbox(|spec| spec.mounts.extend(mounts)).await else { continue };
        let started = made.try_run(made.process(&["/bin/sh", "-c", "test -e /etc/marker && echo followed; exit 0"]), true, "").await?;
        made.delete().await?;
        let followed = started.is_ok_and(|ran| ran.out.contains("followed"));
        expect(!followed, || "the mount landed on /etc".into())?;
    }
    flipper.delete().await?;
    expect(!std::path::Path::new("/etc/marker").exists(), || "the mount landed on the host".into())
}

/// All of them.
pub const CHECKS: &[Check] = &[
    check!(probes_as_the_default_user, "every attempt to get out fails, as an ordinary user"),
    check!(probes_as_root, "the same as root of the sandbox"),
    check!(probes_in_an_exec, "the same in an exec"),
    check!(refusals_are_recorded, "a refused address and a refused name are on record"),
    check!(ranges_are_disjoint, "two sandboxes have no id of the host in common"),
    check!(own_program_as_entry_point, "nobody writes to, or executes, the runtime's own program (CVE-2019-5736)"),
    check!(
        a_flipped_mount_point_is_not_followed,
        "a mount lands in its place or nowhere, while a neighbour flips links there (CVE-2021-30465)"
    ),
];
