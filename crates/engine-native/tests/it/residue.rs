//! What a host looks like, and whether a test left anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What could be left: cgroups, loop devices, mounts, processes of leased ids.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    cgroups: BTreeSet<String>,
    loops: BTreeSet<String>,
    mounts: BTreeSet<String>,
    processes: usize,
}

/// Looks.
pub fn snapshot() -> Snapshot {
    let mut cgroups = BTreeSet::new();
    find_cgroups(Path::new("/sys/fs/cgroup"), &mut cgroups, 0);
    let loops = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let loops = loops.filter(|entry| entry.path().join("loop/backing_file").exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Snapshot {
        cgroups,
        loops: loops.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        // Daemons and networks of tests that run beside this one come and go all the time.
        mounts: mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|place| !place.contains("/docker-of-a-test") && !place.starts_with("/run/netns"))
            .map(str::to_owned)
            .collect(),
        processes: processes_of_ranges(),
    }
}

fn find_cgroups(directory: &Path, found: &mut BTreeSet<String>, depth: u32) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 6 {
            if path.to_string_lossy().contains(&super::install().to_string()) {
                found.insert(path.display().to_string());
            }
            find_cgroups(&path, found, depth + 1);
        }
    }
}

fn processes_of_ranges() -> usize {
    const FIRST_ID: u32 = 0x7000_0000;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let leased = |entry: &fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
        let ours = fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|groups| groups.contains(&super::install().to_string()));
        ours && uid.is_some_and(|uid| uid >= FIRST_ID)
    };
    entries.filter(leased).count()
}

/// Nothing is there that was not there before. The kernel frees a loop device a moment after its last user.
pub fn check(before: &Snapshot) {
    const PATIENCE: Duration = Duration::from_secs(5);
    let begun = Instant::now();
    loop {
        let now = snapshot();
        let new = |now: &BTreeSet<String>, before: &BTreeSet<String>| now.difference(before).cloned().collect::<Vec<_>>();
        let left = [new(&now.cgroups, &before.cgroups), new(&now.loops, &before.loops), new(&now.mounts, &before.mounts)].concat();
        if left.is_empty() && now.processes <= before.processes {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "left behind: {left:?}, {} processes", now.processes);
        std::thread::sleep(Duration::from_millis(20));
    }
}
