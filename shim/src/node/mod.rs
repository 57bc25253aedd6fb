//! `flint.shim.v1.Node`: what flintd asks of a shim beside the task API. The messages are in flint-shim-protocol.
//!
//! ```text
//!  service      decodes nothing more: it calls, item by item, what does the work
//!   ├ batch     runs items beside each other, so many at a time
//!   ├ containers  create, remove, list: tasks, as the task API has them
//!   ├ adopt     tasks of containers that another shim made
//!   └ pods ─▶ pod ─▶ namespaces    sandboxes, many in one shim
//!        └▶ networks               a warm pool of network namespaces
//! ```
//!
//! A sandbox costs no process and no thread: its IPC and UTS namespaces are held by descriptors of the shim, its network
//! namespace by a mount that outlives the shim. What is to be found again by the next shim is in its folder's `sandbox.json`,
//! written before the thing itself is made.

mod adopt;
mod batch;
mod containers;
mod namespaces;
mod networks;
mod pod;
mod pods;
mod record;
mod service;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use flint_runtime::Runtime;
use flint_shim_protocol::Failure;

pub(crate) use pod::Pod;
pub(crate) use service::service;

use crate::config::Place;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::tasks::{Shared, Tasks};
use networks::Networks;
use pods::Pods;

/// All that the service works on.
#[derive(Debug)]
pub(crate) struct Node {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    pods: Pods,
    networks: Arc<Networks>,
    /// Options of containers that are made from now on.
    options: RwLock<Options>,
}

impl Node {
    pub(crate) fn new(shared: Arc<Shared>, tasks: Arc<Tasks>) -> Self {
        let networks = Arc::<Networks>::default();
        Self { shared, tasks, pods: Pods::new(networks.clone()), networks, options: RwLock::default() }
    }

    /// Whether it holds sandboxes, for which the shim stays.
    pub(crate) fn is_empty(&self) -> bool {
        self.pods.count() == 0
    }

    fn options(&self) -> Options {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The runtime of containers that are made from now on.
    fn runtime(&self) -> Result<Arc<Runtime>> {
        self.shared.runtime(&Place::of(&self.options(), &self.shared.namespace, None))
    }
}

fn failure(error: &Error) -> Failure {
    Failure { code: error.code(), message: error.to_string() }
}

/// Nothing panics under these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
