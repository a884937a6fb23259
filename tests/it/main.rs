//! End to end: the binary as a user would drive it. Needs root.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

/// Tests of other files again, each within `$how`.
macro_rules! again {
    ($how:path; $($file:ident: $($name:ident),* $(,)?);* $(;)?) => {
        $(mod $file {
            $(#[test]
            fn $name() {
                $how(crate::$file::$name);
            })*
        })*
    };
}

mod bad_input;
mod bases;
mod beside;
mod cheats;
mod clients;
mod compose;
mod crash;
mod crash_matrix;
mod detached;
mod docker;
mod docker_changes;
mod docker_daemons;
mod docker_faults;
mod docker_tasks;
mod everyday;
mod foreground;
mod gate;
mod gate_faults;
mod gate_floods;
mod harbor;
mod image_build;
mod image_trust;
mod images;
mod in_a_container;
mod name_servers;
mod on_docker;
mod owners;
mod policies;
mod registries;
mod repository;
mod ssh;
mod streams;
mod suites;
mod tasks;
mod terminal;
mod text;
mod volumes;
mod without_root;
