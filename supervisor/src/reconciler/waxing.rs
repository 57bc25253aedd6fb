//! What comes: sandbox, init containers, containers.

use std::time::SystemTime;

use super::waning::{is_changed, is_other, is_over};
use super::{Action, Wake, backoff, status};
use crate::desired::{Container, Goal, RestartPolicy};
use crate::store::{ContainerPhase, ContainerRecord, PodRecord, Sandbox};

/// The next thing to be made.
pub(super) fn next(record: &PodRecord, now: SystemTime, wake: &mut Wake) -> Option<Action> {
    if record.removal.is_some() || is_over(record) || record.pod.goal == Goal::Stopped || is_other(record) {
        return None;
    }
    if record.sandbox.state != Sandbox::Ready {
        return wake.is_due(record.sandbox.retry.next, now).then_some(Action::Prepare);
    }
    if record.sandbox.is_stale && wake.is_due(record.sandbox.retry.next, now) {
        return Some(Action::Refresh);
    }
    if record.pod.goal == Goal::Prepared {
        return record.pod.all_containers().find_map(|container| pull(record, container, now, wake));
    }
    for container in &record.pod.init_containers {
        if status::is_done(record, container) {
            continue;
        }
        // The others wait for it.
        return further(record, container, RestartPolicy::OnFailure, now, wake);
    }
    record.pod.containers.iter().find_map(|container| further(record, container, record.pod.restart, now, wake))
}

fn pull(record: &PodRecord, container: &Container, now: SystemTime, wake: &mut Wake) -> Option<Action> {
    let (attempt, pulled_for, due) = record
        .containers
        .get(&container.name)
        .map_or((0, 0, true), |there| (there.attempt, there.pulled_for, wake.is_due(there.retry.next, now)));
    (pulled_for <= attempt && due).then(|| Action::Pull { container: container.name.clone() })
}

/// The next step of a container that should run; `policy` says whether it is started again.
fn further(
    record: &PodRecord,
    wanted: &Container,
    policy: RestartPolicy,
    now: SystemTime,
    wake: &mut Wake,
) -> Option<Action> {
    let name = || wanted.name.clone();
    let fresh = ContainerRecord::default();
    let there = record.containers.get(&wanted.name).unwrap_or(&fresh);
    match &there.phase {
        ContainerPhase::Creating => None,
        ContainerPhase::Created => wake.is_due(there.retry.next, now).then(|| Action::Start { container: name() }),
        ContainerPhase::Running { .. } => {
            let changed = there.stopping.is_none() && there.resources.as_ref() != Some(&wanted.resources);
            (changed && wake.is_due(there.retry.next, now)).then(|| Action::Update { container: name() })
        }
        // What is left of it is taken away first.
        _ if there.is_left => None,
        ContainerPhase::Absent => make(there, wanted, now, wake),
        ContainerPhase::Exited(exit) => {
            let anew = is_changed(there, &wanted.spec_hash()) || there.generation < record.generation;
            let again = match policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => exit.status != Some(0),
                RestartPolicy::Never => false,
            } || status::was_cut_off(record, exit);
            let pause = if anew { None } else { Some(exit.finished + backoff::restart_pause(there.crashes)) };
            ((anew || again) && wake.is_due(pause, now)).then(|| make(there, wanted, now, wake)).flatten()
        }
    }
}

/// Its image, then itself.
fn make(there: &ContainerRecord, wanted: &Container, now: SystemTime, wake: &mut Wake) -> Option<Action> {
    if !wake.is_due(there.retry.next, now) {
        return None;
    }
    let container = wanted.name.clone();
    Some(if there.pulled_for <= there.attempt { Action::Pull { container } } else { Action::Create { container } })
}
