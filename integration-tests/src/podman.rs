//! podman in a place of its own, with flint and runc as its runtimes.
//!
//! podman has no daemon: each call runs in the [`Place`], and a conmon for each container stays between the calls. Its
//! configuration comes by `CONTAINERS_CONF`; storage, locks and state stand in the place's private folders.

use std::path::PathBuf;
use std::sync::Arc;

use crate::daemon::Shared;
use crate::process::becomes_true;
use crate::{Command, Layout, Output, Place, PtyRun, System, fill_rootfs, wait_until};

/// The image that the tests run.
pub(crate) const IMAGE: &str = "localhost/flint-it-busybox";

static RUNNING: [Shared<Podman>; System::COUNT] = [const { Shared::new() }; System::COUNT];

/// podman and its storage.
#[derive(Debug)]
pub struct Podman {
    place: Place,
}

impl Podman {
    /// The podman of this test binary; None after a skip. All ask for one layout.
    #[must_use]
    pub fn shared(system: System, layout: Layout) -> Option<Arc<Self>> {
        RUNNING[system as usize].get_or_skip(|| Self::start(system, layout))
    }

    fn start(system: System, layout: Layout) -> Option<Self> {
        let place = Place::open(system, layout)?;
        let dir = place.path();
        // The hard limit that podman would ask for may be above the host's, and may not be raised everywhere.
        let config = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1000:1000\", \"nproc=4000:4000\"]\nlog_driver = \"k8s-file\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             runtime_supports_json = [\"flint\", \"runc\", \"crun\"]\n\
             [engine.runtimes]\nflint = [\"{}\"]\n[network]\nnetwork_backend = \"netavark\"\n",
            place.flint().display()
        );
        std::fs::write(dir.join("containers.conf"), config).expect("write containers.conf");
        let podman = Self { place };
        podman.import_image();
        Some(podman)
    }

    fn import_image(&self) {
        let dir = self.place.path();
        fill_rootfs(&dir.join("image"));
        let tar = dir.join("image.tar");
        let _ = Command::new("tar")
            .args(["--owner=0", "--group=0", "-C"])
            .args([dir.join("image")])
            .args(["-cf"])
            .args([&tar])
            .args(["."])
            .output()
            .ok();
        let _ = self.command().args(["import", "--change", "ENV PATH=/bin"]).args([&tar]).args([IMAGE]).output().ok();
    }

    fn config(&self) -> PathBuf {
        self.place.path().join("containers.conf")
    }

    /// podman, without arguments yet.
    ///
    /// It lives for a twentieth of a second, an eighth of which went into collecting garbage.
    #[must_use]
    pub fn command(&self) -> Command {
        let podman = self.place.command("podman").env("CONTAINERS_CONF", self.config());
        podman.env("GOGC", "off").env("GOMEMLIMIT", "200MiB")
    }

    /// podman with these arguments.
    #[track_caller]
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        self.command().args(args.iter().copied()).output()
    }

    /// `podman run` with the tests' cgroup parent and a name; the name and what it printed.
    #[track_caller]
    #[must_use]
    pub fn run(&self, runtime: &str, options: &[&str], program: &[&str]) -> (String, Output) {
        let name = self.place.name();
        let parent = self.parent();
        let output = self
            .command()
            .args(["--runtime", runtime, "run", "--name", &name, "--cgroup-parent", &parent])
            .args(options.iter().copied())
            .args([IMAGE])
            .args(program.iter().copied())
            .output();
        (name, output)
    }

    /// What is passed as `--cgroup-parent`.
    #[must_use]
    pub fn parent(&self) -> String {
        format!("/{}podman", self.place.prefix())
    }

    /// `podman run -d` of a shell that waits and ends with 7 on SIGTERM; its id.
    #[track_caller]
    #[must_use]
    pub fn forever(&self, runtime: &str, options: &[&str]) -> String {
        let mut all = vec!["--detach"];
        all.extend_from_slice(options);
        let script = "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done";
        let (_, output) = self.run(runtime, &all, &["sh", "-c", script]);
        let id = output.ok().stdout.trim().to_owned();
        // Only then the trap is set.
        let up = becomes_true(|| self.call(&["logs", &id]).stdout.contains("up"));
        assert!(up, "the container {id} never printed");
        id
    }

    /// podman on a terminal of 33 times 77.
    #[must_use]
    pub fn on_terminal(&self, args: &[&str]) -> PtyRun {
        let config = self.config().display().to_string();
        let mut all = vec!["podman"];
        all.extend_from_slice(args);
        self.place.on_terminal(&all, &[("CONTAINERS_CONF", &config)])
    }

    /// A value of `podman inspect`.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, id: &str, format: &str) -> String {
        self.call(&["inspect", "--format", format, id]).ok().stdout.trim().to_owned()
    }

    /// Waits until the container's status is this.
    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        let reached = becomes_true(|| self.inspect(id, "{{.State.Status}}") == status);
        assert!(reached, "{id} is {}, not {status}", self.inspect(id, "{{.State.Status}}"));
    }

    /// `podman rm -f`, then asserts that the container left nothing.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        let full = self.inspect(id, "{{.Id}}");
        remove_by_force(|args| self.call(args), id);
        self.assert_gone(&full);
    }

    /// Fails when a process (conmon's too), cgroup, mount or state of a container is left.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        assert!(!id.is_empty(), "no id");
        let files = ["flint", "runc", "crun"].map(|runtime| format!("/run/{runtime}/{id}"));
        let gone = becomes_true(|| self.place.left_of(id, &files).is_empty());
        assert!(gone, "left of container {id}: {:?}", self.place.left_of(id, &files));
    }

    /// Fails when anything but the storage is left.
    fn assert_empty(&self) {
        let all = self.call(&["ps", "--all", "--external", "--quiet"]).ok().stdout;
        assert_eq!(all, "", "containers are left");
        self.place.assert_still();
        self.place.assert_no_layer();
    }

    /// Where it runs.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }
}

/// `podman rm --force` of a container, running or not.
///
/// The clean-up that conmon calls and rm's own unmount the same /dev/shm, under every runtime: the one that comes in between
/// finds it busy, or the container gone.
#[track_caller]
pub fn remove_by_force(podman: impl Fn(&[&str]) -> Output, id: &str) {
    wait_until(&format!("podman removes {id}"), || {
        let removed = podman(&["rm", "--force", "--time", "0", id]);
        let raced = removed.stderr.contains("busy") || removed.stderr.contains("no such");
        assert!(removed.code == 0 || raced, "{}", removed.stderr);
        podman(&["container", "exists", id]).code == 1
    });
}

/// The last test that uses it looks for what all of them left.
impl Drop for Podman {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_empty();
        }
    }
}
