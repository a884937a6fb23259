//! What is left when somebody pulls the plug: nothing, after the next command at the latest.

use cofferdam_tests::{Home, eventually};
use std::process::{Command, Stdio};

/// Kills, and waits until the process has let go of everything: a lock that it still holds keeps a sweep away.
fn kill_9(pid: u32) {
    Command::new("kill").args(["-9", &pid.to_string()]).status().expect("sent");
    cofferdam_tests::eventually("the killed process is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    });
}

fn monitor_pid(home: &Home) -> u32 {
    let data = home.data().display().to_string();
    let mut found = None;
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("cmdline").contains("\0monitor\0") && read("environ").contains(&data) {
            found = entry.file_name().to_str().and_then(|name| name.parse().ok());
        }
    }
    found.expect("a monitor runs")
}

#[test]
fn the_monitor_is_killed() {
    let home = Home::new();
    let id = home.ok(&["run", "-d", "--", "sh", "-c", "setsid sleep 1000 & sleep 1000"]);
    kill_9(monitor_pid(&home));
    home.ok(&["prune"]);
    home.assert_clean();
    let record = home.ok(&["inspect", id.trim()]);
    assert!(record.contains("supervisor_lost"), "{record}");
}

#[test]
fn the_foreground_command_is_killed() {
    for delay in [0, 2, 5, 8, 12, 30, 100] {
        let home = Home::new();
        let mut child = home.command(&["run", "--", "sleep", "1000"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(std::time::Duration::from_millis(delay));
        kill_9(child.id());
        child.wait().expect("ended");
        home.ok(&["prune"]);
        std::thread::sleep(std::time::Duration::from_millis(50));
        home.ok(&["doctor", "--fix"]);
        home.assert_clean();
    }
}

#[test]
fn the_sandbox_dies_with_its_supervisor() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "lonely", "--", "sleep", "4711"]);
    let is_alive = || {
        let pids = std::fs::read_dir("/proc").expect("proc").flatten();
        pids.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok()).any(|line| line == b"sleep\x004711\0")
    };
    assert!(is_alive());
    kill_9(monitor_pid(&home));
    eventually("the sandbox is dead before any sweep", || !is_alive());
    home.ok(&["rm", "lonely"]);
}

#[test]
fn the_workload_is_killed_from_outside() {
    let home = Home::new();
    let child = home.command(&["run", "--", "sleep", "4712"]).stderr(Stdio::piped()).spawn().expect("started");
    let find = || {
        let pids = std::fs::read_dir("/proc").expect("proc").flatten();
        let mut found = pids.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x004712\0"));
        found.next().and_then(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()))
    };
    eventually("it runs", || find().is_some());
    kill_9(find().expect("it runs"));
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(137));
    let record = home.ok(&["events"]);
    assert!(record.contains("killed"), "{record}");
}

/// A host without space: a one-line error, and nothing left.
#[test]
fn the_host_is_full() {
    let home = Home::new();
    let small = home.path("small");
    std::fs::create_dir(&small).expect("made");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none"]).arg(&small).status();
    assert!(mounted.expect("mount").success());
    let data = small.join("data");
    let run = |words: &[&str]| {
        let mut command = home.command(words);
        cofferdam_tests::ended(command.env("COFFERDAM_DATA_DIR", &data))
    };
    let before = run(&["run", "--", "true"]);
    std::fs::write(small.join("fill"), vec![0u8; 8 << 20]).expect_err("full");
    let full = run(&["run", "--", "true"]);
    let disk = run(&["run", "-m", "128MiB", "--disk", "1GiB", "--", "true"]);
    std::fs::remove_file(small.join("fill")).expect("removed");
    let after = run(&["run", "--", "true"]);
    Command::new("umount").arg("-l").arg(&small).status().expect("unmounted");
    assert!(full.code == 125 || full.code == 0, "{full:?}");
    assert!(full.code == 0 || full.err.lines().count() == 1, "{full:?}");
    assert_eq!(disk.code, 125, "{disk:?}");
    assert!(after.code == 0 && (before.code == 0 || before.code == 125), "{before:?} {after:?}");
}

/// Groups that neither a directory nor a record speaks of go with the next sweep, unless somebody makes sandboxes without either.
#[test]
fn groups_that_nobody_knows_are_swept() {
    let home = Home::new();
    home.ok(&["run", "--", "true"]);
    let install = std::fs::read_to_string(home.data().join("install-id")).expect("an id");
    // Not by the directory of ours: that goes with the last sandbox of any test, and comes with the next.
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
    let root = roots.iter().map(std::path::Path::new).find(|root| root.join("cgroup.procs").is_file()).expect("a hierarchy");
    let group = root.join("cofferdam").join(install.trim()).join("0123456789abcdef0123456789abcdef");
    cofferdam_tests::eventually("it is made", || std::fs::create_dir_all(&group).is_ok());
    let mut holder = std::process::Command::new("flock")
        .arg("-s")
        .arg(home.data().join("unrecorded.lock"))
        .args(["sleep", "60"])
        .spawn()
        .expect("flock");
    std::thread::sleep(std::time::Duration::from_millis(200));
    home.ok(&["prune"]);
    assert!(group.is_dir(), "somebody may be using it");
    let _ = std::process::Command::new("pkill").args(["-P", &holder.id().to_string()]).status();
    let _ = holder.wait();
    home.ok(&["prune"]);
    assert!(!group.exists());
    home.assert_clean();
}
