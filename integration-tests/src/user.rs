//! An ordinary user of the host, made for one test and removed with all that is theirs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Bundle, Case, Command, Output, Runtime, copy_program, missing};

static NEXT: AtomicU32 = AtomicU32::new(0);
/// Other tests make users too, and the file of passwords has one lock for all.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// A user with a range of /etc/subuid and one of /etc/subgid.
#[derive(Debug)]
pub struct TestUser {
    /// Their name.
    pub name: String,
    /// Their uid.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// First id and length of their range in /etc/subuid.
    pub subuids: (u32, u32),
    /// The same in /etc/subgid.
    pub subgids: (u32, u32),
    home: TempDir,
}

impl TestUser {
    /// Makes a user; None after a skip.
    #[must_use]
    pub fn new() -> Option<Self> {
        if missing(&["useradd", "userdel", "setpriv", "newuidmap"]) {
            return None;
        }
        let name = format!("flint{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let home = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().expect("make a home");
        account(&["useradd", "--no-create-home", "--user-group", "--home-dir", &home.path().to_string_lossy(), &name]);
        let passwd = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
        let fields: Vec<u32> = passwd
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}:")))
            .map(|line| line.split(':').filter_map(|field| field.parse().ok()).collect())
            .expect("the new user");
        let user = Self {
            uid: fields[0],
            gid: fields[1],
            subuids: range("/etc/subuid", &name),
            subgids: range("/etc/subgid", &name),
            name,
            home,
        };
        fs::create_dir(user.runtime_dir()).expect("make the folder for runtime files");
        fs::set_permissions(user.runtime_dir(), fs::Permissions::from_mode(0o700)).expect("chmod");
        fs::set_permissions(user.home.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        user.own(user.home.path());
        Some(user)
    }

    /// Their home.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Their `XDG_RUNTIME_DIR`.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.home.path().join("run")
    }

    /// Gives a file, or a folder with all that is in it, to the user.
    pub fn own(&self, path: &Path) {
        lchown(path, Some(self.uid), Some(self.gid)).expect("chown to the user");
        if path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(path).expect("read a folder").flatten() {
                self.own(&entry.path());
            }
        }
    }

    /// A program called by the user, with an environment as a login gives it and no supplementary groups.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
        Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "env", "-i"])
            .args([
                "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin".to_owned(),
                format!("HOME={}", self.home().display()),
                format!("USER={}", self.name),
                format!("XDG_RUNTIME_DIR={}", self.runtime_dir().display()),
            ])
            .args([program])
            .dir(self.home())
    }
}

impl Drop for TestUser {
    fn drop(&mut self) {
        // What the user left running (podman's pause process, after a failure) keeps the account. By the user alone:
        // ids of the ranges may be other tests'.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid
                && entry.metadata().is_ok_and(|process| process.uid() == self.uid)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        // The group goes with the user unless somebody is in it.
        let _ = std::process::Command::new("userdel").args(["--force", &self.name]).output();
    }
}

#[track_caller]
fn account(command: &[&str]) {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let output = std::process::Command::new(command[0]).args(&command[1..]).output().expect("start useradd");
        if output.status.success() {
            return;
        }
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains("lock") && Instant::now() < deadline, "{command:?}: {words}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn range(file: &str, name: &str) -> (u32, u32) {
    let text = fs::read_to_string(file).expect("read the ranges of ids");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).expect("a range of the user's");
    let (start, length) = line.split_once(':').expect("start and length");
    (start.parse().expect("a start"), length.parse().expect("a length"))
}

/// A case whose runtime is called by a [`TestUser`].
#[derive(Debug)]
pub struct Rootless {
    /// The user.
    pub user: TestUser,
    /// Where the bundles are and what is watched.
    pub case: Case,
    /// The runtime, where the user may execute it.
    pub program: PathBuf,
}

impl Rootless {
    /// A new user and a case for them; None after a skip.
    #[must_use]
    pub fn new(runtime: &Runtime) -> Option<Self> {
        let user = TestUser::new()?;
        let case = Case::new(runtime);
        fs::create_dir(case.state_root()).expect("make the state root");
        user.own(&case.state_root());
        let program = case.path().join(runtime.name);
        copy_program(&runtime.path, &program);
        Some(Self { user, case, program })
    }

    /// The runtime with `--root` and these arguments, called by the user; not yet started.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.user
            .command(&self.program)
            .args(["--root".into(), self.case.state_root().into_os_string()])
            .args(args.iter().copied())
    }

    /// The runtime with these arguments, called by the user, to its end.
    #[track_caller]
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        self.command(args).output()
    }

    /// A bundle of `spec --rootless`, the user's own, without a terminal.
    #[track_caller]
    #[must_use]
    pub fn bundle(&self) -> Bundle {
        let bundle = self.case.bundle();
        self.user.own(bundle.path());
        let _ = self.call(&["spec", "--rootless", "--bundle", &bundle.path().to_string_lossy()]).ok();
        let text = fs::read(bundle.path().join("config.json")).expect("read config.json");
        let spec: Value = serde_json::from_slice(&text).expect("spec prints JSON");
        // By its environment the case finds what it left; there may be no cgroup to find it by.
        bundle
            .spec(spec)
            .edit(json!({"process": {"terminal": false}}))
            .push("/process/env", json!(format!("FLINT_CASE={}", self.case.prefix())))
    }

    /// A second line in both maps: the container's `inside` and above are the user's ranges.
    #[must_use]
    pub fn with_ranges(&self, bundle: Bundle, inside: u32) -> Bundle {
        let line = |(start, length): (u32, u32)| json!({"containerID": inside, "hostID": start, "size": length});
        bundle.push("/linux/uidMappings", line(self.user.subuids)).push("/linux/gidMappings", line(self.user.subgids))
    }

    /// `run` of the bundle in the foreground.
    #[track_caller]
    #[must_use]
    pub fn run(&self, bundle: &Bundle) -> Output {
        let dir = bundle.write();
        self.call(&["run", "--bundle", &dir.to_string_lossy(), &self.case.id("run")])
    }

    /// `run --detach` of the bundle as container `name`; its id.
    #[track_caller]
    #[must_use]
    pub fn detached(&self, bundle: &Bundle, name: &str) -> String {
        let (dir, id) = (bundle.write(), self.case.id(name));
        let _ = self.call(&["run", "--detach", "--bundle", &dir.to_string_lossy(), &id]).ok();
        id
    }

    /// The status that `state` tells; empty when there is no such container.
    #[must_use]
    pub fn status(&self, id: &str) -> String {
        let state: Value = serde_json::from_str(&self.call(&["state", id]).stdout).unwrap_or_default();
        state["status"].as_str().unwrap_or_default().to_owned()
    }

    /// `delete --force`, which must succeed.
    #[track_caller]
    pub fn delete(&self, id: &str) {
        let _ = self.call(&["delete", "--force", id]).ok();
    }
}
