//! The conformance suite, a test for each check.

use crate::with_kit;
use cofferdam_engine::conformance::{checks, table};

fn run(name: &str) {
    let check = checks().into_iter().find(|check| check.name == name).expect("the check exists");
    let verdict = with_kit(async |kit| (check.run)(kit).await);
    assert!(verdict.is_ok(), "{name}: {verdict:?}");
    table::tell("native", name, table::HOLDS).expect("told");
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_check_has_a_test() {
            let listed = [$(stringify!($name)),*];
            let missing: Vec<&str> = checks().iter().map(|check| check.name).filter(|name| !listed.contains(name)).collect();
            assert!(missing.is_empty(), "without a test: {missing:?}");
        }
    };
}

suite! {
    exit_status, signal_status, streams_are_apart, missing_program, program_without_permission, missing_directory,
    oversized_arguments, large_environment, script_without_interpreter_line, users, root_manages_its_range,
    host_name_and_hosts, terminal, exec_joins, many_execs_at_once, exec_ends_with_its_children, main_ends_everything,
    held_for_others, stop_lets_it_end, stop_kills_the_stubborn, kill_ends_a_stopped_process, pause_and_kill, zombies_are_reaped,
    memory_is_reported, memory_files_are_charged, processes, fork_bomb_is_killable, disk_in_memory, disk_on_disk, inodes,
    open_files, cpu, limits_survive_exec, kernel_objects_are_charged, a_neighbour_goes_on,
    copy_in_and_out, links_stay_inside, links_swapped_meanwhile, copies_are_bounded, mounts, changes_do_not_reach_the_image,
    probes_as_the_default_user, probes_as_root, probes_in_an_exec, refusals_are_recorded, ranges_are_disjoint,
    own_program_as_entry_point, a_flipped_mount_point_is_not_followed,
}
