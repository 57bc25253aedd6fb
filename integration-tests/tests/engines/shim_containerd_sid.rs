//! flint's shim under Debian sid's containerd 2, beside containerd's own with runc.

use integration_tests::{Containerd, System, missing, peers, scenarios};

use crate::shim_scenario;
use shim_scenario::Runtimes;

fn with(scenario: fn(&Containerd, &Runtimes)) {
    if peers().is_none() || missing(&["unshare", "nsenter", "sha256sum", "tar"]) {
        return;
    }
    let Some(containerd) = Containerd::shared_of(System::Sid) else { return };
    let Some(shim) = containerd.place().shim() else { return };
    scenario(&containerd, &[shim.display().to_string(), "io.containerd.runc.v2".to_owned()]);
}

scenarios! {
    with;
    containers_see_the_same: shim_scenario::containers_see_the_same,
    exec_kill_pause_metrics_and_ps: shim_scenario::exec_kill_pause_metrics_and_ps,
    failures_are_told_and_leave_nothing: shim_scenario::failures_are_told_and_leave_nothing,
    a_hundred_at_once: shim_scenario::a_hundred_at_once,
    a_client_that_is_killed_leaves_its_container: shim_scenario::a_client_that_is_killed_leaves_its_container,
    checkpoint_and_restore: shim_scenario::checkpoint_and_restore,
}
