use super::*;
use std::os::fd::AsFd;

/// The kernel answers for every descriptor and number in a request; the spawner must pass its answer on and stay usable.
#[test]
fn a_request_that_cannot_work_is_answered_and_the_spawner_goes_on() {
    let spawner = Spawner::start().expect("starts");
    let null = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
    for plan in [vec![], vec![0; 12], vec![0xff; 4096], vec![0; 48]] {
        for _ in 0..2 {
            // A null device is no network namespace: nothing is ever cloned here.
            let error = spawner.spawn(&plan, null.as_fd(), null.as_fd(), null.as_fd(), &Cgroups::default()).expect_err("no namespace");
            assert_eq!(error.errno(), libc::EINVAL, "{error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_sent() {
    let spawner = Spawner::start().expect("starts");
    let null = OwnedFd::from(std::fs::File::open("/dev/null").expect("opens"));
    let tasks = (0..MOST_CLONE_FDS).map(|_| null.try_clone().expect("a duplicate")).collect();
    let cgroups = Cgroups { entrance: None, tasks };
    let error = spawner.spawn(&[], null.as_fd(), null.as_fd(), null.as_fd(), &cgroups).expect_err("too many");
    assert_eq!(error.errno(), libc::E2BIG);
    let error = spawner.spawn(&vec![0; MOST_PLAN_BYTES + 1], null.as_fd(), null.as_fd(), null.as_fd(), &Cgroups::default());
    assert_eq!(error.expect_err("too long").errno(), libc::E2BIG);
}

#[test]
fn it_ends_with_its_supervisor_and_has_no_environment() {
    let spawner = Spawner::start().expect("starts");
    let pid = spawner.pid.load(Ordering::Relaxed);
    // It is executed by the time `start` returns; what is read here belongs to root, as it is not dumpable.
    if rustix::process::geteuid().is_root() {
        assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).expect("readable"), b"");
    }
    drop(spawner);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it was collected");
}
