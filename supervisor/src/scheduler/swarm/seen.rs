//! What a pod's status means for its task: [`PodStatus`] to [`Event`].

use super::state::Event;
use crate::observed::{ContainerState, ContainerStatus, Exit, Phase, PodStatus, Reason};

/// The name of a task's one container.
pub(super) const CONTAINER: &str = "task";

/// Reasons that do not go by waiting, for a manager that can try another node. All others do.
const FATAL: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    NO_SANDBOX,
];

/// A mount's source is missing, or another has its port, and not for a moment only.
const NO_SANDBOX: &str = "CreatePodSandboxError";

/// What there is to see in a pod's status.
#[must_use]
pub(super) fn seen(status: &PodStatus) -> Event {
    let container = status.containers.get(CONTAINER);
    match container.map(|container| (&container.state, container)) {
        Some((ContainerState::Running { .. }, container)) if container.started => Event::Running,
        Some((ContainerState::Running { .. }, _)) => Event::Starting,
        Some((ContainerState::Exited(exit), _)) => ended(status, exit),
        Some((ContainerState::Waiting(reason), _)) if is_fatal(reason) => Event::Impossible(reason.sentence.clone()),
        Some((ContainerState::Waiting(_) | ContainerState::Created, _)) | None => unstarted(status),
    }
}

fn unstarted(status: &PodStatus) -> Event {
    let why = || status.reason.as_ref().map_or_else(|| "the pod failed".to_owned(), |reason| reason.sentence.clone());
    match status.phase {
        Phase::Failed => Event::Impossible(why()),
        _ if status.reason.as_ref().is_some_and(is_fatal) => Event::Impossible(why()),
        _ if status.is_prepared => Event::Prepared,
        _ => Event::Making,
    }
}

/// Whether a pod's sandbox cannot be made: that of one from before flintd's start perhaps for want of its secrets.
#[must_use]
pub(super) fn lacks_sandbox(status: &PodStatus) -> bool {
    status.phase == Phase::Pending && status.reason.as_ref().is_some_and(|reason| reason.word == NO_SANDBOX)
}

fn is_fatal(reason: &Reason) -> bool {
    FATAL.contains(&reason.word.as_str())
}

fn ended(status: &PodStatus, exit: &Exit) -> Event {
    // A pod that was put out, or whose container was killed for its health, did not complete, whatever its program said.
    let put_out = status.reason.as_ref().filter(|_| status.phase == Phase::Failed);
    let unhealthy = Some(&exit.reason).filter(|reason| reason.word == "Unhealthy");
    let cause = put_out.or(unhealthy).or(Some(&exit.reason).filter(|reason| !reason.sentence.is_empty()));
    let cause = cause.map_or_else(String::new, |reason| format!(": {}", reason.sentence));
    match exit.status {
        Some(0) if put_out.is_none() && unhealthy.is_none() => Event::Done,
        Some(code) => Event::Failed(format!("task: non-zero exit ({code}){cause}")),
        None => Event::Failed(format!("task: its exit status was not seen{cause}")),
    }
}

/// The exit code that a manager is told.
#[must_use]
pub(super) fn exit_code(container: &ContainerStatus) -> i32 {
    match &container.state {
        ContainerState::Exited(exit) => exit.status.map_or(0, |status| status as i32),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::desired::Key;

    fn status(state: Option<ContainerState>) -> PodStatus {
        let mut status = PodStatus::new(Key::new("swarm", "a"), "a".into());
        if let Some(state) = state {
            let container = ContainerStatus {
                state,
                runtime_id: None,
                pid: 0,
                restarts: 0,
                last_exit: None,
                started: true,
                ready: true,
                image: None,
                spec: None,
            };
            status.containers.insert(CONTAINER.into(), container);
        }
        status
    }

    fn reason(word: &str) -> Reason {
        Reason { word: word.into(), sentence: format!("{word}!") }
    }

    fn exit(code: Option<u32>, word: &str) -> ContainerState {
        let sentence = reason(word);
        let reason = if word == "Completed" { Reason { sentence: String::new(), ..sentence } } else { sentence };
        let (started, finished) = (None, SystemTime::now());
        ContainerState::Exited(Exit { status: code, oom: false, started, finished, reason, message: String::new() })
    }

    #[test]
    fn states_of_a_pod() {
        assert_eq!(seen(&status(None)), Event::Making);
        let waiting = |word| status(Some(ContainerState::Waiting(reason(word))));
        assert_eq!(seen(&waiting("ContainerCreating")), Event::Making);
        assert_eq!(seen(&waiting("ErrImagePull")), Event::Impossible("ErrImagePull!".into()));
        let lacking = PodStatus { reason: Some(reason("CreatePodSandboxError")), ..waiting("PodInitializing") };
        assert_eq!(seen(&lacking), Event::Impossible("CreatePodSandboxError!".into()));
        let trying = PodStatus { reason: Some(reason("FailedCreatePodSandBox")), ..waiting("PodInitializing") };
        assert_eq!(seen(&trying), Event::Making);
        let pulling = PodStatus { reason: Some(reason("ImagePullBackOff")), ..status(None) };
        assert_eq!(seen(&pulling), Event::Impossible("ImagePullBackOff!".into()));
        assert_eq!(seen(&PodStatus { is_prepared: true, ..status(None) }), Event::Prepared);
        let running = || ContainerState::Running { started: SystemTime::now() };
        assert_eq!(seen(&status(Some(running()))), Event::Running);
        let mut unhealthy = status(Some(running()));
        unhealthy.containers.get_mut(CONTAINER).unwrap().started = false;
        assert_eq!(seen(&unhealthy), Event::Starting);
    }

    #[test]
    fn ends_of_a_container() {
        assert_eq!(seen(&status(Some(exit(Some(0), "Completed")))), Event::Done);
        let failed = |text: &str| Event::Failed(text.to_owned());
        assert_eq!(seen(&status(Some(exit(Some(3), "Error")))), failed("task: non-zero exit (3): Error!"));
        assert_eq!(seen(&status(Some(exit(Some(0), "Unhealthy")))), failed("task: non-zero exit (0): Unhealthy!"));
        assert_eq!(seen(&status(Some(exit(None, "Unknown")))), failed("task: its exit status was not seen: Unknown!"));
        let evicted = PodStatus {
            phase: Phase::Failed,
            reason: Some(reason("Evicted")),
            ..status(Some(exit(Some(0), "Completed")))
        };
        assert_eq!(seen(&evicted), failed("task: non-zero exit (0): Evicted!"));
    }
}
