//! Overlays as kernels before 6.15 need them made, on this kernel: the same sandboxes come out.

use crate::with_engine;
use cofferdam_engine::conformance::checks;

/// Those that have to do with what a sandbox's root is made of.
pub const CHECKS: &[&str] = &[
    "exit_status",
    "users",
    "root_manages_its_range",
    "host_name_and_hosts",
    "disk_in_memory",
    "disk_on_disk",
    "inodes",
    "copy_in_and_out",
    "links_stay_inside",
    "mounts",
    "changes_do_not_reach_the_image",
    "probes_as_the_default_user",
    "probes_as_root",
    "a_flipped_mount_point_is_not_followed",
    "many_execs_at_once",
    "main_ends_everything",
];

#[test]
fn sandboxes_are_the_same() {
    for name in CHECKS {
        let check = checks().into_iter().find(|check| check.name == *name).expect("the check exists");
        let verdict = with_engine(cofferdam_engine_native::NativeEngine::staged, async |kit| (check.run)(kit).await);
        assert!(verdict.is_ok(), "{name}: {verdict:?}");
    }
}
