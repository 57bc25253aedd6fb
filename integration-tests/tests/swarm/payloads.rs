//! Secrets, configs and logs.

use flintd::desired::VolumeSource;
use integration_tests::swarm::Manager;
use integration_tests::{System, wait_until};

use crate::worker::Worker;

#[test]
fn secrets_and_configs_come_as_files_and_are_nowhere_on_disk() {
    secrets_and_configs_come_as_files_and_are_nowhere_on_disk_under(System::Host);
}

pub(crate) fn secrets_and_configs_come_as_files_and_are_nowhere_on_disk_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let worker = Worker::join(&manager, "one");
    let make = |kind: &str, name: &str, content: &str| {
        let _ = manager.command().args([kind, "create", name, "-"]).input(content).output().ok();
    };
    make("secret", "key", "very-secret-content");
    make("config", "conf", "rather-public-content");
    let options =
        ["--secret", "source=key,target=key.pem,mode=0400,uid=7", "--config", "source=conf,target=/etc/app.conf"];
    manager.create("web", &options, "web", &[]);
    manager.wait_for("web", "Running", 1);
    let pod = worker.host.pod("web.").expect("the pod");
    let file = |path: &str| {
        let mount = pod.containers[0].mounts.iter().find(|mount| mount.path == path).expect("a mount");
        let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume).expect("its volume");
        let VolumeSource::Secret(items) = &volume.source else { panic!("not in memory: {volume:?}") };
        items.iter().find(|item| Some(&item.path) == mount.sub_path.as_ref()).expect("its file").clone()
    };
    let secret = file("/run/secrets/key.pem");
    assert_eq!((secret.content.as_slice(), secret.mode, secret.uid), (&b"very-secret-content"[..], 0o400, 7));
    assert_eq!(file("/etc/app.conf").content, b"rather-public-content");
    assert!(!worker.folder_holds("very-secret-content") && !worker.folder_holds("rather-public-content"));
}

#[test]
fn logs_are_read_and_followed() {
    logs_are_read_and_followed_under(System::Host);
}

pub(crate) fn logs_are_read_and_followed_under(system: System) {
    let Some(manager) = Manager::start(system) else { return };
    let _worker = Worker::join(&manager, "one");
    manager.create("web", &["--replicas", "2"], "web", &[]);
    manager.wait_for("web", "Running", 2);
    let lines = manager.get(&["service", "logs", "--raw", "web"]);
    assert_eq!(lines, "started\nstarted");
    assert_eq!(manager.get(&["service", "logs", "--raw", "--tail", "0", "web"]), "");
    let followed = manager.command().args(["service", "logs", "--raw", "--follow", "web"]).spawn();
    // Whole lines: a task also says "goes on 30".
    let told = || followed.stdout().lines().filter(|line| *line == "goes on 3").count();
    wait_until("lines of both tasks go on to come", || told() == 2);
    // A task that comes later is followed too.
    let _ = manager.docker(&["service", "scale", "--detach", "web=3"]).ok();
    wait_until("lines of a new task come", || told() == 3);
    drop(followed);
    assert_eq!(manager.get(&["service", "logs", "--raw", "--tail", "1", "web"]).lines().count(), 3);
}
