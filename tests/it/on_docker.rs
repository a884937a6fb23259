//! The same on a Docker daemon: tests of other files again.

again! {
    cofferdam_tests::on_docker;
    gate: what_is_allowed_is_reached_and_on_record, what_is_not_allowed_is_refused_and_nothing_is_asked_outside,
        names_that_lead_inside_are_not_dialled, names_are_resolved_however_they_are_asked_for, an_open_network_is_gated_all_the_same,
        half_closed_and_server_first_connections_work, a_killed_gate_is_replaced_and_nothing_escapes,
        an_upstream_proxy_is_asked_for_what_was_checked, a_killed_supervisors_decisions_are_swept_into_the_record,
        the_resolver_answers_what_it_should, the_gate_has_no_rights;
    policies: a_policy_is_replaced_while_connections_stand, a_policy_file_is_followed_and_edited, a_policy_is_learned;
    gate_faults: a_gate_that_is_killed_again_and_again_lets_nothing_out;
    clients: git_over_https_and_its_own_protocol, pip_and_apt_fetch_packages, psql_a_web_socket_and_openssl,
        tools_that_look_for_a_way_out_find_none;
    detached: a_life, wait_gives_the_exit_status, names_are_unique_until_they_are_removed, start_errors_reach_the_caller,
        attach_shows_output_and_the_exit_status, a_log_flood_is_bounded_and_marked, prune_removes_what_has_ended, a_published_port_leads_inside;
    everyday: they_behave_as_on_the_host, nobodys_umask_counts_inside;
    repository: a_branch_a_patch_and_the_tree, what_is_written_inside_does_nothing_outside, links_of_the_tree_are_not_followed,
        a_running_sandbox_a_branch_at_the_end_and_errors;
    foreground: out_of_memory_is_told, streams_pass_through, a_closed_reader_ends_the_writer,
        the_first_interrupt_stops_and_the_second_kills, blocked_connections_are_explained;
    owners: commands_of_one_owner_share_a_sandbox_and_others_do_not, the_first_ones_come_at_once, time_limits_and_failures_are_of_one_command;
    streams: a_flood_waits_for_its_slow_reader, a_flood_of_input_waits_for_a_slow_workload, a_reader_that_goes_away_ends_the_workload,
        odd_bytes_come_through_unchanged;
}
