//! A real dockerd of our own, with flint and runc as its runtimes.
//!
//! What was found out about Debian's 20.10 on a hybrid cgroup host: it starts with the v1 hierarchies as they are (cgroup
//! driver cgroupfs, "Cgroup Version: 1"), uses overlay2 on ext4, and makes its default bridge in a network namespace
//! of its own without help. It writes a key to /etc/docker whatever it is told (so [`Daemon`] covers that folder), starts a containerd
//! of its own under `--exec-root` when no system containerd listens in /run (hidden here by the private /run), and
//! keeps its data folder bind-mounted on itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::daemon::Shared;
use crate::leaks::cgroups_with;
use crate::process::becomes_true;
use crate::{Command, Daemon, Output, PtyRun, fill_rootfs, find_program, flint, new_prefix, processes_with};

/// The image that the tests run.
pub(crate) const IMAGE: &str = "flint-it-busybox";

static RUNNING: Shared<Dockerd> = Shared::new();

/// A private dockerd.
#[derive(Debug)]
pub struct Dockerd {
    // Fields are dropped in this order: the daemon must end before its folder goes.
    daemon: Daemon,
    client: PathBuf,
    socket: String,
    prefix: String,
    dir: TempDir,
    next: AtomicU32,
}

/// What `docker run` did.
#[derive(Debug)]
pub struct Reply {
    /// Output of the client.
    pub output: Output,
    /// The container's full id; empty when none was created.
    pub id: String,
}

impl Dockerd {
    /// The dockerd of this test binary, started if none runs.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        RUNNING.get(Self::start)
    }

    fn start() -> Self {
        let prefix = new_prefix();
        // A short path: unix sockets end at 108 bytes, and containerd's shims add to it.
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("make docker's folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(dir.path().join("daemon.json"), "{}").expect("write daemon.json");
        let program = find_program("dockerd").expect("dockerd");
        // Debian's client first: another one may be before it in PATH, and the daemon is Debian's.
        let client = Some(PathBuf::from("/usr/bin/docker")).filter(|path| path.exists());
        let client = client.or_else(|| find_program("docker")).expect("docker");
        let socket = format!("unix://{}", path("docker.sock"));
        let args = [
            "--config-file".into(),
            path("daemon.json"),
            "--data-root".into(),
            path("data"),
            "--exec-root".into(),
            path("exec"),
            "--pidfile".into(),
            path("pid"),
            "--host".into(),
            socket.clone(),
            "--cgroup-parent".into(),
            format!("/{prefix}docker"),
            "--add-runtime".into(),
            format!("flint={}", flint().path.display()),
            "--add-runtime".into(),
            format!("capture={}", capture_script(dir.path())),
        ];
        let mut daemon = Daemon::start(&program, &args, &prefix, dir.path());
        let probe = || client_command(&client, &socket, dir.path()).args(["version"]).output().code == 0;
        assert!(daemon.wait_ready(probe), "dockerd does not start:\n{}", daemon.log_tail());
        let docker = Self { daemon, client, socket, prefix, dir, next: AtomicU32::new(0) };
        docker.import_image();
        docker
    }

    fn import_image(&self) {
        let rootfs = self.dir.path().join("image");
        fill_rootfs(&rootfs);
        let tar = self.dir.path().join("image.tar");
        let _ = Command::new("tar")
            .args(["--owner=0", "--group=0", "-C"])
            .args([&rootfs])
            .args(["-cf"])
            .args([&tar])
            .args(["."])
            .output()
            .ok();
        let _ = self.command().args(["import"]).args([&tar]).args([IMAGE]).output().ok();
    }

    fn command(&self) -> Command {
        client_command(&self.client, &self.socket, self.dir.path())
    }

    /// The client with these arguments.
    #[track_caller]
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        self.command().args(args.iter().copied()).output()
    }

    /// `docker run --runtime R OPTIONS IMAGE PROGRAM`.
    #[track_caller]
    #[must_use]
    pub fn run(&self, runtime: &str, options: &[&str], program: &[&str]) -> Reply {
        let file = self.dir.path().join(format!("cid{}", self.next.fetch_add(1, Ordering::Relaxed)));
        let output = self
            .command()
            .args(["run", "--runtime", runtime, "--cidfile"])
            .args([&file])
            .args(options.iter().copied())
            .args([IMAGE])
            .args(program.iter().copied())
            .output();
        let id = std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
        Reply { output, id }
    }

    /// `docker run -d` of a shell that waits and ends on SIGTERM; its id.
    #[track_caller]
    #[must_use]
    pub fn forever(&self, runtime: &str, options: &[&str]) -> String {
        let mut all = vec!["--detach"];
        all.extend_from_slice(options);
        let script = "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done";
        let reply = self.run(runtime, &all, &["sh", "-c", script]);
        let _ = reply.output.ok();
        reply.id
    }

    /// The client on a terminal of 33 times 77.
    #[must_use]
    pub fn on_terminal(&self, args: &[&str]) -> PtyRun {
        let config = self.dir.path().join("client").display().to_string();
        let environment = [("DOCKER_HOST", self.socket.as_str()), ("DOCKER_CONFIG", &config), ("TERM", "xterm")];
        PtyRun::start(&self.client, args, &environment, 33, 77)
    }

    /// A value of `docker inspect`.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, id: &str, format: &str) -> String {
        self.call(&["inspect", "--format", format, id]).ok().stdout.trim().to_owned()
    }

    /// `docker rm -f`, then asserts that the container left nothing.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        let _ = self.call(&["rm", "--force", id]).ok();
        self.assert_gone(id);
    }

    /// Fails when a mount, cgroup, process or state of container `id` is left.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        assert!(!id.is_empty(), "docker made no container: {}", self.daemon.log_tail());
        let gone = becomes_true(|| self.left_of(id).is_empty());
        assert!(gone, "left of container {id}: {:?}", self.left_of(id));
    }

    fn left_of(&self, id: &str) -> Vec<String> {
        let mut left: Vec<String> = processes_with(id).iter().map(|pid| format!("process {pid}")).collect();
        left.extend(cgroups_with(id).iter().map(|dir| dir.display().to_string()));
        left.extend(self.daemon.mount_table().lines().filter(|line| line.contains(id)).map(str::to_owned));
        for runtime in ["flint", "runc", "capture"] {
            let state = self.dir.path().join(format!("exec/runtime-{runtime}/moby")).join(id);
            if state.exists() {
                left.push(state.display().to_string());
            }
        }
        left
    }

    /// The cgroup folder of container `id` in the v1 hierarchy of `controller`, or in v2's when there is none.
    #[must_use]
    pub fn cgroup(&self, controller: &str, id: &str) -> PathBuf {
        let all = cgroups_with(id);
        let found = all.iter().find(|dir| dir.starts_with(Path::new("/sys/fs/cgroup").join(controller)));
        found.or(all.first()).cloned().unwrap_or_default()
    }

    /// Where the `capture` runtime puts the config.json of container `id`.
    #[must_use]
    pub fn captured(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("captured-{id}.json"))
    }

    /// What all names of this daemon's things hold.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn client_command(client: &Path, socket: &str, dir: &Path) -> Command {
    Command::new(client).env("DOCKER_HOST", socket).env("DOCKER_CONFIG", dir.join("client"))
}

/// A runtime that keeps the config.json which docker generates, and is runc otherwise.
fn capture_script(dir: &Path) -> String {
    let path = dir.join("capture");
    let script = format!(
        "#!/bin/sh\nbundle=\nlast=\nfor argument; do\n  if [ \"$last\" = --bundle ]; then bundle=$argument; fi\n  \
         last=$argument\ndone\nif [ -n \"$bundle\" ]; then cp \"$bundle/config.json\" \"{}/captured-$last.json\"; fi\n\
         exec runc \"$@\"\n",
        dir.display()
    );
    std::fs::write(&path, script).expect("write the capturing runtime");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    path.display().to_string()
}
