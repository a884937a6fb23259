//! What the command prints: snapshots. `UPDATE_SNAPSHOTS=1` writes them anew.

use cofferdam_tests::Home;
use std::path::Path;

pub fn snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{}: run with UPDATE_SNAPSHOTS=1 if the change is wanted", path.display());
}

#[test]
fn help() {
    let home = Home::new();
    for verb in ["", "run", "exec", "task"] {
        let words: Vec<&str> = [verb, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let name = if verb.is_empty() { "help.txt".to_owned() } else { format!("help-{verb}.txt") };
        snapshot(&name, &home.ok(&words));
    }
}

#[test]
fn version_and_completion() {
    let home = Home::new();
    assert!(home.ok(&["version"]).starts_with("cofferdam "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.ok(&["completion", shell]).contains("escape-test"), "{shell}");
    }
}

#[test]
fn lists_are_arrays_and_streams_are_lines() {
    let home = Home::new();
    home.ok(&["run", "--", "true"]);
    let events: serde_json::Value = serde_json::from_str(&home.ok(&["events", "-o", "json"])).expect("JSON");
    let kinds: Vec<&str> = events.as_array().expect("an array").iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"sandbox.created"), Some(&"sandbox.completed")));
    assert_eq!(home.ok(&["ps", "-o", "json"]).trim(), "[]");
    assert_eq!(home.ok(&["ps"]), "ID  NAME  PHASE  AGE  IMAGE  COMMAND\n");
}

#[test]
fn the_escape_test_finds_no_way_out_and_each_control_is_noticed() {
    let home = Home::new();
    let ended = home.run(&["escape-test"]);
    assert!(ended.code == 0 && ended.out.contains(" attempts, 0 open"), "{ended:?}");
}

#[test]
fn doctor_finds_this_host_well() {
    let home = Home::new();
    let ended = home.run(&["doctor", "-o", "json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let controls: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert!(controls.as_array().is_some_and(|all| all.len() > 10));
}
