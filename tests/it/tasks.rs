//! Tasks: every example is sound, and the agent never sees the tests.

use cofferdam_tests::Home;
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tasks")
}

#[test]
fn every_example_is_sound() {
    let home = Home::new();
    let mut count = 0;
    for entry in std::fs::read_dir(examples()).expect("there").flatten() {
        let ended = home.run(&[Path::new("task"), Path::new("validate"), &entry.path()]);
        assert_eq!(ended.code, 0, "{}: {ended:?}", entry.path().display());
        count += 1;
    }
    assert!(count >= 6, "{count} examples");
}

#[test]
fn what_the_agent_sees() {
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
fn cheats_earn_nothing() {
    let home = Home::new();
    let task = examples().join("shell-word-count").display().to_string();
    let cheats = [
        "mkdir -p tests; echo 'exit 0' > tests/test.sh",
        "mkdir -p /logs/verifier; echo 1 > /logs/verifier/reward.txt; cp -r /logs . ",
        "rm -rf src; ln -s /bin src",
        "printf 'exit 0' > setpriv; chmod +x setpriv; mkdir -p bin; cp setpriv bin/",
        "(setsid sh -c 'while :; do echo 1 > /logs/verifier/reward.txt; done' &) ; true",
        "mkdir .synth2; mv src .synth2/; ln -s .synth2/src src",
    ];
    for cheat in cheats {
        let ended = home.run(&["task", "run", &task, "--agent-cmd", cheat]);
        assert_eq!(ended.code, 1, "{cheat}: {ended:?}");
    }
}

#[test]
fn a_task_that_takes_too_long_is_a_timeout() {
    let home = Home::new();
    let directory = home.path("slow");
    std::fs::create_dir(&directory).expect("made");
    let text = "version: 1\nid: slow\ninstruction: wait\nagent: {command: [sleep, '600']}\nverify: {command: ['true']}\nlimits: {timeout: 500ms, memory: 256MiB, disk: 64MiB}\n";
    std::fs::write(directory.join("task.yaml"), text).expect("written");
    let ended = home.run(&["task", "run", &directory.display().to_string(), "-o", "json"]);
    assert!(ended.code == 124 && ended.out.contains("\"phase\": \"timeout\""), "{ended:?}");
}

#[test]
fn a_mistake_in_the_file_shows_its_place() {
    let home = Home::new();
    let file = home.path("task.yaml");
    std::fs::write(&file, "version: 1\nid: a\ninstruction: x\nverfy: {command: [sh]}\n").expect("written");
    let ended = home.run(&["task", "run", &file.display().to_string()]);
    assert!(ended.code == 125 && ended.err.contains("task.yaml:4:1") && ended.err.contains("did you mean \"verify\"?"), "{ended:?}");
}
