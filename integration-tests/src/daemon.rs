//! Daemons that live only for the tests, and shared by the tests of one binary that run at the same time.
//!
//! Each runs in a [`Place`] of its own: its /run is private (containerd's shims keep their sockets in /run/containerd
//! whatever the configuration says), docker's bridge and firewall rules are made beside the host's, and nothing that it
//! mounts comes out. All that it started ends with the place.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use rustix::process::{Pid, Signal, kill_process};

use crate::Place;
use crate::leaks::children_of;
use crate::process::{Running, becomes_true};

/// A daemon and where it runs. Dropping it ends both.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    place: Place,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command line in the place.
    #[must_use]
    pub fn start(place: Place, command: &[String]) -> Self {
        let log = place.path().join("daemon.log");
        let running = Self::spawn(&place, &log, command);
        Self { running, place, log }
    }

    fn spawn(place: &Place, log: &Path, command: &[String]) -> Running {
        let file = File::options().create(true).append(true).open(log).expect("make the daemon's log");
        let (program, args) = command.split_first().expect("a program");
        place.command(program).args(args.iter().cloned()).spawn_into(&file)
    }

    /// Ends the daemon by SIGKILL, and nothing else: what it started goes on.
    pub fn crash(&mut self) {
        let entered = self.running.pid();
        // nsenter waits for it, and ends when it does.
        for child in children_of(entered).into_iter().filter_map(Pid::from_raw) {
            kill_process(child, Signal::KILL).expect("kill the daemon");
        }
        assert!(becomes_true(|| self.running.has_ended()), "the daemon does not end");
    }

    /// Starts it once more, after [`Self::crash`].
    pub fn restart(&mut self, command: &[String]) {
        self.running = Self::spawn(&self.place, &self.log, command);
    }

    /// Waits until `ready` holds; false when the daemon ended before that.
    pub fn wait_ready(&mut self, mut ready: impl FnMut(&Place) -> bool) -> bool {
        let mut is_ready = false;
        becomes_true(|| {
            is_ready = ready(&self.place);
            is_ready || self.running.has_ended()
        });
        is_ready
    }

    /// Where it runs.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// All of its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
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
