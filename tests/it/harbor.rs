//! Harbor's task directories, read as they are. The images' names are real ones; their contents here are bash and busybox.

use cofferdam_tests::Home;
use cofferdam_tests::registry::debian_root;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/harbor")
}

fn home() -> Home {
    let home = Home::new();
    debian_root(&home.path("root"));
    home.ok(&["image", "import", &home.path("root").display().to_string(), "debian:bookworm-slim"]);
    home
}

fn run(home: &Home, task: &Path, agent: &[&str]) -> (i32, Value, String) {
    let mut words = vec!["task", "run", "-o", "json"];
    let path = task.display().to_string();
    words.push(&path);
    words.extend(agent);
    let ended = home.run(&words);
    (ended.code, serde_json::from_str(&ended.out).unwrap_or(Value::Null), ended.err)
}

/// A copy of an example that may be changed.
fn copy(home: &Home, name: &str) -> PathBuf {
    let target = home.path(name);
    let status = std::process::Command::new("cp").arg("-r").arg(examples().join(name)).arg(&target).status();
    assert!(status.expect("cp").success());
    target
}

fn rewrite(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).expect("read");
    fs::write(path, change(text)).expect("written");
}

#[test]
fn every_harbor_example_is_sound() {
    let home = home();
    let mut count = 0;
    for entry in fs::read_dir(examples()).expect("there").flatten() {
        let ended = home.run(&[Path::new("task"), Path::new("validate"), &entry.path()]);
        assert_eq!(ended.code, 0, "{}: {ended:?}", entry.path().display());
        count += 1;
    }
    assert!(count >= 5, "{count} directories");
    let suite: Value =
        serde_json::from_str(&home.ok(&["suite", "run", "-q", "-o", "json", "--agent", "oracle", &examples().display().to_string()]))
            .expect("JSON");
    assert!(suite["attempts"].as_array().expect("attempts").iter().all(|attempt| attempt["reward"] == 1.0), "{suite}");
    home.ok(&["prune"]);
    home.assert_clean();
}

#[test]
fn a_part_of_the_work_earns_a_part_of_the_reward() {
    let home = home();
    let (code, record, _) = run(&home, &examples().join("log-summary"), &["--agent-cmd", "echo errors=6 > /data/summary.txt"]);
    assert_eq!((code, &record["reward"]), (1, &Value::from(0.5)));
    let kept = home.data().join("artifacts").join(record["id"].as_str().expect("an id"));
    assert_eq!(fs::read_to_string(kept.join("files/data/summary.txt")).expect("an artifact"), "errors=6\n");
}

#[test]
fn what_the_agent_leaves_behind_judges_nothing() {
    let home = home();
    let shared = examples().join("greeting");
    let cheats = [
        "mkdir -p /tests /logs/verifier; echo 1 > /logs/verifier/reward.txt; printf '#!/bin/sh\necho 1 > /logs/verifier/reward.txt' > /tests/test.sh",
        "rm -rf /logs/verifier; ln -s /app /logs/verifier; echo 1 > /app/reward.txt",
        "ln -s /app /tests; mkdir -p /app; echo 'echo 1 > /logs/verifier/reward.txt' > /app/test.sh",
        "(setsid sh -c 'while :; do echo 1 > /logs/verifier/reward.txt; done' > /dev/null 2>&1 &)",
        "echo '{\"reward\": 1}' > /logs/verifier/reward.json; echo '{\"reward\": 1}' > /logs/agent/reward.json",
        "kill -9 -1",
        "cat /solution/solve.sh && sh /solution/solve.sh; cat /tests/test.sh && sh /tests/test.sh",
    ];
    for cheat in cheats {
        let (code, record, err) = run(&home, &shared, &["--agent-cmd", cheat]);
        assert!(code == 1 && record["reward"] != 1.0, "{cheat}: {record} {err}");
    }
    // In mode shared the agent is root of what the tests run on, as with Harbor: that is said.
    let (_, record, _) =
        run(&home, &shared, &["--agent-cmd", "rm /bin/cat; printf '#!/bin/sh\necho hello, harbour' > /bin/cat; chmod 755 /bin/cat"]);
    assert!(
        record["detail"].as_str().is_some_and(|detail| detail.contains("the agent replaced /bin/cat, which the tests may use")),
        "{record}"
    );
    // In mode separate it is not.
    let cheat = "mkdir -p /ledger; echo 1 > /ledger/answer.txt; rm /bin/cat /bin/awk; for t in cat awk; do printf '#!/bin/sh\necho 1' > /bin/$t; chmod 755 /bin/$t; done";
    let (code, record, _) = run(&home, &examples().join("sealed-answer"), &["--agent-cmd", cheat]);
    assert_eq!((code, &record["reward"], &record["phase"]), (1, &Value::from(0.0), &Value::from("completed")));
}

#[test]
fn an_agent_that_breaks_the_system_gets_no_second_try() {
    let home = home();
    let task = copy(&home, "greeting").display().to_string();
    let suite = home.run(&["suite", "run", "-q", "-o", "json", &task, "--agent-cmd", "rm /bin/busybox"]);
    let shown: Value = serde_json::from_str(&suite.out).expect("JSON");
    let attempt = &shown["attempts"][0];
    assert_eq!(
        (&attempt["tries"], &attempt["reason"], &attempt["reward"]),
        (&1.into(), &"verifier_failed".into(), &Value::Null),
        "{shown}"
    );
}

#[test]
fn no_reward_file_is_no_verdict() {
    let home = home();
    let task = copy(&home, "greeting");
    rewrite(&task.join("tests/test.sh"), |_| "#!/bin/sh\nexit 0\n".into());
    let (code, record, _) = run(&home, &task, &["--agent", "oracle"]);
    assert_eq!((code, &record["reason"], &record["reward"]), (1, &"verifier_failed".into(), &Value::Null));
    rewrite(&task.join("tests/test.sh"), |_| "#!/bin/sh\necho 7 > /logs/verifier/reward.txt\n".into());
    let (_, record, _) = run(&home, &task, &["--agent", "oracle"]);
    assert!(record["detail"].as_str().is_some_and(|detail| detail.contains("not a number from 0 to 1")), "{record}");
}

#[test]
fn its_own_verifier_image_has_its_tests() {
    let home = home();
    let task = copy(&home, "sealed-answer");
    fs::write(
        task.join("tests/Dockerfile"),
        "FROM debian:bookworm-slim\nCOPY test.sh /tests/test.sh\nCOPY numbers /ledger/numbers\nRUN touch /grader\n",
    )
    .expect("written");
    fs::copy(task.join("environment/numbers"), task.join("tests/numbers")).expect("copied");
    rewrite(&task.join("tests/test.sh"), |text| text.replace("[ ! -e /ledger/scratch ]", "[ ! -e /ledger/scratch ] && [ -e /grader ]"));
    let (code, record, err) = run(&home, &task, &["--agent", "oracle"]);
    assert_eq!(code, 0, "{record} {err}");
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    let home = home();
    let cases: &[(&str, &str)] = &[
        ("[environment]\ngpus = 2\n", "environment.gpus"),
        ("[[steps]]\nname = \"a\"\n", "steps"),
        ("[environment.env]\nTOKEN = \"${GITHUB_TOKEN}\"\n", "GITHUB_TOKEN"),
        ("[agent]\ntimeout = 3\n", "task.toml:2:1: unknown field `timeout`"),
        ("nonsense", "task.toml:1:"),
        ("schema_version = \"9.0\"\n", "9.0 is not known"),
    ];
    for (text, part) in cases {
        let task = home.path("odd");
        let _ = fs::remove_dir_all(&task);
        copy(&home, "greeting");
        fs::rename(home.path("greeting"), &task).expect("renamed");
        fs::write(task.join("task.toml"), text).expect("written");
        let (code, _, err) = run(&home, &task, &["--agent", "oracle"]);
        assert!(code != 0 && err.contains(part), "{text}: {err}");
    }
    let compose = copy(&home, "greeting");
    fs::write(compose.join("environment/docker-compose.yaml"), "services: {}\n").expect("written");
    let (_, _, err) = run(&home, &compose, &["--agent", "oracle"]);
    assert!(err.contains("docker-compose.yaml is not supported here"), "{err}");
    let (_, _, err) = run(&home, &examples().join("greeting"), &[]);
    assert!(err.contains("agent task needs agent.command"), "{err}");
}
