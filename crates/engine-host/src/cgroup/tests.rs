use super::hierarchy::{Controller, Hierarchies, Version};
use super::*;

const HYBRID: &str = "\
30 20 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
31 20 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 20 0:28 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
33 20 0:29 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
34 20 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const TWO: &str = "30 20 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn hybrid_limits_in_one_and_kills_in_two() {
    let host = Hierarchies::parse(HYBRID, |_| "hugetlb".into());
    assert_eq!(host.describe(), "hybrid");
    assert_eq!(host.of(Controller::Memory), Some((Path::new("/sys/fs/cgroup/memory"), Version::One)));
    assert_eq!(host.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
    assert_eq!(host.roots().count(), 4, "no freezer where version 2 freezes");
    assert!(host.missing().is_empty());
    assert_eq!(host.for_exec().roots().collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/pids")]);
}

#[test]
fn version_two_gives_its_controllers_on() {
    let host = Hierarchies::parse(TWO, |_| "cpuset cpu io memory pids".into());
    assert_eq!(host.describe(), "v2");
    assert_eq!(host.of(Controller::Cpu), Some((Path::new("/sys/fs/cgroup"), Version::Two)));
    assert_eq!(host.delegated(Path::new("/sys/fs/cgroup")).as_deref(), Some("+memory +pids +cpu"));
    assert_eq!(host.roots().count(), 1);
    assert_eq!(host.for_exec().unified(), Some(Path::new("/sys/fs/cgroup")));
}

#[test]
fn version_one_alone_uses_the_freezer() {
    let host = Hierarchies::parse(&HYBRID.lines().take(4).collect::<Vec<_>>().join("\n"), |_| String::new());
    assert_eq!(host.describe(), "v1");
    assert_eq!(host.roots().count(), 4);
    assert_eq!(host.for_exec().roots().collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/pids")]);
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(Hierarchies::parse("", |_| String::new()).missing(), ["memory", "cpu", "pids"]);
    assert_eq!(Hierarchies::parse(TWO, |_| "memory".into()).missing(), ["cpu", "pids"]);
}

/// A tree of plain files in the form of version 2 takes the limits that the kernel would.
#[test]
fn writes_version_two_limits() {
    let root = tempfile::tempdir().expect("a directory");
    let mountinfo = format!("30 20 0:26 / {} rw - cgroup2 cgroup2 rw\n", root.path().display());
    let host = Hierarchies::parse(&mountinfo, |_| "memory pids cpu".into());
    let (install, id) = (InstallId::from_random([1; 16]), SandboxId::from_random([2; 16]));
    let group = Cgroup::existing(&host, install, id);
    let path = root.path().join("cofferdam").join(install.to_string()).join(id.to_string());
    std::fs::create_dir_all(&path).expect("made");
    for file in ["memory.max", "memory.swap.max", "pids.max", "cpu.max"] {
        std::fs::write(path.join(file), "").expect("made");
    }
    group.limit(&cofferdam_model::Difficulty::Easy.limits()).expect("limited");
    let read = |file: &str| std::fs::read_to_string(path.join(file)).expect("written");
    assert_eq!((read("memory.max"), read("memory.swap.max")), ("536870912".to_owned(), "0".to_owned()));
    assert_eq!((read("pids.max"), read("cpu.max")), ("50".to_owned(), "50000 100000".to_owned()));
}

#[test]
fn reads_kernel_counters() {
    assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
    assert_eq!(field("usage_usec 12\n", "oom_kill"), None);
}
