//! Under bookworm's podman, on the machine itself: flint beside runc in each scenario.

use std::sync::Arc;

use integration_tests::{Layout, Podman, System, missing, peers, scenarios};

use crate::podman_scenario::{build, life, run, state};

/// podman, or None after a skip.
fn podman() -> Option<Arc<Podman>> {
    let _ = peers()?;
    if missing(&["unshare", "nsenter", "podman"]) {
        return None;
    }
    Podman::shared(System::Host, Layout::Host)
}

fn with(scenario: fn(&Podman)) {
    if let Some(podman) = podman() {
        scenario(&podman);
    }
}

scenarios! {
    with;
    basics: run::basics,
    exit_codes: run::exit_codes,
    security: run::security,
    volumes: run::volumes,
    namespaces: run::namespaces,
    user_namespaces: run::user_namespaces,
    limits: run::limits,
    exec: life::exec,
    terminals: life::terminals,
    stop_kill_and_wait: life::stop_kill_and_wait,
    logs_attach_and_events: life::logs_attach_and_events,
    health_and_restart: life::health_and_restart,
    thirty_at_once: life::thirty_at_once,
    pause: state::pause,
    update: state::update,
    checkpoint_and_restore: state::checkpoint_and_restore,
    rm_force_of_a_running_container: state::rm_force_of_a_running_container,
    automatic_user_namespaces: state::automatic_user_namespaces,
    image_build: build::build,
    copy_and_commit: build::copy_and_commit,
}
