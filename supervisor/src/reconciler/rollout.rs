//! A pod beside another one of its name: when it takes its place.

use std::time::SystemTime;

use super::{Action, Wake};
use crate::desired::Goal;
use crate::observed::Reason;
use crate::store::{ContainerPhase, PodRecord, Rollout};

/// The next step of taking the other's place, if that is due.
pub(super) fn next(record: &PodRecord, now: SystemTime, wake: &mut Wake) -> Option<Action> {
    let rollout = record.rollout.as_ref().filter(|_| record.removal.is_none())?;
    let strategy = record.pod.rolling.unwrap_or_default();
    if let Some(since) = ready_since(record)
        && wake.is_due(Some(since + strategy.min_ready), now)
    {
        return wake.is_due(record.sandbox.retry.next, now).then_some(Action::TakeOver);
    }
    let deadline = rollout.since + strategy.progress_deadline;
    (!rollout.is_late && wake.is_due(Some(deadline), now)).then_some(Action::Delay)
}

/// Since when all its containers may be sent requests; None: not all may.
fn ready_since(record: &PodRecord) -> Option<SystemTime> {
    let since = record.pod.containers.iter().map(|container| {
        let there = record.containers.get(&container.name)?;
        let runs = matches!(there.phase, ContainerPhase::Running { .. }) && there.stopping.is_none();
        // A record of before this was written down: it has been ready for long.
        (runs && there.ready && !there.hook_due).then(|| there.ready_since.unwrap_or(SystemTime::UNIX_EPOCH))
    });
    let latest = since.collect::<Option<Vec<_>>>()?.into_iter().max();
    latest.filter(|_| record.ending.is_none() && record.pod.goal == Goal::Running)
}

/// What is told of a pod that is not ready in its time.
pub(crate) fn too_late(rollout: &Rollout) -> Reason {
    let sentence =
        format!("the pod did not get ready in its time: the one before, {}, goes on serving", rollout.replaces);
    Reason { word: "ProgressDeadlineExceeded".to_owned(), sentence }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{START, after, assert_next, change, running};
    use crate::desired::RollingUpdate;
    use crate::store::{PodRecord, Removal, Rollout};

    /// A pod beside another one, ready since then.
    fn beside(ready_since: Option<u64>) -> PodRecord {
        let mut record = running();
        let strategy = RollingUpdate { min_ready: Duration::from_secs(5), progress_deadline: Duration::from_secs(60) };
        change(&mut record, |pod| pod.rolling = Some(strategy));
        record.rollout = Some(Rollout { replaces: "other".to_owned(), since: START, is_late: false });
        let there = record.containers.get_mut("main").unwrap();
        (there.ready, there.ready_since) = (ready_since.is_some(), ready_since.map(after));
        record
    }

    #[test]
    fn it_takes_the_others_place_when_it_has_been_ready_for_a_while() {
        let record = beside(Some(10));
        assert_next(&record, after(11), "wait until 15");
        assert_next(&record, after(15), "takeover");
        let mut record = beside(Some(10));
        record.sandbox.retry.next = Some(after(30));
        assert_next(&record, after(15), "wait until 30");
        record.containers.get_mut("main").unwrap().hook_due = true;
        assert_next(&record, after(30), "wait until 60");
        record.removal = Some(Removal { since: after(15), grace: None, after: None });
        assert_next(&record, after(30), "stop main in 30 s");
        let mut record = beside(Some(10));
        record.rollout = None;
        assert_next(&record, after(15), "wait");
    }

    #[test]
    fn it_is_told_once_that_it_is_late_and_it_goes_on() {
        let mut record = beside(None);
        assert_next(&record, after(1), "wait until 60");
        assert_next(&record, after(60), "delay");
        record.rollout.as_mut().unwrap().is_late = true;
        assert_next(&record, after(61), "wait");
        let told = super::super::status(&record, 0, after(61));
        assert_eq!(told.reason.map(|reason| reason.word).as_deref(), Some("ProgressDeadlineExceeded"));
        assert_eq!(told.replaces.as_deref(), Some("other"));
        let there = record.containers.get_mut("main").unwrap();
        (there.ready, there.ready_since) = (true, Some(after(62)));
        assert_next(&record, after(67), "takeover");
    }

    #[test]
    fn the_other_one_is_left_alone_until_it_has_drained() {
        let mut record = running();
        record.removal = Some(Removal { since: START, grace: None, after: Some(after(2)) });
        assert_next(&record, after(1), "wait until 2");
        assert_next(&record, after(2), "stop main in 30 s");
    }
}
