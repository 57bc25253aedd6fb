//! One test of one runtime: a folder, a prefix, a state root, and a clean-up that runs whatever happens.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::Running;
use crate::{Bundle, Command, Leaks, Output, Runtime, pause_until_frozen, sweep, wait_until};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that nothing else on the machine holds: `flint-it-<pid>-<counter>-`. The last dash keeps case 1 from
/// matching case 10.
#[must_use]
pub fn new_prefix() -> String {
    format!("flint-it-{}-{}-", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One runtime in a place of its own.
#[derive(Debug)]
pub struct Case {
    /// The runtime of this case.
    pub runtime: Runtime,
    /// What the names of all that it makes hold.
    pub prefix: String,
    dir: TempDir,
    leaks: Leaks,
    bundles: AtomicU32,
    is_clean: bool,
}

impl Case {
    /// Opens a case for `runtime`.
    #[must_use]
    pub fn new(runtime: &Runtime) -> Self {
        let prefix = new_prefix();
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("make the case's folder");
        // Users of a container's user namespace must be able to reach the rootfs.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        let leaks = Leaks::watch(&prefix, &dir.path().join("state"));
        Self { runtime: runtime.clone(), prefix, dir, leaks, bundles: AtomicU32::new(0), is_clean: false }
    }

    /// See [`Leaks::settle_in`].
    pub const fn settle_in(&mut self, settle: Duration) {
        self.leaks.settle_in(settle);
    }

    /// The case's own folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What is passed as `--root`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What is passed as `--root`.
    #[must_use]
    pub fn state_root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A container id that belongs to this case.
    #[must_use]
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A new bundle with a busybox rootfs and the default spec.
    #[must_use]
    pub fn bundle(&self) -> Bundle {
        let number = self.bundles.fetch_add(1, Ordering::Relaxed);
        Bundle::new(self.dir.path().join(format!("bundle{number}")))
    }

    /// The runtime with `--root` and these arguments, not yet started.
    #[must_use]
    pub fn command<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        Command::new(&self.runtime.path).args(["--root".into(), self.state_root().into_os_string()]).args(args)
    }

    /// Runs the runtime with these arguments to its end.
    #[track_caller]
    #[must_use]
    pub fn call<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.command(args).output()
    }

    /// `run` of the bundle in the foreground.
    #[track_caller]
    #[must_use]
    pub fn run(&self, bundle: &Bundle) -> Output {
        self.command(["run", "--bundle"]).args([bundle.write()]).args([self.id("run")]).output()
    }

    /// `run` of a shell script in the default bundle; its stdout.
    #[track_caller]
    #[must_use]
    pub fn shell(&self, script: &str) -> String {
        self.run(&self.bundle().shell(script)).ok().stdout
    }

    /// `run` in the foreground, in the background of the test.
    #[track_caller]
    #[must_use]
    pub fn spawn(&self, bundle: &Bundle, id: &str) -> Running {
        self.command(["run", "--bundle"]).args([bundle.write()]).args([id]).spawn()
    }

    /// `run --detach` of the bundle as container `name`; its id.
    #[track_caller]
    #[must_use]
    pub fn detached(&self, bundle: &Bundle, name: &str) -> String {
        let id = self.id(name);
        let _ = self.command(["run", "--detach", "--bundle"]).args([bundle.write()]).args([&id]).output().ok();
        id
    }

    /// `create` of the bundle as container `name`; its id.
    #[track_caller]
    #[must_use]
    pub fn created(&self, bundle: &Bundle, name: &str) -> String {
        let id = self.id(name);
        let _ = self.command(["create", "--bundle"]).args([bundle.write()]).args([&id]).output().ok();
        id
    }

    /// `exec` of a program in container `id`.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, id: &str, args: &[&str]) -> Output {
        self.command(["exec", id]).args(args.iter().copied()).output()
    }

    /// `state` of container `id`.
    #[track_caller]
    #[must_use]
    pub fn state(&self, id: &str) -> Value {
        let output = self.call(["state", id]).ok();
        serde_json::from_str(&output.stdout).expect("state prints JSON")
    }

    /// The status that `state` tells; empty when there is no such container.
    #[must_use]
    pub fn status(&self, id: &str) -> String {
        let output = self.call(["state", id]);
        let state: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until container `id` has `status`.
    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        wait_until(&format!("{id} is {status}"), || self.status(id) == status);
    }

    /// `pause` of container `id`, which must succeed.
    #[track_caller]
    pub fn pause(&self, id: &str) {
        pause_until_frozen(|| self.call(["pause", id]));
    }

    /// `delete --force` of container `id`, which must succeed.
    #[track_caller]
    pub fn delete(&self, id: &str) {
        let _ = self.call(["delete", "--force", id]).ok();
    }

    /// Replaces what differs between two cases by words: the prefix, the folder, the runtime's name.
    #[must_use]
    pub fn neutral(&self, text: &str) -> String {
        let folder = self.dir.path().display().to_string();
        // mountinfo has paths in a file system: the folder's name alone, where /tmp is one of its own.
        let name = self.dir.path().file_name().unwrap_or_default().to_string_lossy();
        text.replace(&folder, "<case>")
            .replace(&format!(" /{name}"), " <case>")
            .replace(&self.prefix, "<id>-")
            .replace(&self.runtime.path.display().to_string(), "<runtime>")
    }

    /// Ends the case: fails when anything is left. All containers must be deleted by then.
    ///
    /// A cgroup that a peer leaves is taken away and told of: runc's `delete --force` tries once to remove one of v2, and only logs
    /// that it could not.
    #[track_caller]
    pub fn finish(mut self) {
        let left = self.leaks.remaining();
        let told = format!("{} left behind:\n  {}", self.runtime.name, left.join("\n  "));
        if self.runtime.name == "runc" && !left.is_empty() && left.iter().all(|thing| thing.starts_with("cgroup ")) {
            // Past the test harness, which keeps what a passing test prints.
            let _ = writeln!(std::io::stderr(), "{told}");
            return;
        }
        assert!(left.is_empty(), "{told}");
        self.is_clean = true;
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if self.is_clean {
            return;
        }
        for entry in fs::read_dir(self.state_root()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(&self.prefix) {
                // Not `call`: it panics on a hang, and a panic here would abort.
                let _ = std::process::Command::new("timeout")
                    .args(["20".as_ref(), self.runtime.path.as_os_str(), "--root".as_ref()])
                    .arg(self.state_root())
                    .args(["delete".as_ref(), "--force".as_ref(), name.as_os_str()])
                    .stdin(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .status();
            }
        }
        sweep(&self.prefix);
    }
}
