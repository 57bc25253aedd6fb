//! A real manager: dockerd in a place of its own, in a swarm of its own, drained.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::process::{becomes_true_in, patience};
use crate::{Command, Daemon, Layout, Output, Place, System, wait_until};

/// The bridge in the first manager's network namespace that others are connected with.
const BRIDGE: &str = "lan";

/// A dockerd that is a manager of a swarm.
#[derive(Debug)]
pub struct Manager {
    daemon: Daemon,
    command: Vec<String>,
    socket: String,
    ip: String,
}

/// A task, as `docker service ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// `SERVICE.SLOT`, with a mark where it is not the slot's last.
    pub name: String,
    /// Its state, in one word.
    pub state: String,
    /// What it should be.
    pub desired: String,
    /// Why it is not.
    pub error: String,
    /// Its ports of the host.
    pub ports: String,
}

impl Manager {
    /// Starts the first of a swarm; None after a skip.
    #[must_use]
    pub fn start(system: System) -> Option<Self> {
        Self::start_with(system, &[])
    }

    /// The same with more arguments for `docker swarm init`.
    #[must_use]
    pub fn start_with(system: System, init: &[&str]) -> Option<Self> {
        let place = Place::open(system, Layout::Host)?;
        let ip = address(1);
        for args in [
            &["link", "add", BRIDGE, "type", "bridge"][..],
            &["address", "add", &format!("{ip}/24"), "dev", BRIDGE],
            &["link", "set", BRIDGE, "up"],
        ] {
            let _ = place.command("ip").args(args.iter().copied()).output().ok();
        }
        let manager = Self::launch(place, ip);
        let _ = manager.docker(&[&["swarm", "init"][..], &manager.drained(), init].concat()).ok();
        Some(manager)
    }

    /// Starts one more, which joins the swarm of the first; `number` is its own, from 2 on. None after a skip.
    #[must_use]
    pub fn another(&self, number: u8) -> Option<Self> {
        let place = Place::open(self.daemon.place().system(), Layout::Host)?;
        self.connect(place.pid(), number);
        let manager = Self::launch(place, address(number));
        let token = self.get(&["swarm", "join-token", "--quiet", "manager"]);
        let first = self.address();
        let join = [&["swarm", "join", "--token", &token][..], &manager.drained(), &[&first]].concat();
        let joined = manager.docker(&join);
        // The client waits for twenty seconds; the daemon goes on.
        if joined.stderr.contains("will continue in the background") {
            wait_until("it is a manager", || manager.docker(&["node", "ls"]).code == 0);
        } else {
            let _ = joined.ok();
        }
        Some(manager)
    }

    fn launch(place: Place, ip: String) -> Self {
        let dir = place.path().to_owned();
        let path = |name: &str| dir.join(name).display().to_string();
        std::fs::write(dir.join("daemon.json"), "{}").expect("write daemon.json");
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
        Self { daemon, command, socket, ip }
    }

    /// What `docker swarm init` and `join` are told of it.
    fn drained(&self) -> [&str; 6] {
        ["--availability", "drain", "--advertise-addr", &self.ip, "--listen-addr", &self.ip]
    }

    /// Connects the network namespace of a process with the first manager's; its address there. `number` is its own, from 2 on.
    #[track_caller]
    pub fn connect(&self, pid: u32, number: u8) -> String {
        let (device, theirs, ip) = (format!("{BRIDGE}{number}"), pid.to_string(), address(number));
        let add = ["link", "add", &device, "master", BRIDGE, "up", "type", "veth", "peer", "name", "lan0", "netns"];
        ip_in(self.pid(), &[&add[..], &[&theirs]].concat());
        ip_in(pid, &["address", "add", &format!("{ip}/24"), "dev", "lan0"]);
        ip_in(pid, &["link", "set", "lan0", "up"]);
        ip
    }

    /// Cuts the connection of a number, or mends it.
    #[track_caller]
    pub fn cut(&self, number: u8, is_cut: bool) {
        ip_in(self.pid(), &["link", "set", &format!("{BRIDGE}{number}"), if is_cut { "down" } else { "up" }]);
    }

    /// Where it is for workers.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:2377", self.ip)
    }

    /// Where it runs.
    #[must_use]
    pub const fn place(&self) -> &Place {
        self.daemon.place()
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.place().path().join("docker.sock")
    }

    /// A pid in its network namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.place().pid()
    }

    /// The client with these arguments.
    #[track_caller]
    #[must_use]
    pub fn docker(&self, args: &[&str]) -> Output {
        self.command().args(args.iter().copied()).output()
    }

    /// The client, without arguments yet.
    #[must_use]
    pub fn command(&self) -> Command {
        client(self.daemon.place(), &self.socket)
    }

    /// Standard output of a call that must succeed.
    #[track_caller]
    #[must_use]
    pub fn get(&self, args: &[&str]) -> String {
        self.docker(args).ok().stdout.trim().to_owned()
    }

    /// The token for workers.
    #[must_use]
    pub fn token(&self) -> String {
        self.get(&["swarm", "join-token", "--quiet", "worker"])
    }

    /// Creates a service of `image` without waiting for its tasks.
    #[track_caller]
    pub fn create(&self, name: &str, options: &[&str], image: &str, program: &[&str]) {
        let mut args = vec!["service", "create", "--detach", "--no-resolve-image", "--name", name];
        args.extend(options);
        args.push(image);
        args.extend(program);
        let _ = self.docker(&args).ok();
    }

    /// Tasks of a service, those of before too.
    #[must_use]
    pub fn tasks(&self, service: &str) -> Vec<Task> {
        let format = "{{.ID}}\t{{.Name}}\t{{.CurrentState}}\t{{.DesiredState}}\t{{.Error}}\t{{.Ports}}";
        let output = self.docker(&["service", "ps", "--no-trunc", "--format", format, service]);
        output.stdout.lines().filter_map(task).collect()
    }

    /// How many tasks of a service are in each state.
    #[must_use]
    pub fn counts(&self, service: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for task in self.tasks(service) {
            *counts.entry(task.state).or_insert(0) += 1;
        }
        counts
    }

    /// Waits until so many tasks of a service are in a state.
    #[track_caller]
    pub fn wait_for(&self, service: &str, state: &str, count: usize) {
        let mut seen = Vec::new();
        let reached = becomes_true_in(patience() + Duration::from_secs(count as u64), || {
            seen = self.tasks(service);
            seen.iter().filter(|task| task.state == state).count() == count
        });
        assert!(reached, "not {count} tasks {state}: {seen:#?}\n{}", self.daemon.log_tail());
    }

    /// Waits until a service has so many tasks that run, of as many; without a list of them, which for thousands is a burden.
    #[track_caller]
    pub fn wait_all(&self, service: &str, count: usize) {
        let wanted = format!("{count}/{count}");
        let filter = format!("name={service}");
        let mut seen = String::new();
        let reached = becomes_true_in(patience() + Duration::from_secs(count as u64 / 2), || {
            seen = self.get(&["service", "ls", "--filter", &filter, "--format", "{{.Replicas}}"]);
            seen == wanted
        });
        assert!(reached, "{seen} tasks of {service} run, not {wanted}:\n{}", self.daemon.log_tail());
    }

    /// STATUS and AVAILABILITY of a node.
    #[must_use]
    pub fn node(&self, id: &str) -> String {
        self.inspect_node(id).ok().stdout.trim().to_owned()
    }

    fn inspect_node(&self, id: &str) -> Output {
        self.docker(&["node", "inspect", "--format", "{{.Status.State}} {{.Spec.Availability}}", id])
    }

    /// Waits until a node has a STATUS and AVAILABILITY.
    #[track_caller]
    pub fn wait_node(&self, id: &str, status: &str) {
        wait_until(&format!("the node is {status}"), || {
            // While managers choose a leader none answers.
            let told = self.inspect_node(id);
            told.code == 0 && told.stdout.trim() == status
        });
    }

    /// Kills it.
    pub fn crash(&mut self) {
        self.daemon.crash();
    }

    /// Starts it again.
    pub fn restart(&mut self) {
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

fn address(number: u8) -> String {
    format!("10.213.0.{number}")
}

/// `ip` in the network namespace of a process.
#[track_caller]
fn ip_in(pid: u32, args: &[&str]) {
    let network = format!("--net=/proc/{pid}/ns/net");
    let _ = Command::new("nsenter").args([network.as_str(), "--", "ip"]).args(args.iter().copied()).output().ok();
}

fn client(place: &Place, socket: &str) -> Command {
    place.command("docker").env("DOCKER_HOST", socket).env("DOCKER_CONFIG", place.path().join("client"))
}
