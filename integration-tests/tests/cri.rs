//! flint's shim under the CRI plugin of the machine's containerd.
#![forbid(unsafe_code)]

mod cri_scenario;

use integration_tests::cri::Node;
use integration_tests::{System, missing, peers};

fn with(scenario: fn(&Node)) {
    if peers().is_none() || missing(&["containerd", "ctr", "unshare", "nsenter", "sha256sum", "tar"]) {
        return;
    }
    let Some(node) = Node::shared_of(System::Host) else { return };
    scenario(&node);
}

#[test]
fn two_containers_and_one_shim() {
    with(cri_scenario::two_containers_and_one_shim);
}

#[test]
fn stats_and_limits() {
    with(cri_scenario::stats_and_limits);
}

#[test]
fn a_pod_by_runcs_shim() {
    with(cri_scenario::a_pod_by_runcs_shim);
}

#[test]
fn want_of_memory_is_the_reason() {
    with(cri_scenario::want_of_memory_is_the_reason);
}

#[test]
fn stop_is_patient_and_then_not() {
    with(cri_scenario::stop_is_patient_and_then_not);
}

#[test]
fn a_pod_with_the_hosts_pids_leaves_no_process() {
    with(cri_scenario::a_pod_with_the_hosts_pids_leaves_no_process);
}

#[test]
fn a_pod_with_shared_pids_ends_with_its_pause() {
    with(cri_scenario::a_pod_with_shared_pids_ends_with_its_pause);
}

#[test]
fn a_pod_has_a_network() {
    with(cri_scenario::a_pod_has_a_network);
}
