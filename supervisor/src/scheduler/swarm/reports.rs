//! Statuses on their way to a manager: the latest of each task, until it has taken them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::wire::task::TaskStatus;

#[derive(Debug, Default)]
struct Statuses {
    /// Of all tasks that are assigned.
    latest: BTreeMap<String, TaskStatus>,
    /// Those that no manager has taken since the session began.
    pending: BTreeMap<String, TaskStatus>,
}

/// Shared by the worker, who puts them in, and the session, who brings them away.
#[derive(Debug, Clone, Default)]
pub(super) struct Reports {
    statuses: Arc<Mutex<Statuses>>,
    changed: Arc<Notify>,
}

impl Reports {
    fn with<R>(&self, act: impl FnOnce(&mut Statuses) -> R) -> R {
        act(&mut self.statuses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A task's new status. It must be on disk.
    pub(super) fn put(&self, id: &str, status: TaskStatus) {
        self.with(|all| {
            all.latest.insert(id.to_owned(), status.clone());
            all.pending.insert(id.to_owned(), status);
        });
        self.changed.notify_one();
    }

    /// A task that is not assigned any more: a manager refuses all of a call for one such task.
    pub(super) fn forget(&self, id: &str) {
        self.with(|all| {
            all.latest.remove(id);
            all.pending.remove(id);
        });
    }

    /// All have to be told again: a new session, perhaps with another manager.
    pub(super) fn begin(&self) {
        self.with(|all| all.pending = all.latest.clone());
        self.changed.notify_one();
    }

    /// Waits until there are some.
    pub(super) async fn next(&self) -> BTreeMap<String, TaskStatus> {
        loop {
            let pending = self.with(|all| all.pending.clone());
            if !pending.is_empty() {
                return pending;
            }
            self.changed.notified().await;
        }
    }

    /// A manager has taken these. What changed meanwhile stays.
    pub(super) fn taken(&self, taken: &BTreeMap<String, TaskStatus>) {
        self.with(|all| all.pending.retain(|id, status| taken.get(id) != Some(status)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: i32) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    #[tokio::test]
    async fn the_latest_of_each_task_is_told_until_it_is_taken() {
        let reports = Reports::default();
        reports.put("a", status(320));
        reports.put("a", status(512));
        reports.put("b", status(320));
        let first = reports.next().await;
        assert_eq!(first, [("a".to_owned(), status(512)), ("b".to_owned(), status(320))].into());
        assert_eq!(reports.next().await, first, "nobody took them");
        reports.put("b", status(512));
        reports.taken(&first);
        assert_eq!(reports.next().await, [("b".to_owned(), status(512))].into(), "b changed while it was told");
        reports.forget("b");
        reports.begin();
        assert_eq!(reports.next().await, [("a".to_owned(), status(512))].into(), "all again, but b is not ours");
    }
}
