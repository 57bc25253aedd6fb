//! Daemons that live only for the tests, and shared by the tests of one binary that run at the same time.
//!
//! Each runs in a mount and a network namespace of its own: its /run is a tmpfs (containerd's shims keep their sockets
//! in /run/containerd whatever the configuration says), and docker's bridge and firewall rules are made beside the
//! host's. Propagation is `slave`: nothing that it mounts comes out. When the last process of it is gone, so is all this.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::sweep;

/// dockerd writes a key into /etc/docker, and no option of 20.10 moves it.
const PRIVATE_PLACE: &str = "for dir in /run /etc/docker; do \
     if [ -d $dir ]; then mount -t tmpfs -o mode=755 tmpfs $dir || exit; fi; \
     done; exec \"$0\" \"$@\"";

/// A daemon. Dropping it stops it by its own pid, then sweeps what carries its prefix.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    prefix: String,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program`. `prefix` must be part of all paths that it is given, as what it leaves is found by that.
    #[must_use]
    pub fn start(program: &Path, args: &[String], prefix: &str, dir: &Path) -> Self {
        let log = dir.join("log");
        let file = File::create(&log).expect("make the daemon's log");
        let child = std::process::Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "slave", "--"])
            .args(["sh", "-c", PRIVATE_PLACE])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::from(file.try_clone().expect("dup the log")))
            .stderr(Stdio::from(file))
            .spawn()
            .expect("start unshare");
        Self { child, prefix: prefix.to_owned(), log }
    }

    /// Waits until `ready` holds; false when the daemon ended before that.
    pub fn wait_ready(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return false;
            }
            if ready() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The mount table of the daemon's namespace.
    #[must_use]
    pub fn mount_table(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/mountinfo", self.child.id())).unwrap_or_default()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        sweep(&self.prefix);
    }
}

/// A daemon that the running tests of a binary share. libtest has no end-of-run hook, so the last test that uses it
/// stops it, and a later one starts a new one.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The running one, or one that `start` makes.
    pub(crate) fn get(&self, start: impl FnOnce() -> T) -> Arc<T> {
        self.get_or_skip(|| Some(start())).expect("a start that does not skip")
    }

    /// The running one, or one that `start` makes, unless it skips.
    pub(crate) fn get_or_skip(&self, start: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        // A test that panicked while it started the daemon must not fail all others.
        let mut slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(running) = slot.upgrade() {
            return Some(running);
        }
        let started = Arc::new(start()?);
        *slot = Arc::downgrade(&started);
        Some(started)
    }
}
