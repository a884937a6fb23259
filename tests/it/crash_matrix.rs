//! A suite whose runner, disk or host fails in the middle, again and again: no acknowledged attempt is lost, none runs twice at once,
//! nothing is left behind.
//!
//! Every run has a seed that says what fails and when. `COFFERDAM_CRASH_RUNS` sets how many runs a family of faults has (40 by default),
//! `COFFERDAM_CRASH_SEED` the first seed; `cargo xtask crash` makes ten times as many.

use cofferdam_tests::{Home, ended};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TASKS: [&str; 5] = ["a", "b", "c", "d", "e"];
const RUNS: u64 = 40;
const PATIENCE: Duration = Duration::from_mins(1);

/// Numbers that a seed gives (splitmix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a family of faults, a seed after the other; a failure names its seed.
fn family(offset: u64, one: impl Fn(&mut Draw)) {
    let first = number("COFFERDAM_CRASH_SEED", 0);
    for seed in first..first + number("COFFERDAM_CRASH_RUNS", RUNS) {
        let mut draw = Draw(offset << 32 | seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(&mut draw)));
        assert!(result.is_ok(), "replay with COFFERDAM_CRASH_SEED={seed} COFFERDAM_CRASH_RUNS=1");
    }
}

fn tasks(home: &Home) -> String {
    for name in TASKS {
        let directory = home.path("tasks").join(name);
        fs::create_dir_all(&directory).expect("made");
        let text = format!(
            "version: 1\nid: {name}\ninstruction: x\nagent: {{command: [sh, -c, 'echo right > output/answer; sleep 0.02']}}\n\
             verify: {{command: [grep, -q, right, output/answer]}}\nartifacts: ['output/**']\ncleanup: {{delay: 1ms}}\n\
             limits: {{memory: 64MiB, disk: 8MiB}}\n"
        );
        fs::write(directory.join("task.yaml"), text).expect("written");
    }
    home.path("tasks").display().to_string()
}

const RUN: [&str; 4] = ["suite", "run", "--parallel", "2"];

/// Begins the suite; what it says of ended attempts goes into a file.
fn begin(home: &Home, data: &Path, wrapper: &[String]) -> Child {
    let place = tasks(home);
    let log = fs::File::create(home.path("log")).expect("a log");
    let suite = home.command::<&str>(&[]);
    let program = suite.get_program().to_owned();
    let mut words: Vec<std::ffi::OsString> = wrapper.iter().map(Into::into).collect();
    words.push(program);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(RUN).arg(place).env("COFFERDAM_DATA_DIR", data);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("started")
}

/// Tasks that were said to have been attempted, before the fault. Whole lines only: where writing fails, two may have become one.
fn acknowledged(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(home.path("log")).expect("a log");
    let said = |task: &&str| text.lines().any(|line| line == format!("cofferdam: {task} 1: completed reward 1"));
    TASKS.iter().filter(|task| said(task)).map(ToString::to_string).collect()
}

fn within(home: &Home, data: &Path, words: &[&str]) -> cofferdam_tests::Ended {
    ended(home.command(words).env("COFFERDAM_DATA_DIR", data))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

/// Attempts of a suite by task: their ids, if they ended with a reward.
fn rewarded(shown: &Value) -> BTreeMap<String, String> {
    let attempts = shown["attempts"].as_array().cloned().unwrap_or_default();
    let of = |attempt: &Value| Some((attempt["task"].as_str()?.to_owned(), attempt["id"].as_str()?.to_owned()));
    attempts.iter().filter(|attempt| attempt["reward"] == 1.0).filter_map(of).collect()
}

/// Goes on until nothing is left, then looks whether everything is as it was promised. By ids, not by times: clocks may be set meanwhile.
fn recovers(home: &Home, data: &Path, acknowledged: &[String]) {
    let place = home.path("tasks").display().to_string();
    let known = within(home, data, &["suite", "list", "-q", "-o", "json"]);
    assert_eq!(known.code, 0, "{known:?}");
    // Killed before it was accepted: nobody was told that it had been.
    let accepted = json(&known.out).as_array().is_some_and(|list| !list.is_empty());
    assert!(accepted || acknowledged.is_empty());
    let recorded = if accepted { json(&within(home, data, &["suite", "show", "-o", "json"]).out) } else { Value::Null };
    let before = rewarded(&recorded);
    for task in acknowledged {
        assert!(before.contains_key(task), "{task} was acknowledged, and is not on record: {recorded}");
    }
    let words: Vec<&str> = if accepted { vec!["suite", "run", "-q", "--resume"] } else { vec!["suite", "run", "-q", &place] };
    let went_on = within(home, data, &words);
    assert_eq!(went_on.code, 0, "{went_on:?}");
    let shown = json(&within(home, data, &["suite", "show", "-o", "json"]).out);
    let attempts = shown["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), TASKS.len());
    let after = rewarded(&shown);
    for (task, id) in &before {
        assert_eq!(after.get(task), Some(id), "{task} had been attempted, and was again: {recorded} {shown}");
    }
    for attempt in attempts {
        assert!(attempt["state"] == "done" && attempt["reward"] == 1.0, "{attempt}");
        let answer = data.join("artifacts").join(attempt["id"].as_str().expect("an id")).join("files/output/answer");
        assert_eq!(fs::read_to_string(&answer).unwrap_or_default(), "right\n", "an artifact of {attempt}");
    }
    none_twice_at_once(&within(home, data, &["events", "-o", "json"]).out);
    let pruned = within(home, data, &["prune"]);
    assert_eq!(pruned.code, 0, "{pruned:?}");
    let working = fs::read_dir(data.join("attempts")).map_or(0, Iterator::count);
    assert_eq!(working, 0, "working files of attempts");
}

/// The attempts at one task follow each other, in the order of the record.
fn none_twice_at_once(events: &str) {
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    for event in json(events).as_array().expect("events") {
        let (kind, attempt) = (event["kind"].as_str().unwrap_or_default(), event["subject"].to_string());
        let task = event["data"]["task"].to_string();
        match kind {
            "attempt.started" => {
                let other = open.insert(task, attempt);
                assert_eq!(other, None, "another attempt at it is open: {event}");
            }
            "attempt.completed" | "attempt.failed" | "attempt.timeout" => {
                assert_eq!(open.remove(&task), Some(attempt), "it was not open: {event}");
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn pause(draw: &mut Draw, most_ms: u64) {
    std::thread::sleep(Duration::from_millis(draw.below(most_ms)));
}

/// Ends within a time, or is killed.
fn wait(child: &mut Child) {
    let begun = Instant::now();
    while child.try_wait().expect("asked").is_none() {
        let in_time = begun.elapsed() < PATIENCE;
        if !in_time {
            kill(child);
        }
        assert!(in_time, "it did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The runner is killed at any moment, once or during its recovery too.
#[test]
fn the_runner_is_killed() {
    family(1, |draw| {
        let home = Home::new();
        let mut runner = begin(&home, &home.data(), &[]);
        pause(draw, 350);
        kill(&mut runner);
        let acknowledged = acknowledged(&home);
        for _ in 0..draw.below(3) {
            let mut again =
                home.command(&["suite", "run", "-q", "--resume"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
            pause(draw, 150);
            kill(&mut again);
        }
        recovers(&home, &home.data(), &acknowledged);
        home.assert_clean();
    });
}

/// Killed at the N-th call of a system call that changes something.
#[test]
fn the_runner_is_killed_at_a_system_call() {
    const CALLS: [&str; 12] =
        ["pwrite64", "write", "fdatasync", "fsync", "openat", "unlinkat", "unlink", "mkdir", "linkat", "link", "clone3", "sendmsg"];
    family(2, |draw| {
        let home = Home::new();
        let call = draw.one(&CALLS);
        let when = 1 + draw.below(60);
        let wrapper = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={call}:signal=KILL:when={when}"),
        ];
        let mut runner = begin(&home, &home.data(), &wrapper.map(str::to_owned));
        wait(&mut runner);
        let acknowledged = acknowledged(&home);
        recovers(&home, &home.data(), &acknowledged);
        home.assert_clean();
    });
}

/// A system call fails as on a disk that is full or broken.
#[test]
fn the_disk_fails() {
    const CALLS: [&str; 7] = ["pwrite64", "fdatasync", "fsync", "write", "mkdir", "ftruncate", "syncfs"];
    family(3, |draw| {
        let home = Home::new();
        let (call, error) = (draw.one(&CALLS), draw.one(&["EIO", "ENOSPC", "EDQUOT"]));
        let from = 1 + draw.below(50);
        // Once, or from then on.
        let when = if draw.below(2) == 0 { from.to_string() } else { format!("{from}+") };
        let wrapper = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={call}:error={error}:when={when}"),
        ];
        let mut runner = begin(&home, &home.data(), &wrapper.map(str::to_owned));
        wait(&mut runner);
        let acknowledged = acknowledged(&home);
        // What could not be attempted three times was given up and said so; another suite has the same tasks.
        let list = json(&within(&home, &home.data(), &["suite", "list", "-o", "json"]).out);
        let over = list.as_array().is_some_and(|list| list.iter().any(|suite| !suite["ended_at"].is_null()));
        if over {
            let shown = json(&within(&home, &home.data(), &["suite", "show", "-o", "json"]).out);
            let attempts = shown["attempts"].as_array().expect("attempts");
            for attempt in attempts {
                let task = attempt["task"].as_str().expect("a task").to_owned();
                assert!(attempt["state"] == "done" || attempt["state"] == "failed", "{attempt}");
                assert!(attempt["reward"] == 1.0 || !acknowledged.contains(&task), "{attempt}");
            }
            assert_eq!(within(&home, &home.data(), &["prune"]).code, 0);
        } else {
            recovers_or_was_given_up(&home, &acknowledged);
        }
        home.assert_clean();
    });
}

/// As [`recovers`], where some attempts may have been given up for the fault.
fn recovers_or_was_given_up(home: &Home, acknowledged: &[String]) {
    let list = json(&within(home, &home.data(), &["suite", "list", "-o", "json"]).out);
    if list.as_array().is_some_and(|list| !list.is_empty()) {
        let shown = json(&within(home, &home.data(), &["suite", "show", "-o", "json"]).out);
        if shown["attempts"].as_array().expect("attempts").iter().any(|attempt| attempt["state"] == "failed") {
            let went_on = within(home, &home.data(), &["suite", "run", "-q", "--resume", "-o", "json"]);
            let shown = json(&went_on.out);
            for attempt in shown["attempts"].as_array().expect("attempts") {
                assert!(attempt["state"] == "failed" || attempt["reward"] == 1.0, "{attempt}");
            }
            assert_eq!(within(home, &home.data(), &["prune"]).code, 0);
            return;
        }
    }
    recovers(home, &home.data(), acknowledged);
}

/// A disk of its own for the data directory.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn new(home: &Home, name: &str, mebibytes: u64) -> Self {
        let image = home.path(&format!("{name}.img"));
        fs::File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
        let made = ended(Command::new("mkfs.ext4").arg("-q").arg(&image));
        assert_eq!(made.code, 0, "{made:?}");
        Self::of(home, image)
    }

    /// A disk as it is after a power loss: its journal is replayed.
    fn of(home: &Home, image: PathBuf) -> Self {
        let mount = home.path(&format!("{}-mount", image.file_stem().unwrap_or_default().to_string_lossy()));
        fs::create_dir_all(&mount).expect("made");
        let mounted = ended(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        assert_eq!(mounted.code, 0, "{mounted:?}");
        Self { image, mount }
    }

    fn data(&self) -> PathBuf {
        self.mount.join("data")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
    }
}

/// The power fails: what the disk holds at that moment is all that is left.
#[test]
fn the_power_fails() {
    family(4, |draw| {
        let home = Home::new();
        let disk = Disk::new(&home, "disk", 96);
        let mut runner = begin(&home, &disk.data(), &[]);
        pause(draw, 450);
        // What was acknowledged until here; then nothing writes while the disk is copied.
        let _ = Command::new("kill").args(["-STOP", &runner.id().to_string()]).status();
        let acknowledged = acknowledged(&home);
        let copy = home.path("copy.img");
        let copied = ended(Command::new("cp").arg("--sparse=always").arg(&disk.image).arg(&copy));
        assert_eq!(copied.code, 0, "{copied:?}");
        kill(&mut runner);
        // The host as it is after the fault: of the old disk, what is left is swept away.
        let _ = within(&home, &disk.data(), &["prune"]);
        drop(disk);
        let after = Disk::of(&home, copy);
        recovers(&home, &after.data(), &acknowledged);
        drop(after);
        home.assert_clean();
    });
}

/// The disk is full from some moment on, until somebody makes room.
#[test]
fn the_disk_is_full() {
    family(5, |draw| {
        let home = Home::new();
        let disk = Disk::new(&home, "disk", 48);
        let mut runner = begin(&home, &disk.data(), &[]);
        pause(draw, 200);
        let filler = disk.mount.join("filler");
        let _ = ended(Command::new("dd").args(["if=/dev/zero", &format!("of={}", filler.display()), "bs=1M", "count=60"]));
        wait(&mut runner);
        fs::remove_file(&filler).expect("room again");
        let acknowledged = acknowledged(&home);
        let list = within(&home, &disk.data(), &["suite", "list", "-o", "json"]);
        assert_eq!(list.code, 0, "{list:?}");
        let over = json(&list.out).as_array().is_some_and(|list| list.iter().any(|suite| !suite["ended_at"].is_null()));
        let shown = within(&home, &disk.data(), &["suite", "show", "-o", "json"]);
        let failed = shown.out.contains("\"failed\"");
        if over || failed {
            for attempt in json(&shown.out)["attempts"].as_array().expect("attempts") {
                let task = attempt["task"].as_str().expect("a task").to_owned();
                assert!(attempt["reward"] == 1.0 || !acknowledged.contains(&task), "{attempt}");
            }
            assert_eq!(within(&home, &disk.data(), &["prune"]).code, 0);
        } else {
            recovers(&home, &disk.data(), &acknowledged);
        }
        drop(disk);
        home.assert_clean();
    });
}
