//! A pod of the node: its record, in memory and in the store, and what others see of it.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::Result;
use tokio::sync::Notify;

use super::{Node, locked};
use crate::desired::{Key, Pod};
use crate::observed::PodStatus;
use crate::reconciler;
use crate::store::{PodRecord, Table};

/// What others see of a pod.
#[derive(Debug, Clone)]
pub struct View {
    /// What is wanted.
    pub pod: Arc<Pod>,
    /// What is.
    pub status: Arc<PodStatus>,
}

/// A pod of the node.
#[derive(Debug)]
pub struct Entry {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    record: PodRecord,
    status: Arc<PodStatus>,
    writes: Writes,
}

/// Numbers of this record's writes: each is of the whole record, and they are made in their order.
#[derive(Debug, Default)]
struct Writes {
    /// That was begun last.
    last: u64,
    /// That is known to be in the store. Others have failed, or are on their way.
    done: u64,
}

impl Entry {
    pub(super) fn new(record: PodRecord) -> Arc<Self> {
        let status = Arc::new(reconciler::status(&record, 0, SystemTime::now()));
        Arc::new(Self {
            state: Mutex::new(State { record, status, writes: Writes::default() }),
            changed: Notify::new(),
        })
    }

    /// Looks at the record.
    pub fn read<T>(&self, look: impl FnOnce(&PodRecord) -> T) -> T {
        look(&locked(&self.state).record)
    }

    /// What others see.
    #[must_use]
    pub fn view(&self) -> View {
        let state = locked(&self.state);
        View { pod: state.record.pod.clone(), status: state.status.clone() }
    }

    /// The pod's name.
    #[must_use]
    pub fn key(&self) -> Key {
        self.read(|record| record.pod.key.clone())
    }

    /// The pod's uid.
    #[must_use]
    pub fn uid(&self) -> String {
        self.read(|record| record.pod.uid.clone())
    }

    pub(super) fn order(&self) -> u64 {
        self.read(|record| record.order)
    }

    /// Whether the pod is on its way out.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.read(|record| record.removal.is_some())
    }

    /// Changes the record; it is in the store when this returns. Changes are written in the order in which they are made.
    ///
    /// # Errors
    ///
    /// A store that cannot be written: the change counts until flintd ends. The next one is written, though it be none.
    pub(crate) async fn change<T>(&self, node: &Node, change: impl FnOnce(&mut PodRecord) -> T) -> Result<T> {
        let (result, written, number) = {
            let mut state = locked(&self.state);
            let before = state.record.clone();
            let result = change(&mut state.record);
            if state.record == before && state.writes.done == state.writes.last {
                return Ok(result);
            }
            state.writes.last += 1;
            let number = state.writes.last;
            let uid = state.record.pod.uid.clone();
            let written = node.store.put(Table::Pods, &uid, &state.record);
            let status = reconciler::status(&state.record, state.status.revision, SystemTime::now());
            if status != *state.status {
                let revision = state.status.revision + 1;
                state.status = Arc::new(PodStatus { revision, ..status });
            }
            (result, written, number)
        };
        let written = written.await;
        if written.is_ok() {
            let done = &mut locked(&self.state).writes.done;
            *done = number.max(*done);
        }
        node.tell_change();
        self.wake();
        written.map(|()| result)
    }

    /// Has the pod's worker look again.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Until something has changed since the last time that this returned.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
