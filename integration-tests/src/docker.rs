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

use serde_json::json;

use crate::daemon::Shared;
use crate::process::becomes_true;
use crate::{Command, Daemon, Layout, Output, Place, PtyRun, System, fill_rootfs};

/// The image that the tests run.
pub(crate) const IMAGE: &str = "flint-it-busybox";

static RUNNING: [Shared<Dockerd>; System::COUNT] = [const { Shared::new() }; System::COUNT];

/// A private dockerd.
#[derive(Debug)]
pub struct Dockerd {
    daemon: Daemon,
    socket: String,
    next: AtomicU32,
}

/// How a daemon of one's own differs from the shared one.
#[derive(Clone, Copy, Debug, Default)]
pub struct DockerdOptions {
    /// `runc` in the daemon's PATH is flint: its builders know no other name.
    pub runc_is_flint: bool,
    /// `--userns-remap` to 65536 ids from 700000 on.
    pub remapped: bool,
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
    /// The machine's dockerd of this test binary, started if none runs.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Self::shared_of(System::Host).expect("the machine's own is not skipped")
    }

    /// The same of any system; None after a skip.
    #[must_use]
    pub fn shared_of(system: System) -> Option<Arc<Self>> {
        RUNNING[system as usize].get_or_skip(|| Self::of(system, DockerdOptions::default()))
    }

    /// One that no other test has; None after a skip.
    #[must_use]
    pub fn of(system: System, options: DockerdOptions) -> Option<Self> {
        Some(Self::start(Place::open(system, Layout::Host)?, options))
    }

    fn start(place: Place, options: DockerdOptions) -> Self {
        // A short path: unix sockets end at 108 bytes, and containerd's shims add to it.
        let dir = place.path().to_owned();
        let path = |name: &str| dir.join(name).display().to_string();
        // Shims by their path: dockerd 23 and later; before, the word is an error.
        let shim = (place.system() == System::Sid).then(|| path("containerd-shim-flint-v1"));
        let runtimes =
            shim.map_or_else(|| json!({}), |shim| json!({"runtimes": {"flint-shim": {"runtimeType": shim}}}));
        std::fs::write(dir.join("daemon.json"), runtimes.to_string()).expect("write daemon.json");
        let socket = format!("unix://{}", path("docker.sock"));
        let mut args = vec![
            "dockerd".into(),
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
            format!("/{}docker", place.prefix()),
            // For checkpoints.
            "--experimental".into(),
            "--add-runtime".into(),
            format!("flint={}", place.flint().display()),
            "--add-runtime".into(),
            format!("capture={}", capture_script(&dir)),
        ];
        if options.remapped {
            place.give_id_ranges("nobody", 65536);
            args.extend(["--userns-remap".into(), "nobody:nogroup".into()]);
        }
        if options.runc_is_flint {
            let folder = dir.join("as-runc");
            std::fs::create_dir(&folder).expect("make a folder");
            crate::copy_program(&place.flint(), &folder.join("runc"));
            let script = format!("PATH={}:$PATH exec \"$@\"", folder.display());
            args.splice(0..0, ["sh".into(), "-c".into(), script, "sh".into()]);
        }
        let mut daemon = Daemon::start(place, &args);
        let ready = daemon.wait_ready(|place| client(place, &socket).args(["version"]).output().code == 0);
        assert!(ready, "dockerd does not start:\n{}", daemon.log_tail());
        let docker = Self { daemon, socket, next: AtomicU32::new(0) };
        docker.import_image();
        docker
    }

    fn import_image(&self) {
        let rootfs = self.dir().join("image");
        fill_rootfs(&rootfs);
        let tar = self.dir().join("image.tar");
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

    /// The client, without arguments yet.
    #[must_use]
    pub fn command(&self) -> Command {
        client(self.place(), &self.socket)
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
        let file = self.dir().join(format!("cid{}", self.next.fetch_add(1, Ordering::Relaxed)));
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

    /// `docker run -d` of a shell that waits and ends with 7 on SIGTERM; its id.
    #[track_caller]
    #[must_use]
    pub fn forever(&self, runtime: &str, options: &[&str]) -> String {
        let mut all = vec!["--detach"];
        all.extend_from_slice(options);
        let script = "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done";
        let reply = self.run(runtime, &all, &["sh", "-c", script]);
        let _ = reply.output.ok();
        // Only then the trap is set.
        let up = becomes_true(|| self.ups(&reply.id) > 0);
        assert!(up, "the container {} never printed", reply.id);
        reply.id
    }

    /// How often the shell of [`Self::forever`] has set its trap: once after each start.
    #[track_caller]
    #[must_use]
    pub fn ups(&self, id: &str) -> usize {
        self.call(&["logs", id]).stdout.matches("up").count()
    }

    /// The client on a terminal of 33 times 77.
    #[must_use]
    pub fn on_terminal(&self, args: &[&str]) -> PtyRun {
        let config = self.dir().join("client").display().to_string();
        let environment = [("DOCKER_HOST", self.socket.as_str()), ("DOCKER_CONFIG", &config)];
        let all: Vec<&str> = std::iter::once("docker").chain(args.iter().copied()).collect();
        self.place().on_terminal(&all, &environment)
    }

    fn dir(&self) -> &Path {
        self.place().path()
    }

    /// Where it runs.
    #[must_use]
    pub const fn place(&self) -> &Place {
        self.daemon.place()
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
        let state = |runtime| self.dir().join(format!("exec/runtime-{runtime}/moby/{id}")).display().to_string();
        self.place().left_of(id, &["flint", "runc", "capture"].map(state))
    }

    /// Where the `capture` runtime puts the config.json of container `id`.
    #[must_use]
    pub fn captured(&self, id: &str) -> PathBuf {
        self.dir().join(format!("captured-{id}.json"))
    }

    /// What clients have as `DOCKER_HOST`.
    #[must_use]
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// What all names of this daemon's things hold.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.place().prefix()
    }
}

fn client(place: &Place, socket: &str) -> Command {
    place.command("docker").env("DOCKER_HOST", socket).env("DOCKER_CONFIG", place.path().join("client"))
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
    crate::write_program(&path, script);
    path.display().to_string()
}
