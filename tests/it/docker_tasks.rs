//! Tasks and suites on a Docker daemon.

use crate::docker::On;
use cofferdam_tests::docker::Docker;
use cofferdam_tests::eventually;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A suite, its runner killed half-way: every task attempted, nothing left on the daemon.
#[test]
fn a_suite_on_a_daemon_goes_on_where_it_stopped() {
    let on = On::new();
    let place = on.home.path("suite");
    for number in 0..8 {
        let directory = place.join(format!("t{number}"));
        fs::create_dir_all(&directory).expect("made");
        let text = format!(
            "version: 1\nid: t{number}\ninstruction: do it\nimage: base:1\nlimits: {{memory: 64MiB, disk: 32MiB}}\nagent: {{command: [sh, -c, 'sleep 0.5; echo {number} > out']}}\nverify: {{command: [sh, -c, 'grep -q {number} out']}}\n"
        );
        fs::write(directory.join("task.yaml"), text).expect("written");
    }
    let shown = place.display().to_string();
    let mut runner = on.home.command(&["suite", "run", "--engine", "docker", "--parallel", "2", &shown]);
    let mut runner = runner.env("DOCKER_HOST", on.docker.host()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    eventually("it is at work", || on.containers().lines().count() > 0);
    std::thread::sleep(std::time::Duration::from_secs(2));
    runner.kill().expect("killed");
    let _ = runner.wait();
    on.ok(&["suite", "run", "--resume", "-o", "json"]);
    let report: Value = serde_json::from_str(&on.ok(&["suite", "report", "-o", "json"])).expect("JSON");
    assert_eq!((&report["all"]["passed"], &report["suite"]["engine"]), (&json!(8), &json!("docker")), "{report}");
    on.ok(&["prune"]);
    assert_eq!(on.containers(), "");
}

/// Tasks, each in a directory with `src` and `tests`.
const CASES: &[(&str, &str)] = &[
    ("right", "agent: {command: [sh, -c, 'echo done > out']}\nverify: {command: [sh, -c, 'test -e out']}\n"),
    ("wrong", "agent: {command: [sh, -c, 'true']}\nverify: {command: [sh, -c, 'test -e out']}\n"),
    ("fails", "agent: {command: [sh, -c, 'exit 3']}\nverify: {command: [sh, -c, 'exit 0']}\n"),
    ("slow", "agent: {command: [sleep, '60']}\nlimits: {timeout: 1s}\nverify: {command: [sh, -c, 'exit 0']}\n"),
    ("missing", "agent: {command: [no-such-program]}\nverify: {command: [sh, -c, 'exit 0']}\n"),
    ("reward", "agent: {command: [sh, -c, 'echo 0.5 > r']}\nverify: {command: [sh, -c, 'cp r $COFFERDAM_REWARD 2>/dev/null; exit 0']}\n"),
    (
        "network",
        "agent: {command: [bash, -c, '(exec 3<>/dev/tcp/example.org/80) 2>/dev/null || echo none > out']}\nverify: {command: [sh, -c, 'grep -q none out']}\n",
    ),
    (
        "artifacts",
        "agent: {command: [sh, -c, 'mkdir o && echo 1 > o/a && echo 2 > o/b']}\nartifacts: ['o/**']\nverify: {command: [sh, -c, 'test -e o/b']}\n",
    ),
    ("user", "agent: {command: [sh, -c, 'id -u > out']}\nverify: {command: [sh, -c, 'grep -q 10001 out']}\n"),
    (
        "limits",
        "limits: {memory: 64MiB, pids: 20}\nagent: {command: [sh, -c, 'for i in $(seq 1 40); do sleep 3 & done 2>/dev/null; echo end > out']}\nverify: {command: [sh, -c, 'true']}\n",
    ),
    (
        "memory",
        "limits: {memory: 64MiB}\nagent: {command: [dd, if=/dev/zero, of=/dev/null, bs=200M, count=1]}\nverify: {command: [sh, -c, 'exit 0']}\n",
    ),
    (
        "files",
        "workspace: {src: src, tests: tests}\nagent: {command: [sh, -c, 'cp src/there output/x; rm src/there; ln -s /etc/passwd output/link']}\n\
         verify: {command: [sh, -c, 'cat tests/there && test -e output/x && test -L output/link && ! test -e src/there']}\n",
    ),
    (
        "hidden",
        "workspace: {tests: tests}\nagent: {command: [sh, -c, 'test ! -e tests && echo none > output/x']}\nverify: {command: [test, -e, output/x]}\n",
    ),
    (
        "listed",
        "agent: {command: [sh, -c, 'echo 1 > output/x']}\n\
         verify: {command: [sh, -c, 'echo PASSED a; test -e output/x && echo PASSED b'], pass_to_pass: [a], fail_to_pass: [b]}\n",
    ),
    ("unsound", "agent: {command: ['true']}\nverify: {command: [sh, -c, 'echo PASSED b'], fail_to_pass: [b]}\n"),
    ("written", "agent: {command: ['true']}\nverify: {command: [sh, -c, 'echo 0.25 > /logs/verifier/reward.txt']}\n"),
    ("rubbish", "agent: {command: ['true']}\nverify: {command: [sh, -c, 'echo lots > /logs/verifier/reward.txt']}\n"),
    (
        "served",
        "services: [{name: web, command: [busybox, httpd, -f, -p, '127.0.0.1:8080', -h, /services/web], files: tests, ready: {port: 8080}}]\n\
         agent: {command: [sh, -c, 'busybox wget -q -O output/x http://127.0.0.1:8080/there']}\nverify: {command: [grep, -q, tests, output/x]}\n",
    ),
    (
        "unready",
        "services: [{name: web, command: ['false'], ready: {port: 8080, timeout: 1s}}]\nagent: {command: ['true']}\nverify: {command: ['true']}\n",
    ),
    (
        "root",
        "agent: {command: [sh, -c, 'touch /etc/x && chown web output && id -u > output/x'], user: root}\nverify: {command: [sh, -c, 'test ! -e /etc/x && grep -qx 0 output/x']}\n",
    ),
    ("killed", "agent: {command: [sh, -c, 'kill -9 $$']}\nverify: {command: [sh, -c, 'exit 4']}\n"),
];

/// The same attempts on both engines: the same record but for ids, times and what was used.
#[test]
fn tasks_end_on_both_engines_alike() {
    let on = On::new();
    let mut different = Vec::new();
    for (name, rest) in CASES {
        let directory = on.home.path(name);
        for part in ["src", "tests"] {
            fs::create_dir_all(directory.join(part)).expect("made");
            fs::write(directory.join(part).join("there"), format!("{part}\n")).expect("written");
        }
        fs::write(directory.join("task.yaml"), format!("version: 1\nid: {name}\ninstruction: do it\nimage: base:1\n{rest}"))
            .expect("written");
        let attempt = |engine: &str| {
            let ran = on.run(&["task", "run", "--engine", engine, &directory.display().to_string(), "-o", "json"]);
            // What is no attempt is an error.
            let Ok(record) = serde_json::from_str::<Value>(&ran.out) else { return format!("{} {}", ran.code, ran.err) };
            let kept = ["task", "phase", "reason", "reward", "tests", "detail", "agent_exit_code", "verify_exit_code", "trajectories"]
                .map(|key| record[key].to_string());
            format!("{} {kept:?}", ran.code)
        };
        let (native, docker) = (attempt("native"), attempt("docker"));
        if native != docker {
            different.push(format!("{name}: native {native}, docker {docker}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert_eq!(on.containers(), "");
}

/// Harbor's directories: a verifier of its own runs, what only the native engine can is refused before the agent has done anything, once.
#[test]
fn harbor_directories_on_a_daemon() {
    let on = On::new();
    on.ok(&["image", "tag", "base:1", "debian:bookworm-slim"]);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/harbor");
    let suite = on.home.path("suite");
    fs::create_dir(&suite).expect("made");
    for name in ["sealed-answer", "log-summary"] {
        let copied = Command::new("cp").arg("-r").arg(examples.join(name)).arg(&suite).status();
        assert!(copied.expect("cp").success());
    }
    let ran = on.run(&["suite", "run", "--engine", "docker", "--agent", "oracle", &suite.display().to_string()]);
    assert!(ran.out.contains("sealed-answer  1  completed  1") && ran.out.contains("log-summary    1  completed  1"), "{ran:?}");
    assert_eq!(on.containers(), "");
    // An agent that is not root: its solution is put in all the same.
    let task = suite.join("sealed-answer/task.toml");
    let text = fs::read_to_string(&task).expect("read");
    fs::write(&task, text.replace("[agent]\n", "[agent]\nuser = \"web\"\n").replace("/ledger/answer.txt", "/logs/artifacts/answer.txt"))
        .expect("written");
    fs::write(suite.join("sealed-answer/solution/solve.sh"), "#!/bin/sh\nid -u > /logs/artifacts/answer.txt\n").expect("written");
    fs::write(
        suite.join("sealed-answer/tests/test.sh"),
        "#!/bin/sh\ngrep -qx 33 /logs/artifacts/answer.txt && echo 1 > /logs/verifier/reward.txt\n",
    )
    .expect("written");
    let ran = on.run(&[
        "task",
        "run",
        "--engine",
        "docker",
        "--agent",
        "oracle",
        "-o",
        "json",
        &suite.join("sealed-answer").display().to_string(),
    ]);
    let record: Value = serde_json::from_str(&ran.out).unwrap_or(Value::Null);
    assert_eq!(record["reward"], 1.0, "{ran:?}");
}

/// What a sandbox writes is where the engine has put it, however the daemon stores its images.
#[test]
fn any_storage_driver_will_do() {
    let on = On::with(Docker::start_with(&["--storage-driver=vfs"]));
    on.ok(&["image", "tag", "base:1", "debian:bookworm-slim"]);
    let suite = on.home.path("suite");
    fs::create_dir(&suite).expect("made");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/harbor/log-summary");
    assert!(Command::new("cp").arg("-r").arg(example).arg(&suite).status().expect("cp").success());
    on.ok(&["suite", "run", "--engine", "docker", "--agent", "oracle", &suite.display().to_string()]);
    on.ok(&[
        "run",
        "-d",
        "--engine",
        "docker",
        "--name",
        "it",
        "--image",
        "base:1",
        "-u",
        "root",
        "--",
        "sh",
        "-c",
        "rm -r /app; sleep 1000",
    ]);
    on.ok(&["exec", "it", "sh", "-c", "while [ -e /app ]; do sleep 0.1; done"]);
    assert_eq!(on.ok(&["diff", "it"]), "D /app\n");
    on.ok(&["rm", "-f", "it"]);
    assert_eq!(on.containers(), "");
}
