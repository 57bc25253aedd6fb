//! flintd itself under a real manager: real containers, looked at from the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use integration_tests::{
    Bundler, Command, Leaks, System, find_program, new_prefix, processes_with, shim_program, skip, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::manager::Manager;

const IMAGE: &str = "tests/busybox:1";

/// flintd in the manager's network, and what it needs.
struct Node {
    flintd: PathBuf,
    shim: PathBuf,
    bundler: Bundler,
    daemon: Option<Child>,
    leaks: Leaks,
    network: u32,
    prefix: String,
    id: String,
}

/// That of `FLINT_DIST`, else the newest build; None after a skip.
fn program(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let dist = std::env::var_os("FLINT_DIST").map(|dist| Path::new(&dist).join(name));
    let builds = [target.join("dist").join(name), target.join("debug").join(name)];
    let found = dist.into_iter().chain(builds).find(|path| path.exists());
    if found.is_none() {
        skip(&format!("no {name}: build it with `cargo xtask dist`"));
    }
    found?.canonicalize().ok()
}

impl Node {
    fn join(manager: &Manager) -> Option<Self> {
        let (flintd, shim, busybox) = (program("flintd")?, shim_program()?, find_program("busybox")?);
        let bundler = Bundler::new()?;
        let prefix = new_prefix();
        let leaks = Leaks::watch(&prefix, &bundler.path().join("run/state").join(format!("{prefix}ns")));
        let network = manager.pid();
        let mut node = Self { flintd, shim, bundler, daemon: None, leaks, network, prefix, id: String::new() };
        node.import(&busybox);
        node.configure();
        node.launch();
        let joined = node.call(&["join", "--token", &manager.token(), &Manager::address()]);
        let words: Vec<&str> = joined.split_whitespace().collect();
        (*words.last().expect("an id")).clone_into(&mut node.id);
        manager.wait_node(&node.id, "ready active");
        Some(node)
    }

    fn import(&self, busybox: &Path) {
        let rootfs = self.bundler.path().join("rootfs");
        fs::create_dir_all(rootfs.join("bin")).expect("make the rootfs");
        fs::copy(busybox, rootfs.join("bin/busybox")).expect("copy busybox");
        for applet in ["sh", "sleep", "cat", "echo", "true", "false"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
        }
        let _ = self.bundler.call(["import", &rootfs.display().to_string(), IMAGE]).ok();
    }

    fn configure(&self) {
        let folder = self.bundler.path().display();
        fs::create_dir_all(self.bundler.path().join("manifests")).expect("make the folder of manifests");
        // How full this machine's own disk is must not count.
        let disks = "{\"nodefs.available\" = \"0%\", \"nodefs.inodesFree\" = \"0%\", \
                     \"imagefs.available\" = \"0%\", \"imagefs.inodesFree\" = \"0%\"}";
        let text = format!(
            "root = \"{folder}/root\"\nrun = \"{folder}/run\"\nsocket = \"{folder}/run/flintd.sock\"\n\
             manifests = \"{folder}/manifests\"\nshim = \"{}\"\nnamespace = \"{}ns\"\n\
             eviction.hard = {disks}\n[images]\nstore = \"{folder}/store\"\n[network]\nname = \"fs{}\"\n[labels]\nrack = \"real\"\n",
            self.shim.display(),
            self.prefix,
            std::process::id() % 100_000,
        );
        fs::write(self.config(), text).expect("write the configuration");
    }

    fn config(&self) -> PathBuf {
        self.bundler.path().join("config.toml")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bundler.path().join("flintd.log")).unwrap_or_default()
    }

    fn in_network(&self) -> [String; 4] {
        let network = format!("--net=/proc/{}/ns/net", self.network);
        [network, "--".into(), self.flintd.display().to_string(), format!("--config={}", self.config().display())]
    }

    /// Starts flintd, and waits until it is there.
    fn launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.bundler.path().join("flintd.log"));
        let log = log.expect("open flintd's log");
        let before = self.log().matches("flintd takes pods").count();
        let child = std::process::Command::new("nsenter")
            .args(self.in_network())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("start flintd");
        self.daemon = Some(child);
        wait_until("flintd is there", || self.log().matches("flintd takes pods").count() > before);
    }

    /// SIGKILL.
    fn kill(&mut self) {
        let mut child = self.daemon.take().expect("flintd runs");
        kill_process(Pid::from_child(&child), Signal::KILL).expect("kill flintd");
        let _ = child.wait();
    }

    /// `flintd SUBCOMMAND`.
    #[track_caller]
    fn call(&self, args: &[&str]) -> String {
        Command::new("nsenter").args(self.in_network()).args(args.iter().copied()).output().ok().stdout
    }

    /// The first processes of all containers of this node.
    fn containers(marker: &str) -> BTreeSet<i32> {
        let is_init = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"/bin/sh\0-c\0")
        };
        processes_with(marker).into_iter().filter(is_init).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("flintd's log:\n{}", self.log());
        }
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        integration_tests::sweep(&self.prefix);
    }
}

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
    let Some(mut node) = Node::join(&manager) else { return };
    let (out, marker, secret) =
        (node.bundler.path().join("out"), format!("{}mark", node.prefix), "very-secret-content");
    fs::create_dir(&out).expect("make a folder");
    let _ = manager.command().args(["secret", "create", "key", "-"]).input(secret).output().ok();
    let mount = format!("type=bind,source={},target=/out", out.display());
    let options = ["--replicas", "2", "--secret", "key", "--constraint", "engine.labels.rack==real"];
    let options = [&options[..], &["--mount", &mount, "--env", "TASK={{.Task.ID}}"]].concat();
    let script = format!(
        ": {marker}; echo $TASK >> /out/begun; cat /run/secrets/key; echo; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    );
    manager.create("web", &options, IMAGE, &["/bin/sh", "-c", &script]);
    manager.wait_for("web", "Running", 2);
    let many = many();
    let _ = manager.docker(&["service", "scale", "--detach", &format!("web={many}")]).ok();
    manager.wait_for("web", "Running", many);
    let (tasks, before) = (running(&manager), Node::containers(&marker));
    assert_eq!((tasks.len(), before.len()), (many, many));
    let once: BTreeMap<String, usize> = tasks.iter().map(|task| (task.clone(), 1)).collect();
    wait_until("each task has begun", || begun(&out).len() == many);
    assert_eq!(begun(&out), once);
    wait_until("logs of all come", || {
        manager.get(&["service", "logs", "--raw", "web"]).matches(secret).count() == many
    });
    let stored = fs::read(node.bundler.path().join("root/flintd.redb")).expect("read the store");
    assert!(!stored.windows(secret.len()).any(|window| window == secret.as_bytes()), "the secret is in the store");

    // flintd dies, and so does a container meanwhile: the others go on, and that one's status is told.
    node.kill();
    let victim = *before.first().expect("a container");
    kill_process(Pid::from_raw(victim).expect("a pid"), Signal::KILL).expect("kill a container");
    wait_until("it has ended", || !Node::containers(&marker).contains(&victim));
    node.launch();
    wait_until("the one that ended has a successor", || {
        let all = manager.tasks("web");
        let failed: Vec<_> = all.iter().filter(|task| task.state == "Failed").collect();
        failed.len() == 1 && failed[0].error.contains("(137)") && running(&manager).len() == many
    });
    let after = Node::containers(&marker);
    assert_eq!(
        (after.len(), after.intersection(&before).count()),
        (many, many - 1),
        "the others are the same processes"
    );
    assert_eq!(running(&manager).intersection(&tasks).count(), many - 1, "and the same tasks");
    wait_until("the successor has begun", || begun(&out).len() == many + 1);
    assert!(begun(&out).values().all(|count| *count == 1), "a task was started twice: {:?}", begun(&out));

    let _ = manager.docker(&["service", "scale", "--detach", "web=1"]).ok();
    wait_until("one container is left", || Node::containers(&marker).len() == 1 && running(&manager).len() == 1);
    let _ = manager.docker(&["service", "rm", "web"]).ok();
    wait_until("no container is left", || Node::containers(&marker).is_empty());
    assert_eq!(begun(&out).len(), many + 1, "nothing else was started");
    node.leaks.assert_none();
    let _ = node.call(&["leave"]);
    manager.wait_node(&node.id, "down active");
}
