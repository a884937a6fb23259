//! Sandboxes that are kept for an owner: `run --owner`, `release`.

use cofferdam_tests::{Home, ended, eventually};
use std::fs;

fn words<'a>(owner: &'a str, options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    ["run", "--owner", owner].into_iter().chain(options.iter().copied()).chain(["--", "sh", "-c", script]).collect()
}

fn live(home: &Home) -> Vec<String> {
    home.ok(&["ps", "-q"]).lines().map(str::to_owned).collect()
}

fn none_left(home: &Home) {
    eventually("none is left", || live(home).is_empty());
}

#[test]
pub fn commands_of_one_owner_share_a_sandbox_and_others_do_not() {
    let home = Home::new();
    let first = home.run(&words("one", &["-e", "SECRET=x"], "echo $SECRET > /tmp/seen; pwd; exit 3"));
    assert_eq!((first.code, first.out.as_str()), (3, "/workspace\n"), "{first:?}");
    // What was written is there, what was this command's alone is not.
    let second = home.run(&words("one", &["-w", "/tmp", "-e", "OTHER=y"], "cat seen; echo [$SECRET] $OTHER; exit 0"));
    assert_eq!((second.code, second.out.as_str()), (0, "x\n[] y\n"), "{second:?}");
    assert_eq!(live(&home).len(), 1);
    // Another owner, and another way to see things, is another sandbox.
    let shown = home.path("shown");
    fs::create_dir(&shown).expect("made");
    let (read, write) = (format!("{}:/shown:ro", shown.display()), format!("{}:/shown:rw", shown.display()));
    for (owner, options) in [("two", &[][..]), ("one", &["-v", &read]), ("one", &["-v", &write]), ("one", &["--memory", "64MiB"])] {
        let ran = home.run(&words(owner, options, "test ! -e /tmp/seen"));
        assert_eq!(ran.code, 0, "{owner} {options:?}: {ran:?}");
    }
    assert_eq!(live(&home).len(), 5);
    // A release is of every one of an owner's, and of no other's.
    let released = home.ok(&["release", "one", "--now"]);
    assert_eq!(released.lines().count(), 4, "{released}");
    eventually("its sandboxes end", || live(&home).len() == 1);
    assert_eq!(home.run(&words("two", &[], "exit 7")).code, 7, "the other goes on");
    let again = home.run(&words("one", &[], "cat /tmp/seen"));
    assert_ne!(again.code, 0, "a new one: {again:?}");
    home.ok(&["release", "one", "--now"]);
    home.ok(&["release", "two", "--now"]);
    none_left(&home);
}

/// Of several that come at once one makes the sandbox, and all use it.
#[test]
pub fn the_first_ones_come_at_once() {
    let home = Home::new();
    let one = |number: usize| home.run(&words("crowd", &[], &format!("echo {number} >> /tmp/all; sleep 0.3; hostname")));
    let ran: Vec<_> = std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("joins")).collect()
    });
    assert!(ran.iter().all(|one| one.code == 0 && one.out == ran[0].out), "{ran:?}");
    assert_eq!(live(&home).len(), 1);
    assert_eq!(home.ok(&words("crowd", &[], "wc -l < /tmp/all")).trim(), "8");
    home.ok(&["release", "crowd", "--now"]);
    none_left(&home);
}

#[test]
pub fn grace_and_idleness_end_it() {
    let home = Home::new();
    let config = home.path("short.yaml");
    fs::write(&config, "lifecycle: {grace: 4s, idle: 7s}\n").expect("written");
    let run = |words: &[&str]| ended(home.command(words).env("COFFERDAM_CONFIG_PATH", &config));
    let used = |owner: &str, options: &[&str], script: &str| {
        let ran = run(&words(owner, options, script));
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    };
    // Used within the grace it stays.
    used("one", &[], "touch /tmp/x");
    assert_eq!(run(&["release", "one"]).code, 0);
    used("one", &[], "test -e /tmp/x");
    std::thread::sleep(std::time::Duration::from_millis(4600));
    used("one", &[], "test -e /tmp/x");
    assert_eq!(run(&["release", "one"]).code, 0);
    none_left(&home);
    // A long command is a use; after it the time counts.
    used("two", &[], "touch /tmp/x; sleep 8");
    used("two", &[], "test -e /tmp/x");
    none_left(&home);
    let events = home.ok(&["events", "-o", "json"]);
    assert!(events.contains("\"unused\""), "{events}");
    // A task's is there until it is released, and then at once.
    used("three", &["--lifecycle", "task"], "touch /tmp/x");
    std::thread::sleep(std::time::Duration::from_secs(8));
    used("three", &["--lifecycle", "task"], "test -e /tmp/x");
    assert_eq!(run(&["release", "three"]).code, 0);
    eventually("it ends at once", || live(&home).is_empty());
    // A call's is not kept.
    used("four", &["--lifecycle", "call"], "touch /tmp/x");
    assert!(live(&home).is_empty());
}

#[test]
pub fn time_limits_and_failures_are_of_one_command() {
    let home = Home::new();
    let slow = home.run(&words("one", &["--timeout", "1s"], "touch /tmp/x; sleep 60"));
    assert_eq!(slow.code, 124, "{slow:?}");
    assert_eq!(home.run(&words("one", &[], "test -e /tmp/x")).code, 0, "the sandbox goes on");
    assert_eq!(home.run(&["run", "--owner", "one", "--", "no-such-program"]).code, 127);
    // It is killed under its owner: the next command has a new one.
    home.ok(&["kill", &live(&home)[0]]);
    let after = home.run(&words("one", &[], "test ! -e /tmp/x"));
    assert_eq!(after.code, 0, "{after:?}");
    home.ok(&["release", "one", "--now"]);
    none_left(&home);
    for (arguments, why) in [
        (&["run", "--owner", "one", "-d", "--", "true"][..], "--detach"),
        (&["run", "--owner", "one", "--name", "x", "--", "true"], "--name"),
        (&["run", "--lifecycle", "agent", "--", "true"], "--owner"),
        (&["run", "-l", "cofferdam.owner=one", "--", "true"], "product's own"),
        (&["run", "--owner", "No Name", "--", "true"], "--owner"),
    ] {
        let refused = home.run(arguments);
        assert!([2, 125].contains(&refused.code) && refused.err.contains(why), "{arguments:?}: {refused:?}");
    }
}

/// A policy file is followed, so its change makes no other sandbox; a directory in another's place does.
#[test]
pub fn a_changed_file_and_a_replaced_directory() {
    let home = Home::new();
    let (policy, shown) = (home.path("policy.yaml"), home.path("shown"));
    let write = |name: &str| fs::write(&policy, format!("version: 1\nnetwork: limited_web\nallow: [{name}]\n")).expect("written");
    let policy = policy.display().to_string();
    write("one.example");
    assert_eq!(home.run(&words("one", &["--policy", &policy], "touch /tmp/x")).code, 0);
    write("two.example");
    let followed = home.run(&words("one", &["--policy", &policy], "test -e /tmp/x"));
    assert_eq!(followed.code, 0, "{followed:?}");
    assert_ne!(home.run(&words("one", &["--policy", &policy, "--deny", "a.example"], "test -e /tmp/x")).code, 0, "another policy");
    let mounted = format!("{}:/shown", shown.display());
    for text in ["first", "second"] {
        fs::create_dir(&shown).expect("made");
        fs::write(shown.join("file"), text).expect("written");
        let ran = home.run(&words("two", &["-v", &mounted], "cat /shown/file"));
        assert_eq!(ran.out, text, "{ran:?}");
        fs::rename(&shown, home.path(text)).expect("moved");
    }
    home.ok(&["release", "one", "--now"]);
    home.ok(&["release", "two", "--now"]);
    none_left(&home);
}
