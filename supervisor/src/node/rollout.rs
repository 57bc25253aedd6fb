//! Rolling updates: a changed pod is made beside the one that serves, and takes its host ports when it is ready.
//!
//! ```text
//!  apply ─> new pod, its host ports closed ─> ready for minReadySeconds ─> TakeOver: ports in one step ─> the old one drains, ends
//!                  └─ not ready in progressDeadlineSeconds: told; the old one goes on serving
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::{Entry, Node};
use crate::desired::{Key, Pod};
use crate::observed::Reason;
use crate::pod::blocking;
use crate::reconciler::{self, Action, Decision};
use crate::scheduler::Refused;
use crate::store::{PodRecord, Removal, Retry, Rollout};

/// So long a pod is left as it is after its host ports lead to another: connections that were made in the last moment are
/// accepted by then. Whoever wants more has a preStop hook (`sleep`).
const DRAIN: Duration = Duration::from_secs(2);

impl Node {
    /// The pod that is made beside the one that serves, as `newest` was perhaps. None: it is the one that serves, and no other
    /// one is wanted any more.
    pub(super) fn plan_rollout(&self, newest: &Entry, pod: &Pod) -> Result<Option<(Rollout, Pod)>, Refused> {
        let failed = |error: serde_json::Error| Refused(format!("give {} another uid: {error}", pod.key));
        let serving = newest.read(|record| record.rollout.as_ref().map(|rollout| rollout.replaces.clone()));
        let serving = serving.and_then(|uid| self.entry(&uid)).filter(|entry| !entry.is_leaving());
        if let Some(serving) = &serving
            && pod.with_uid(&serving.uid()).map_err(failed)? == *serving.view().pod
        {
            return Ok(None);
        }
        let replaces = serving.map_or_else(|| newest.uid(), |entry| entry.uid());
        let rollout = Rollout { replaces, since: SystemTime::now(), is_late: false };
        Ok(Some((rollout, pod.with_uid(&super::apply::new_uid()).map_err(failed)?)))
    }

    /// A pod that is ready takes the place of the one before. A failure is in the record; an error is the store's.
    pub(crate) async fn take_over_from(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<()> {
        // Nobody takes the pod back meanwhile, or puts another one beside it.
        let _changing = self.changing.lock().await;
        // While this waited for its turn it may have failed, been stopped, or be going.
        let is_due =
            |record: &PodRecord| reconciler::next(record, SystemTime::now()) == Decision::Act(Action::TakeOver);
        let rollout = entry.read(|record| record.rollout.clone().filter(|_| is_due(record)));
        let Some(Rollout { replaces, .. }) = rollout else { return Ok(()) };
        let (node, uid, from) = (self.clone(), entry.uid(), replaces.clone());
        let ports = match blocking(move || Ok(node.networks.take_over(&uid, &from)?)).await {
            Ok(ports) => ports,
            Err(error) => {
                let why = Reason { word: "FailedRollingUpdate".to_owned(), sentence: format!("{error:#}") };
                self.tell(Some(&entry.key()), None, true, why.clone());
                return entry.change(self, |record| record.sandbox.retry.failed(why, false)).await;
            }
        };
        if let Some(old) = self.entry(&replaces) {
            let now = SystemTime::now();
            let dismissed = old.change(self, |record| {
                record.sandbox.ports.clear();
                record.removal.get_or_insert(Removal { since: now, grace: None, after: Some(now + DRAIN) });
            });
            dismissed.await?;
        }
        let done = entry.change(self, |record| {
            record.rollout = None;
            record.sandbox.ports = ports;
            record.sandbox.retry = Retry::default();
        });
        done.await?;
        let sentence = format!("the pod {} has taken the place of {replaces}, which ends", entry.uid());
        self.tell(Some(&entry.key()), None, false, Reason { word: "RollingUpdate".to_owned(), sentence });
        Ok(())
    }

    /// A pod that should take another's place is not ready, and its time is over.
    pub(crate) async fn tell_delay(&self, entry: &Entry) -> Result<()> {
        let late = entry.change(self, |record| {
            let rollout = record.rollout.as_mut()?;
            rollout.is_late = true;
            Some(reconciler::too_late(rollout))
        });
        if let Some(why) = late.await? {
            self.tell(Some(&entry.key()), None, true, why);
        }
        Ok(())
    }

    /// All pods of a name that are not on their way out.
    pub(super) fn all_present(&self, key: &Key) -> Vec<Arc<Entry>> {
        self.named(key).into_iter().filter(|entry| !entry.is_leaving()).collect()
    }
}
