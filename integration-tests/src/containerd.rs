//! A real containerd of our own, driven by `ctr`.
//!
//! Its cgroups are named `/<namespace>/<id>`, so the namespace is the prefix. The shim is containerd's own
//! (`containerd-shim-runc-v2`); it calls the program that `--runc-binary` names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::Shared;
use crate::leaks::cgroups_with;
use crate::process::becomes_true;
use crate::{Command, Daemon, Output, PtyRun, Runtime, fill_rootfs, find_program, new_prefix, processes_with};

/// The image that the tests run.
pub(crate) const IMAGE: &str = "localhost/flint-it:busybox";

static RUNNING: Shared<Containerd> = Shared::new();

/// A private containerd.
#[derive(Debug)]
pub struct Containerd {
    // Fields are dropped in this order: the daemon must end before its folder goes.
    daemon: Daemon,
    address: String,
    prefix: String,
    dir: TempDir,
}

impl Containerd {
    /// The containerd of this test binary, started if none runs.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        RUNNING.get(Self::start)
    }

    fn start() -> Self {
        let prefix = new_prefix();
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("make containerd's folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let address = path("containerd.sock");
        // CRI wants a CNI configuration and is not used.
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = \"{address}\"\n[ttrpc]\n  address = \"{address}.ttrpc\"\n",
            path("root"),
            path("state")
        );
        std::fs::write(dir.path().join("config.toml"), config).expect("write config.toml");
        let program = find_program("containerd").expect("containerd");
        let mut daemon = Daemon::start(&program, &["--config".into(), path("config.toml")], &prefix, dir.path());
        let probe = || Command::new("ctr").args(["--address", &address, "version"]).output().code == 0;
        assert!(daemon.wait_ready(probe), "containerd does not start:\n{}", daemon.log_tail());
        let containerd = Self { daemon, address, prefix, dir };
        containerd.import_image();
        containerd
    }

    fn import_image(&self) {
        let layout = self.dir.path().join("layout");
        write_image(&layout);
        let tar = self.dir.path().join("image.tar");
        archive(&layout, &tar);
        let tar = tar.display().to_string();
        let _ = self.ctr(&["images", "import", &tar]).ok();
    }

    /// `ctr` in the tests' namespace.
    #[track_caller]
    #[must_use]
    pub fn ctr(&self, args: &[&str]) -> Output {
        Command::new("nsenter").args(self.global()).args(args.iter().copied()).output()
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
        let nsenter = find_program("nsenter").expect("nsenter");
        let global = self.global();
        let all: Vec<&str> = global.iter().map(String::as_str).chain(args.iter().copied()).collect();
        PtyRun::start(&nsenter, &all, &[("TERM", "xterm")], 33, 77)
    }

    /// ctr itself also keeps fifos in /run/containerd, so it must see the daemon's /run.
    fn global(&self) -> [String; 6] {
        let mount = format!("--mount=/proc/{}/ns/mnt", self.daemon.pid());
        // Namespaces may not end in a dash.
        let namespace = format!("{}ns", self.prefix);
        [mount, "ctr".into(), "--address".into(), self.address.clone(), "--namespace".into(), namespace]
    }

    /// A container id that no other test has.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}ctr", new_prefix())
    }

    /// The cgroup folder of container `id` in the v1 hierarchy of `controller`, or in v2's when there is none.
    #[must_use]
    pub fn cgroup(&self, controller: &str, id: &str) -> PathBuf {
        let all = cgroups_with(id);
        let found = all.iter().find(|dir| dir.starts_with(Path::new("/sys/fs/cgroup").join(controller)));
        found.or(all.first()).cloned().unwrap_or_default()
    }

    /// Fails when a mount, cgroup, process or state of container `id` is left.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        let gone = becomes_true(|| self.left_of(id).is_empty());
        assert!(gone, "left of container {id}: {:?}", self.left_of(id));
    }

    fn left_of(&self, id: &str) -> Vec<String> {
        let mut left: Vec<String> = processes_with(id).iter().map(|pid| format!("process {pid}")).collect();
        left.extend(cgroups_with(id).iter().map(|dir| dir.display().to_string()));
        left.extend(self.daemon.mount_table().lines().filter(|line| line.contains(id)).map(str::to_owned));
        let namespace = format!("{}ns", self.prefix);
        let task = self.dir.path().join("state/io.containerd.runtime.v2.task").join(&namespace).join(id);
        left.extend(task.exists().then(|| task.display().to_string()));
        left
    }
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
fn write_image(layout: &Path) {
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
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}
    });
    let config = add_blob(&blobs, config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = add_blob(&blobs, manifest.to_string().as_bytes(), kind);
    manifest["annotations"] =
        json!({"io.containerd.image.name": IMAGE, "org.opencontainers.image.ref.name": "busybox"});
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
