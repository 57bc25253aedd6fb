//! Removals: what must go before anything new comes.

use std::time::{Duration, SystemTime};

use super::{Action, Wake};
use crate::desired::{Container, Goal, Source, SpecHash};
use crate::observed::Reason;
use crate::store::{ContainerPhase, ContainerRecord, PodRecord, Sandbox};

fn because(word: &str, sentence: &str) -> Reason {
    Reason { word: word.to_owned(), sentence: sentence.to_owned() }
}

/// The next removal, if anything has to go.
pub(super) fn next(record: &PodRecord, now: SystemTime, wake: &mut Wake) -> Option<Action> {
    if let Some(expired) = expire(record, now, wake) {
        return Some(expired);
    }
    let is_leaving = record.removal.as_ref().is_some_and(|removal| wake.is_due(removal.after, now));
    for (name, container) in &record.containers {
        let reason = must_stop(record, name, container, is_leaving);
        if let Some(action) = end(record, name, container, reason, now, wake) {
            return Some(action);
        }
    }
    // What has ended is taken away at once: its memory and mounts are of no use to anybody. Its logs stay.
    for (name, container) in &record.containers {
        let ended = matches!(container.phase, ContainerPhase::Exited(_) | ContainerPhase::Absent);
        if ended && container.is_left && wake.is_due(container.retry.next, now) {
            return Some(Action::Delete { container: name.clone() });
        }
        if ended && !container.is_left && wanted(record, name).is_none() && record.removal.is_none() {
            return Some(Action::Drop { container: name.clone() });
        }
    }
    let nothing_is_left = record.containers.values().all(|container| !container.is_left);
    // A scheduler starts none again that it has stopped: its host ports are for the next one.
    let is_dismissed = record.pod.goal == Goal::Stopped && matches!(record.pod.source, Source::Scheduler(_));
    let must_go = is_leaving || is_over(record) || is_other(record) || is_dismissed;
    if must_go && nothing_is_left && record.sandbox.state != Sandbox::Absent {
        return wake.is_due(record.sandbox.retry.next, now).then_some(Action::TearDown);
    }
    (record.removal.is_some() && nothing_is_left && record.sandbox.state == Sandbox::Absent).then_some(Action::Forget)
}

/// The pod's time is over.
fn expire(record: &PodRecord, now: SystemTime, wake: &mut Wake) -> Option<Action> {
    let deadline = record.sandbox.started? + record.pod.active_deadline?;
    let counts = record.removal.is_none() && !is_over(record) && record.pod.goal == Goal::Running;
    (counts && wake.is_due(Some(deadline), now)).then_some(Action::Expire)
}

/// Whether no container of the pod is going to run again.
pub(super) fn is_over(record: &PodRecord) -> bool {
    record.ending.is_some() || (record.pod.goal == Goal::Running && super::status::has_ended(record))
}

/// Whether the sandbox was made from something else.
pub(super) fn is_other(record: &PodRecord) -> bool {
    record.sandbox.spec.as_ref().is_some_and(|spec| *spec != record.pod.sandbox_hash())
}

/// The container of this name that is wanted.
pub(super) fn wanted<'a>(record: &'a PodRecord, name: &str) -> Option<&'a Container> {
    record.pod.all_containers().find(|container| container.name == name)
}

/// Whether a container was made from something else.
pub(super) fn is_changed(container: &ContainerRecord, spec: &SpecHash) -> bool {
    container.spec.as_ref().is_some_and(|made| made != spec)
}

/// Why a container must not run (any more).
fn must_stop(record: &PodRecord, name: &str, container: &ContainerRecord, is_leaving: bool) -> Option<Reason> {
    if is_leaving {
        return Some(because("Killing", "the pod is removed"));
    }
    if let Some(ending) = &record.ending {
        return Some(ending.reason.clone());
    }
    match record.pod.goal {
        Goal::Stopped => return Some(because("Killing", "the pod is stopped")),
        // One that runs already is not taken back.
        Goal::Prepared | Goal::Running => {}
    }
    let Some(spec) = wanted(record, name) else {
        return Some(because("Killing", "the pod has no such container any more"));
    };
    if is_other(record) {
        return Some(because("SandboxChanged", "the pod's sandbox is made anew"));
    }
    if is_changed(container, &spec.spec_hash()) {
        return Some(because("Killing", "its specification has changed"));
    }
    (container.generation < record.generation).then(|| because("Killing", "a restart was asked for"))
}

/// The next step of a container's end.
fn end(
    record: &PodRecord,
    name: &str,
    container: &ContainerRecord,
    reason: Option<Reason>,
    now: SystemTime,
    wake: &mut Wake,
) -> Option<Action> {
    match container.phase {
        ContainerPhase::Running { .. } => {}
        // It was never started: no hook and no signal has a meaning.
        ContainerPhase::Created | ContainerPhase::Creating => {
            let killed = container.stopping.as_ref().is_some_and(|stopping| stopping.killed);
            return (reason.is_some() && !killed).then(|| Action::Kill { container: name.to_owned() });
        }
        ContainerPhase::Absent | ContainerPhase::Exited(_) => return None,
    }
    let latest = latest(record);
    if let Some(stopping) = &container.stopping {
        // A second word with less grace shortens what is under way.
        let until = latest.map_or(stopping.until, |latest| stopping.until.min(latest));
        return (!stopping.killed && wake.is_due(Some(until), now))
            .then(|| Action::Kill { container: name.to_owned() });
    }
    let left = latest.map(|latest| latest.duration_since(now).unwrap_or_default());
    Some(Action::Stop { container: name.to_owned(), grace: left.unwrap_or(record.pod.grace), reason: reason? })
}

/// When containers are killed at the latest, if somebody has said so.
fn latest(record: &PodRecord) -> Option<SystemTime> {
    let removal = record.removal.as_ref().and_then(|removal| Some((removal.since, removal.grace?)));
    let ending = record.ending.as_ref().and_then(|ending| Some((ending.at, ending.grace?)));
    let said = [removal, ending].into_iter().flatten().map(|(since, grace)| since + Duration::from_secs(grace)).min();
    said.or_else(|| record.stop_by.filter(|_| record.removal.is_none() && record.pod.goal == Goal::Stopped))
}
