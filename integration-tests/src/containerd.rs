//! A real containerd of our own, driven by `ctr`.
//!
//! Its cgroups are named `/<namespace>/<id>`, so the namespace is the prefix. The shim is containerd's own
//! (`containerd-shim-runc-v2`); it calls the program that `--runc-binary` names.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::daemon::Shared;
use crate::process::becomes_true;
use crate::{
    Command, Daemon, Layout, Output, Place, PtyRun, Running, Runtime, System, fill_rootfs, new_prefix, wait_until,
};

/// The image that the tests run.
pub(crate) const IMAGE: &str = "localhost/flint-it:busybox";

static RUNNING: [Shared<Containerd>; System::COUNT] = [const { Shared::new() }; System::COUNT];

/// What is left out: CRI, which wants a CNI configuration. Its names are those of 1.6 and of 2.
const WITHOUT_CRI: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \
                           \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n[debug]\n  level = \"trace\"\n";

/// A private containerd.
#[derive(Debug)]
pub struct Containerd {
    daemon: Daemon,
    address: String,
    namespace: String,
    command: Vec<String>,
}

impl Containerd {
    /// The machine's containerd of this test binary, started if none runs.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Self::shared_of(System::Host).expect("the machine's own is not skipped")
    }

    /// The same of any system; None after a skip.
    #[must_use]
    pub fn shared_of(system: System) -> Option<Arc<Self>> {
        RUNNING[system as usize].get_or_skip(|| Self::open(system, ""))
    }

    /// One that no other test has: it may be killed. None after a skip.
    #[must_use]
    pub fn of(system: System) -> Option<Self> {
        // A shim that a crash left without a task ends soon: tests have no minute.
        Self::open(system, "FLINT_SHIM_FORGOTTEN_AFTER=10")
    }

    fn open(system: System, environment: &str) -> Option<Self> {
        let place = Place::open(system, Layout::Host)?;
        // Namespaces may not end in a dash.
        let namespace = format!("{}ns", place.prefix());
        Some(Self::start(place, WITHOUT_CRI, &namespace, environment))
    }

    /// Starts it with a configuration, whose own addresses and folders are put in; `ctr` gets the namespace. Its PATH has the
    /// place's folder, too, where flint's shim is.
    pub(crate) fn start(place: Place, config: &str, namespace: &str, environment: &str) -> Self {
        let dir = place.path().to_owned();
        let path = |name: &str| dir.join(name).display().to_string();
        let address = path("containerd.sock");
        let (version, rest) = config.trim_start().split_once('\n').expect("a version and more");
        let config = format!(
            "{version}\nroot = \"{}\"\nstate = \"{}\"\n{rest}\n\
             [grpc]\n  address = \"{address}\"\n[ttrpc]\n  address = \"{address}.ttrpc\"\n",
            path("root"),
            path("state")
        );
        std::fs::write(dir.join("config.toml"), config).expect("write config.toml");
        let dir = dir.display();
        let script = format!("export PATH={dir}:$PATH {environment}; exec containerd --config={dir}/config.toml");
        let command = ["sh".to_owned(), "-c".to_owned(), script].to_vec();
        let daemon = Daemon::start(place, &command);
        let mut containerd = Self { daemon, address, namespace: namespace.to_owned(), command };
        containerd.wait_ready();
        containerd.import_image(IMAGE, &["sh"]);
        containerd
    }

    fn wait_ready(&mut self) {
        let (address, namespace) = (&self.address, &self.namespace);
        let probe = |place: &Place| {
            place.command("ctr").args(["--address", address, "--namespace", namespace, "task", "ls"]).output().code == 0
        };
        assert!(self.daemon.wait_ready(probe), "containerd does not start:\n{}", self.daemon.log_tail());
    }

    /// Ends it by SIGKILL, and nothing else: what it started goes on.
    pub fn crash(&mut self) {
        self.daemon.crash();
    }

    /// Starts it again after [`Self::crash`].
    pub fn restart(&mut self) {
        self.daemon.restart(&self.command);
        self.wait_ready();
    }

    /// All of its log, with the events that it took.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// Where it runs.
    #[must_use]
    pub const fn place(&self) -> &Place {
        self.daemon.place()
    }

    /// Imports an image of busybox that runs `program`.
    pub(crate) fn import_image(&self, name: &str, program: &[&str]) {
        let layout = self.place().path().join(format!("layout-{}", name.rsplit(':').next().unwrap_or_default()));
        write_image(&layout, name, program);
        let tar = layout.with_extension("tar");
        archive(&layout, &tar);
        let tar = tar.display().to_string();
        let _ = self.ctr(&["images", "import", &tar]).ok();
    }

    /// `ctr` in the tests' namespace.
    #[track_caller]
    #[must_use]
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.place().command("ctr").args(self.global()).args(args.iter().copied()).output()
    }

    /// `ctr` beside the test.
    #[track_caller]
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Running {
        self.place().command("ctr").args(self.global()).args(args.iter().copied()).spawn()
    }

    /// `ctr events`, from now on.
    #[track_caller]
    #[must_use]
    pub fn events(&self) -> Running {
        let events = self.spawn(&["events"]);
        // It says nothing until there is one: an event is made for it.
        let probe = self.id();
        wait_until("ctr events listens", || {
            let _ = self.ctr(&["namespaces", "label", &self.namespace, &format!("probe={probe}")]);
            !events.stdout().is_empty()
        });
        events
    }

    /// `ctr run --runc-binary R OPTIONS IMAGE ID PROGRAM`.
    #[track_caller]
    #[must_use]
    pub fn run(&self, runtime: &Runtime, options: &[&str], id: &str, program: &[&str]) -> Output {
        let binary = runtime.path.display().to_string();
        let mut args = vec!["run", "--runc-binary", &binary];
        args.extend_from_slice(options);
        args.extend([IMAGE, id]);
        args.extend_from_slice(program);
        self.ctr(&args)
    }

    /// `ctr` on a terminal of 33 times 77.
    #[must_use]
    pub fn on_terminal(&self, args: &[&str]) -> PtyRun {
        let global = self.global();
        let all: Vec<&str> =
            std::iter::once("ctr").chain(global.iter().map(String::as_str)).chain(args.iter().copied()).collect();
        self.place().on_terminal(&all, &[])
    }

    fn global(&self) -> [String; 4] {
        ["--address".into(), self.address.clone(), "--namespace".into(), self.namespace.clone()]
    }

    /// The path of its socket, inside and outside of its place.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The namespace of `ctr`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A container id that no other test has.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}ctr", new_prefix())
    }

    /// What `ctr task ls` says of container `id`'s task, `RUNNING` for one; empty when there is none.
    #[must_use]
    #[track_caller]
    pub fn task_status(&self, id: &str) -> String {
        let list = self.ctr(&["task", "ls"]).ok().stdout;
        let line = list.lines().find(|line| line.starts_with(id)).unwrap_or_default();
        line.split_whitespace().nth(2).unwrap_or_default().to_owned()
    }

    /// Fails when a mount, cgroup, process or state of container `id` is left.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        let gone = becomes_true(|| self.left_of(id).is_empty());
        assert!(gone, "left of container {id}: {:?}", self.left_of(id));
    }

    fn left_of(&self, id: &str) -> Vec<String> {
        let task = self.place().path().join("state/io.containerd.runtime.v2.task").join(&self.namespace).join(id);
        self.place().left_of(id, &[task.display().to_string()])
    }
}

/// Runs `ctr` until what its program wrote is whole. When a process ends, ctr stops reading before it has all (its Delete
/// cancels its copies), under every shim: on a busy machine the last lines are lost.
#[track_caller]
pub fn whole_output(mut run: impl FnMut() -> Output, is_whole: impl Fn(&str) -> bool) -> Output {
    for _ in 0..20 {
        let output = run();
        if is_whole(&output.stdout) {
            return output;
        }
    }
    panic!("its output is never whole")
}

fn archive(dir: &Path, tar: &Path) {
    let _ = Command::new("tar")
        .args(["--owner=0", "--group=0", "-C"])
        .args([dir])
        .args(["-cf"])
        .args([tar])
        .args(["."])
        .output()
        .ok();
}

/// Writes an OCI image layout of one layer.
fn write_image(layout: &Path, name: &str, program: &[&str]) {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("make the image's folder");
    let work = tempfile::tempdir().expect("make a folder");
    fill_rootfs(&work.path().join("rootfs"));
    let tar = work.path().join("layer.tar");
    archive(&work.path().join("rootfs"), &tar);
    let layer =
        add_blob(&blobs, &std::fs::read(&tar).expect("read the layer"), "application/vnd.oci.image.layer.v1.tar");
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": program, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}
    });
    let config = add_blob(&blobs, config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = add_blob(&blobs, manifest.to_string().as_bytes(), kind);
    manifest["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(layout.join("index.json"), index.to_string()).expect("write index.json");
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write oci-layout");
}

/// Stores a blob under its digest; its descriptor.
fn add_blob(blobs: &Path, bytes: &[u8], media_type: &str) -> Value {
    let sum = Command::new("sha256sum").input(bytes).output().ok().stdout;
    let hex = sum.split(' ').next().unwrap_or_default();
    std::fs::write(blobs.join(hex), bytes).expect("write a blob");
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
}
