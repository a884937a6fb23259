//! With a control left out, the probes that it stops must get through: a probe that cannot fail proves nothing.

use crate::with_kit;
use cofferdam_engine::UnpluggedControl;
use cofferdam_engine::conformance::ProbeResult;

fn open_without(control: UnpluggedControl, expected: &[&str]) {
    let results: Vec<ProbeResult> = with_kit(async |kit| {
        let made = kit.sandbox(|spec| spec.unplugged.extend([control])).await.expect("made");
        let results = made.probe(kit, None, true).await.expect("probed");
        made.delete().await.expect("deleted");
        results
    });
    for name in expected {
        let result = results.iter().find(|result| result.probe == *name).expect("the probe ran");
        assert_eq!(result.outcome, "open", "{name} without {}: {}", control.name(), result.detail);
    }
}

#[test]
fn seccomp() {
    let expected = [
        "seccomp",
        "unshare",
        "personality",
        "foreign-entry",
        "call-userfaultfd",
        "call-keyctl",
        "socket-vsock",
        "socket-netlink-netfilter",
    ];
    open_without(UnpluggedControl::Seccomp, &expected);
}

#[test]
fn masks() {
    open_without(UnpluggedControl::Masks, &["masked-paths", "proc-cmdline"]);
}

#[test]
fn limits() {
    open_without(UnpluggedControl::Limits, &["process-limit"]);
}

#[test]
fn landlock() {
    let missing = with_kit(async |kit| kit.engine.capabilities().missing);
    if missing.iter().any(|(control, _)| control == "landlock") {
        return; // the probe says "unavailable" there
    }
    open_without(UnpluggedControl::Landlock, &["landlock"]);
}

#[test]
fn rules() {
    open_without(UnpluggedControl::Rules, &["rules"]);
}

/// An ordinary user drops everything at its start whatever pid 1 holds: the control shows on uid 0.
#[test]
fn capabilities() {
    let results = with_kit(async |kit| {
        let made = kit.sandbox(|spec| spec.unplugged.extend([UnpluggedControl::Capabilities])).await.expect("made");
        let results = made.probe(kit, Some("0"), true).await.expect("probed");
        made.delete().await.expect("deleted");
        results
    });
    let result = results.iter().find(|result| result.probe == "capabilities").expect("the probe ran");
    assert_eq!(result.outcome, "open", "{}", result.detail);
}
