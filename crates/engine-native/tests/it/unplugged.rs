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

/// Who could take away the sandbox's root would find two empty directories, and behind what covers one of them a proc file system
/// without processes: never the host's mounts.
#[test]
fn below_the_root_is_nothing() {
    const TAKE_AWAY: &str = "
import ctypes, os
libc = ctypes.CDLL(None)
names = lambda path: sorted(os.listdir(path))
here = os.open('/proc/self/ns/mnt', os.O_RDONLY)
print(libc.umount2(b'/', 2), libc.setns(here, 0x20000), names('/'), names('/proc'), names('/none'))
print([libc.umount2(b'/proc', 2) for _ in range(2)], [name for name in names('/proc') if name.isdigit()], os.path.exists('/proc/self'))
print([libc.umount2(path, 2) for path in (b'/proc', b'/')], names('/'))
";
    const FOUND: &str = "0 0 ['none', 'proc'] [] []\n[0, -1] [] False\n[-1, -1] ['none', 'proc']\n";
    let ran = with_kit(async |kit| {
        let controls = [UnpluggedControl::Capabilities, UnpluggedControl::Seccomp, UnpluggedControl::Landlock];
        let made = kit.sandbox(|spec| spec.unplugged.extend(controls)).await.expect("made");
        let mut process = made.process(&["/usr/bin/python3", "-c", TAKE_AWAY]);
        process.user = made.spec.image.user(Some("0")).expect("a user");
        let ran = made.run(process, true, "").await.expect("ran");
        made.delete().await.expect("deleted");
        ran
    });
    assert_eq!(ran.out, FOUND, "{}", ran.err);
}
