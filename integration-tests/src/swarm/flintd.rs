//! flintd itself as a worker: its shims and containers are real.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Manager;
use crate::{
    Bundler, Command, Leaks, Place, find_program, new_prefix, processes_with, shim_program, skip, sweep, wait_until,
};

/// flintd in another process's network namespace (or in all namespaces of a place), and what it needs.
#[derive(Debug)]
pub struct Flintd {
    program: PathBuf,
    shim: PathBuf,
    bundler: Bundler,
    daemon: Option<Child>,
    leaks: Leaks,
    enter: Vec<String>,
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

impl Flintd {
    /// The image of busybox that each has.
    pub const IMAGE: &str = "tests/busybox:1";

    /// Starts flintd on the host but for the network, which is that of the process `network`; None after a skip. `configuration` is TOML
    /// for the end of its file.
    #[must_use]
    pub fn in_network(network: u32, configuration: &str) -> Option<Self> {
        Self::start(vec![format!("--net=/proc/{network}/ns/net"), "--".into()], configuration)
    }

    /// Starts flintd in a place; None after a skip.
    #[must_use]
    pub fn in_place(place: &Place, configuration: &str) -> Option<Self> {
        Self::start(place.enter(), configuration)
    }

    fn start(enter: Vec<String>, configuration: &str) -> Option<Self> {
        let (program, shim, busybox) = (program("flintd")?, shim_program()?, find_program("busybox")?);
        let bundler = Bundler::new()?;
        let prefix = new_prefix();
        let leaks = Leaks::watch(&prefix, &bundler.path().join("run/state").join(format!("{prefix}ns")));
        let mut node = Self { program, shim, bundler, daemon: None, leaks, enter, prefix, id: String::new() };
        node.import_busybox(&busybox);
        node.configure(configuration);
        node.launch();
        Some(node)
    }

    /// `flintd join`.
    #[track_caller]
    pub fn join(&mut self, manager: &Manager) {
        let joined = self.call(&["join", "--token", &manager.token(), &manager.address()]);
        let words: Vec<&str> = joined.split_whitespace().collect();
        (*words.last().expect("an id")).clone_into(&mut self.id);
        manager.wait_node(&self.id, "ready active");
    }

    /// Imports an archive as an image of this name.
    #[track_caller]
    pub fn import(&self, archive: &Path, name: &str) {
        let _ = self.bundler.call(["import".into(), archive.as_os_str().to_owned(), name.into()]).ok();
    }

    fn import_busybox(&self, busybox: &Path) {
        let rootfs = self.bundler.path().join("rootfs");
        fs::create_dir_all(rootfs.join("bin")).expect("make the rootfs");
        fs::copy(busybox, rootfs.join("bin/busybox")).expect("copy busybox");
        for applet in ["sh", "sleep", "cat", "echo", "true", "false", "test", "httpd"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
        }
        let _ = self.bundler.call(["import", &rootfs.display().to_string(), Self::IMAGE]).ok();
    }

    fn configure(&self, more: &str) {
        let folder = self.bundler.path().display();
        fs::create_dir_all(self.bundler.path().join("manifests")).expect("make the folder of manifests");
        // How full this machine's own disk is must not count.
        let disks = "{\"nodefs.available\" = \"0%\", \"nodefs.inodesFree\" = \"0%\", \
                     \"imagefs.available\" = \"0%\", \"imagefs.inodesFree\" = \"0%\"}";
        let text = format!(
            "root = \"{folder}/root\"\nrun = \"{folder}/run\"\nsocket = \"{folder}/run/flintd.sock\"\npage = \"\"\n\
             manifests = \"{folder}/manifests\"\nshim = \"{}\"\nnamespace = \"{}ns\"\n\
             eviction.hard = {disks}\n[images]\nstore = \"{folder}/store\"\n[network]\nname = \"fs{}\"\n{more}",
            self.shim.display(),
            self.prefix,
            std::process::id() % 100_000,
        );
        fs::write(self.config(), text).expect("write the configuration");
    }

    fn config(&self) -> PathBuf {
        self.bundler.path().join("config.toml")
    }

    /// A folder for whatever the test makes, which goes with this.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.bundler.path()
    }

    /// What the names of all that it makes hold.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Its id in the swarm.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// All of its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.bundler.path().join("flintd.log")).unwrap_or_default()
    }

    fn arguments(&self) -> Vec<String> {
        let own = [self.program.display().to_string(), format!("--config={}", self.config().display())];
        self.enter.iter().cloned().chain(own).collect()
    }

    /// Starts flintd, and waits until it is there.
    #[track_caller]
    pub fn launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.bundler.path().join("flintd.log"));
        let log = log.expect("open flintd's log");
        let before = self.log().matches("flintd takes pods").count();
        let child = std::process::Command::new("nsenter")
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("start flintd");
        self.daemon = Some(child);
        wait_until("flintd is there", || self.log().matches("flintd takes pods").count() > before);
    }

    /// SIGKILL; of one that is not in a place as a whole.
    pub fn kill(&mut self) {
        let mut child = self.daemon.take().expect("flintd runs");
        kill_process(Pid::from_child(&child), Signal::KILL).expect("kill flintd");
        let _ = child.wait();
    }

    /// `flintd SUBCOMMAND`; its standard output.
    #[track_caller]
    #[must_use]
    pub fn call(&self, args: &[&str]) -> String {
        Command::new("nsenter").args(self.arguments()).args(args.iter().copied()).output().ok().stdout
    }

    /// The first processes of the containers whose command line `sh -c SCRIPT` holds a marker.
    #[must_use]
    pub fn containers(marker: &str) -> BTreeSet<i32> {
        let is_init = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            // A child of the shell's has its command line, too, until it becomes another program.
            line.starts_with(b"/bin/sh\0-c\0") && ids.split_whitespace().last() == Some("1")
        };
        processes_with(marker).into_iter().filter(is_init).collect()
    }

    /// Fails when anything of a container is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.leaks.assert_none();
    }
}

impl Drop for Flintd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("flintd's log:\n{}", self.log());
        }
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        sweep(&self.prefix);
    }
}
