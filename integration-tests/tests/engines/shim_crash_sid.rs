//! Debian sid's containerd 2 and flint's shims, killed.

use integration_tests::{Containerd, System, missing, peers, scenarios};

use crate::crash_scenario;

fn with(scenario: fn(&mut Containerd)) {
    if peers().is_none() || missing(&["unshare", "nsenter", "sha256sum", "tar"]) {
        return;
    }
    let Some(mut containerd) = Containerd::of(System::Sid) else { return };
    if containerd.place().shim().is_some() {
        scenario(&mut containerd);
    }
}

scenarios! {
    with;
    a_container_outlives_containerd: crash_scenario::a_container_outlives_containerd,
    containerd_dies_after_each_call: crash_scenario::containerd_dies_after_each_call,
    containerd_dies_within_calls: crash_scenario::containerd_dies_within_calls,
    a_killed_shim_leaves_nothing: crash_scenario::a_killed_shim_leaves_nothing,
    events_wait_for_containerd: crash_scenario::events_wait_for_containerd,
}
