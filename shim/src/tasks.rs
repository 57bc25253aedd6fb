//! The tasks of this shim, by their ids.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flint_runtime::{CgroupManager, Options as RuntimeOptions, Runtime};
use tokio::sync::Notify;
use ttrpc::Code;

use crate::config::Place;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::log;
use crate::process::Phase;
use crate::sandbox::{Pod, Sandbox};
use crate::task::Task;

/// What all tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) namespace: String,
    pub(crate) events: Events,
    /// The pod that all tasks belong to, if containerd made one.
    pub(crate) pod: Arc<Pod>,
    /// Runtimes that were opened, by their place: each has found out once what the host offers.
    runtimes: Mutex<HashMap<(PathBuf, bool), Arc<Runtime>>>,
}

impl Shared {
    pub(crate) fn new(namespace: &str, events: Events) -> Self {
        Self { namespace: namespace.to_owned(), events, pod: Arc::default(), runtimes: Mutex::default() }
    }

    pub(crate) fn sandbox(&self) -> Option<Arc<Sandbox>> {
        locked(&self.pod).clone()
    }

    /// # Errors
    ///
    /// A state root that cannot be made or opened.
    pub(crate) fn runtime(&self, place: &Place) -> Result<Arc<Runtime>> {
        let key = (place.root.clone(), place.systemd);
        if let Some(runtime) = locked(&self.runtimes).get(&key) {
            return Ok(runtime.clone());
        }
        let runtime = Arc::new(open(place)?);
        Ok(locked(&self.runtimes).entry(key).or_insert(runtime).clone())
    }
}

/// # Errors
///
/// A state root that cannot be made or opened.
pub(crate) fn open(place: &Place) -> Result<Runtime> {
    let cgroup_manager = if place.systemd { CgroupManager::Systemd } else { CgroupManager::Cgroupfs };
    // As containerd's own shim calls runc: without a user's rights to cgroups it goes on where it may.
    let rootless = !nix::unistd::geteuid().is_root();
    Ok(Runtime::open(RuntimeOptions { root: place.root.clone(), cgroup_manager, rootless })?)
}

/// What stands for an id.
#[derive(Debug)]
enum Entry {
    /// Create is at work on it.
    Making,
    Made(Arc<Task>),
}

/// The table. Its lock is held for look-ups only.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: Mutex<HashMap<String, Entry>>,
    /// Tells that a claim is over.
    settled: Notify,
    /// The shim ends.
    closed: AtomicBool,
}

/// An id that is taken while its task is made.
pub(crate) struct Claim<'a> {
    tasks: &'a Tasks,
    id: String,
    made: bool,
}

impl Tasks {
    /// # Errors
    ///
    /// `AlreadyExists`; `Unavailable` once the shim ends.
    pub(crate) fn claim(&self, id: &str) -> Result<Claim<'_>> {
        let mut table = locked(&self.table);
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(Code::UNAVAILABLE, format!("task {id}: this shim is ending: start another one")));
        }
        if table.contains_key(id) {
            return Err(Error::new(Code::ALREADY_EXISTS, format!("task {id}: already exists")));
        }
        table.insert(id.to_owned(), Entry::Making);
        Ok(Claim { tasks: self, id: id.to_owned(), made: false })
    }

    /// None is claimed any more.
    pub(crate) fn close(&self) {
        let _table = locked(&self.table);
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Deletes tasks that have ended and whose bundles are gone: containerd calls `delete` for a container whose shim it does not
    /// reach (a machine that hung), removes the bundle, and never asks that shim again.
    pub(crate) async fn delete_forgotten(&self) {
        for task in self.all() {
            if matches!(task.init.phase(), Phase::Stopped(_)) && !task.bundle.exists() {
                match task.delete().await {
                    Ok(_) => self.remove(&task.id),
                    Err(error) => log::warn(&format!("delete {}, whose bundle is gone: {error}", task.id)),
                }
            }
        }
    }

    /// Waits while somebody is at work on an id: what a supervisor that has died had asked for still goes on, and the next one
    /// is to hear what came of it.
    pub(crate) async fn settled(&self, id: &str) {
        loop {
            let told = self.settled.notified();
            if !matches!(locked(&self.table).get(id), Some(Entry::Making)) {
                return;
            }
            told.await;
        }
    }

    /// # Errors
    ///
    /// `NotFound`.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Task>> {
        match locked(&self.table).get(id) {
            Some(Entry::Made(task)) => Ok(task.clone()),
            _ => Err(Error::not_found(format!("container not created: task {id} is not in this shim"))),
        }
    }

    pub(crate) fn remove(&self, id: &str) {
        locked(&self.table).remove(id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Task>> {
        let made = |entry: &Entry| match entry {
            Entry::Made(task) => Some(task.clone()),
            Entry::Making => None,
        };
        locked(&self.table).values().filter_map(made).collect()
    }

    pub(crate) fn count(&self) -> usize {
        locked(&self.table).len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        locked(&self.table).is_empty()
    }
}

impl Claim<'_> {
    pub(crate) fn made(mut self, task: Arc<Task>) {
        self.made = true;
        locked(&self.tasks.table).insert(self.id.clone(), Entry::Made(task));
        self.tasks.settled.notify_waiters();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.made {
            self.tasks.remove(&self.id);
            self.tasks.settled.notify_waiters();
        }
    }
}

/// Nothing panics under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Tasks;

    #[test]
    fn who_asks_while_an_id_is_claimed_waits_for_its_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let tasks = Tasks::default();
            tasks.settled("one").await;
            let claim = tasks.claim("one").unwrap();
            tasks.settled("other").await;
            let early = tokio::time::timeout(Duration::from_millis(20), tasks.settled("one")).await;
            assert!(early.is_err(), "it is made still");
            let ((), ()) = tokio::join!(tasks.settled("one"), async { drop(claim) });
            assert!(tasks.claim("one").is_ok(), "nobody is at work on it");
        });
    }
}
