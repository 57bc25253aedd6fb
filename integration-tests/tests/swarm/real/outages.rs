//! Managers that die, a leader that changes, a network that is cut: with `kill -9` of flintd in between.

use std::collections::BTreeSet;
use std::time::Duration;

use integration_tests::swarm::{Flintd, Manager};
use integration_tests::{Layout, Place, System, wait_until};

use super::{Host, scale};

/// How long the network is away: the managers call the node down after three periods of five seconds.
const CUT: Duration = Duration::from_secs(30);

/// Of a service that has tasks: a manager that cannot answer for a moment tells of none.
fn ids(manager: &Manager, service: &str) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    wait_until("the manager tells of tasks", || {
        ids = manager.tasks(service).into_iter().map(|task| task.id).collect();
        !ids.is_empty()
    });
    ids
}

#[test]
fn a_manager_that_is_killed_finds_the_containers_of_before() {
    let Some(mut manager) = Manager::start(System::Host) else { return };
    let Some(mut host) = Host::join(&manager, manager.pid(), "one") else { return };
    host.create(&manager, "web", &["--replicas", "5"]);
    host.agree(&manager, "web", 5);
    let before = host.containers();
    manager.crash();
    host.flintd.kill();
    assert_eq!(host.containers(), before, "neither death ends a container");
    host.flintd.launch();
    manager.restart();
    manager.wait_node(host.flintd.id(), "ready active");
    host.agree(&manager, "web", 5);
    assert_eq!(host.containers(), before, "nor does the return of both");
    scale(&manager, "web", 8);
    host.agree(&manager, "web", 8);
    host.assert_true(&manager, "web");
    assert_eq!(host.begun().len(), 8);
    host.end(&manager, "web");
}

#[test]
fn a_change_of_the_leader_among_three_managers() {
    let Some(mut first) = Manager::start(System::Host) else { return };
    let (Some(mut second), Some(third)) = (first.another(2), first.another(3)) else { return };
    let Some(place) = Place::open(System::Host, Layout::Host) else { return };
    first.connect(place.pid(), 9);
    let Some(mut host) = Host::join(&first, place.pid(), "one") else { return };
    host.create(&first, "web", &["--replicas", "4"]);
    host.agree(&first, "web", 4);
    let tasks = ids(&first, "web");

    // The leader dies: the others choose one of them, and flintd, which has died too, finds it by the list that it kept.
    first.crash();
    host.flintd.kill();
    host.flintd.launch();
    leads(&second, &third);
    second.wait_node(host.flintd.id(), "ready active");
    assert_eq!(ids(&second, "web"), tasks, "no task was made anew");
    scale(&second, "web", 7);
    host.agree(&second, "web", 7);
    host.assert_true(&second, "web");

    // It comes back, and another one goes.
    first.restart();
    wait_until("all three are there again", || reachable(&third) == 3);
    second.crash();
    leads(&first, &third);
    third.wait_node(host.flintd.id(), "ready active");
    scale(&third, "web", 9);
    host.agree(&third, "web", 9);
    host.assert_true(&third, "web");
    assert_eq!(host.begun().len(), 9, "nine tasks, each begun once");
    second.restart();
    host.end(&third, "web");
}

/// Waits until one of two leads, and both know it.
fn leads(one: &Manager, other: &Manager) {
    let told = |manager: &Manager| manager.docker(&["node", "ls", "--format", "{{.ManagerStatus}} {{.Self}}"]);
    wait_until("one of the others leads", || {
        let told = [told(one), told(other)];
        told.iter().all(|told| told.code == 0) && told.iter().any(|told| told.stdout.contains("Leader true"))
    });
}

fn reachable(manager: &Manager) -> usize {
    let told = manager.docker(&["node", "ls", "--format", "{{.ManagerStatus}}"]).stdout;
    told.lines().filter(|line| matches!(line.trim(), "Leader" | "Reachable")).count()
}

#[test]
fn a_network_that_is_cut() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let (Some(near), Some(far)) = (Place::open(System::Host, Layout::Host), Place::open(System::Host, Layout::Host))
    else {
        return;
    };
    manager.connect(near.pid(), 8);
    manager.connect(far.pid(), 9);
    let Some(mut one) = Host::join(&manager, near.pid(), "one") else { return };
    let Some(other) = Host::join(&manager, far.pid(), "two") else { return };
    // Its tasks may run on either; they write to the folder of the first, which both have.
    one.create_of(&manager, "web", &["--replicas", "6"], Flintd::IMAGE, "trap 'exit 0' TERM; sleep 100000 & wait $!");
    one.agree(&manager, "web", 6);
    let on = |node: &str| {
        let told = manager.get(&["node", "ps", "--filter", "desired-state=running", "--format", "{{.ID}}", node]);
        told.lines().filter(|line| !line.is_empty()).count()
    };
    assert_eq!((on(one.flintd.id()), on(other.flintd.id())), (3, 3));
    let before = one.containers();

    manager.cut(8, true);
    std::thread::sleep(CUT);
    manager.wait_node(one.flintd.id(), "down active");
    // The manager has given its tasks to the other; here they go on, since nobody has said otherwise.
    wait_until("the other has all", || on(other.flintd.id()) == 6);
    wait_until("three more have begun", || one.begun().len() == 9);
    assert_eq!(one.containers().len(), 9);
    assert!(before.keys().all(|task| one.containers().contains_key(task)), "a cut ends no container");
    one.flintd.kill();
    one.flintd.launch();
    assert!(before.keys().all(|task| one.containers().contains_key(task)), "nor does a restart meanwhile");

    manager.cut(8, false);
    manager.wait_node(one.flintd.id(), "ready active");
    // The manager learns of those that it gave away, and they end.
    one.agree(&manager, "web", 6);
    one.assert_true(&manager, "web");
    scale(&manager, "web", 12);
    one.agree(&manager, "web", 12);
    one.assert_true(&manager, "web");
    assert_eq!(one.begun().len(), 6 + 3 + 6);
    let _ = manager.docker(&["service", "rm", "web"]).ok();
    wait_until("no container is left", || one.containers().is_empty());
    one.flintd.assert_nothing_left();
    other.flintd.assert_nothing_left();
}
