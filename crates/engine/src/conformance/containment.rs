//! Containment, asserted from inside.

use super::{Check, Kit, Verdict, check, expect};
use crate::EngineEvent;
use crate::conformance::ProbeResult;

fn all_contained(results: &[ProbeResult]) -> Verdict {
    let open: Vec<String> =
        results.iter().filter(|r| r.outcome == "open").map(|r| format!("{} ({}): {}", r.probe, r.reference, r.detail)).collect();
    expect(open.is_empty(), || open.join("\n"))
}

async fn probes_as_the_default_user(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let results = made.probe(kit, None, true).await?;
    made.delete().await?;
    all_contained(&results)
}

async fn probes_as_root(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let results = made.probe(kit, Some("0"), true).await?;
    made.delete().await?;
    all_contained(&results)
}

async fn probes_in_an_exec(kit: &Kit<'_>) -> Verdict {
    let made = kit.sandbox(|_| {}).await?;
    let _main = made.start(&["/bin/sleep", "60"]).await?;
    let results = made.probe(kit, None, false).await?;
    made.delete().await?;
    all_contained(&results)
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

/// All of them.
pub const CHECKS: &[Check] = &[
    check!(probes_as_the_default_user),
    check!(probes_as_root),
    check!(probes_in_an_exec),
    check!(refusals_are_recorded),
    check!(ranges_are_disjoint),
    check!(own_program_as_entry_point),
];
