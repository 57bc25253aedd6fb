//! Under Debian sid's podman on the host's cgroups: flint beside runc in each scenario.
#![forbid(unsafe_code)]

mod podman_scenario;

use std::sync::Arc;

use integration_tests::{Layout, Podman, System, missing, peers};
use podman_scenario::{build, life, run};

/// podman, or None after a skip.
fn podman() -> Option<Arc<Podman>> {
    let _ = peers()?;
    if missing(&["unshare", "nsenter"]) {
        return None;
    }
    Podman::shared(System::Sid, Layout::Host)
}

macro_rules! scenarios {
    ($($name:ident: $scenario:path),* $(,)?) => {$(
        #[test]
        fn $name() {
            let Some(podman) = podman() else { return };
            $scenario(&podman);
        }
    )*};
}

scenarios! {
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
    image_build: build::build,
    copy_and_commit: build::copy_and_commit,
}
