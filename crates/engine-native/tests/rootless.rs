//! The conformance suite as an ordinary user: each check in a process of its own, as a user that nothing else on this host is. Needs root
//! to become one. Once with that user's id alone, once with subordinate ids, once with control groups that are the user's.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod kit;

use cofferdam_engine::conformance::checks;
use cofferdam_engine_host::cgroup::Hierarchies;
use cofferdam_engine_native::NativeEngine;
use cofferdam_sys::outer;
use kit::{install, kit, probe_program};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What the host gives the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Nothing,
    SubordinateIds,
    Groups,
}

const GIVEN: [(Given, &str); 3] =
    [(Given::Nothing, "one_id"), (Given::SubordinateIds, "subordinate_ids"), (Given::Groups, "delegated_groups")];

/// What does not hold without root, and why. A check that is here and passes is an error too.
const EXCEPTIONS: &[(&[Given], &str, &str)] = &[
    (&[Given::Nothing, Given::SubordinateIds, Given::Groups], "ranges_are_disjoint", "sandboxes of one user share its ids"),
    (&[Given::Nothing, Given::Groups], "root_manages_its_range", "there is one id"),
    (&[Given::Nothing, Given::SubordinateIds], "cpu", "no cgroup"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "--child") {
        return child(&arguments[1..]);
    }
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let names = || GIVEN.iter().flat_map(|(_, mode)| checks().into_iter().map(move |check| format!("{mode}::{}", check.name)));
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if has("--list") {
        let shown = names().filter(|_| !has("--ignored"));
        shown.for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if has("--exact") && wanted.len() == 1 {
        let (mode, name) = wanted[0].split_once("::").expect("a mode and a check");
        let (given, _) = GIVEN.iter().find(|(_, other)| *other == mode).expect("a mode");
        return run(*given, name);
    }
    // All of them, or those with a word in their name: one process each.
    let mut status = ExitCode::SUCCESS;
    for name in names().filter(|name| wanted.is_empty() || wanted.iter().any(|word| name.contains(*word))) {
        let passed = Command::new("/proc/self/exe").args(["--exact", &name]).status().is_ok_and(|status| status.success());
        println!("{name}: {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            status = ExitCode::FAILURE;
        }
    }
    status
}

fn run(given: Given, name: &str) -> ExitCode {
    assert!(rustix::process::geteuid().is_root(), "these tests need root: run them as root, or through cargo xtask test");
    let user = 1_000_000_000 + std::process::id();
    let directory = tempfile::Builder::new().prefix("rootless").tempdir_in("/var/tmp").expect("a directory");
    let program = directory.path().join("cofferdam");
    fs::copy(probe_program(), &program).expect("copied");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    chown(directory.path(), Some(user), Some(user)).expect("given away");
    let groups = if given == Given::Groups { delegate(user) } else { Vec::new() };
    let mut steps: Vec<String> = groups.iter().map(|group| format!("echo $$ > {}/cgroup.procs", group.display())).collect();
    if given == Given::SubordinateIds {
        let given = directory.path().join("subordinate");
        let first = 1_200_000_000 + std::process::id() % 1000 * 65_536;
        fs::write(&given, format!("{user}:{first}:65536\n")).expect("written");
        // The helper wants to know the user by name.
        let accounts = directory.path().join("passwd");
        let known = fs::read_to_string("/etc/passwd").expect("accounts");
        fs::write(&accounts, format!("{known}rootless:x:{user}:{user}::/:/bin/sh\n")).expect("written");
        for (file, source) in [("/etc/subuid", &given), ("/etc/subgid", &given), ("/etc/passwd", &accounts)] {
            steps.push(format!("{{ test -e {file} || touch {file}; }} && mount --bind {} {file}", source.display()));
        }
    }
    steps.push(format!("exec setpriv --reuid={user} --regid={user} --clear-groups \"$@\""));
    let script = steps.join(" && ");
    let own = std::env::current_exe().expect("this program");
    // A path through directories of its builder is none of the user's to pass.
    let copy = directory.path().join("rootless");
    fs::copy(own, &copy).expect("copied");
    let child = Command::new("unshare")
        .args(["--mount", "/bin/sh", "-c", &script, "rootless"])
        .arg(&copy)
        .args(["--child", name, if given == Given::SubordinateIds { "ids" } else { "" }])
        .arg(directory.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&child.stderr).into_owned();
    let left = processes_of(user);
    for group in &groups {
        remove_groups(group);
    }
    let exception = EXCEPTIONS.iter().find(|(modes, check, _)| *check == name && modes.contains(&given));
    let problem = match (child.status.success(), exception) {
        _ if !left.is_empty() => Some(format!("left behind: processes {left:?}")),
        _ if groups.iter().any(|group| group.exists()) => Some("left behind: cgroups".to_owned()),
        (false, None) => Some(said),
        (false, Some(_)) if !said.starts_with(FOUND) => Some(said),
        (true, Some((_, _, why))) => Some(format!("it holds: {why:?} is no exception any more")),
        _ => None,
    };
    match problem {
        None => ExitCode::SUCCESS,
        Some(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// What a check that does not hold begins with: it was made, and found something.
const FOUND: &str = "found: ";

/// In the process of the user.
fn child(arguments: &[String]) -> ExitCode {
    let mut arguments = arguments.iter().map(String::as_str);
    let mut next = || arguments.next().expect("a name, what ids there are, a directory");
    let (name, subordinate, directory) = (next(), next() == "ids", Path::new(next()));
    outer::enter(subordinate).expect("a user namespace");
    let has_ids = outer::entered().is_some_and(|outer| outer.subordinate.is_some());
    assert_eq!(has_ids, subordinate, "subordinate ids (newuidmap comes with Debian's uidmap)");
    let data = directory.join("data");
    fs::create_dir(&data).expect("a directory");
    let engine = NativeEngine::new(install(), &data).expect("an engine");
    let check = checks().into_iter().find(|check| check.name == name).expect("a check");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let verdict = runtime.block_on(async {
        let (kit, _listener) = kit(&engine, &data, &directory.join("cofferdam"));
        (check.run)(&kit).await
    });
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{FOUND}{why}");
            ExitCode::FAILURE
        }
    }
}

/// A control group of the user's in every hierarchy.
fn delegate(user: u32) -> Vec<PathBuf> {
    let name = format!("cofferdam-rootless-{user}");
    let groups: Vec<PathBuf> = Hierarchies::detect().roots().map(|root| root.join(&name)).collect();
    for group in &groups {
        fs::create_dir(group).expect("a group");
        chown(group, Some(user), Some(user)).expect("given away");
        for file in fs::read_dir(group).expect("a group").flatten() {
            chown(file.path(), Some(user), Some(user)).expect("given away");
        }
    }
    groups
}

/// A group and what is below it; a process in it is on its way out.
fn remove_groups(group: &Path) {
    let begun = Instant::now();
    while group.exists() && begun.elapsed() < Duration::from_secs(5) {
        let below = fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
        below.for_each(|entry| remove_groups(&entry.path()));
        let _ = fs::remove_dir(group);
    }
}

/// Processes of the user, those left out that end within a moment.
fn processes_of(user: u32) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let owner = |entry: &fs::DirEntry| {
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
            (uid == Some(user)).then(|| status.lines().next().unwrap_or_default().to_owned())
        };
        let left: Vec<String> = processes.filter_map(|entry| owner(&entry)).collect();
        if left.is_empty() || begun.elapsed() > Duration::from_secs(5) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
