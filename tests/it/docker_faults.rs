//! The engine docker when something fails: its command, its daemon.

use crate::docker::On;
use cofferdam_tests::docker::Docker;
use cofferdam_tests::eventually;
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

const DETACHED: [&str; 7] = ["run", "--engine", "docker", "--image", "base:1", "-d", "--name"];

fn record(on: &On, name: &str) -> Value {
    serde_json::from_str(&on.ok(&["inspect", name])).expect("JSON")
}

/// From before its container is made until after the main process runs.
#[test]
fn wherever_the_command_is_killed_nothing_is_left() {
    const STEPS: u64 = 24;
    const STEP: Duration = Duration::from_millis(25);
    let on = On::new();
    assert_eq!(on.sandbox(&["--", "true"]).code, 0, "the daemon has the image");
    for step in 0..STEPS {
        let words = ["run", "--engine", "docker", "--image", "base:1", "--", "sleep", "60"];
        let mut command = on.home.command(&words);
        let mut child = command.env("DOCKER_HOST", on.docker.host()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(STEP * u32::try_from(step).expect("small"));
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    // A request that the daemon has may be carried out after whoever made it is gone.
    eventually("nothing of them is left", || {
        on.ok(&["prune"]);
        on.containers().is_empty() && on.ok(&["ps", "-q"]).is_empty()
    });
    on.home.assert_clean();
}

#[test]
fn a_daemon_that_is_killed_takes_no_sandbox_along() {
    let mut on = On::with(Docker::start_with(&["--live-restore"]));
    on.ok(&[&DETACHED[..], &["live", "--", "sleep", "600"]].concat());
    on.docker.end("-KILL");
    assert_eq!(on.ok(&["exec", "live", "echo", "without a daemon"]), "without a daemon\n");
    let unreachable = on.sandbox(&["--", "true"]);
    assert!(unreachable.code == 125 && unreachable.err.contains("start Docker"), "{unreachable:?}");
    on.docker.again();
    assert_eq!(on.ok(&["exec", "live", "echo", "with another"]), "with another\n");
    on.ok(&["stop", "-t", "1s", "live"]);
    eventually("it has ended", || record(&on, "live")["phase"] != "running");
    on.ok(&["rm", "live"]);
    eventually("nothing is left", || {
        on.ok(&["prune"]);
        on.containers().is_empty()
    });
}

#[test]
fn a_daemon_that_ends_its_containers_ends_sandboxes_as_failed() {
    let mut on = On::new();
    on.ok(&[&DETACHED[..], &["live", "--", "sleep", "600"]].concat());
    on.docker.end("-TERM");
    eventually("it has ended", || record(&on, "live")["phase"] != "running");
    let ended = record(&on, "live");
    assert!(ended["reason"].as_str().is_some_and(|reason| reason != "exited"), "{ended}");
    on.docker.again();
    on.ok(&["rm", "live"]);
    assert_eq!(on.sandbox(&["--", "echo", "again"]).out, "again\n");
    eventually("nothing is left", || {
        on.ok(&["prune"]);
        on.containers().is_empty()
    });
    on.home.assert_clean();
}

/// Two installations on one daemon: neither sees, ends or sweeps what is the other's.
#[test]
fn installations_share_a_daemon_and_nothing_else() {
    let on = On::new();
    on.ok(&[&DETACHED[..], &["mine", "--", "sleep", "600"]].concat());
    let other = cofferdam_tests::Home::new();
    let run = |words: &[&str]| cofferdam_tests::ended(other.command(words).env("DOCKER_HOST", on.docker.host()));
    let image = on.home.path("root").display().to_string();
    assert_eq!(run(&["image", "import", &image, "base:1"]).code, 0);
    assert_eq!(run(&[&DETACHED[..], &["mine", "--", "sleep", "600"]].concat()).code, 0, "a name is an installation's own");
    assert_eq!(run(&["prune"]).code, 0);
    assert_eq!(on.ok(&["exec", "mine", "echo", "still there"]), "still there\n");
    assert_eq!(run(&["rm", "-f", "mine"]).code, 0);
    assert_eq!(run(&["ps", "-a"]).out.lines().count(), 1, "{:?} {:?}", run(&["ps", "-a"]), run(&["events"]));
    assert_eq!(on.ok(&["ps", "-q"]).lines().count(), 1);
    on.ok(&["rm", "-f", "mine"]);
    assert_eq!(on.containers(), "");
}

/// Loading an image and making a container each say so, and leave nothing.
#[test]
fn a_full_disk_of_the_daemon_is_an_error_by_name() {
    let on = On::with(Docker::start_small(256 << 20));
    let fill = on.docker.data().join("fill");
    let filled = |bytes: &str| {
        let script = format!("head -c {bytes} /dev/zero > {}; true", fill.display());
        Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().expect("filled");
    };
    let refused = |what: &str| {
        let ran = on.sandbox(&["--", "true"]);
        let named = ran.err.contains("disk of the Docker daemon") && ran.err.contains("docker system prune");
        assert!(ran.code == 125 && named && ran.err.lines().count() == 1, "{what}: {ran:?}");
        assert_eq!(on.containers(), "", "{what}");
    };
    filled("300M");
    refused("an image does not fit");
    fs::remove_file(&fill).expect("removed");
    assert_eq!(on.sandbox(&["--", "true"]).code, 0, "there is room");
    filled("300M");
    refused("a container does not fit");
    fs::remove_file(&fill).expect("removed");
    assert_eq!(on.sandbox(&["--", "true"]).code, 0, "there is room again");
    on.home.assert_clean();
}
