//! Debian sid's containerd 2 and flint's shims, killed.
#![forbid(unsafe_code)]

mod crash_scenario;

use integration_tests::{Containerd, System, missing, peers};

fn with(scenario: fn(&mut Containerd)) {
    if peers().is_none() || missing(&["unshare", "nsenter", "sha256sum", "tar"]) {
        return;
    }
    let Some(mut containerd) = Containerd::of(System::Sid) else { return };
    if containerd.place().shim().is_some() {
        scenario(&mut containerd);
    }
}

#[test]
fn a_container_outlives_containerd() {
    with(crash_scenario::a_container_outlives_containerd);
}

#[test]
fn containerd_dies_within_calls() {
    with(crash_scenario::containerd_dies_within_calls);
}

#[test]
fn a_killed_shim_leaves_nothing() {
    with(crash_scenario::a_killed_shim_leaves_nothing);
}

#[test]
fn events_wait_for_containerd() {
    with(crash_scenario::events_wait_for_containerd);
}
