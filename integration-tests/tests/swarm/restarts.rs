//! flintd and the manager end in the midst of things and come back.

use std::collections::BTreeSet;

use integration_tests::swarm::Manager;
use integration_tests::{System, wait_until};

use crate::worker::Worker;

fn ids(manager: &Manager, service: &str) -> BTreeSet<String> {
    manager.tasks(service).into_iter().map(|task| task.id).collect()
}

#[test]
fn a_restart_of_flintd_goes_on_with_its_tasks() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let mut worker = Worker::join(&manager, "one");
    manager.create("web", &["--replicas", "5"], "web", &[]);
    manager.wait_for("web", "Running", 5);
    let before = ids(&manager, "web");
    worker.stop();
    // What happens meanwhile is told afterwards.
    worker.host.end("web.3.", 9);
    worker.start();
    wait_until("the one that ended has a successor", || {
        let failed = manager.tasks("web").iter().filter(|task| task.state == "Failed").count();
        failed == 1 && manager.counts("web").get("Running") == Some(&5)
    });
    let tasks = manager.tasks("web");
    let failed = tasks.iter().find(|task| task.state == "Failed").expect("the failed task");
    assert!(failed.name.contains("web.3") && failed.error.contains("(9)"), "{failed:?}");
    assert_eq!(tasks.iter().filter(|task| before.contains(&task.id) && task.state == "Running").count(), 4);
    worker.assert_true(&manager, "web");
    worker.host.assert_started_once();

    // While it is away its service goes.
    worker.stop();
    let _ = manager.docker(&["service", "rm", "web"]).ok();
    assert_eq!(worker.host.running().len(), 5);
    worker.start();
    wait_until("no pod is left", || worker.host.names().is_empty());
}

#[test]
fn flintd_ends_again_and_again_while_a_service_is_scaled() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let mut worker = Worker::join(&manager, "one");
    manager.create("web", &["--replicas", "0"], "web", &[]);
    for round in 1..=8_usize {
        let _ = manager.docker(&["service", "scale", "--detach", &format!("web={}", round * 3 % 10)]).ok();
        std::thread::sleep(std::time::Duration::from_millis(round as u64 * 23));
        worker.stop();
        worker.assert_true(&manager, "web");
        worker.start();
    }
    manager.wait_for("web", "Running", 24 % 10);
    wait_until("as many run as are wanted", || worker.host.running().len() == 24 % 10);
    worker.assert_true(&manager, "web");
    worker.host.assert_started_once();
}

#[test]
fn a_manager_that_is_killed_finds_its_tasks_running() {
    a_manager_that_is_killed_finds_its_tasks_running_under(System::Host);
}

pub(crate) fn a_manager_that_is_killed_finds_its_tasks_running_under(system: System) {
    let Some(mut manager) = Manager::start(system) else { return };
    let worker = Worker::join(&manager, "one");
    manager.create("web", &["--replicas", "3"], "web", &[]);
    manager.wait_for("web", "Running", 3);
    let before = ids(&manager, "web");
    manager.crash();
    worker.host.end("web.2.", 5);
    manager.restart();
    wait_until("what ended meanwhile is told", || {
        manager.tasks("web").iter().any(|task| task.state == "Failed" && task.error.contains("(5)"))
    });
    manager.wait_for("web", "Running", 3);
    manager.wait_node(&worker.node, "ready active");
    assert_eq!(before.intersection(&ids(&manager, "web")).count(), 3);
    worker.assert_true(&manager, "web");
    worker.host.assert_started_once();
}

#[test]
fn a_task_that_could_not_be_stopped_is_stopped_when_it_can() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let worker = Worker::join(&manager, "one");
    manager.create("web", &["--replicas", "2"], "web", &[]);
    manager.wait_for("web", "Running", 2);
    worker.host.fill(true);
    let _ = manager.docker(&["service", "scale", "--detach", "web=1"]).ok();
    // The node has been asked, and nobody says that it is stopped.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(worker.host.running().len(), 2);
    worker.host.fill(false);
    wait_until("it is stopped", || worker.host.running().len() == 1);
    worker.assert_true(&manager, "web");
}

/// So many tasks are assigned at once (`FLINT_SWARM_ASSIGNED`).
fn assigned() -> usize {
    std::env::var("FLINT_SWARM_ASSIGNED").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

#[test]
fn an_assignment_that_is_huge_is_taken_at_once() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let mut worker = Worker::join(&manager, "one");
    // Together more than the four megabytes that gRPC takes unless told otherwise; 500 KiB is swarmkit's most for one.
    let content = "x".repeat(490 << 10);
    let names: Vec<String> = (0..10).map(|number| format!("large{number}")).collect();
    for name in &names {
        let _ = manager.command().args(["secret", "create", name, "-"]).input(content.clone()).output().ok();
    }
    let options: Vec<&str> = names.iter().flat_map(|name| ["--secret", name.as_str()]).collect();
    manager.create("large", &options, "web", &[]);
    manager.create("many", &["--replicas", &assigned().to_string()], "web", &[]);
    manager.wait_all("large", 1);
    manager.wait_all("many", assigned());
    // A new session begins with all of it in one message.
    worker.stop();
    worker.host.end("many.7.", 9);
    worker.start();
    wait_until("what ended meanwhile is told", || {
        manager.get(&["service", "ps", "--filter", "name=many.7", "--format", "{{.Error}}", "many"]).contains("(9)")
    });
    manager.wait_all("many", assigned());
    assert_eq!(worker.host.running().len(), assigned() + 1);
    worker.host.assert_started_once();
    let _ = manager.docker(&["service", "rm", "large", "many"]).ok();
    wait_until("no pod is left", || worker.host.names().is_empty());
}
