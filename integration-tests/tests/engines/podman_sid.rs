//! Under Debian sid's podman on the host's cgroups: flint beside runc in each scenario.

use std::os::unix::fs::chown;
use std::sync::Arc;

use integration_tests::{Case, Layout, Place, Podman, System, missing, peers, scenarios, under_test_only};

use crate::podman_scenario::{build, life, run, state};
use crate::rootless_scenario::{a_users_containers, archive, podman};

/// podman, or None after a skip.
fn shared() -> Option<Arc<Podman>> {
    let _ = peers()?;
    if missing(&["unshare", "nsenter"]) {
        return None;
    }
    Podman::shared(System::Sid, Layout::Host)
}

fn with(scenario: fn(&Podman)) {
    if let Some(podman) = shared() {
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

/// An ordinary user of sid, made in a place of its own.
#[test]
fn a_user_runs_containers() {
    let Some([flint]) = under_test_only("podman calls what it is told to") else { return };
    if missing(&["unshare", "nsenter", "tar"]) {
        return;
    }
    let Some(place) = Place::open(System::Sid, Layout::Host) else { return };
    let case = Case::new(&flint);
    let home = place.path().join("home");
    let volume = home.join("volume");
    std::fs::create_dir_all(&volume).expect("make a home");
    std::fs::create_dir(home.join("run")).expect("make a folder for runtime files");
    let name = "tester";
    let _ = place
        .command("useradd")
        .args(["--no-create-home", "--user-group", "--home-dir"])
        .args([&home])
        .args([name])
        .output()
        .ok();
    let uid: u32 = place.command("id").args(["-u", name]).output().ok().stdout.trim().parse().expect("a uid");
    for folder in [&home, &volume, &home.join("run")] {
        chown(folder, Some(uid), Some(uid)).expect("chown to the user");
    }
    let as_user = || {
        let user = uid.to_string();
        place
            .command("setpriv")
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "env", "-i", "-C"])
            .args([&home])
            .args([
                "PATH=/usr/bin:/bin:/usr/sbin:/sbin".to_owned(),
                format!("HOME={}", home.display()),
                format!("USER={name}"),
            ])
            .args([format!("XDG_RUNTIME_DIR={}", home.join("run").display()), "podman".to_owned()])
    };
    let runtime = place.flint();
    let call = |arguments: &[&str]| podman(as_user(), &runtime, &home).args(arguments.iter().copied()).output();
    let import = podman(as_user(), &runtime, &home).args(["import", "-", "flint/busybox"]);
    let _ = import.input(archive(&case.bundle())).output().ok();
    a_users_containers(&call, &place.name(), uid, &volume);
    place.assert_still();
    case.finish();
}
