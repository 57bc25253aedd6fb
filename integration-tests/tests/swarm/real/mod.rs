//! flintd itself under real managers: real containers, looked at from the managers' side and from the host's.
//!
//! Each task's program writes its task's id into a file as it begins: who was started, and how often, is known by its own account.

mod fields;
mod life;
mod outages;
mod updates;

use std::collections::BTreeMap;
use std::fs;

use integration_tests::swarm::{Flintd, Manager};
use integration_tests::wait_until;

/// flintd as a worker, and what the programs of its tasks say.
pub(crate) struct Host {
    pub flintd: Flintd,
    marker: String,
}

impl Host {
    /// Starts flintd in the network namespace of a process and joins; None after a skip. Its engine label `rack` is `rack`.
    pub(crate) fn join(manager: &Manager, network: u32, rack: &str) -> Option<Self> {
        let mut flintd = Flintd::in_network(network, &format!("[labels]\nrack = {rack:?}\n"))?;
        flintd.join(manager);
        let marker = format!("{}mark", flintd.prefix());
        fs::create_dir(flintd.path().join("out")).expect("make a folder");
        Some(Self { flintd, marker })
    }

    /// Creates a service on this host alone, whose tasks run until they are told to end.
    #[track_caller]
    pub(crate) fn create(&self, manager: &Manager, name: &str, options: &[&str]) {
        let script = "trap 'exit 0' TERM; sleep 100000 & wait $!";
        let rack = format!("engine.labels.rack=={}", self.rack());
        self.create_of(manager, name, &[&["--constraint", &rack][..], options].concat(), Flintd::IMAGE, script);
    }

    /// The same with a script of its own, wherever the options say.
    #[track_caller]
    pub(crate) fn create_of(&self, manager: &Manager, name: &str, options: &[&str], image: &str, script: &str) {
        let mount = format!("type=bind,source={},target=/out", self.flintd.path().join("out").display());
        let options = [&["--mount", &mount, "--env", "TASK={{.Task.ID}}"], options].concat();
        let script = format!(": {}; echo $TASK >> /out/begun; {script}", self.marker);
        manager.create(name, &options, image, &["/bin/sh", "-c", &script]);
    }

    fn rack(&self) -> String {
        let text = fs::read_to_string(self.flintd.path().join("config.toml")).expect("read the configuration");
        text.rsplit('"').nth(1).expect("the label").to_owned()
    }

    /// How often each task's program has begun, by its own account.
    pub(crate) fn begun(&self) -> BTreeMap<String, usize> {
        let mut begun = BTreeMap::new();
        for task in fs::read_to_string(self.flintd.path().join("out/begun")).unwrap_or_default().lines() {
            *begun.entry(task.to_owned()).or_insert(0) += 1;
        }
        begun
    }

    /// How many containers each task has now.
    pub(crate) fn containers(&self) -> BTreeMap<String, usize> {
        let mut containers = BTreeMap::new();
        for pid in Flintd::containers(&self.marker) {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            if let Some(task) = variables.find_map(|variable| variable.strip_prefix("TASK=").map(str::to_owned)) {
                *containers.entry(task).or_insert(0) += 1;
            }
        }
        containers
    }

    /// Waits until a service has so many tasks that run, and just their containers are here, one each.
    #[track_caller]
    pub(crate) fn agree(&self, manager: &Manager, service: &str, count: usize) {
        manager.wait_for(service, "Running", count);
        let seen = || {
            let running = manager.tasks(service).into_iter().filter(|task| task.state == "Running");
            let running: BTreeMap<String, usize> = running.map(|task| (task.id, 1)).collect();
            (running, self.containers())
        };
        let mut last = (BTreeMap::new(), BTreeMap::new());
        let agreed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("both agree", || {
                last = seen();
                let begun = self.begun();
                last.0.len() == count && last.0 == last.1 && last.0.keys().all(|task| begun.contains_key(task))
            });
        }));
        assert!(agreed.is_ok(), "the manager shows {:#?}\nand the host has {:#?}", last.0, last.1);
    }

    /// Asserts that no task was started twice, that each that the manager calls running has begun, each that it calls over is over
    /// here, and each that it calls not yet started was not. For when nothing moves.
    #[track_caller]
    pub(crate) fn assert_true(&self, manager: &Manager, service: &str) {
        let begun = self.begun();
        assert!(begun.values().all(|count| *count == 1), "a task was started twice: {begun:#?}");
        // Looked at in this order, a task that goes on meanwhile was not yet where it is now.
        let tasks = manager.tasks(service);
        let containers = self.containers();
        for task in tasks {
            let lives = containers.contains_key(&task.id);
            let is_true = match task.state.as_str() {
                "Running" | "Starting" => begun.contains_key(&task.id),
                "Complete" | "Failed" | "Shutdown" | "Rejected" => !lives,
                "New" | "Pending" | "Assigned" => !begun.contains_key(&task.id),
                _ => true,
            };
            assert!(is_true, "the manager was told what is not so: {task:?}, container: {lives}");
        }
    }

    /// Removes a service, asserts that nothing of it is left, and leaves.
    #[track_caller]
    pub(crate) fn end(self, manager: &Manager, service: &str) {
        let _ = manager.docker(&["service", "rm", service]).ok();
        wait_until("no container is left", || self.containers().is_empty());
        self.flintd.assert_nothing_left();
        let _ = self.flintd.call(&["leave"]);
        manager.wait_node(self.flintd.id(), "down active");
    }
}

/// So many tasks have services that are scaled up (`FLINT_SWARM_TASKS`).
pub(crate) fn many() -> usize {
    std::env::var("FLINT_SWARM_TASKS").ok().and_then(|count| count.parse().ok()).unwrap_or(20)
}

/// Scales without waiting.
#[track_caller]
pub(crate) fn scale(manager: &Manager, service: &str, count: usize) {
    let _ = manager.docker(&["service", "scale", "--detach", &format!("{service}={count}")]).ok();
}
