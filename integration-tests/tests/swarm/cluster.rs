//! Nodes that are drained, paused and active again.

use integration_tests::swarm::Manager;
use integration_tests::{System, wait_until};

use crate::worker::Worker;

#[test]
fn drained_paused_and_active_again() {
    drained_paused_and_active_again_under(System::Host);
}

pub(crate) fn drained_paused_and_active_again_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let one = Worker::join(&manager, "one");
    let two = Worker::join(&manager, "two");
    manager.create("web", &["--replicas", "4"], "web", &[]);
    manager.wait_for("web", "Running", 4);
    assert_eq!((one.host.running().len(), two.host.running().len()), (2, 2));
    let set = |node: &str, availability: &str| {
        let _ = manager.docker(&["node", "update", "--availability", availability, node]).ok();
    };
    set(&one.node, "drain");
    wait_until("all run on the other", || two.host.running().len() == 4 && one.host.running().is_empty());
    set(&one.node, "pause");
    let _ = manager.docker(&["service", "scale", "--detach", "web=6"]).ok();
    wait_until("a paused node gets no new ones", || two.host.running().len() == 6);
    assert!(one.host.running().is_empty());
    set(&one.node, "active");
    let _ = manager.docker(&["service", "scale", "--detach", "web=8"]).ok();
    wait_until("an active one does", || one.host.running().len() == 2);
    manager.wait_for("web", "Running", 8);
    one.host.assert_started_once();
    two.host.assert_started_once();
}
