//! A real manager: dockerd in a place of its own, with a swarm of its own, drained.

use std::collections::BTreeMap;

use integration_tests::{Command, Daemon, Layout, Output, Place, System, wait_until};

/// The manager's address; on the loopback of its own network namespace.
pub(crate) const ADDRESS: &str = "10.213.0.1";

/// A dockerd that is the one manager of a swarm.
pub(crate) struct Manager {
    daemon: Daemon,
    command: Vec<String>,
    socket: String,
}

/// A task, as `docker service ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub id: String,
    pub name: String,
    pub state: String,
    pub desired: String,
    pub error: String,
    pub ports: String,
}

impl Manager {
    /// Starts one; None after a skip.
    pub(crate) fn start(system: System) -> Option<Self> {
        Self::start_with(system, &[])
    }

    /// The same with more arguments for `docker swarm init`.
    pub(crate) fn start_with(system: System, init: &[&str]) -> Option<Self> {
        let place = Place::open(system, Layout::Host)?;
        let dir = place.path().to_owned();
        let path = |name: &str| dir.join(name).display().to_string();
        std::fs::write(dir.join("daemon.json"), "{}").expect("write daemon.json");
        let _ = place.command("ip").args(["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]).output().ok();
        let socket = format!("unix://{}", path("docker.sock"));
        let command = [
            "dockerd",
            "--config-file",
            &path("daemon.json"),
            "--data-root",
            &path("data"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("pid"),
            "--host",
            &socket,
            "--bridge",
            "none",
            "--iptables=false",
            "--cgroup-parent",
            &format!("/{}docker", place.prefix()),
        ]
        .map(str::to_owned)
        .to_vec();
        let mut daemon = Daemon::start(place, &command);
        let ready = daemon.wait_ready(|place| client(place, &socket).args(["version"]).output().code == 0);
        assert!(ready, "dockerd does not start:\n{}", daemon.log_tail());
        let manager = Self { daemon, command, socket };
        let address = format!("{ADDRESS}:2377");
        let mut args =
            vec!["swarm", "init", "--availability", "drain", "--advertise-addr", ADDRESS, "--listen-addr", &address];
        args.extend(init);
        let _ = manager.docker(&args).ok();
        Some(manager)
    }

    /// Where it is for workers.
    pub(crate) fn address() -> String {
        format!("{ADDRESS}:2377")
    }

    /// A pid in its network namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.place().pid()
    }

    pub(crate) fn docker(&self, args: &[&str]) -> Output {
        self.command().args(args.iter().copied()).output()
    }

    pub(crate) fn command(&self) -> Command {
        client(self.daemon.place(), &self.socket)
    }

    /// Standard output of a call that must succeed.
    #[track_caller]
    pub(crate) fn get(&self, args: &[&str]) -> String {
        self.docker(args).ok().stdout.trim().to_owned()
    }

    /// The token for workers.
    pub(crate) fn token(&self) -> String {
        self.get(&["swarm", "join-token", "--quiet", "worker"])
    }

    /// Creates a service of `image` without waiting for its tasks.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, options: &[&str], image: &str, program: &[&str]) {
        let mut args = vec!["service", "create", "--detach", "--no-resolve-image", "--name", name];
        args.extend(options);
        args.push(image);
        args.extend(program);
        let _ = self.docker(&args).ok();
    }

    /// Tasks of a service, those of before too.
    pub(crate) fn tasks(&self, service: &str) -> Vec<Task> {
        let format = "{{.ID}}\t{{.Name}}\t{{.CurrentState}}\t{{.DesiredState}}\t{{.Error}}\t{{.Ports}}";
        let output = self.docker(&["service", "ps", "--no-trunc", "--format", format, service]);
        output.stdout.lines().filter_map(task).collect()
    }

    /// How many tasks of a service are in each state.
    pub(crate) fn counts(&self, service: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for task in self.tasks(service) {
            *counts.entry(task.state).or_insert(0) += 1;
        }
        counts
    }

    /// Waits until so many tasks of a service are in a state.
    #[track_caller]
    pub(crate) fn wait_for(&self, service: &str, state: &str, count: usize) {
        let mut seen = Vec::new();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::time::Instant::now() < deadline {
            seen = self.tasks(service);
            if seen.iter().filter(|task| task.state == state).count() == count {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("not {count} tasks {state}: {seen:#?}\n{}", self.daemon.log_tail());
    }

    /// STATUS and AVAILABILITY of a node.
    pub(crate) fn node(&self, id: &str) -> String {
        self.get(&["node", "inspect", "--format", "{{.Status.State}} {{.Spec.Availability}}", id])
    }

    #[track_caller]
    pub(crate) fn wait_node(&self, id: &str, status: &str) {
        wait_until(&format!("the node is {status}"), || self.node(id) == status);
    }

    /// Kills it.
    pub(crate) fn crash(&mut self) {
        self.daemon.crash();
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        let _ = std::fs::remove_file(self.daemon.place().path().join("pid"));
        self.daemon.restart(&self.command);
        let socket = self.socket.clone();
        let ready = self.daemon.wait_ready(|place| client(place, &socket).args(["node", "ls"]).output().code == 0);
        assert!(ready, "dockerd does not start again:\n{}", self.daemon.log_tail());
    }
}

fn task(line: &str) -> Option<Task> {
    let mut parts = line.split('\t').map(|part| part.trim().to_owned());
    let mut next = || parts.next().unwrap_or_default();
    let (id, name, state) = (next(), next(), next());
    // "Running 3 seconds ago"
    let state = state.split(' ').next()?.to_owned();
    Some(Task { id, name, state, desired: next(), error: next(), ports: next() })
}

fn client(place: &Place, socket: &str) -> Command {
    place.command("docker").env("DOCKER_HOST", socket).env("DOCKER_CONFIG", place.path().join("client"))
}
