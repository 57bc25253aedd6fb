//! A service from its creation to its removal, its secrets and its logs, as the host sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use integration_tests::swarm::{Flintd, Manager};
use integration_tests::{System, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// So many tasks of the scaled service.
fn many() -> usize {
    std::env::var("FLINT_SWARM_CONTAINERS").ok().and_then(|count| count.parse().ok()).unwrap_or(10)
}

/// How often each task's program has begun, by its own account.
fn begun(folder: &Path) -> BTreeMap<String, usize> {
    let mut begun = BTreeMap::new();
    for task in fs::read_to_string(folder.join("begun")).unwrap_or_default().lines() {
        *begun.entry(task.to_owned()).or_insert(0) += 1;
    }
    begun
}

/// Ids of the tasks that run, as the manager shows them.
fn running(manager: &Manager) -> BTreeSet<String> {
    manager.tasks("web").into_iter().filter(|task| task.state == "Running").map(|task| task.id).collect()
}

#[test]
fn containers_of_a_service_live_as_its_tasks_do() {
    let Some(manager) = Manager::start(System::Host) else { return };
    let Some(mut node) = Flintd::in_network(manager.pid(), "[labels]\nrack = \"real\"\n") else { return };
    node.join(&manager);
    let (out, marker, secret) = (node.path().join("out"), format!("{}mark", node.prefix()), "very-secret-content");
    fs::create_dir(&out).expect("make a folder");
    let _ = manager.command().args(["secret", "create", "key", "-"]).input(secret).output().ok();
    let mount = format!("type=bind,source={},target=/out", out.display());
    let options = ["--replicas", "2", "--secret", "key", "--constraint", "engine.labels.rack==real"];
    let options = [&options[..], &["--mount", &mount, "--env", "TASK={{.Task.ID}}"]].concat();
    let script = format!(
        ": {marker}; echo $TASK >> /out/begun; cat /run/secrets/key; echo; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    );
    manager.create("web", &options, Flintd::IMAGE, &["/bin/sh", "-c", &script]);
    manager.wait_for("web", "Running", 2);
    let many = many();
    let _ = manager.docker(&["service", "scale", "--detach", &format!("web={many}")]).ok();
    manager.wait_for("web", "Running", many);
    // A task runs before its process is the shell.
    wait_until("all containers are there", || Flintd::containers(&marker).len() >= many);
    let (tasks, before) = (running(&manager), Flintd::containers(&marker));
    assert_eq!((tasks.len(), before.len()), (many, many));
    let once: BTreeMap<String, usize> = tasks.iter().map(|task| (task.clone(), 1)).collect();
    wait_until("each task has begun", || begun(&out).len() == many);
    assert_eq!(begun(&out), once);
    wait_until("logs of all come", || {
        manager.get(&["service", "logs", "--raw", "web"]).matches(secret).count() == many
    });
    let stored = fs::read(node.path().join("root/flintd.redb")).expect("read the store");
    assert!(!stored.windows(secret.len()).any(|window| window == secret.as_bytes()), "the secret is in the store");

    // flintd dies, and so does a container meanwhile: the others go on, and that one's status is told.
    node.kill();
    let victim = *before.first().expect("a container");
    kill_process(Pid::from_raw(victim).expect("a pid"), Signal::KILL).expect("kill a container");
    wait_until("it has ended", || !Flintd::containers(&marker).contains(&victim));
    node.launch();
    wait_until("the one that ended has a successor", || {
        let all = manager.tasks("web");
        let failed: Vec<_> = all.iter().filter(|task| task.state == "Failed").collect();
        failed.len() == 1 && failed[0].error.contains("(137)") && running(&manager).len() == many
    });
    wait_until("its container is there", || Flintd::containers(&marker).len() >= many);
    let after = Flintd::containers(&marker);
    assert_eq!(
        (after.len(), after.intersection(&before).count()),
        (many, many - 1),
        "the others are the same processes"
    );
    assert_eq!(running(&manager).intersection(&tasks).count(), many - 1, "and the same tasks");
    wait_until("the successor has begun", || begun(&out).len() == many + 1);
    assert!(begun(&out).values().all(|count| *count == 1), "a task was started twice: {:?}", begun(&out));

    let _ = manager.docker(&["service", "scale", "--detach", "web=1"]).ok();
    wait_until("one container is left", || Flintd::containers(&marker).len() == 1 && running(&manager).len() == 1);
    let _ = manager.docker(&["service", "rm", "web"]).ok();
    wait_until("no container is left", || Flintd::containers(&marker).is_empty());
    assert_eq!(begun(&out).len(), many + 1, "nothing else was started");
    node.assert_nothing_left();
    let _ = node.call(&["leave"]);
    manager.wait_node(node.id(), "down active");
}
