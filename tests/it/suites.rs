//! Suites: every attempt once, whatever dies meanwhile.

use cofferdam_tests::{Home, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

/// Tasks whose agent and verifier are these lines.
fn tasks(home: &Home, names: &[&str], agent: &str, verify: &str) -> String {
    let place = home.path("tasks");
    for name in names {
        let directory = place.join(name);
        fs::create_dir_all(&directory).expect("made");
        let text = format!(
            "version: 1\nid: {name}\ninstruction: do it\ndifficulty: easy\nagent: {{command: [sh, -c, \"{agent}\"]}}\n\
             verify: {{command: [sh, -c, \"{verify}\"]}}\nsolution: {{command: [sh, -c, \"echo right > output/answer\"]}}\n"
        );
        fs::write(directory.join("task.yaml"), text).expect("written");
    }
    place.display().to_string()
}

const GOOD: &str = "echo right > output/answer";
const CHECK: &str = "grep -q right output/answer";

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

#[test]
fn every_task_is_attempted_as_often_as_asked() {
    let home = Home::new();
    let place = tasks(&home, &["one", "two", "three"], GOOD, CHECK);
    let shown = json(&home.ok(&["suite", "run", "-q", &place, "--attempts", "3", "-o", "json"]));
    let attempts = shown["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 9);
    assert!(attempts.iter().all(|attempt| attempt["reward"] == 1.0 && attempt["state"] == "done" && attempt["tries"] == 1), "{shown}");
    let report = json(&home.ok(&["suite", "report", "-o", "json"]));
    assert_eq!((&report["all"]["attempts"], &report["all"]["passed"]), (&Value::from(9), &Value::from(9)));
    assert_eq!(report["by_task"]["two"]["attempts"], 3);
    assert_eq!(report["by_difficulty"]["easy"]["attempts"], 9);
    let page = home.path("report.html");
    home.ok(&["suite", "report", "--html", &page.display().to_string()]);
    let page = fs::read_to_string(page).expect("written");
    assert!(page.contains("<svg") && !page.contains("http"), "a page that needs nothing else");
    let exported = home.ok(&["suite", "export"]);
    let lines: Vec<Value> = exported.lines().map(json).collect();
    assert_eq!(lines.len(), 9);
    let splits: BTreeSet<String> = lines.iter().filter(|line| line["instance_id"] == "one").map(|line| line["split"].to_string()).collect();
    assert_eq!(splits.len(), 1, "a task is in one part");
    assert_eq!(home.ok(&["suite", "export", "--seed", "0"]), exported);
    home.assert_clean();
}

#[test]
fn agents_and_filters_choose() {
    let home = Home::new();
    let place = tasks(&home, &["fix-a", "fix-b", "other"], "true", CHECK);
    let rewards = |words: &[&str]| {
        let mut all = vec!["suite", "run", "-q", &place, "-o", "json"];
        all.extend(words);
        let shown = json(&home.run(&all).out);
        let attempts = shown["attempts"].as_array().expect("attempts").clone();
        attempts
            .iter()
            .map(|attempt| (attempt["task"].as_str().expect("a task").to_owned(), attempt["reward"].as_f64()))
            .collect::<Vec<_>>()
    };
    assert!(rewards(&[]).iter().all(|(_, reward)| *reward == Some(0.0)));
    assert!(rewards(&["--agent", "oracle"]).iter().all(|(_, reward)| *reward == Some(1.0)));
    let some = rewards(&["--agent-cmd", GOOD, "--filter", "fix-*"]);
    assert_eq!(some, [("fix-a".into(), Some(1.0)), ("fix-b".into(), Some(1.0))]);
    let file = home.path("suite.yaml");
    fs::write(&file, "version: 1\ntasks: [tasks/other, tasks/fix-a/task.yaml]\nagent: oracle\nattempts: 2\n").expect("written");
    let shown = json(&home.ok(&["suite", "run", "-q", &file.display().to_string(), "-o", "json"]));
    assert_eq!(shown["attempts"].as_array().expect("attempts").len(), 4);
    assert_eq!(home.ok(&["suite", "list", "-o", "json"]).matches("\"source\"").count(), 4);
}

/// After each kill the suite goes on; nothing that was recorded is lost, nothing is attempted twice at once.
#[test]
fn a_suite_survives_its_runner() {
    let home = Home::new();
    let names: Vec<String> = (0..12).map(|at| format!("task-{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Two attempts at once at one task would meet in this directory.
    let place = tasks(&home, &names, "sleep 0.1; echo right > output/answer", CHECK);
    let mut recorded: BTreeSet<(String, String)> = BTreeSet::new();
    for round in 0..8 {
        let words: Vec<&str> = if round == 0 {
            vec!["suite", "run", "-q", &place, "--parallel", "3"]
        } else {
            vec!["suite", "run", "-q", "--resume", "--parallel", "3"]
        };
        let mut runner = home.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        std::thread::sleep(Duration::from_millis(150 + 97 * round));
        let _ = runner.kill();
        let _ = runner.wait();
        let shown = json(&home.ok(&["suite", "show", "-o", "json"]));
        let done: BTreeSet<(String, String)> = shown["attempts"]
            .as_array()
            .expect("attempts")
            .iter()
            .filter(|attempt| attempt["state"] == "done")
            .map(|attempt| (attempt["task"].to_string(), attempt["id"].to_string()))
            .collect();
        assert!(recorded.is_subset(&done), "an attempt that was recorded stays the one: {recorded:?} {done:?}");
        recorded = done;
    }
    let shown = json(&home.ok(&["suite", "run", "-q", "--resume", "-o", "json"]));
    let attempts = shown["attempts"].as_array().expect("attempts");
    assert!(attempts.iter().all(|attempt| attempt["state"] == "done" && attempt["reward"] == 1.0), "{shown}");
    assert_eq!(attempts.iter().map(|attempt| attempt["id"].to_string()).collect::<BTreeSet<_>>().len(), 12);
    let all = json(&home.ok(&["task", "list", "-o", "json"]));
    let open = all.as_array().expect("attempts").iter().filter(|attempt| attempt["ended_at"].is_null()).count();
    assert_eq!(open, 0, "no attempt is left open");
    home.ok(&["prune"]);
    home.assert_clean();
}

#[test]
fn ctrl_c_drains_and_one_process_runs_a_suite() {
    let home = Home::new();
    let place = tasks(&home, &["a", "b", "c", "d"], "sleep 0.7; echo right > output/answer", CHECK);
    let mut runner =
        home.command(&["suite", "run", &place, "--parallel", "1"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    eventually("one runs", || home.run(&["task", "list", "-o", "json"]).out.contains("\"running\""));
    let second = home.run(&["suite", "run", "--resume"]);
    assert!(second.code == 1 && second.err.contains("being run by another process"), "{second:?}");
    assert!(home.ok(&["suite", "list"]).contains("running"));
    let interrupted = std::process::Command::new("kill").args(["-INT", &runner.id().to_string()]).status().expect("sent");
    assert!(interrupted.success());
    assert_eq!(runner.wait().expect("ended").code(), Some(130));
    let shown = json(&home.ok(&["suite", "show", "-o", "json"]));
    let count = |state: &str| shown["attempts"].as_array().expect("attempts").iter().filter(|attempt| attempt["state"] == state).count();
    assert!(count("done") >= 1 && count("queued") >= 1 && count("running") == 0, "{shown}");
    home.ok(&["suite", "cancel"]);
    let after = json(&home.ok(&["suite", "show", "-o", "json"]));
    assert!(after["attempts"].as_array().expect("attempts").iter().all(|attempt| attempt["state"] != "queued"));
    assert!(home.ok(&["suite", "list"]).contains("cancelled"));
    home.assert_clean();
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let home = Home::new();
    let place = tasks(&home, &["a"], GOOD, CHECK);
    fs::create_dir_all(home.path("tasks/copy")).expect("made");
    fs::copy(home.path("tasks/a/task.yaml"), home.path("tasks/copy/task.yaml")).expect("copied");
    let twice = home.run(&["suite", "run", &place]);
    assert!(twice.code == 1 && twice.err.contains("task id a is used twice"), "{twice:?}");
    fs::remove_dir_all(home.path("tasks/copy")).expect("removed");
    let cases: &[(&[&str], &str)] = &[
        (&["suite", "run", "/no/such"], "/no/such"),
        (&["suite", "run", "/usr/share/doc/bash"], "holds no task"),
        (&["suite", "run", &place, "--filter", "zzz"], "holds no task that was asked for"),
        (&["suite", "run", &place, "--agent", "nobody"], "agent \"nobody\" is not known"),
        (&["suite", "run", "--resume", "abc"], "no suite has an id"),
        (&["suite", "report"], "there is no suite yet"),
    ];
    for (words, part) in cases {
        let refused = home.run(words);
        assert!(refused.code == 1 || refused.code == 2, "{words:?}: {refused:?}");
        assert!(refused.err.contains(part), "{words:?}: {refused:?}");
    }
    let file = home.path("suite.yaml");
    fs::write(&file, "version: 1\ntask: [a]\n").expect("written");
    let odd = home.run(&["suite", "run", &file.display().to_string()]);
    assert!(odd.err.contains("suite.yaml:2:") && odd.err.contains("did you mean \"tasks\""), "{odd:?}");
    assert_eq!(home.ok(&["suite", "list", "-o", "json"]).trim(), "[]");
}

#[test]
fn what_cofferdam_cannot_do_is_tried_again_and_then_given_up() {
    let home = Home::new();
    let place = tasks(&home, &["a"], GOOD, CHECK);
    let path = home.path("tasks/a/task.yaml");
    let text = fs::read_to_string(&path).expect("read") + "image: /no/such/root\n";
    fs::write(&path, text).expect("written");
    let ended = home.run(&["suite", "run", &place, "-o", "json"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let shown = json(&ended.out);
    assert_eq!((&shown["attempts"][0]["state"], &shown["attempts"][0]["tries"]), (&Value::from("failed"), &Value::from(3)));
    assert!(ended.err.contains("/no/such/root") && ended.err.contains("given up"), "{ended:?}");
}

#[test]
fn exports_are_what_others_read() {
    let home = Home::new();
    let place = tasks(&home, &["one", "two"], "echo right > output/answer; echo '{\\\"step\\\": 1}' > /logs/agent/steps.jsonl", CHECK);
    let text = fs::read_to_string(home.path("tasks/one/task.yaml")).expect("read");
    let more = "artifacts: ['output/**']\nmetadata: {repo: acme/one, language: sh, difficulty_score: 0.25}\n";
    fs::write(home.path("tasks/one/task.yaml"), text + more).expect("written");
    home.ok(&["suite", "run", "-q", &place]);
    let config = home.path("config.yaml");
    fs::write(&config, "costs: {currency: EUR, container_hour: 3600, gb_month: 1000000000}\n").expect("written");
    let with_costs = |words: &[&str]| {
        let ended = cofferdam_tests::ended(home.command(words).env("COFFERDAM_CONFIG_PATH", &config));
        assert_eq!(ended.code, 0, "{words:?}: {ended:?}");
        ended.out
    };
    let lines: Vec<Value> = with_costs(&["suite", "export"]).lines().map(json).collect();
    let one = lines.iter().find(|line| line["instance_id"] == "one").expect("a line");
    assert_eq!((&one["repo"], &one["language"], &one["difficulty_score"]), (&"acme/one".into(), &"sh".into(), &0.25.into()));
    assert_eq!(one["artifacts"][0]["path"], "output/answer");
    assert_eq!(one["trajectory"], "{\"step\": 1}\n");
    // Six bytes for a month, and some seconds of a sandbox.
    assert!(one["cost"].as_f64().is_some_and(|cost| (6.0..60.0).contains(&cost)), "{one}");
    let report = json(&with_costs(&["suite", "report", "-o", "json"]));
    assert!(report["all"]["cost"].as_f64().is_some_and(|cost| cost >= 6.0) && report["currency"] == "EUR", "{report}");
    assert!(report["all"]["memory_p95"].as_u64().is_some_and(|bytes| bytes > 0), "{report}");
    assert!(with_costs(&["suite", "report"]).contains("MEMORY P95"));

    let file = home.path("all.parquet").display().to_string();
    home.ok(&["suite", "export", "--format", "parquet", "--to", &file]);
    assert!(fs::read(&file).is_ok_and(|bytes| bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")));
    fs::create_dir(home.path("parts")).expect("made");
    home.ok(&["suite", "export", "--format", "parquet", "--to", &home.path("parts").display().to_string()]);
    assert_eq!(fs::read_dir(home.path("parts")).expect("there").count(), 3);

    let jobs = home.path("jobs").display().to_string();
    home.ok(&["suite", "export", "--format", "harbor", "--to", &jobs]);
    for entry in fs::read_dir(&jobs).expect("there").flatten() {
        let result = json(&fs::read_to_string(entry.path().join("result.json")).expect("a result"));
        assert_eq!((&result["verifier_result"]["rewards"]["reward"], &result["exception_info"]), (&1.0.into(), &Value::Null));
        assert!(entry.path().join("agent/steps.jsonl").is_file() && entry.path().join("verifier/reward.txt").is_file());
    }
    let again = home.run(&["suite", "export", "--format", "harbor", "--to", &jobs]);
    assert!(again.code == 1 && again.err.contains("is not empty"), "{again:?}");
    assert_eq!(home.run(&["suite", "export", "--format", "harbor"]).code, 2);
}

#[test]
fn the_operators_ceilings_bound_everything() {
    let home = Home::new();
    let place = tasks(&home, &["large"], GOOD, CHECK);
    let config = home.path("config.yaml");
    fs::write(&config, "ceilings: {memory: 256MiB, timeout: 10s}\n").expect("written");
    let bounded = |words: &[&str]| cofferdam_tests::ended(home.command(words).env("COFFERDAM_CONFIG_PATH", &config));
    let refused = bounded(&["task", "run", &home.path("tasks/large").display().to_string()]);
    assert!(refused.code != 0 && refused.err.contains("above the operator's ceiling of 256MiB"), "{refused:?}");
    let suite = bounded(&["suite", "run", "-q", &place]);
    assert!(suite.code == 1 && suite.out.contains("memory limit 512MiB is above the operator's ceiling"), "{suite:?}");
    assert!(bounded(&["run", "--memory", "1GiB", "--", "true"]).err.contains("ceiling"));
    let within = bounded(&["run", "--", "true"]);
    assert_eq!(within.code, 0, "what nobody asked for comes down to the ceiling: {within:?}");
    fs::write(&config, "ceilings: {memory: lots}\n").expect("written");
    let wrong = bounded(&["run", "--", "true"]);
    assert!(wrong.code == 125 && wrong.err.contains("config.yaml:1:"), "{wrong:?}");
}

#[test]
fn the_second_ctrl_c_ends_at_once_and_nothing_is_lost() {
    let home = Home::new();
    let place = tasks(&home, &["a", "b"], "echo right > output/answer; [ -e /workspace/fast ] || sleep 30", CHECK);
    let mut runner =
        home.command(&["suite", "run", &place, "--parallel", "2"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    eventually("both run", || home.ok(&["ps", "-q"]).lines().count() == 2);
    let interrupt = || std::process::Command::new("kill").args(["-INT", &runner.id().to_string()]).status().expect("sent");
    assert!(interrupt().success());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(home.ok(&["ps", "-q"]).lines().count(), 2, "the first lets them end");
    assert!(interrupt().success());
    assert_eq!(runner.wait().expect("ended").code(), Some(130));
    eventually("they end with it", || {
        home.ok(&["prune"]);
        home.ok(&["ps", "-q"]).is_empty()
    });
    for name in ["a", "b"] {
        let path = home.path("tasks").join(name).join("task.yaml");
        let text = fs::read_to_string(&path).expect("read").replace("sleep 30", "true");
        fs::write(path, text).expect("written");
    }
    let shown = json(&home.ok(&["suite", "run", "-q", "--resume", "-o", "json"]));
    let attempts = shown["attempts"].as_array().expect("attempts");
    assert!(
        attempts.iter().all(|attempt| attempt["reward"] == 1.0 && attempt["tries"] == 2 && attempt["attempt"] == attempt["id"]),
        "{shown}"
    );
    home.assert_clean();
}

#[test]
fn an_attempt_is_cancelled_at_any_point() {
    let home = Home::new();
    let (slow, quick) = ("sleep 30; echo right > output/answer", "echo right > output/answer");
    for (agent, verify, whose) in [(slow, CHECK, "agent"), (quick, "sleep 30; grep -q right output/answer", "verifier")] {
        let place = tasks(&home, &["a"], agent, verify);
        let words = ["suite", "run", "-q", "-o", "json", &place];
        let runner = home.command(&words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
        let mut sandbox = String::new();
        eventually("it runs", || {
            let list = json(&home.ok(&["ps", "-o", "json"]));
            let slow = list.as_array().and_then(|all| all.iter().find(|one| one["command"].to_string().contains("sleep 30")).cloned());
            sandbox = slow.and_then(|one| Some(one["id"].as_str()?.to_owned())).unwrap_or_default();
            !sandbox.is_empty()
        });
        // It may still be on its way.
        eventually("it is stopped", || home.run(&["stop", &sandbox]).code == 0);
        let shown = json(&String::from_utf8_lossy(&runner.wait_with_output().expect("ended").stdout));
        let attempt = &shown["attempts"][0];
        let seen = (&attempt["phase"], &attempt["reason"], &attempt["reward"], &attempt["tries"]);
        assert_eq!(seen, (&"failed".into(), &"stopped".into(), &Value::Null, &1.into()), "{whose}: {shown}");
    }
    home.assert_clean();
}

#[test]
fn a_spawner_that_is_killed_is_replaced() {
    let home = Home::new();
    let place = tasks(&home, &["a", "b", "c", "d", "e", "f", "g", "h"], "sleep 0.3; echo right > output/answer", CHECK);
    let words = ["suite", "run", "-q", "-o", "json", "--parallel", "2", &place];
    let runner = home.command(&words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started");
    let of_runner = runner.id().to_string();
    let mut killed = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(70));
        let found = cofferdam_tests::ended(std::process::Command::new("pgrep").args(["-P", &of_runner, "-f", "cofferdam-spawner"]));
        // A sandbox that is being set up still has the spawner's name, and a pid namespace of its own.
        let own = fs::read_link("/proc/self/ns/pid").expect("there");
        let spawners = found.out.split_whitespace().filter(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|of| of == own));
        for pid in spawners.take(3 - killed.min(3)) {
            killed += usize::from(std::process::Command::new("kill").args(["-9", pid]).status().expect("sent").success());
        }
    }
    assert!(killed >= 2, "there is one each time");
    let shown = json(&String::from_utf8_lossy(&runner.wait_with_output().expect("ended").stdout));
    assert!(shown["attempts"].as_array().expect("attempts").iter().all(|attempt| attempt["reward"] == 1.0), "{shown}");
    home.ok(&["prune"]);
    home.assert_clean();
}
