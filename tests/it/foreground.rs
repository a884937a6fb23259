//! `cofferdam run` in the foreground.

use cofferdam_tests::{Home, eventually};
use std::io::Write;
use std::process::Stdio;

#[test]
pub fn exit_statuses() {
    let home = Home::new();
    let cases: &[(&[&str], i32)] = &[
        (&["run", "--", "true"], 0),
        (&["run", "sh", "-c", "exit 7"], 7),
        (&["run", "--", "sh", "-c", "kill -TERM $$"], 143),
        (&["run", "--timeout", "200ms", "sleep", "60"], 124),
        (&["run", "--", "no-such-program"], 127),
        (&["run", "--", "/etc/passwd"], 126),
        (&["run", "-w", "/usr/no/such", "true"], 126),
        (&["run", "--image", "/no/such/image", "true"], 125),
        (&["run"], 125),
        (&["run", "--no-such-flag"], 2),
        (&["ps", "--no-such-flag"], 2),
        (&["inspect", "nothing"], 1),
    ];
    for (words, code) in cases {
        let ended = home.run(words);
        assert_eq!(ended.code, *code, "{words:?}: {ended:?}");
    }
}

/// Most of them end before they would open the database.
#[test]
pub fn short_runs_are_on_record_for_whoever_reads() {
    const RUNS: usize = 20;
    let home = Home::new();
    for _ in 0..RUNS {
        home.ok(&["run", "--", "true"]);
    }
    let listed: serde_json::Value = serde_json::from_str(&home.ok(&["ps", "-a", "-o", "json"])).expect("JSON");
    let listed = listed.as_array().expect("an array");
    assert_eq!(listed.len(), 0, "what has ended is removed: {listed:?}");
    let events: serde_json::Value = serde_json::from_str(&home.ok(&["events", "-o", "json"])).expect("JSON");
    let events = events.as_array().expect("an array");
    for kind in ["sandbox.created", "sandbox.completed"] {
        assert_eq!(events.iter().filter(|event| event["kind"] == kind).count(), RUNS, "{events:?}");
    }
    let last = events.last().expect("events");
    let id = last["subject"].as_str().and_then(|subject| subject.strip_prefix("sandbox:")).expect("a sandbox");
    let shown: serde_json::Value = serde_json::from_str(&home.ok(&["inspect", id, "-o", "json"])).expect("JSON");
    assert_eq!((&shown["phase"], &shown["exit_code"]), (&"completed".into(), &0.into()), "{shown}");
}

#[test]
pub fn out_of_memory_is_told() {
    let home = Home::new();
    // Held for a while: where no cgroup can be made, memory is looked at only some times a second.
    let ended = home.run(&["run", "-m", "64MiB", "--", "python3", "-c", "import time; x = bytearray(300 << 20); time.sleep(20)"]);
    assert_eq!(ended.code, 137, "{ended:?}");
    assert!(ended.err.contains("out of memory: the memory limit of 64MiB was reached"), "{ended:?}");
    let events = home.ok(&["events", "-o", "json"]);
    assert!(events.contains("out_of_memory"), "{events}");
}

#[test]
pub fn streams_pass_through() {
    let home = Home::new();
    let mut child = home
        .command(&["run", "--", "sh", "-c", "cat; echo oops >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let data = "line\n".repeat(200_000);
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(data.as_bytes()));
    let output = child.wait_with_output().expect("ended");
    writer.join().expect("joined").expect("written");
    assert_eq!(output.stdout.len(), 1_000_000);
    assert_eq!(output.stderr, b"oops\n");
}

#[test]
pub fn a_closed_reader_ends_the_writer() {
    let home = Home::new();
    let script = format!("{} run -- sh -c 'while echo y; do :; done' | head -n 3", home.line());
    let ended = cofferdam_tests::ended(std::process::Command::new("sh").arg("-c").arg(script).env("COFFERDAM_DATA_DIR", home.data()));
    assert_eq!(ended.out, "y\ny\ny\n", "{ended:?}");
}

#[test]
pub fn environment_directory_and_user() {
    let home = Home::new();
    let file = home.path("env");
    std::fs::write(&file, "# comment\nFROM_FILE=yes\n").expect("written");
    let mut command = home.command(&["run", "-e", "A=1", "-e", "INHERITED", "--env-file"]);
    command.arg(&file).args([
        "-w",
        "/srv/work",
        "-u",
        "1234:99",
        "--",
        "sh",
        "-c",
        "echo $A $INHERITED $FROM_FILE $SECRET $(pwd) $(id -u):$(id -g)",
    ]);
    let ended = cofferdam_tests::ended(command.env("INHERITED", "mine").env("SECRET", "leak"));
    assert_eq!(ended.out, "1 mine yes /srv/work 1234:99\n", "{ended:?}");
}

#[test]
pub fn volumes() {
    let home = Home::new();
    let directory = home.path("volume");
    std::fs::create_dir(&directory).expect("made");
    std::fs::write(directory.join("file"), "shown").expect("written");
    let read_only = format!("{}:/data", directory.display());
    let writable = format!("{}:/data:rw", directory.display());
    let refused = home.run(&["run", "-v", &read_only, "-u", "root", "--", "sh", "-c", "cat /data/file; echo x > /data/new"]);
    assert!(refused.out == "shown" && refused.code != 0 && refused.err.contains("Read-only"), "{refused:?}");
    home.ok(&["run", "-v", &writable, "-u", "root", "--", "sh", "-c", "echo x > /data/new"]);
    assert_eq!(std::fs::read_to_string(directory.join("new")).expect("written"), "x\n");
}

#[test]
pub fn the_first_interrupt_stops_and_the_second_kills() {
    let home = Home::new();
    let mut child = home
        .command(&["run", "--", "sh", "-c", "trap 'echo stopping; exit 9' TERM; echo ready; while :; do sleep 0.05; done"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let pid = child.id().to_string();
    let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).expect("read");
    std::process::Command::new("kill").args(["-INT", &pid]).status().expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(9));

    let mut child = home
        .command(&["run", "--", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut out, &mut line).expect("read");
    let pid = child.id().to_string();
    for _ in 0..2 {
        std::process::Command::new("kill").args(["-INT", &pid]).status().expect("sent");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(child.wait().expect("ended").code(), Some(137));
}

#[test]
pub fn blocked_connections_are_explained() {
    let home = Home::new();
    let script = "import socket\nfor t in [('192.0.2.1', 443), ('canary.example.net', 80)]:\n  try: socket.create_connection(t, 5)\n  except OSError: pass\n";
    let ended = home.run(&["run", "--", "python3", "-c", script]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("blocked: 192.0.2.1:443 (tcp)"), "{ended:?}");
    assert!(ended.err.contains("blocked: canary.example.net (dns"), "{ended:?}");
    let events = home.ok(&["events"]);
    assert!(events.contains("network.refused") && events.contains("192.0.2.1"), "{events}");
}

#[test]
pub fn artifacts_are_collected() {
    let home = Home::new();
    let script = "mkdir -p output/deep; echo result > output/deep/a.txt; echo x > other; ln -s /etc/passwd output/link";
    let ended = home.run(&["run", "--artifact", "output/**", "--", "sh", "-c", script]);
    assert!(ended.code == 0 && ended.err.contains("collected 1 files"), "{ended:?}");
    let attempts: Vec<_> = std::fs::read_dir(home.data().join("artifacts")).expect("there").flatten().collect();
    let kept = attempts[0].path().join("output/deep/a.txt");
    assert_eq!(std::fs::read_to_string(kept).expect("kept"), "result\n");
    assert!(!attempts[0].path().join("output/link").exists());
}

#[test]
pub fn a_disk_limit_on_a_loop_device_is_cleaned_up() {
    let home = Home::new();
    let ended = home.run(&[
        "run",
        "-m",
        "128MiB",
        "--disk",
        "200MiB",
        "--",
        "sh",
        "-c",
        "dd if=/dev/zero of=/tmp/f bs=1M count=400 2>&1 | grep -c 'No space'",
    ]);
    assert_eq!(ended.out.trim(), "1", "{ended:?}");
    eventually("the loop device is free", || home.residue().is_empty());
}
