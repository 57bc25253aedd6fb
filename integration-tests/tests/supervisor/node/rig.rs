//! A node of a test's own: flintd with its folders, images, shims and network name.

use std::fs;
use std::path::{Path, PathBuf};

use integration_tests::{
    Bundler, Command, Leaks, Output, PtyRun, find_program, new_prefix, processes_with, shim_program, skip, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What pods of tests are made of.
pub(crate) const IMAGE: &str = "tests/busybox:1";

/// What a test's node has otherwise than others.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// Lines of the configuration before its first table.
    pub(crate) keys: &'a str,
    /// Folders that are a tmpfs each, with its size: `root`, `store`.
    pub(crate) small: &'a [(&'a str, &'a str)],
    /// What is logged.
    pub(crate) log: &'static str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { keys: "", small: &[], log: "info" }
    }
}

/// flintd, and what it needs.
pub(crate) struct Node {
    flintd: PathBuf,
    flintctl: PathBuf,
    shim: PathBuf,
    bundler: Bundler,
    daemon: Option<std::process::Child>,
    leaks: Leaks,
    /// What is logged.
    level: &'static str,
    /// Of all names.
    pub(crate) prefix: String,
}

/// A port of this host that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    free.expect("a free port").port()
}

/// A program of this workspace: that of `FLINT_DIST`, else the newest build; None after a skip.
fn program(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let found = std::env::var_os("FLINT_DIST")
        .map(|dist| Path::new(&dist).join(name))
        .into_iter()
        .chain([target.join("dist").join(name), target.join("debug").join(name)])
        .find(|path| path.exists());
    if found.is_none() {
        skip(&format!("no {name}: build it with `cargo xtask dist`"));
    }
    found?.canonicalize().ok()
}

impl Node {
    /// A node without pods, its flintd running; None after a skip.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&Setup::default())
    }

    /// The same with a setup of its own.
    #[track_caller]
    pub(crate) fn start_with(setup: &Setup<'_>) -> Option<Self> {
        let (flintd, flintctl, shim) = (program("flintd")?, program("flintctl")?, shim_program()?);
        let (bundler, busybox) = (Bundler::new()?, find_program("busybox")?);
        for (name, size) in setup.small {
            let folder = bundler.path().join(name);
            fs::create_dir_all(&folder).expect("make a folder");
            let options = std::ffi::CString::new(format!("size={size},mode=0755")).expect("no NUL");
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", &folder, "tmpfs", flags, options.as_c_str()).expect("mount a tmpfs");
        }
        let prefix = new_prefix();
        let leaks = Leaks::watch(&prefix, &bundler.path().join("run/state").join(format!("{prefix}ns")));
        let mut node = Self { flintd, flintctl, shim, bundler, daemon: None, leaks, level: setup.log, prefix };
        node.import(&busybox);
        node.configure(setup);
        node.launch();
        Some(node)
    }

    /// An image of busybox alone.
    fn import(&self, busybox: &Path) {
        let rootfs = self.bundler.path().join("rootfs");
        fs::create_dir_all(rootfs.join("bin")).expect("make the rootfs");
        fs::copy(busybox, rootfs.join("bin/busybox")).expect("copy busybox");
        let applets = "sh sleep cat echo true false kill ps stty tty grep id seq mkdir head";
        for applet in applets.split(' ') {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
        }
        let _ = self.bundler.call(["import", &rootfs.display().to_string(), IMAGE]).ok();
    }

    fn configure(&self, setup: &Setup<'_>) {
        let folder = self.bundler.path().display();
        fs::create_dir_all(self.bundler.path().join("manifests")).expect("make the folder of manifests");
        // How full this machine's own disk is must not count, unless a test says what does.
        let disks = "eviction.hard = {\"nodefs.available\" = \"0%\", \"nodefs.inodesFree\" = \"0%\", \
                     \"imagefs.available\" = \"0%\", \"imagefs.inodesFree\" = \"0%\"}\n";
        let disks = if setup.keys.contains("eviction.hard") { "" } else { disks };
        let page = if setup.keys.contains("page = ") { "" } else { "page = \"127.0.0.1:0\"\n" };
        // The namespace is in names of state folders; the network's name has 8 letters at most.
        let text = format!(
            "root = \"{folder}/root\"\nrun = \"{folder}/run\"\nsocket = \"{folder}/run/flintd.sock\"\n\
             {page}\
             manifests = \"{folder}/manifests\"\nshim = \"{}\"\nnamespace = \"{}ns\"\npods-per-shim = 4\n{}{disks}\
             images.store = \"{folder}/store\"\n[network]\nname = \"ft{}\"\n",
            self.shim.display(),
            self.prefix,
            setup.keys,
            std::process::id() % 100_000,
        );
        fs::write(self.bundler.path().join("config.toml"), text).expect("write the configuration");
    }

    /// Imports the image once more, with so many bytes beside, by another name.
    #[track_caller]
    pub(crate) fn import_as(&self, name: &str, bytes: usize) {
        let rootfs = self.bundler.path().join("rootfs");
        // What compresses well would fill no disk.
        let mut noise = 1_u64;
        let filler = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (noise >> 56) as u8
        });
        fs::write(rootfs.join("filler"), [name.as_bytes(), &filler.take(bytes).collect::<Vec<_>>()].concat())
            .expect("write a file");
        let _ = self.bundler.call(["import", &rootfs.display().to_string(), name]).ok();
        fs::remove_file(rootfs.join("filler")).expect("remove a file");
    }

    /// Imports an image of an OCI layout.
    #[track_caller]
    pub(crate) fn import_layout(&self, layout: &Path, name: &str) {
        let _ = self.bundler.call(["import", &layout.display().to_string(), name]).ok();
    }

    /// The process ids of its shims; not of their children, which are such a program, too, until they execute another.
    pub(crate) fn shims(&self) -> Vec<i32> {
        let is_shim = |pid: &i32| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            program.file_name() == self.shim.file_name()
        };
        let all = processes_with(&self.prefix).into_iter().filter(is_shim).collect::<Vec<_>>();
        let is_child = |pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
            parent.is_none_or(|parent: i32| all.contains(&parent))
        };
        all.iter().copied().filter(|pid| !is_child(pid)).collect()
    }

    /// The names of all images, as flintctl tells them.
    #[track_caller]
    pub(crate) fn images(&self) -> Vec<String> {
        let output = self.ctl(["images", "--json"]).ok();
        let images: Vec<Value> = serde_json::from_str(&output.stdout).expect("images prints JSON");
        images.iter().filter_map(|image| Some(image["name"].as_str()?.to_owned())).collect()
    }

    /// The words and sentences of all events.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let output = self.ctl(["events", "--json"]).ok();
        let told = |line: &str| {
            let event: Value = serde_json::from_str(line).expect("events prints JSON");
            let text = |name: &str| event["reason"][name].as_str().unwrap_or_default().to_owned();
            (text("word"), text("sentence"))
        };
        output.stdout.lines().map(told).collect()
    }

    /// flintd's folder for all that is the test's.
    pub(crate) fn path(&self) -> &Path {
        self.bundler.path()
    }

    fn socket(&self) -> PathBuf {
        self.bundler.path().join("run/flintd.sock")
    }

    /// Starts flintd, and waits until it takes requests.
    #[track_caller]
    pub(crate) fn launch(&mut self) {
        self.launch_by(&[]);
    }

    /// The same by these words: a program that executes another.
    #[track_caller]
    pub(crate) fn launch_by(&mut self, words: &[&str]) {
        let words = words.iter().map(std::ffi::OsStr::new).chain([self.flintd.as_os_str()]).collect::<Vec<_>>();
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("open flintd's log");
        let child = std::process::Command::new(words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(self.bundler.path().join("config.toml"))
            .args(["--log", self.level])
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("start flintd");
        self.daemon = Some(child);
        wait_until("flintd answers", || {
            if let Some(Ok(Some(status))) = self.daemon.as_mut().map(std::process::Child::try_wait) {
                panic!("flintd has ended with {status}:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
            }
            self.ctl(["ps", "--quiet"]).code == 0
        });
    }

    /// A folder for the test's own files.
    #[track_caller]
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.bundler.path().join(name);
        fs::create_dir_all(&folder).expect("make a folder");
        folder
    }

    /// flintd's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.bundler.path().join("flintd.log")
    }

    /// flintd's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("flintd runs").id()
    }

    /// What the page answers at a path; the port is the test's.
    #[track_caller]
    pub(crate) fn get(port: u16, path: &str) -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connect to the page");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("ask");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read the answer");
        text
    }

    /// Ends flintd: SIGKILL, or SIGTERM.
    #[track_caller]
    pub(crate) fn end(&mut self, signal: Signal) {
        let mut child = self.daemon.take().expect("flintd runs");
        kill_process(Pid::from_child(&child), signal).expect("signal flintd");
        let _ = child.wait();
    }

    /// flintctl with these arguments, run to its end.
    #[track_caller]
    pub(crate) fn ctl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Output {
        self.ctl_command(args).output()
    }

    /// flintctl with these arguments, to be run.
    pub(crate) fn ctl_command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        Command::new(&self.flintctl).env("FLINT_SOCKET", self.socket()).args(args)
    }

    /// The same, for a test that reads its pipes itself.
    pub(crate) fn ctl_process(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(&self.flintctl);
        command.env("FLINT_SOCKET", self.socket()).args(args).stdin(std::process::Stdio::null());
        command
    }

    /// flintctl on a terminal of 33 times 77, whose changes of size its caller has blocked: it hears of them all the same.
    pub(crate) fn ctl_on_terminal(&self, args: &[&str]) -> PtyRun {
        let (socket, flintctl) = (self.socket().display().to_string(), self.flintctl.display().to_string());
        let words = [&["--block-signal=WINCH", flintctl.as_str()], args].concat();
        PtyRun::start(Path::new("/usr/bin/env"), &words, &[("FLINT_SOCKET", &socket)], 33, 77)
    }

    /// The programs of `exec` that flintd knows of.
    pub(crate) fn execs(&self) -> usize {
        fs::read_dir(self.bundler.path().join("run/execs")).map_or(0, Iterator::count)
    }

    /// Applies manifests.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &str) {
        let path = self.bundler.path().join("applied.yaml");
        fs::write(&path, manifests).expect("write a manifest");
        let _ = self.ctl(["apply", "-f", &path.display().to_string()]).ok();
    }

    /// All pods, as `ps --json` tells them.
    #[track_caller]
    pub(crate) fn pods(&self) -> Vec<Value> {
        let output = self.ctl(["ps", "--all", "--json"]).ok();
        serde_json::from_str(&output.stdout).expect("ps prints JSON")
    }

    /// The status of a pod of this test; null if there is none.
    #[track_caller]
    pub(crate) fn status(&self, name: &str) -> Value {
        let is_it = |pod: &Value| pod["status"]["key"]["name"] == name;
        self.pods().into_iter().find(is_it).map(|mut pod| pod["status"].take()).unwrap_or_default()
    }

    /// The state of a pod's container `main`.
    #[track_caller]
    pub(crate) fn state(&self, name: &str) -> Value {
        self.status(name)["containers"]["main"]["state"].clone()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, phase: &str) {
        let mut last = Value::Null;
        let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(&format!("{name} is {phase}"), || {
                last = self.status(name);
                last["phase"] == phase
            });
        }));
        if reached.is_err() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            panic!("{name} does not get {phase}: {last:#}\nflintd's log:\n{log}");
        }
    }

    /// Waits until nothing of a pod is left.
    #[track_caller]
    pub(crate) fn wait_gone(&self, name: &str) {
        wait_until(&format!("{name} is gone"), || self.status(name).is_null());
    }

    /// A pod that runs a script in `main`.
    pub(crate) fn manifest(&self, name: &str, more: &str, script: &str) -> String {
        let uid = format!("{}{name}", self.prefix);
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, uid: {uid}}}\nspec:\n  hostNetwork: true\n  \
             terminationGracePeriodSeconds: 5\n{more}  containers:\n  - name: main\n    image: {IMAGE}\n    \
             imagePullPolicy: Never\n    command: [/bin/sh, -c, {}]\n---\n",
            Value::from(script)
        )
    }

    /// The end: nothing is left of pods that were removed, and the shims end.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        self.leaks.assert_none();
        self.end(Signal::TERM);
    }
}

impl Drop for Node {
    /// Whatever happened: flintd, the shims that it started, and all in the test's cgroups go.
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        integration_tests::sweep(&self.prefix);
    }
}
