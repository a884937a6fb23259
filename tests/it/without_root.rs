//! The same without root: tests of other files again, as an ordinary user; and what only an ordinary user meets.

use cofferdam_tests::{Ended, Home, ended, eventually, without_root};
use serde_json::Value;
use std::process::{Command, Stdio};

again! {
    cofferdam_tests::without_root;
    repository: a_branch_a_patch_and_the_tree, what_is_written_inside_does_nothing_outside, links_of_the_tree_are_not_followed,
        a_running_sandbox_a_branch_at_the_end_and_errors;
    gate: what_is_allowed_is_reached_and_on_record, what_is_not_allowed_is_refused_and_nothing_is_asked_outside,
        names_that_lead_inside_are_not_dialled, names_are_resolved_however_they_are_asked_for, an_open_network_is_gated_all_the_same,
        half_closed_and_server_first_connections_work, a_killed_gate_is_replaced_and_nothing_escapes,
        an_upstream_proxy_is_asked_for_what_was_checked, a_killed_supervisors_decisions_are_swept_into_the_record,
        the_resolver_answers_what_it_should, the_gate_has_no_rights;
    policies: a_policy_is_replaced_while_connections_stand, a_policy_file_is_followed_and_edited, a_policy_is_learned,
        a_task_has_a_network_for_each_phase, a_tasks_own_list_is_added_to, policies_are_checked_and_explained;
    owners: commands_of_one_owner_share_a_sandbox_and_others_do_not, the_first_ones_come_at_once, grace_and_idleness_end_it,
        time_limits_and_failures_are_of_one_command, a_changed_file_and_a_replaced_directory;
    name_servers: plain_ones_are_asked_and_no_other, over_tls_nothing_is_asked_in_the_open;
    gate_faults: a_gate_that_is_killed_again_and_again_lets_nothing_out;
    clients: git_over_https_and_its_own_protocol, pip_and_apt_fetch_packages, npm_fetches_packages, psql_a_web_socket_and_openssl,
        tools_that_look_for_a_way_out_find_none;
    detached: a_life, wait_gives_the_exit_status, files_in_and_out, names_are_unique_until_they_are_removed,
        start_errors_reach_the_caller, attach_shows_output_and_the_exit_status, a_log_flood_is_bounded_and_marked,
        prune_removes_what_has_ended, a_published_port_leads_inside, a_monitor_has_one_child;
    foreground: exit_statuses, out_of_memory_is_told, streams_pass_through, a_closed_reader_ends_the_writer,
        environment_directory_and_user, volumes, the_first_interrupt_stops_and_the_second_kills, blocked_connections_are_explained,
        artifacts_are_collected, a_disk_limit_on_a_loop_device_is_cleaned_up;
    streams: a_flood_waits_for_its_slow_reader, a_flood_of_input_waits_for_a_slow_workload, a_reader_that_goes_away_ends_the_workload,
        odd_bytes_come_through_unchanged;
    everyday: they_behave_as_on_the_host, nobodys_umask_counts_inside;
    terminal: top_shows_attaches_and_stops, a_shell_with_the_right_size_and_sane_modes_afterwards, attach_and_detach;
    image_build: here_documents_are_commands_scripts_and_files, the_cache_notices_what_matters_and_nothing_else,
        secrets_are_there_and_stay_nowhere, mistakes_are_told_with_their_line;
    tasks: examples_that_must_fail_fail_as_they_say, tests_are_judged_on_the_base_first, services_are_ready_before_the_agent,
        services_that_do_not_get_ready_are_named, the_verifier_has_limits_a_user_and_an_environment_of_its_own,
        rewards_that_are_none_are_the_verifiers_failure, artifacts_are_kept_by_digest_and_go_when_they_are_due,
        each_field_of_the_cleanup_policy_counts, a_huge_log_is_bounded_and_nothing_is_lost,
        an_attempt_whose_maker_died_is_recorded_as_lost, what_the_agent_sees, a_task_that_takes_too_long_is_a_timeout,
        a_mistake_in_the_file_shows_its_place, a_task_to_begin_with_is_sound, schemas_are_published_as_they_are,
        names_of_our_own_among_artifacts_are_files_like_others;
    ssh: commands_and_their_ends, files_with_scp_sftp_and_rsync, git_over_ssh, ports_and_sockets_inside_are_reached_and_nothing_else, one_connection_for_many,
        what_a_lost_connection_leaves;
    volumes: a_volume_outlives_its_sandboxes, an_agents_memory_is_a_volume, many_sandboxes_share_a_volume, an_archive_brings_everything_back,
        a_killed_supervisor_lets_go_of_its_volume, mistakes_are_told;
    bad_input: errors_are_structured_on_request, a_corrupt_database_is_not_replaced;
    cheats: a_task_that_trusts_its_candidate_is_cheated;
}

fn home() -> Home {
    let mut home = None;
    without_root(|| home = Some(Home::new()));
    home.expect("made")
}

/// The home's owner does this after a preparation by root in mounts of its own.
fn prepared(home: &Home, prepare: &str, words: &str) -> Ended {
    let mut command = Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", &format!("{prepare} && exec {} {words}", home.line())]);
    ended(command.env("COFFERDAM_DATA_DIR", home.data()).stdin(Stdio::null()))
}

#[test]
fn a_volume_has_no_size_without_root() {
    let home = home();
    let refused = home.run(&["volume", "create", "small", "--size", "16MiB"]);
    assert!(refused.code == 1 && refused.err.contains("without root this host can keep no quota of it"), "{refused:?}");
    let required = home.run(&["run", "--require", "volume quota", "--", "true"]);
    assert!(required.code == 125 && required.err.contains("volume quota is required"), "{required:?}");
}

#[test]
fn what_is_not_enforced_is_said_once_recorded_and_can_be_required() {
    let home = home();
    std::fs::remove_file(home.data().join("unenforced")).expect("it was said");
    let ran = home.run(&["run", "--name", "x", "--", "true"]);
    let said = "cofferdam: note: without root, this host does not enforce: id range, memory limit, cpu limit, exec groups, volume quota";
    assert!(ran.code == 0 && ran.err.starts_with(said), "{ran:?}");
    assert_eq!(home.run(&["run", "--", "true"]).err, "");
    let record: Value = serde_json::from_str(&home.ok(&["inspect", "x"])).expect("a record");
    assert_eq!(record["unenforced"], serde_json::json!(["id range", "memory limit", "cpu limit", "exec groups", "volume quota"]));
    let refused = home.run(&["run", "--require", "memory limit", "--", "true"]);
    assert!(
        refused.code == 125 && refused.err.contains("memory limit is required") && refused.err.contains("enable-linger"),
        "{refused:?}"
    );
    // So does the configuration, for a task too.
    let config = home.path("config.yaml");
    std::fs::write(&config, "require: [seccomp, memory limit]\n").expect("written");
    for words in [
        &["run", "--", "true"][..],
        &["task", "run", concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/tasks/shell-word-count"), "--agent", "nop"],
    ] {
        let refused = ended(home.command(words).env("COFFERDAM_CONFIG_PATH", &config));
        assert!(refused.code == 125 && refused.err.contains("memory limit is required"), "{refused:?}");
    }
    home.ok(&["rm", "x"]);
}

#[test]
fn a_group_of_the_user_that_stays_is_named() {
    let home = home();
    let line = home.line().replace("--clear-groups", "--groups=65533");
    std::fs::remove_file(home.data().join("unenforced")).expect("it was said");
    let script = format!("{line} run -- sh -c 'grep Groups /proc/self/status'");
    let ran = ended(Command::new("/bin/sh").args(["-c", &script]).env("COFFERDAM_DATA_DIR", home.data()).stdin(Stdio::null()));
    assert!(ran.code == 0 && ran.err.contains("id range, memory limit, cpu limit, groups, exec groups, volume quota"), "{ran:?}");
}

#[test]
fn one_user_inside_unless_there_are_subordinate_ids() {
    let home = home();
    let script = "'touch /tmp/f && chown 5:6 /tmp/f; stat -c %u:%g /tmp/f; setpriv --reuid=77 id -u'";
    let many = prepared(&home, "true", &format!("run -u root -- sh -c {script}"));
    assert_eq!((many.code, many.out.as_str()), (0, "5:6\n77\n"), "{many:?}");
    // Without the helper, or without ids, there is one; it is said.
    let said = "does not enforce: users (";
    let without = prepared(&home, "mount --bind /bin/false /usr/bin/newuidmap", "run -u root -- cat /proc/self/uid_map");
    assert!(without.out.lines().count() == 1 && without.err.contains(said), "{without:?}");
    home.take_ids();
    let one = prepared(&home, "true", &format!("run -u root -- sh -c {script}"));
    assert!(one.code != 0 && one.out == "0:0\n", "{one:?}");
}

#[test]
fn another_user_in_a_sandbox_of_one_is_refused_by_name() {
    let home = home();
    home.ok(&["run", "-d", "--name", "one", "--", "sleep", "60"]);
    let refused = home.run(&["exec", "-u", "root", "one", "--", "true"]);
    assert!(refused.code == 125 && refused.err.contains("user 0:0") && refused.err.contains("--add-subuids"), "{refused:?}");
    home.ok(&["rm", "-f", "one"]);
}

#[test]
fn a_host_without_user_namespaces_says_what_to_do() {
    let home = home();
    std::fs::create_dir(home.path("other")).expect("made");
    // The setting is a namespace's own, and root's in it.
    let script = format!("echo 0 > /proc/sys/user/max_user_namespaces && exec '{}' run -- true", home.path("cofferdam").display());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "/bin/sh", "-c", &script]).env("COFFERDAM_DATA_DIR", home.path("other"));
    let refused = ended(command.stdin(Stdio::null()));
    assert!(refused.code == 125 && refused.err.contains("sudo sysctl -w user.max_user_namespaces"), "{refused:?}");
    assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
}

#[test]
fn root_of_a_few_ids_is_an_ordinary_user() {
    let home = home();
    std::fs::create_dir(home.path("other")).expect("made");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(home.path("cofferdam")).args(["run", "-q", "--", "id", "-u"]);
    let ran = ended(command.env("COFFERDAM_DATA_DIR", home.path("other")).stdin(Stdio::null()));
    assert_eq!((ran.code, ran.out.as_str()), (0, "10001\n"), "{ran:?}");
}

#[test]
fn two_users_do_not_meet() {
    let (one, two) = (home(), home());
    assert_ne!(one.user(), two.user());
    let id = one.ok(&["run", "-d", "--", "sleep", "60"]).trim().to_owned();
    let words = ["exec", "ps", "stop", "inspect", "logs", "kill"];
    for verb in words {
        let mut command = two.command(&[verb]);
        if verb != "ps" {
            command.arg(&id);
        }
        if verb == "exec" {
            command.args(["--", "true"]);
        }
        let ended = ended(command.env("COFFERDAM_DATA_DIR", one.data()));
        assert!(ended.code != 0 && !ended.out.contains(&id[..12]), "{verb}: {ended:?}");
    }
    assert!(!two.ok(&["ps", "-a"]).contains(&id[..12]));
    // By hand: its files, its processes.
    let user = two.user().expect("a user");
    let script = format!("ls {}; pkill -9 -u {}; true", one.data().display(), one.user().expect("a user"));
    let options = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()];
    let tried = ended(Command::new("setpriv").args(options).args(["/bin/sh", "-c", &script]));
    assert_eq!(tried.out, "", "{tried:?}");
    assert!(one.ok(&["ps"]).contains(&id[..12]));
    one.ok(&["rm", "-f", &id]);
}

#[test]
fn a_killed_supervisor_takes_its_sandbox_along() {
    let home = home();
    let id = home.ok(&["run", "-d", "--", "sleep", "4711"]).trim().to_owned();
    let user = home.user().expect("a user").to_string();
    let processes = || ended(Command::new("pgrep").args(["-u", &user])).out.lines().count();
    assert!(processes() >= 2);
    assert_eq!(ended(Command::new("pkill").args(["-9", "-u", &user, "-f", "monitor"])).code, 0);
    eventually("its processes are gone", || processes() == 0);
    home.ok(&["prune"]);
    let record: Value = serde_json::from_str(&home.ok(&["inspect", &id])).expect("a record");
    assert_eq!(record["reason"], "supervisor_lost");
    home.ok(&["rm", &id]);
}

#[test]
fn a_full_home_is_an_error_and_leaves_nothing() {
    let home = home();
    let full = home.path("full");
    std::fs::create_dir(&full).expect("made");
    let user = home.user().expect("a user");
    let prepare = format!("mount -t tmpfs -o size=64k,uid={user},mode=700 full {0} && export COFFERDAM_DATA_DIR={0}/data", full.display());
    let ran = prepared(&home, &prepare, "run -- true");
    assert!(ran.code == 125 && ran.err.lines().count() <= 2, "{ran:?}");
}

#[test]
fn memory_is_watched() {
    let home = home();
    let script = "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo survived";
    let ran = home.run(&["run", "--memory", "64MiB", "--", "sh", "-c", script]);
    assert!(ran.code != 0 && !ran.out.contains("survived"), "{ran:?}");
}
