//! flint's shim under the CRI plugin of the machine's containerd.

use integration_tests::cri::Node;
use integration_tests::{System, missing, peers, scenarios};

use crate::cri_scenario;

fn with(scenario: fn(&Node)) {
    if peers().is_none() || missing(&["containerd", "ctr", "unshare", "nsenter", "sha256sum", "tar"]) {
        return;
    }
    let Some(node) = Node::shared_of(System::Host) else { return };
    scenario(&node);
}

scenarios! {
    with;
    two_containers_and_one_shim: cri_scenario::two_containers_and_one_shim,
    stats_and_limits: cri_scenario::stats_and_limits,
    a_pod_by_runcs_shim: cri_scenario::a_pod_by_runcs_shim,
    want_of_memory_is_the_reason: cri_scenario::want_of_memory_is_the_reason,
    stop_is_patient_and_then_not: cri_scenario::stop_is_patient_and_then_not,
    a_pod_with_the_hosts_pids_leaves_no_process: cri_scenario::a_pod_with_the_hosts_pids_leaves_no_process,
    a_pod_with_shared_pids_ends_with_its_pause: cri_scenario::a_pod_with_shared_pids_ends_with_its_pause,
    a_pod_has_a_network: cri_scenario::a_pod_has_a_network,
}
