//! What other modules try with Debian's docker, with that of Debian sid.

use integration_tests::System;

use crate::{cluster, identity, life, payloads, restarts};

#[test]
fn jobs_global_services_and_constraints() {
    life::jobs_global_services_and_constraints_under(System::Sid);
}

#[test]
fn an_update_that_fails_is_rolled_back() {
    life::an_update_that_fails_is_rolled_back_under(System::Sid);
}

#[test]
fn what_ends_fails_or_cannot_be() {
    life::what_ends_fails_or_cannot_be_under(System::Sid);
}

#[test]
fn secrets_and_configs_come_as_files_and_are_nowhere_on_disk() {
    payloads::secrets_and_configs_come_as_files_and_are_nowhere_on_disk_under(System::Sid);
}

#[test]
fn logs_are_read_and_followed() {
    payloads::logs_are_read_and_followed_under(System::Sid);
}

#[test]
fn a_node_that_is_removed_stops_says_so_and_may_join_again() {
    identity::a_node_that_is_removed_stops_says_so_and_may_join_again_under(System::Sid);
}

#[test]
fn a_rotation_of_the_root_comes_to_its_end() {
    identity::a_rotation_of_the_root_comes_to_its_end_under(System::Sid);
}

#[test]
fn drained_paused_and_active_again() {
    cluster::drained_paused_and_active_again_under(System::Sid);
}

#[test]
fn a_manager_that_is_killed_finds_its_tasks_running() {
    restarts::a_manager_that_is_killed_finds_its_tasks_running_under(System::Sid);
}
