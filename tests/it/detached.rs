//! Detached sandboxes and the commands on them.

use cofferdam_tests::{Home, eventually};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
pub fn a_life() {
    let home = Home::new();
    let id = home.ok(&["run", "-d", "--name", "web", "-l", "team=a", "--", "sh", "-c", "echo started; echo problem >&2; sleep 600"]);
    let id = id.trim();
    assert_eq!(id.len(), 32);
    let listed = json(&home.ok(&["ps", "-o", "json"]));
    assert_eq!((listed[0]["name"].as_str(), listed[0]["phase"].as_str()), (Some("web"), Some("running")));
    assert_eq!(json(&home.ok(&["ps", "-o", "json", "-l", "team=b"])), Value::Array(vec![]));
    assert_eq!(home.ok(&["exec", "web", "--", "hostname"]), "web\n");
    assert_eq!(home.run(&["exec", &id[..6], "sh", "-c", "exit 5"]).code, 5);
    assert_eq!(home.run(&["exec", "web", "no-such-program"]).code, 127);
    assert_eq!(home.run(&["exec", "--timeout", "200ms", "web", "sleep", "60"]).code, 124);
    eventually("the log is written", || home.run(&["logs", "web"]).out == "started\n");
    assert_eq!(home.run(&["logs", "web"]).err, "problem\n");
    let inspected = json(&home.ok(&["inspect", "web"]));
    assert!(inspected["now"]["usage"]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{inspected}");
    home.ok(&["pause", "web"]);
    home.ok(&["resume", "web"]);
    home.ok(&["stop", "--grace", "1s", "web"]);
    let record = json(&home.ok(&["inspect", "web"]));
    assert_eq!((record["phase"].as_str(), record["reason"].as_str()), (Some("failed"), Some("stopped")));
    assert_eq!(home.ok(&["logs", "web"]), "started\n");
    home.ok(&["rm", "web"]);
    assert_eq!(home.run(&["logs", id]).code, 1, "its bytes are gone");
    assert_eq!(json(&home.ok(&["inspect", id]))["phase"], "failed", "its record stays");
}

#[test]
pub fn wait_gives_the_exit_status() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "a", "--", "sh", "-c", "sleep 0.3; exit 3"]);
    home.ok(&["run", "-d", "--name", "b", "--", "true"]);
    assert_eq!(home.ok(&["wait", "a", "b"]), "3\n0\n");
    home.ok(&["rm", "a", "b"]);
}

#[test]
pub fn files_in_and_out() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "box", "--", "sleep", "600"]);
    let (source, target) = (home.path("in"), home.path("out"));
    std::fs::create_dir_all(source.join("deep")).expect("made");
    std::fs::write(source.join("deep/file"), "payload").expect("written");
    let source = source.display().to_string();
    home.ok(&["cp", &source, "box:/workspace/here"]);
    assert_eq!(home.ok(&["exec", "box", "--", "sh", "-c", "cat here/deep/file; stat -c :%U here/deep/file"]), "payload:agent\n");
    home.ok(&["cp", "box:/workspace/here", &target.display().to_string()]);
    assert_eq!(std::fs::read_to_string(target.join("deep/file")).expect("copied"), "payload");
    assert_eq!(home.run(&["cp", "a", "b"]).code, 2);
    home.ok(&["rm", "-f", "box"]);
}

#[test]
pub fn names_are_unique_until_they_are_removed() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "one", "--", "sleep", "600"]);
    let second = home.run(&["run", "-d", "--name", "one", "--", "sleep", "600"]);
    assert!(second.code == 125 && second.err.contains("name \"one\" is in use"), "{second:?}");
    assert_eq!(home.run(&["rm", "one"]).code, 1, "it runs");
    home.ok(&["rm", "-f", "one"]);
    home.ok(&["run", "--name", "one", "--", "true"]);
    home.ok(&["rm", "one"]);
}

#[test]
pub fn start_errors_reach_the_caller() {
    let home = Home::new();
    let ended = home.run(&["run", "-d", "--", "no-such-program"]);
    assert!(ended.code == 127 && ended.err.contains("no-such-program"), "{ended:?}");
}

#[test]
pub fn attach_shows_output_and_the_exit_status() {
    let home = Home::new();
    home.ok(&[
        "run",
        "-d",
        "--name",
        "talk",
        "--",
        "sh",
        "-c",
        "while [ ! -e /tmp/go ]; do sleep 0.05; done; echo out; echo err >&2; exit 4",
    ]);
    let child = home
        .command(&["attach", "talk"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    std::thread::sleep(std::time::Duration::from_millis(300));
    // The sandbox may end before this command has.
    home.run(&["exec", "talk", "touch", "/tmp/go"]);
    let output = child.wait_with_output().expect("ended");
    assert_eq!((output.status.code(), &output.stdout[..], &output.stderr[..]), (Some(4), &b"out\n"[..], &b"err\n"[..]));
    home.ok(&["rm", "talk"]);
}

#[test]
pub fn a_log_flood_is_bounded_and_marked() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "flood", "--", "sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' x; echo; sleep 600"]);
    eventually("the marker is there", || home.run(&["logs", "flood"]).err.contains("output limit is reached"));
    let size =
        std::fs::read_dir(home.data().join("sandboxes")).expect("there").flatten().next().expect("one").path().join("logs/output.log");
    assert!(std::fs::metadata(size).expect("there").len() < 70 << 20);
    home.ok(&["rm", "-f", "flood"]);
}

#[test]
pub fn prune_removes_what_has_ended() {
    let home = Home::new();
    home.ok(&["run", "--name", "gone", "--", "true"]);
    home.ok(&["run", "-d", "--name", "stays", "--", "sleep", "600"]);
    home.ok(&["prune"]);
    let left = json(&home.ok(&["ps", "-a", "-o", "json"]));
    assert_eq!(left.as_array().map(Vec::len), Some(1));
    home.ok(&["rm", "-f", "stays"]);
}

/// An isolated sandbox serves, and nothing of its own reaches out.
#[test]
pub fn a_published_port_leads_inside() {
    let home = Home::new();
    let server = "import http.server; http.server.HTTPServer(('127.0.0.1', 80), http.server.SimpleHTTPRequestHandler).serve_forever()";
    home.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "0:80",
        "--",
        "sh",
        "-c",
        &format!("echo inside > index.html; exec python3 -c \"{server}\""),
    ]);
    let events = home.ok(&["events", "web", "-o", "json"]);
    let address = events.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("the port that was free").to_owned();
    let url = format!("http://127.0.0.1:{address}/");
    let fetch = || std::process::Command::new("curl").args(["-sS", "-m", "5", &url]).output().expect("curl runs").stdout;
    eventually("it serves", || fetch() == b"inside\n");
    let ended = home.run(&["run", "-p", &format!("{address}:80"), "--", "true"]);
    assert!(ended.code == 125 && ended.err.contains("in use"), "{ended:?}");
    home.ok(&["rm", "-f", "web"]);
    assert!(fetch().is_empty(), "it ends with the sandbox");
    for words in [["run", "-p", "0.0.0.0:80:80", "true"], ["run", "-p", "80", "true"], ["run", "-p", "80:0", "true"]] {
        let ended = home.run(&words);
        assert!(ended.code == 125 && ended.err.contains("--publish"), "{ended:?}");
    }
}

/// What a monitor needed to make its sandbox does not stay, not even as a zombie.
#[test]
pub fn a_monitor_has_one_child() {
    let home = Home::new();
    let id = home.ok(&["run", "-d", "--name", "one", "--", "sleep", "600"]).trim().to_owned();
    let found = std::process::Command::new("pgrep").args(["-f", &format!("monitor --id {id}")]).output().expect("pgrep runs");
    let monitor = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    let children = || {
        let found = std::process::Command::new("pgrep").args(["-P", &monitor]).output().expect("pgrep runs");
        String::from_utf8_lossy(&found.stdout).lines().count()
    };
    eventually("only pid 1 of the sandbox is left", || children() == 1);
    home.ok(&["rm", "-f", "one"]);
}

#[test]
pub fn stats_and_ports() {
    let home = Home::new();
    home.ok(&["run", "-d", "--name", "busy", "--memory", "256MiB", "-p", "0:80", "--", "sh", "-c", "while :; do :; done"]);
    home.ok(&["run", "-d", "--name", "idle", "--", "sleep", "60"]);
    let lines: Vec<Value> = home.ok(&["stats", "--no-stream", "-o", "json"]).lines().map(json).collect();
    let of = |name: &str| lines.iter().find(|line| line["name"] == name).expect(name);
    assert!(of("busy")["cpu_percent"].as_f64() > Some(20.0) && of("idle")["cpu_percent"].as_f64() < Some(20.0), "{lines:?}");
    assert_eq!((&of("busy")["memory_limit_bytes"], &of("busy")["pids"]), (&(256u64 << 20).into(), &2.into()));
    let shown = home.ok(&["stats", "--no-stream", "idle"]);
    assert!(shown.starts_with("ID ") && shown.contains("idle") && !shown.contains("busy"), "{shown}");
    let ports = json(&home.ok(&["ports", "busy", "-o", "json"]));
    assert!(ports[0]["host"].as_str().is_some_and(|host| host.starts_with("127.0.0.1:")) && ports[0]["port"] == 80, "{ports}");
    assert_eq!(json(&home.ok(&["ports", "idle", "-o", "json"])), Value::Array(vec![]));
    // Ends with the last of those that it was asked for.
    let mut stream = home.command(&["stats", "--interval", "50ms", "-o", "json", "idle"]);
    let stream = stream.stdout(std::process::Stdio::piped()).spawn().expect("started");
    std::thread::sleep(std::time::Duration::from_millis(600));
    home.ok(&["rm", "-f", "idle"]);
    let output = stream.wait_with_output().expect("ended");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).lines().count() >= 2);
    home.ok(&["rm", "-f", "busy"]);
}

#[test]
pub fn filters_and_formats() {
    let home = Home::new();
    home.ok(&["run", "--name", "one", "-l", "team=a", "--", "sh", "-c", "exit 0"]);
    home.run(&["run", "--name", "two", "--", "sh", "-c", "exit 3"]);
    let names = |filter: &str| home.ok(&["ps", "-a", "-f", filter, "--format", "{name}"]);
    assert_eq!(names("exited=3"), "two\n");
    assert_eq!(names("name=on"), "one\n");
    assert_eq!(names("label=team"), "one\n");
    assert_eq!(names("label=team=b"), "");
    assert_eq!(names("phase=completed"), "one\ntwo\n");
    assert_eq!(home.ok(&["ps", "-a", "-f", "exited=3", "--format", "{{{limits.pids}}} {exit_code}"]), "{4096} 3\n");
    assert!(home.run(&["ps", "-f", "colour=red"]).err.contains("there are name, phase"));
    assert!(home.run(&["ps", "-a", "--format", "{nothing}"]).err.contains("created_at"));
    assert_eq!(home.ok(&["ps", "-aq", "--no-trunc", "-f", "name=one"]).trim().len(), 32);
    home.ok(&["rm", "one", "two"]);
    // --rm: a named one leaves no bytes and no name.
    home.ok(&["run", "--rm", "--init", "--name", "one", "--", "true"]);
    assert_eq!(home.ok(&["ps", "-aq", "-f", "name=one"]), "");
}
