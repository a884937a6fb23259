//! What a sandbox that could not be made leaves: nothing.

use crate::with_kit;
use cofferdam_engine::{Mount, MountSource};
use std::process::Command;

fn children() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default().split_whitespace().count()).sum()
}

/// A file system that knows no idmapped mounts is met after the sandbox's first process was cloned.
#[test]
fn an_error_after_the_clone_leaves_no_child() {
    let place = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let mount = |words: &[&str]| Command::new(words[0]).args(&words[1..]).arg(place.path()).status().expect("it runs").success();
    assert!(mount(&["mount", "-t", "ramfs", "none"]));
    let (before, failed) = with_kit(async |kit| {
        // The spawner is there from the first sandbox on.
        kit.script("true").await.expect("it runs");
        let before = children();
        let source = MountSource::of_own(place.path()).expect("opened");
        let made = kit.sandbox(|spec| spec.mounts.push(Mount { source, target: "/data".into(), writable: false })).await;
        let failed = made.err();
        assert_eq!(children(), before, "a child was left: {failed:?}");
        (before, failed)
    });
    assert!(mount(&["umount"]));
    assert!(before > 0 && failed.is_some_and(|why| why.contains("idmapped")));
}
