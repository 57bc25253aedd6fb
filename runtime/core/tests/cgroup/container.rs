//! A container's cgroups for one test, cleaned up whatever happens.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flint_runtime::cgroup::{Cgroup, Layout, Plan, compile};

pub(crate) fn may_run(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    println!("skipped {test}: it needs root to make cgroups");
    false
}

/// A cgroup that is removed at the end of the test, with everything in it.
pub(crate) struct Container {
    pub(crate) cgroup: Cgroup,
    children: Vec<Child>,
}

impl Container {
    pub(crate) fn plan(layout: &Layout, name: &str, resources: &str) -> Plan {
        let path = format!("/flint-test-{}-{name}/box", std::process::id());
        let text = format!(r#"{{"cgroupsPath":"{path}","resources":{resources}}}"#);
        let linux = serde_json::from_str(&text).unwrap();
        compile(layout, "unused", Some(&linux), &mut Vec::new()).unwrap()
    }

    pub(crate) fn new(name: &str, resources: &str) -> Self {
        let layout = Layout::detect().unwrap();
        let cgroup = Cgroup::create(&layout, &Self::plan(&layout, name, resources)).unwrap();
        Self { cgroup, children: Vec::new() }
    }

    /// Starts a shell command in the cgroup: the shell waits for a line, is moved, and goes on.
    pub(crate) fn start(&mut self, script: &str) -> i32 {
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read -r _; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let added = self.cgroup.add(pid);
        drop(child.stdin.take());
        self.children.push(child);
        added.unwrap();
        pid
    }

    pub(crate) fn reap(&mut self) {
        for mut child in self.children.drain(..) {
            child.wait().unwrap();
        }
    }

    pub(crate) fn folder(&self, hierarchy: &str) -> PathBuf {
        let found = self.cgroup.mount_sources().find(|(name, _)| name.split(',').any(|name| name == hierarchy));
        found.map_or_else(|| panic!("no {hierarchy} hierarchy"), |(_, path)| path.to_owned())
    }

    pub(crate) fn read(&self, hierarchy: &str, file: &str) -> String {
        fs::read_to_string(self.folder(hierarchy).join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.cgroup.kill_all();
        self.reap();
        let deleted = self.cgroup.delete();
        for (_, path) in self.cgroup.mount_sources() {
            // The parent is the test's own, too.
            let _ = fs::remove_dir(path.parent().unwrap());
        }
        if !thread::panicking() {
            deleted.unwrap();
        }
    }
}

/// Waits for a condition that must come true soon.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn status_of(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").map_or(String::new(), |(_, rest)| rest[..1].to_owned())
}

pub(crate) fn has_v1(controller: &str) -> bool {
    Layout::detect().unwrap().hierarchy_of(controller).is_some()
}

/// Puts `cgroup.subtree_control` of the v2 root back: it belongs to the whole machine.
pub(crate) struct RootControl {
    file: PathBuf,
    before: String,
}

impl RootControl {
    pub(crate) fn remember() -> Option<Self> {
        let file = Layout::detect().unwrap().unified()?.join("cgroup.subtree_control");
        let before = fs::read_to_string(&file).unwrap();
        Some(Self { file, before })
    }
}

impl Drop for RootControl {
    fn drop(&mut self) {
        for name in fs::read_to_string(&self.file).unwrap_or_default().split_ascii_whitespace() {
            if !self.before.split_ascii_whitespace().any(|before| before == name) {
                let _ = fs::write(&self.file, format!("-{name}"));
            }
        }
    }
}
