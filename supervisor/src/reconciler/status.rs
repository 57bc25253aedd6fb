//! A pod's status, of its record.

use std::time::SystemTime;

use super::backoff;
use crate::desired::{Container, Goal, RestartPolicy, Source};
use crate::observed::{ContainerState, ContainerStatus, Exit, Phase, PodStatus, Reason};
use crate::store::{ContainerPhase, ContainerRecord, PodRecord, Retry, Sandbox};

/// A sandbox that could not be made so often is not going to be: half a minute, in which the pod before it may give its ports back.
/// Shims that were lost do not count.
const PASSING: u32 = 3;

/// Whether an init container has done its work.
pub(super) fn is_done(record: &PodRecord, container: &Container) -> bool {
    record.containers.get(&container.name).is_some_and(|there| {
        matches!(&there.phase, ContainerPhase::Exited(Exit { status: Some(0), .. }))
            && there.generation >= record.generation
    })
}

/// Whether a container is started again because the host went down under it: nobody saw how it ended, and it is not its fault. Not
/// a scheduler's, which has another in its place by then.
pub(super) fn was_cut_off(record: &PodRecord, exit: &Exit) -> bool {
    exit.reason.word == "NodeReboot" && !matches!(record.pod.source, Source::Scheduler(_))
}

/// How a container ended that is not going to be started again.
fn last<'a>(record: &'a PodRecord, container: &Container, policy: RestartPolicy) -> Option<&'a Exit> {
    let there = record.containers.get(&container.name)?;
    let ContainerPhase::Exited(exit) = &there.phase else { return None };
    let stays = there.generation >= record.generation
        && there.spec.as_ref().is_some_and(|spec| *spec == container.spec_hash())
        && !was_cut_off(record, exit)
        && match policy {
            RestartPolicy::Always => false,
            RestartPolicy::OnFailure => exit.status == Some(0),
            RestartPolicy::Never => true,
        };
    stays.then_some(exit)
}

/// Whether none of its containers is going to run again by its restart policy.
pub(super) fn has_ended(record: &PodRecord) -> bool {
    let init_failed =
        record.pod.restart == RestartPolicy::Never
            && record.pod.init_containers.iter().any(|container| {
                last(record, container, RestartPolicy::Never).is_some_and(|exit| exit.status != Some(0))
            });
    init_failed || record.pod.containers.iter().all(|container| last(record, container, record.pod.restart).is_some())
}

fn phase(record: &PodRecord) -> Phase {
    if record.ending.is_some() {
        return Phase::Failed;
    }
    if has_ended(record) {
        let all_well =
            record.pod.containers.iter().all(|container| {
                last(record, container, record.pod.restart).is_some_and(|exit| exit.status == Some(0))
            });
        return if all_well { Phase::Succeeded } else { Phase::Failed };
    }
    let started = |container: &Container| {
        record.containers.get(&container.name).is_some_and(|there| {
            there.last_exit.is_some()
                || matches!(there.phase, ContainerPhase::Running { .. } | ContainerPhase::Exited(_))
        })
    };
    if record.pod.containers.iter().all(started) { Phase::Running } else { Phase::Pending }
}

/// Why a sandbox is not there; what does not go by waiting has a word of its own.
fn waiting(retry: &Retry) -> Option<Reason> {
    let mut reason = retry.reason.clone()?;
    if reason.word == "FailedCreatePodSandBox" && retry.failures >= PASSING {
        "CreatePodSandboxError".clone_into(&mut reason.word);
    }
    Some(reason)
}

/// What is told of a pod. `revision` is the caller's.
#[must_use]
pub fn status(record: &PodRecord, revision: u64, now: SystemTime) -> PodStatus {
    let sandbox = &record.sandbox;
    let images_are_here = record
        .pod
        .all_containers()
        .all(|container| record.containers.get(&container.name).is_some_and(|there| there.image.is_some()));
    let reason = record.ending.as_ref().map(|ending| ending.reason.clone());
    let waiting = (sandbox.state != Sandbox::Ready).then(|| waiting(&sandbox.retry)).flatten();
    let late = record.rollout.as_ref().filter(|rollout| rollout.is_late);
    let containers = record
        .pod
        .all_containers()
        .map(|container| (container.name.clone(), container_status(record, container, now)))
        .collect();
    PodStatus {
        key: record.pod.key.clone(),
        uid: record.pod.uid.clone(),
        phase: phase(record),
        reason: reason.or(waiting).or_else(|| late.map(super::too_late)),
        is_prepared: sandbox.state == Sandbox::Ready && images_are_here,
        terminating: record.removal.is_some(),
        addresses: sandbox.addresses.clone(),
        ports: sandbox.ports.clone(),
        replaces: record.rollout.as_ref().map(|rollout| rollout.replaces.clone()),
        started: sandbox.started,
        containers,
        revision,
    }
}

fn container_status(record: &PodRecord, wanted: &Container, now: SystemTime) -> ContainerStatus {
    let fresh = ContainerRecord::default();
    let there = record.containers.get(&wanted.name).unwrap_or(&fresh);
    let is_init = record.pod.init_containers.iter().any(|container| container.name == wanted.name);
    ContainerStatus {
        state: state(record, wanted, there, is_init, now),
        runtime_id: record.runtime_id(&wanted.name),
        pid: there.pid,
        restarts: there.restarts,
        last_exit: there.last_exit.clone(),
        started: there.started,
        ready: if is_init { is_done(record, wanted) } else { there.ready && !there.hook_due },
        image: there.image.clone(),
        spec: there.spec.clone(),
    }
}

fn state(
    record: &PodRecord,
    wanted: &Container,
    there: &ContainerRecord,
    is_init: bool,
    now: SystemTime,
) -> ContainerState {
    let waits = |word: &str, sentence: String| ContainerState::Waiting(Reason { word: word.to_owned(), sentence });
    // What cannot be taken away of one that has ended does not hide how it ended.
    let is_news = match there.phase {
        ContainerPhase::Running { .. } => false,
        ContainerPhase::Exited(_) => !there.is_left,
        _ => true,
    };
    if let Some(reason) = there.retry.reason.as_ref().filter(|_| is_news) {
        return ContainerState::Waiting(reason.clone());
    }
    match &there.phase {
        ContainerPhase::Created => ContainerState::Created,
        ContainerPhase::Running { started } => ContainerState::Running { started: *started },
        ContainerPhase::Exited(exit) => {
            let policy = if is_init && record.pod.restart != RestartPolicy::Never {
                RestartPolicy::OnFailure
            } else {
                record.pod.restart
            };
            let runs_again = record.removal.is_none()
                && record.ending.is_none()
                && record.pod.goal == Goal::Running
                && last(record, wanted, policy).is_none();
            let due = exit.finished + backoff::restart_pause(there.crashes);
            if runs_again && due > now {
                let seconds = backoff::restart_pause(there.crashes).as_secs();
                return waits(
                    "CrashLoopBackOff",
                    format!("it has ended and is started again {seconds} s after its end"),
                );
            }
            ContainerState::Exited(exit.clone())
        }
        ContainerPhase::Absent | ContainerPhase::Creating if record.sandbox.state == Sandbox::Ready => {
            waits("ContainerCreating", "it is being made, or waits for those before it".to_owned())
        }
        ContainerPhase::Absent | ContainerPhase::Creating => {
            waits("PodInitializing", "the pod's sandbox is being made".to_owned())
        }
    }
}
