//! Services that grow, change and fail to.

use integration_tests::swarm::Manager;
use integration_tests::{System, wait_until};

use super::{Host, many, scale};

fn a_service_grows_changes_and_goes_back(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let Some(mut host) = Host::join(&manager, manager.pid(), "one") else { return };
    let policy = ["--update-parallelism", "10", "--update-failure-action", "rollback", "--update-monitor", "2s"];
    host.create(&manager, "web", &[&["--replicas", "2", "--rollback-parallelism", "0"], &policy[..]].concat());
    host.agree(&manager, "web", 2);
    scale(&manager, "web", many());
    // flintd dies in the midst of it.
    wait_until("some are there", || host.begun().len() > 3);
    host.flintd.kill();
    host.flintd.launch();
    host.agree(&manager, "web", many());
    host.assert_true(&manager, "web");
    assert_eq!(host.begun().len(), many(), "no task more was started than was wanted");

    let state = || manager.get(&["service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"]);
    let _ = manager.docker(&["service", "update", "--detach", "--env-add", "COLOUR=green", "web"]).ok();
    wait_until("some are new", || host.begun().len() > many() + 3);
    host.flintd.kill();
    host.flintd.launch();
    patiently("the update is over", || state() == "completed");
    host.agree(&manager, "web", many());
    host.assert_true(&manager, "web");

    // What ends at once is no update: the old ones come back.
    let _ = manager.docker(&["service", "update", "--detach", "--args", "/bin/false", "web"]).ok();
    patiently("the update is rolled back", || state() == "rollback_completed");
    host.agree(&manager, "web", many());
    host.assert_true(&manager, "web");
    scale(&manager, "web", 1);
    host.agree(&manager, "web", 1);
    host.end(&manager, "web");
}

/// Batches of ten, each looked at for two seconds, take their time.
#[track_caller]
fn patiently(what: &str, done: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(300 + 2 * many() as u64);
    while !done() {
        assert!(std::time::Instant::now() < end, "never happened: {what}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[test]
fn a_service_of_dockers_20_10_grows_changes_and_goes_back() {
    a_service_grows_changes_and_goes_back(System::Host);
}

#[test]
fn a_service_of_sids_docker_grows_changes_and_goes_back() {
    a_service_grows_changes_and_goes_back(System::Sid);
}
