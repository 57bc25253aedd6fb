//! flint's shim under Debian sid's containerd 2, beside containerd's own with runc.
#![forbid(unsafe_code)]

mod shim_scenario;

use integration_tests::{Containerd, System, missing, peers};
use shim_scenario::Runtimes;

fn with(scenario: fn(&Containerd, &Runtimes)) {
    if peers().is_none() || missing(&["unshare", "nsenter", "sha256sum", "tar"]) {
        return;
    }
    let Some(containerd) = Containerd::shared_of(System::Sid) else { return };
    let Some(shim) = containerd.place().shim() else { return };
    scenario(&containerd, &[shim.display().to_string(), "io.containerd.runc.v2".to_owned()]);
}

#[test]
fn containers_see_the_same() {
    with(shim_scenario::containers_see_the_same);
}

#[test]
fn exec_kill_pause_metrics_and_ps() {
    with(shim_scenario::exec_kill_pause_metrics_and_ps);
}

#[test]
fn failures_are_told_and_leave_nothing() {
    with(shim_scenario::failures_are_told_and_leave_nothing);
}

#[test]
fn a_hundred_at_once() {
    with(shim_scenario::a_hundred_at_once);
}

#[test]
fn a_client_that_is_killed_leaves_its_container() {
    with(shim_scenario::a_client_that_is_killed_leaves_its_container);
}

#[test]
fn checkpoint_and_restore() {
    with(shim_scenario::checkpoint_and_restore);
}
