//! A pod's state in one word, as kubectl finds it.

use super::PodView;
use crate::desired::Goal;
use crate::observed::{ContainerState, Exit, Phase};

/// The word, and the sentence behind it if there is one.
#[must_use]
pub fn status(view: &PodView) -> (String, Option<String>) {
    let status = &view.status;
    if status.terminating || view.source.is_none() {
        return ("Terminating".to_owned(), None);
    }
    if let Some(reason) = &status.reason
        && !reason.word.is_empty()
        && status.phase != Phase::Running
    {
        return (reason.word.clone(), Some(reason.sentence.clone()));
    }
    if let Some(found) = init_status(view) {
        return found;
    }
    let mains = status.containers.iter().filter(|(name, _)| !view.init_containers.contains(name));
    let mut worst = None;
    for (_, container) in mains {
        match &container.state {
            ContainerState::Waiting(reason) if !reason.word.is_empty() => {
                return (reason.word.clone(), Some(reason.sentence.clone()));
            }
            ContainerState::Exited(exit) if exit.status != Some(0) => {
                worst = Some((ended(exit), Some(exit.reason.sentence.clone())));
            }
            _ => {}
        }
    }
    let word = match (status.phase, view.goal) {
        (Phase::Succeeded, _) => "Completed",
        (_, Goal::Stopped) => "Stopped",
        (Phase::Failed, _) => return worst.unwrap_or_else(|| ("Error".to_owned(), None)),
        (Phase::Pending, _) => "Pending",
        (Phase::Running, _) => return worst.unwrap_or_else(|| ("Running".to_owned(), None)),
    };
    (word.to_owned(), None)
}

/// What is told of a pod whose init containers are not through.
fn init_status(view: &PodView) -> Option<(String, Option<String>)> {
    let total = view.init_containers.len();
    for (index, name) in view.init_containers.iter().enumerate() {
        let state = view.status.containers.get(name).map(|container| &container.state);
        let told = match state {
            Some(ContainerState::Exited(exit)) if exit.status == Some(0) => continue,
            Some(ContainerState::Exited(exit)) => (format!("Init:{}", ended(exit)), Some(exit.reason.sentence.clone())),
            Some(ContainerState::Waiting(reason)) if !reason.word.is_empty() && reason.word != "PodInitializing" => {
                (format!("Init:{}", reason.word), Some(reason.sentence.clone()))
            }
            _ => (format!("Init:{index}/{total}"), None),
        };
        return (view.status.phase != Phase::Running).then_some(told);
    }
    None
}

fn ended(exit: &Exit) -> String {
    match (&exit.reason.word, exit.status) {
        _ if exit.oom => "OOMKilled".to_owned(),
        (word, _) if !word.is_empty() => word.clone(),
        (_, Some(status)) => format!("ExitCode:{status}"),
        (_, None) => "Unknown".to_owned(),
    }
}

/// Ready containers and all of them; init containers do not count.
#[must_use]
pub fn ready(view: &PodView) -> (usize, usize) {
    let mains: Vec<&String> = view.images.keys().filter(|name| !view.init_containers.contains(name)).collect();
    let is_ready = |name: &&&String| view.status.containers.get(**name).is_some_and(|container| container.ready);
    (mains.iter().filter(is_ready).count(), mains.len())
}

/// Whether anything of it is under way or running.
#[must_use]
pub fn is_active(view: &PodView) -> bool {
    let ended = matches!(view.status.phase, Phase::Succeeded | Phase::Failed) || view.goal == Goal::Stopped;
    !ended || view.status.terminating
}
