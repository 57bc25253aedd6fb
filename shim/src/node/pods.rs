//! The sandboxes of this shim, by their ids.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use flint_runtime::Runtime;
use flint_shim_protocol::{Sandbox, SandboxMade, SandboxRemoved, SandboxState};
use ttrpc::Code;

use super::networks::Networks;
use super::pod::{self, Pod};
use super::{failure, locked};
use crate::error::{Error, Result};
use crate::task::blocking;

#[derive(Debug)]
enum Entry {
    /// Somebody is at work on it.
    Changing,
    There(Arc<Pod>),
}

/// The table. Its lock is held for look-ups only.
#[derive(Debug)]
pub(super) struct Pods {
    table: Arc<Mutex<BTreeMap<String, Entry>>>,
    networks: Arc<Networks>,
}

impl Pods {
    pub(super) fn new(networks: Arc<Networks>) -> Self {
        Self { table: Arc::default(), networks }
    }

    pub(super) fn count(&self) -> usize {
        locked(&self.table).len()
    }

    pub(super) fn states(&self) -> Vec<SandboxState> {
        let there = |entry: &Entry| match entry {
            Entry::There(pod) => Some(pod.state()),
            Entry::Changing => None,
        };
        locked(&self.table).values().filter_map(there).collect()
    }

    /// The sandbox that a container names; none for an empty id.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition`: it is not in this shim.
    pub(super) fn named(&self, id: &str) -> Result<Option<Arc<Pod>>> {
        match locked(&self.table).get(id) {
            _ if id.is_empty() => Ok(None),
            Some(Entry::There(pod)) => Ok(Some(pod.clone())),
            _ => Err(Error::wrong_state(format!("sandbox {id} is not in this shim: make it first"))),
        }
    }

    /// Claims an id; what was there of it.
    fn change(&self, id: &str) -> Result<Option<Arc<Pod>>> {
        match locked(&self.table).insert(id.to_owned(), Entry::Changing) {
            None => Ok(None),
            Some(Entry::There(pod)) => Ok(Some(pod)),
            Some(Entry::Changing) => {
                Err(Error::new(Code::UNAVAILABLE, format!("sandbox {id} is being made or removed: try again")))
            }
        }
    }

    fn changed(&self, id: &str, pod: Option<Arc<Pod>>) {
        let mut table = locked(&self.table);
        match pod {
            Some(pod) => table.insert(id.to_owned(), Entry::There(pod)),
            None => table.remove(id),
        };
    }

    pub(super) async fn make(&self, wanted: Sandbox, runtime: Arc<Runtime>) -> SandboxMade {
        let id = wanted.id.clone();
        self.try_make(wanted, runtime).await.unwrap_or_else(|error| SandboxMade {
            id,
            failure: Some(failure(&error)),
            ..SandboxMade::default()
        })
    }

    async fn try_make(&self, wanted: Sandbox, runtime: Arc<Runtime>) -> Result<SandboxMade> {
        let id = wanted.id.clone();
        if let Some(pod) = self.change(&id)? {
            let told = SandboxMade { was_there: true, ..pod.told() };
            self.changed(&id, Some(pod));
            return Ok(told);
        }
        let networks = self.networks.clone();
        match blocking(move || Pod::make(wanted, &networks, &runtime)).await {
            Ok((pod, told)) => {
                self.changed(&id, Some(Arc::new(pod)));
                Ok(told)
            }
            Err(error) => {
                self.changed(&id, None);
                Err(error)
            }
        }
    }

    pub(super) async fn remove(&self, sandbox: Sandbox, runtime: Arc<Runtime>) -> SandboxRemoved {
        let removed = self.try_remove(&sandbox, runtime).await;
        SandboxRemoved { id: sandbox.id, failure: removed.err().as_ref().map(failure) }
    }

    async fn try_remove(&self, sandbox: &Sandbox, runtime: Arc<Runtime>) -> Result<()> {
        let was = self.change(&sandbox.id)?;
        let folder = was.as_ref().map_or_else(|| sandbox.folder.clone(), |pod| pod.state().folder);
        if !Path::new(&folder).is_absolute() {
            self.changed(&sandbox.id, was);
            return Err(Error::invalid(format!("sandbox {:?}: its folder has to be an absolute path", sandbox.id)));
        }
        let removed = blocking(move || pod::remove(Path::new(&folder), &runtime)).await;
        // What is left of one that could not be removed is not fit for containers, but it can be removed again.
        self.changed(&sandbox.id, was.filter(|_| removed.is_err()));
        removed
    }
}
