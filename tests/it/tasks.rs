//! Tasks: every example is sound, and the agent never sees the tests.

use cofferdam_tests::{Home, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tasks")
}

#[test]
pub fn every_example_is_sound() {
    let home = Home::new();
    let (mut difficulties, mut languages) = (BTreeSet::new(), BTreeSet::new());
    let mut count = 0;
    for entry in std::fs::read_dir(examples()).expect("there").flatten() {
        let ended = home.run(&[Path::new("task"), Path::new("validate"), &entry.path()]);
        assert_eq!(ended.code, 0, "{}: {ended:?}", entry.path().display());
        let text = std::fs::read_to_string(entry.path().join("task.yaml")).expect("read");
        difficulties.extend(text.lines().filter_map(|line| Some(line.strip_prefix("difficulty: ")?.to_owned())));
        languages.extend(entry.file_name().to_string_lossy().split('-').next().map(str::to_owned));
        count += 1;
    }
    assert!(count >= 12 && difficulties.len() == 5 && languages.len() >= 4, "{count} {difficulties:?} {languages:?}");
    home.ok(&["prune"]);
    home.assert_clean();
}

#[test]
pub fn examples_that_must_fail_fail_as_they_say() {
    let home = Home::new();
    let run = |name: &str| home.run(&["task", "run", &examples().join(name).display().to_string(), "-o", "json"]);
    let slow = run("shell-must-time-out");
    assert!(slow.code == 124 && json(&slow.out)["phase"] == "timeout", "{slow:?}");
    let greedy = run("python-must-run-out-of-memory");
    assert!(greedy.code == 1 && greedy.err.contains("the agent reached its memory limit"), "{greedy:?}");
    assert_eq!((&json(&greedy.out)["reward"], &json(&greedy.out)["agent_exit_code"]), (&Value::from(0.0), &Value::from(137)));
    let cheater = run("shell-cheater");
    assert!(cheater.code == 1 && json(&cheater.out)["reward"] == 0.0, "{cheater:?}");
}

/// A task in a directory of its own: what stands in its file after the id, and files beside it.
fn made(home: &Home, name: &str, rest: &str, files: &[(&str, &str)]) -> String {
    let directory = home.path(name);
    std::fs::create_dir_all(&directory).expect("made");
    let text = format!("version: 1\nid: {name}\ninstruction: do it\nlimits: {{memory: 256MiB, disk: 64MiB}}\n{rest}");
    for (path, contents) in files.iter().chain(&[("task.yaml", text.as_str())]) {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, contents).expect("written");
    }
    directory.display().to_string()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

const LISTED: &str =
    "workspace: {src: ./src, tests: ./tests}\nverify: {command: [sh, tests/test.sh], fail_to_pass: [new], pass_to_pass: [old]}\n";
const TEST: &str = "for t in old new; do if [ -e src/$t ]; then echo PASSED $t; else echo FAILED $t - no file; fi; done\n";

#[test]
pub fn tests_are_judged_on_the_base_first() {
    let home = Home::new();
    let good = made(&home, "good", LISTED, &[("src/old", ""), ("tests/test.sh", TEST)]);
    let record = json(&home.ok(&["task", "run", &good, "--agent-cmd", "touch src/new", "-o", "json"]));
    assert_eq!(record["tests"], serde_json::json!({ "new": "passed", "old": "passed" }));
    let logs = home.data().join("artifacts").join(record["id"].as_str().expect("an id")).join("logs");
    assert!(logs.join("sanity.log").is_file(), "the base was judged");
    let again = json(&home.run(&["task", "run", &good, "--agent-cmd", "rm src/old", "-o", "json"]).out);
    assert_eq!((&again["tests"], &again["reward"]), (&serde_json::json!({ "new": "failed", "old": "failed" }), &Value::from(0.0)));
    let logs = home.data().join("artifacts").join(again["id"].as_str().expect("an id")).join("logs");
    assert!(!logs.join("sanity.log").exists(), "and is remembered");
    let cases = [
        ("passes", &[("src/old", ""), ("src/new", ""), ("tests/test.sh", TEST)][..], "fail_to_pass passes already: new"),
        ("fails", &[("src/x", ""), ("tests/test.sh", TEST)][..], "pass_to_pass does not pass: old"),
        ("silent", &[("src/old", ""), ("tests/test.sh", "exit 0\n")][..], "pass_to_pass does not pass: old"),
    ];
    for (name, files, why) in cases {
        let ended = home.run(&["task", "run", &made(&home, name, LISTED, files), "--agent-cmd", "touch src/new", "-o", "json"]);
        let record = json(&ended.out);
        assert_eq!((&record["phase"], &record["reason"]), (&Value::from("failed"), &Value::from("sanity_fail")), "{ended:?}");
        assert!(ended.code == 1 && ended.err.contains(why) && record["agent_sandbox"].is_null(), "{ended:?}");
    }
    // Not made again by a suite: another try would say the same.
    let suite = json(&home.run(&["suite", "run", &home.path("fails").display().to_string(), "--agent", "nop", "-q", "-o", "json"]).out);
    assert_eq!((&suite["attempts"][0]["tries"], &suite["attempts"][0]["reason"]), (&Value::from(1), &Value::from("sanity_fail")));
    // Files that change are judged anew.
    std::fs::write(home.path("good/src/new"), "").expect("written");
    assert!(home.run(&["task", "run", &good, "--agent", "nop"]).err.contains("passes already"));
}

#[test]
pub fn services_are_ready_before_the_agent() {
    let home = Home::new();
    let server = "import http.server\nhttp.server.HTTPServer(('127.0.0.1', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()\n";
    let text = "agent: {command: [python3, -c, \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/hello').read())\"]}\n\
        services:\n  - {name: first, command: [sh, -c, 'echo one >> /tmp/order; echo from first; exec sleep 60'], ready: {command: [test, -s, /tmp/order]}}\n  \
        - {name: web, command: [sh, -c, 'sleep 0.3; cd /services/web; id -u > uid; exec python3 server.py'], files: ./web, user: '20000', env: {K: v}, ready: {port: 8000}, during: [agent, verify]}\n\
        verify: {command: [sh, -c, 'id -u; [ ! -e /tmp/order ]; exec python3 -c \"import urllib.request as u; assert u.urlopen(\\\"http://127.0.0.1:8000/uid\\\").read() == b\\\"20000\\\\n\\\"\"']}\n";
    let task = made(&home, "served", text, &[("web/server.py", server), ("web/hello", "hello from the service")]);
    let ended = home.run(&["task", "run", &task, "-o", "json"]);
    let record = json(&ended.out);
    assert_eq!((ended.code, &record["reward"]), (0, &Value::from(1.0)), "{ended:?}");
    let logs = home.data().join("artifacts").join(record["id"].as_str().expect("an id")).join("logs");
    let read = |name: &str| std::fs::read_to_string(logs.join(name)).expect(name);
    assert!(read("execution.log").contains("hello from the service"));
    assert_eq!(read("execution-first.log"), "from first\n");
    assert!(read("execution-web.log").contains("GET /hello"), "what a service writes is kept");
    home.assert_clean();
}

#[test]
pub fn services_that_do_not_get_ready_are_named() {
    let home = Home::new();
    let cases = [
        ("ends", "{name: db, command: [sh, -c, 'exit 3'], ready: {port: 1}}", "service db: it ended with Code(3) before it was ready"),
        ("waits", "{name: db, command: [sleep, '60'], ready: {port: 1, timeout: 1s}}", "service db: it was not ready within 1 s"),
        ("absent", "{name: db, command: [no-such-program]}", "service db: no-such-program: not found"),
        ("nobody", "{name: db, command: ['true'], user: nosuch}", "service db: user \"nosuch\""),
    ];
    for (name, service, why) in cases {
        let text = format!("services: [{service}]\nverify: {{command: ['true']}}\n");
        let ended = home.run(&["task", "run", &made(&home, name, &text, &[]), "--agent-cmd", "echo ran > output/x"]);
        assert!(ended.code != 0 && ended.err.contains(why), "{name}: {ended:?}");
    }
    assert!(!home.ok(&["task", "list", "-o", "json"]).contains("\"completed\""), "no agent ran");
    home.assert_clean();
}

#[test]
pub fn the_verifier_has_limits_a_user_and_an_environment_of_its_own() {
    let home = Home::new();
    let text = "verify: {command: [sh, -c, 'id -un; echo $WORD; sleep 20'], user: agent, env: {WORD: spoken}, limits: {timeout: 1s}}\n";
    let ended = home.run(&["task", "run", &made(&home, "slow", text, &[]), "--agent", "nop", "-o", "json"]);
    let record = json(&ended.out);
    assert!(ended.err.contains("the verifier ended: time_limit"), "{ended:?}");
    assert_eq!((&record["phase"], &record["reward"]), (&Value::from("completed"), &Value::from(0.0)));
    let log = home.data().join("artifacts").join(record["id"].as_str().expect("an id")).join("logs/verification.log");
    assert_eq!(std::fs::read_to_string(log).expect("kept"), "agent\nspoken\n");
}

#[test]
pub fn rewards_that_are_none_are_the_verifiers_failure() {
    let home = Home::new();
    for (name, line) in [("high", "echo 2"), ("low", "echo -1"), ("nan", "echo NaN"), ("text", "echo much"), ("empty", ":")] {
        let text = format!("verify: {{command: [sh, -c, '{line} > /logs/verifier/reward.txt']}}\n");
        let task = made(&home, name, &text, &[]);
        let suite = json(&home.run(&["suite", "run", &task, "--agent", "nop", "-q", "-o", "json"]).out);
        let attempt = &suite["attempts"][0];
        assert_eq!(
            (&attempt["reason"], &attempt["reward"], &attempt["tries"]),
            (&"verifier_failed".into(), &Value::Null, &1.into()),
            "{name}: {suite}"
        );
    }
}

#[test]
pub fn artifacts_are_kept_by_digest_and_go_when_they_are_due() {
    let home = Home::new();
    let text = "artifacts: ['output/**', '*.md']\nverify: {command: ['true']}\ncleanup: {delay: 1ms, retention: 1s}\n";
    let task = made(&home, "kept", text, &[]);
    let agent = "echo same > output/a; mkdir output/d; echo same > output/d/b; echo other > notes.md; echo no > else; ln -s /etc/passwd output/link; mkfifo output/pipe; \
        echo '{\"step\": 1}' > /logs/agent/trajectory.jsonl";
    let record = json(&home.ok(&["task", "run", &task, "--agent-cmd", agent, "-o", "json"]));
    let id = record["id"].as_str().expect("an id");
    let kept = home.data().join("artifacts").join(id);
    let manifest = json(&std::fs::read_to_string(kept.join("files.manifest.json")).expect("a manifest"));
    let paths: Vec<&str> = manifest.as_array().expect("a list").iter().filter_map(|artifact| artifact["path"].as_str()).collect();
    assert_eq!(paths, ["notes.md", "output/a", "output/d/b"]);
    assert_eq!(manifest[1]["digest"], manifest[2]["digest"]);
    assert_eq!(std::fs::read_to_string(kept.join("files/output/d/b")).expect("there"), "same\n");
    assert_eq!(record["trajectories"], serde_json::json!(["agent/trajectory.jsonl"]));
    assert_eq!(record["figures"]["artifact_bytes"], 16);
    let blobs = || std::fs::read_dir(home.data().join("artifacts/sha256")).expect("there").count();
    assert_eq!(blobs(), 3, "two files, and the trajectory");
    assert!(!home.data().join("attempts").join(id).exists() || home.run(&["prune"]).code == 0, "working files go after the delay");
    assert!(!home.data().join("attempts").join(id).exists());
    eventually("what was kept goes when its time is over", || {
        home.ok(&["prune"]);
        !kept.exists() && blobs() == 0
    });
    assert!(home.ok(&["task", "list"]).contains("kept"), "the record stays");
}

#[test]
pub fn each_field_of_the_cleanup_policy_counts() {
    let home = Home::new();
    let attempt = |name: &str, cleanup: &str, agent: &str| {
        let text = format!(
            "artifacts: ['output/**']\nverify: {{command: [test, -e, output/x]}}\ncleanup: {cleanup}\nlimits: {{timeout: 1s, memory: 128MiB, disk: 32MiB}}\n"
        );
        let task = made(&home, name, &text, &[]);
        let file = home.path(name).join("task.yaml");
        let fixed = std::fs::read_to_string(&file).expect("read").replacen("limits: {memory: 256MiB, disk: 64MiB}\n", "", 1);
        std::fs::write(&file, fixed).expect("written");
        let record = json(&home.run(&["task", "run", &task, "--agent-cmd", agent, "-o", "json"]).out);
        std::thread::sleep(std::time::Duration::from_millis(20));
        home.ok(&["prune"]);
        let id = record["id"].as_str().expect("an id").to_owned();
        let there = |path: &str| home.data().join(path).exists();
        (there(&format!("attempts/{id}")), there(&format!("artifacts/{id}/logs")), there(&format!("artifacts/{id}/files/output/x")))
    };
    let (good, bad, slow) = ("echo hello; touch output/x", "echo hello; false", "echo hello; touch output/x; sleep 9");
    assert_eq!(attempt("now", "{delay: 1ms}", good), (false, true, true));
    assert_eq!(attempt("later", "{delay: 1h}", good), (true, true, true));
    assert_eq!(attempt("success", "{delay: 1ms, on_success: false}", good), (true, true, true));
    assert_eq!(attempt("forced", "{delay: 1ms, on_success: false, force_after: 2ms}", good), (false, true, true));
    assert_eq!(attempt("failure", "{delay: 1ms, on_failure: false}", bad), (true, true, false));
    assert_eq!(attempt("failure2", "{delay: 1ms, on_success: false}", bad), (false, true, false));
    assert_eq!(attempt("timeout", "{delay: 1ms, on_timeout: false}", slow), (true, true, true));
    assert_eq!(attempt("logs", "{delay: 1ms, keep_logs: false}", good), (false, false, true));
    assert_eq!(attempt("artifacts", "{delay: 1ms, keep_artifacts: false}", good), (false, true, false));
    assert_eq!(attempt("nothing", "{delay: 1ms, retention: 2ms}", good), (false, false, false));
}

#[test]
pub fn a_huge_log_is_bounded_and_nothing_is_lost() {
    let home = Home::new();
    let task = made(&home, "loud", "verify: {command: ['true']}\nartifacts: ['output/**']\n", &[]);
    let record = json(&home.ok(&["task", "run", &task, "--agent-cmd", "head -c 1000000000 /dev/zero; echo kept > output/x", "-o", "json"]));
    let kept = home.data().join("artifacts").join(record["id"].as_str().expect("an id"));
    let bytes = std::fs::metadata(kept.join("logs/execution.log")).expect("kept").len();
    assert!(bytes < 100 << 20, "{bytes}");
    assert!(kept.join("files/output/x").is_file());
}

#[test]
pub fn an_attempt_whose_maker_died_is_recorded_as_lost() {
    let home = Home::new();
    let task = made(&home, "lost", "agent: {command: [sleep, '60']}\nverify: {command: ['true']}\n", &[]);
    let mut maker = home.command(&["task", "run", &task]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    eventually("it runs", || home.ok(&["ps", "-q"]).lines().count() == 1);
    home.ok(&["prune"]);
    assert!(home.ok(&["task", "list", "-o", "json"]).contains("\"running\""), "as long as it is made nobody touches it");
    maker.kill().expect("killed");
    maker.wait().expect("ended");
    eventually("it is recorded", || {
        home.ok(&["prune"]);
        home.ok(&["task", "list", "-o", "json"]).contains("\"supervisor_lost\"")
    });
    eventually("its files go", || {
        home.ok(&["prune"]);
        std::fs::read_dir(home.data().join("attempts")).is_ok_and(|mut entries| entries.next().is_none())
    });
    home.assert_clean();
}

#[test]
pub fn what_the_agent_sees() {
    let home = Home::new();
    let task = examples().join("python-last-page").display().to_string();
    let look = "ls -a . .synth; cat .synth/instruction.md; touch .synth/x; mv .synth y; ls tests solution; env | grep -E '^(TASK_ID|COFFERDAM_MODE)'; false";
    let ended = home.run(&["task", "run", &task, "--agent-cmd", look, "-o", "json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let record: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    let log = home.data().join("artifacts").join(record["id"].as_str().expect("an id")).join("logs/execution.log");
    let seen = std::fs::read_to_string(log).expect("kept");
    for expected in ["task.json", "The last page is missing", "TASK_ID=python-last-page", "COFFERDAM_MODE=execution"] {
        assert!(seen.contains(expected), "{expected} in {seen}");
    }
    assert!(seen.contains("Read-only file system") && seen.contains("busy"), "{seen}");
    assert!(seen.matches("No such file or directory").count() >= 2, "no tests, no solution: {seen}");
    assert_eq!(record["reward"], 0.0);
}

#[test]
pub fn a_task_that_takes_too_long_is_a_timeout() {
    let home = Home::new();
    let directory = home.path("slow");
    std::fs::create_dir(&directory).expect("made");
    let text = "version: 1\nid: slow\ninstruction: wait\nagent: {command: [sleep, '600']}\nverify: {command: ['true']}\nlimits: {timeout: 500ms, memory: 256MiB, disk: 64MiB}\n";
    std::fs::write(directory.join("task.yaml"), text).expect("written");
    let ended = home.run(&["task", "run", &directory.display().to_string(), "-o", "json"]);
    assert!(ended.code == 124 && ended.out.contains("\"phase\": \"timeout\""), "{ended:?}");
}

#[test]
pub fn a_mistake_in_the_file_shows_its_place() {
    let home = Home::new();
    let file = home.path("task.yaml");
    std::fs::write(&file, "version: 1\nid: a\ninstruction: x\nverfy: {command: [sh]}\n").expect("written");
    let ended = home.run(&["task", "run", &file.display().to_string()]);
    assert!(ended.code == 125 && ended.err.contains("task.yaml:4:1") && ended.err.contains("did you mean \"verify\"?"), "{ended:?}");
}

#[test]
pub fn a_task_to_begin_with_is_sound() {
    let home = Home::new();
    let directory = home.path("my-task").display().to_string();
    home.ok(&["task", "init", &directory]);
    home.ok(&["task", "validate", &directory]);
    assert!(home.run(&["task", "init", &directory]).err.contains("is not empty"));
    assert_eq!(home.run(&["task", "init", &home.path("Not A Name").display().to_string()]).code, 2);
    let attempts = json(&home.ok(&["task", "list", "-o", "json"]));
    let id = attempts[0]["id"].as_str().expect("an id");
    let shown = home.ok(&["task", "show", &id[..8]]);
    assert!(shown.contains("passed   greets a name") && shown.contains("logs and artifacts:"), "{shown}");
    assert!(home.run(&["task", "show", "zzz"]).err.contains("no attempt has an id"));
    assert!(home.run(&["task", "show", ""]).err.contains("begins the ids of"));
}

/// `docs/schema` is what the program says; `UPDATE_SNAPSHOTS=1` writes it anew.
#[test]
pub fn schemas_are_published_as_they_are() {
    let home = Home::new();
    for name in ["task", "suite", "config", "base", "synth-task", "synth-tools", "synth-config"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/schema/{name}.schema.json"));
        let schema = home.ok(&["task", "schema", name]);
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(&path, &schema).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), schema, "{name}: UPDATE_SNAPSHOTS=1 writes it anew");
    }
}

/// Names that Cofferdam uses itself, among what an agent leaves: no bytes of another attempt change, and nothing fails.
#[test]
pub fn names_of_our_own_among_artifacts_are_files_like_others() {
    let home = Home::new();
    let task = made(&home, "names", "artifacts: ['**']\nverify: {command: ['true']}\n", &[]);
    let agent = "mkdir logs agent files; for f in manifest.json files.manifest.json logs/execution.log agent/x files/x; do echo theirs > $f; done; \
        echo theirs > /logs/agent/manifest.json; echo theirs > /logs/agent/x";
    for _ in 0..2 {
        let record = json(&home.ok(&["task", "run", &task, "--agent-cmd", agent, "-o", "json"]));
        let kept = home.data().join("artifacts").join(record["id"].as_str().expect("an id"));
        let manifest = json(&std::fs::read_to_string(kept.join("files.manifest.json")).expect("a manifest"));
        assert_eq!(manifest.as_array().map(Vec::len), Some(5), "{manifest}");
        for path in ["files/manifest.json", "files/logs/execution.log", "files/agent/x", "agent/manifest.json", "agent/x"] {
            assert_eq!(std::fs::read_to_string(kept.join(path)).expect(path), "theirs\n", "{path}");
        }
    }
}
