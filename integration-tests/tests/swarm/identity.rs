//! Joining, leaving, being removed, and a rotation of the swarm's root.

use std::os::unix::fs::PermissionsExt as _;

use flintd::scheduler::swarm::leave;
use integration_tests::swarm::Manager;
use integration_tests::{Command, System, skip, wait_until};

use crate::worker::{Worker, try_join};

#[test]
fn a_wrong_token_joins_nothing_and_leaves_nothing() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = manager.token();
    let (rest, secret) = token.rsplit_once('-').unwrap();
    let error = |token: &str| format!("{:#}", try_join(&manager, folder.path(), token).unwrap_err());
    let wrong_secret = format!("{rest}-{}", "0".repeat(25));
    assert!(error(&wrong_secret).contains("docker swarm join-token worker"), "{}", error(&wrong_secret));
    let wrong_digest = format!("SWMTKN-1-{}1-{secret}", "0".repeat(49));
    let told = error(&wrong_digest);
    assert!(told.contains("is not the one of the join token") && !told.contains(secret), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(manager.get(&["node", "ls", "--quiet"]).lines().count(), 1);
}

#[test]
fn a_node_that_leaves_stops_its_tasks_and_may_join_again() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let worker = Worker::join(&manager, "one");
    for file in std::fs::read_dir(worker.folder()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.path().display());
    }
    manager.create("web", &["--replicas", "2"], "web", &[]);
    manager.wait_for("web", "Running", 2);
    let again = try_join(&manager, worker.folder(), &manager.token()).unwrap_err();
    assert!(again.to_string().contains("member of a swarm already"), "{again:#}");
    assert_eq!(leave(worker.folder()).unwrap(), worker.node);
    wait_until("no pod is left", || worker.host.names().is_empty());
    assert!(leave(worker.folder()).is_err());
    let second = try_join(&manager, worker.folder(), &manager.token()).unwrap();
    manager.wait_node(&second, "ready active");
    wait_until("the service runs on the new node", || worker.host.running().len() == 2);
}

#[test]
fn a_node_that_leaves_and_joins_again_at_once_is_the_new_one() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let worker = Worker::join(&manager, "one");
    manager.create("web", &[], "web", &[]);
    manager.wait_for("web", "Running", 1);
    let joined = tempfile::tempdir().unwrap();
    let second = try_join(&manager, joined.path(), &manager.token()).unwrap();
    // Within the second after which flintd looks whether it is a member.
    leave(worker.folder()).unwrap();
    for name in ["managers.json", "root.pem", "identity.pem"] {
        std::fs::rename(joined.path().join(name), worker.folder().join(name)).unwrap();
    }
    manager.wait_node(&second, "ready active");
    wait_until("the old node's task is gone, and there is one of the new", || {
        worker.host.running().len() == 1 && worker.host.names().len() == 1 && worker.host.standing().contains(&second)
    });
    worker.host.assert_started_once();
}

#[test]
fn a_node_that_could_not_write_is_a_member_again_when_it_can() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let mut worker = Worker::join(&manager, "one");
    manager.create("web", &[], "web", &[]);
    manager.wait_for("web", "Running", 1);
    worker.stop();
    // What stands in the way, in place of a disk that is full.
    let (store, aside) = (worker.folder().join("tasks.redb"), worker.folder().join("aside"));
    std::fs::rename(&store, &aside).unwrap();
    std::fs::create_dir(&store).unwrap();
    worker.start();
    wait_until("it says why", || worker.host.standing().contains("tasks.redb"));
    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(&aside, &store).unwrap();
    wait_until("it is in session again", || worker.host.standing().contains("in session with"));
    manager.wait_node(&worker.node, "ready active");
    manager.wait_for("web", "Running", 1);
    worker.host.assert_started_once();
}

#[test]
fn a_node_that_is_removed_stops_says_so_and_may_join_again() {
    a_node_that_is_removed_stops_says_so_and_may_join_again_under(System::Host);
}

pub(crate) fn a_node_that_is_removed_stops_says_so_and_may_join_again_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let worker = Worker::join(&manager, "one");
    manager.create("web", &[], "web", &[]);
    manager.wait_for("web", "Running", 1);
    let standing = worker.host.standing();
    assert!(standing.contains(&worker.node) && standing.contains("in session with"), "{standing}");
    let _ = manager.docker(&["node", "rm", "--force", &worker.node]).ok();
    wait_until("it says so", || worker.host.standing().contains("the swarm has removed this node"));
    wait_until("no pod is left", || worker.host.names().is_empty());
    assert_eq!(std::fs::read_dir(worker.folder()).unwrap().count(), 0);
    // The same flintd goes on when the node is a member again.
    let second = try_join(&manager, worker.folder(), &manager.token()).unwrap();
    assert_ne!(second, worker.node);
    manager.wait_node(&second, "ready active");
    wait_until("the service runs on the new node", || worker.host.running().len() == 1);
    worker.host.assert_started_once();
}

#[test]
fn a_rotation_of_the_root_comes_to_its_end() {
    a_rotation_of_the_root_comes_to_its_end_under(System::Host);
}

pub(crate) fn a_rotation_of_the_root_comes_to_its_end_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let worker = Worker::join(&manager, "one");
    manager.create("web", &[], "web", &[]);
    manager.wait_for("web", "Running", 1);
    let before = std::fs::read(worker.folder().join("root.pem")).unwrap();
    let certificate = std::fs::read(worker.folder().join("identity.pem")).unwrap();
    let _ = manager.docker(&["swarm", "ca", "--rotate", "--quiet"]).ok();
    wait_until("the worker has the new root", || std::fs::read(worker.folder().join("root.pem")).unwrap() != before);
    assert_ne!(std::fs::read(worker.folder().join("identity.pem")).unwrap(), certificate);
    manager.wait_node(&worker.node, "ready active");
    manager.create("more", &[], "web", &[]);
    manager.wait_for("more", "Running", 1);
    worker.host.assert_started_once();
    // The old token is of the old root.
    let folder = tempfile::tempdir().unwrap();
    try_join(&manager, folder.path(), &manager.token()).unwrap();
}

/// Workers whose certificates are waited for.
const RENEWED: usize = 8;

#[test]
fn certificates_are_renewed_before_they_expire() {
    let Some(wanted) = std::env::var("FLINT_SWARM_RENEWAL").ok().and_then(|count| count.parse::<usize>().ok()) else {
        skip("it takes up to 36 minutes: FLINT_SWARM_RENEWAL=8 waits for all of 8 workers, 1 for the first");
        return;
    };
    // The shortest there is. Managers date certificates back by an hour, and a worker renews its own after 50 to 80 % of its time.
    let Some(mut manager) = Manager::start_with(System::Host, &["--cert-expiry", "1h0m0s"]) else { return };
    // A manager signs by the time of before until its root is another one, or it starts.
    manager.crash();
    manager.restart();
    let workers: Vec<Worker> = (0..RENEWED).map(|_| Worker::join(&manager, "one")).collect();
    manager.create("web", &["--mode", "global"], "web", &[]);
    manager.wait_for("web", "Running", RENEWED);
    let certificates = || -> Vec<Vec<u8>> {
        workers.iter().map(|worker| std::fs::read(worker.folder().join("identity.pem")).unwrap()).collect()
    };
    for worker in &workers {
        let file = worker.folder().join("identity.pem");
        let ends = Command::new("openssl").args(["x509", "-noout", "-checkend", "3700", "-in"]).args([file]).output();
        assert_eq!(ends.code, 1, "the certificate is valid for more than an hour: {}", ends.stdout);
    }
    let (before, begin) = (certificates(), std::time::Instant::now());
    let renewed = || certificates().iter().zip(&before).filter(|(now, before)| now != before).count();
    while renewed() < wanted.min(RENEWED) {
        assert!(begin.elapsed() < std::time::Duration::from_secs(37 * 60), "{} are renewed", renewed());
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    eprintln!("{} of {RENEWED} are renewed after {:?}", renewed(), begin.elapsed());
    // The sessions of new certificates take tasks, and what ran runs.
    manager.create("more", &["--mode", "global"], "web", &[]);
    manager.wait_for("more", "Running", RENEWED);
    assert_eq!(manager.counts("web").get("Running"), Some(&RENEWED));
    for worker in &workers {
        assert_eq!((worker.host.running().len(), manager.node(&worker.node)), (2, "ready active".to_owned()));
        worker.host.assert_started_once();
    }
}
