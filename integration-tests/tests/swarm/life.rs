//! Services: created, scaled, updated, rolled back, removed; what cannot be is rejected.

use integration_tests::swarm::Manager;
use integration_tests::{System, wait_until};

use crate::worker::Worker;

/// How many tasks the scaled service has.
fn many() -> usize {
    std::env::var("FLINT_SWARM_TASKS").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

fn a_service_from_its_creation_to_its_removal(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let worker = Worker::join(&manager, "one");
    manager.create("web", &["--replicas", "2"], "web", &[]);
    manager.wait_for("web", "Running", 2);
    assert_eq!(worker.host.running().len(), 2);
    let many = many();
    let _ = manager.docker(&["service", "scale", "--detach", &format!("web={many}")]).ok();
    manager.wait_for("web", "Running", many);
    assert_eq!(worker.host.running().len(), many);
    worker.assert_true(&manager, "web");

    let _ = manager.docker(&["service", "scale", "--detach", "web=1"]).ok();
    wait_until("one pod is left", || worker.host.names().len() == 1);
    let _ = manager.docker(&["service", "rm", "web"]).ok();
    wait_until("no pod is left", || worker.host.names().is_empty());
    worker.host.assert_started_once();
}

#[test]
fn a_service_of_dockers_20_10() {
    a_service_from_its_creation_to_its_removal(System::Host);
}

#[test]
fn a_service_of_sids_docker() {
    a_service_from_its_creation_to_its_removal(System::Sid);
}

#[test]
fn what_ends_fails_or_cannot_be() {
    what_ends_fails_or_cannot_be_under(System::Host);
}

pub(crate) fn what_ends_fails_or_cannot_be_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let worker = Worker::join(&manager, "one");
    let once = ["--restart-condition", "none"];
    manager.create("ends", &once, "done", &[]);
    manager.create("breaks", &once, "fails", &[]);
    manager.create("nothing", &once, "missing", &[]);
    let mount = ["--restart-condition", "none", "--mount", "type=tmpfs,target=/t,tmpfs-mode=700"];
    manager.create("field", &mount, "web", &[]);
    manager.create("name", &["--restart-condition", "none", "--hostname", "refused"], "web", &[]);
    manager.create("sick", &["--health-cmd", "false"], "unhealthy", &[]);
    manager.wait_for("ends", "Complete", 1);
    manager.wait_for("breaks", "Failed", 1);
    manager.wait_for("nothing", "Rejected", 1);
    manager.wait_for("field", "Rejected", 1);
    manager.wait_for("name", "Rejected", 1);
    manager.wait_for("sick", "Starting", 1);
    let error = |service: &str| manager.tasks(service)[0].error.clone();
    assert!(error("breaks").contains("task: non-zero exit (3)"), "{}", error("breaks"));
    assert!(error("nothing").contains("there is no such image"), "{}", error("nothing"));
    assert!(error("field").starts_with("\"mounts.tmpfs_options."), "{}", error("field"));
    assert!(error("name").contains("takes nobody of that name"), "{}", error("name"));
    for service in ["ends", "breaks", "nothing", "sick"] {
        worker.assert_true(&manager, service);
    }
    worker.host.assert_started_once();
}

#[test]
fn jobs_global_services_and_constraints() {
    jobs_global_services_and_constraints_under(System::Host);
}

pub(crate) fn jobs_global_services_and_constraints_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let one = Worker::join(&manager, "one");
    let two = Worker::join(&manager, "two");
    manager.create("job", &["--mode", "replicated-job", "--replicas", "4"], "done", &[]);
    manager.create("everywhere", &["--mode", "global"], "web", &["{{.Node.Hostname}}"]);
    manager.create("there", &["--replicas", "3", "--constraint", "engine.labels.rack==two"], "web", &[]);
    manager.create("flint", &["--constraint", "engine.labels.flint.overlay!=false"], "web", &[]);
    manager.wait_for("job", "Complete", 4);
    manager.wait_for("everywhere", "Running", 2);
    manager.wait_for("there", "Running", 3);
    manager.wait_for("flint", "Pending", 1);
    assert!(one.host.running().iter().all(|name| !name.starts_with("there.")));
    assert_eq!(two.host.running().iter().filter(|name| name.starts_with("there.")).count(), 3);
    assert!(one.host.running().iter().any(|name| name.starts_with(&format!("everywhere.{}.", one.node))));
    // What needs an overlay network is never placed here.
    let _ = manager.docker(&["network", "create", "--driver", "overlay", "cloth"]).ok();
    manager.create("woven", &["--network", "cloth"], "web", &[]);
    manager.create("meshed", &["--publish", "8080:80"], "web", &[]);
    manager.wait_for("woven", "Pending", 1);
    manager.wait_for("meshed", "Pending", 1);
    manager.create("ported", &["--publish", "mode=host,target=80"], "web", &[]);
    manager.create("hosted", &["--network", "host"], "web", &[]);
    manager.wait_for("ported", "Running", 1);
    manager.wait_for("hosted", "Running", 1);
    assert_eq!(manager.tasks("ported")[0].ports, "*:40000->80/tcp", "{:?}", manager.tasks("ported"));
    one.host.assert_started_once();
    two.host.assert_started_once();
}

#[test]
fn an_update_that_fails_is_rolled_back() {
    an_update_that_fails_is_rolled_back_under(System::Host);
}

pub(crate) fn an_update_that_fails_is_rolled_back_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let worker = Worker::join(&manager, "one");
    let options =
        ["--replicas", "3", "--update-failure-action", "rollback", "--update-monitor", "2s", "--update-delay", "100ms"];
    manager.create("web", &options, "web", &[]);
    manager.wait_for("web", "Running", 3);
    let good = ["service", "update", "--detach", "--no-resolve-image", "--image", "web:2", "web"];
    let _ = manager.docker(&good).ok();
    let running = |image: &str| {
        let all = worker.host.running();
        all.iter().filter(|name| worker.host.pod(name).is_some_and(|pod| pod.containers[0].image == image)).count()
    };
    wait_until("all run the new image", || running("web:2") == 3);
    let state = || manager.get(&["service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"]);
    wait_until("the update is over", || state() == "completed");
    let bad = ["service", "update", "--detach", "--no-resolve-image", "--image", "fails", "web"];
    let _ = manager.docker(&bad).ok();
    wait_until("the update is rolled back", || state() == "rollback_completed");
    wait_until("all run the image of before", || running("web:2") == 3);
    worker.assert_true(&manager, "web");
    worker.host.assert_started_once();
}
