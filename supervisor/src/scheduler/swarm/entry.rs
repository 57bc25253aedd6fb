//! One task: where it is, what its pod was last asked to be, and what has to be done next.

use std::sync::Arc;
use std::time::SystemTime;

use super::assignments::Payloads;
use super::mapping::{self, port_status};
use super::roster::Listed;
use super::seen::{CONTAINER, exit_code, lacks_sandbox, seen};
use super::state::{Event, Next, Order, next};
use super::wire::node::NodeDescription;
use super::wire::task::{ContainerStatus, Task, TaskState, TaskStatus};
use crate::desired::{Goal, Key, Pod};
use crate::observed::PodStatus;
use crate::scheduler::{HealthCheck, Host};

/// A task of this node.
#[derive(Debug)]
pub(super) struct Entry {
    /// As it was assigned last.
    pub(super) task: Task,
    /// As it is.
    pub(super) status: TaskStatus,
    /// The key of its pod.
    pub(super) key: Key,
    /// The uid of its pod.
    pub(super) uid: String,
    /// What its pod was asked to be; None: the node has no pod of it.
    pub(super) goal: Option<Goal>,
    /// Why the node does not take it.
    pub(super) refused: Option<String>,
    /// Whether its pod was told to go.
    pub(super) is_discarded: bool,
    /// Whether its pod is from before flintd's start and may wait for secrets.
    pub(super) is_inherited: bool,
    /// Whether its pod is being made.
    pub(super) is_making: bool,
    order: Order,
}

/// Something to do with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Set it with this goal.
    Set(Goal),
    /// Remove it.
    Discard,
}

impl Entry {
    pub(super) fn new(task: Task, status: TaskStatus) -> Self {
        let (key, uid) = (mapping::key(&task), mapping::uid(&task));
        Self {
            task,
            status,
            key,
            uid,
            goal: None,
            refused: None,
            is_discarded: false,
            is_inherited: false,
            is_making: false,
            order: Order::Nothing,
        }
    }

    pub(super) fn listed(&self) -> Listed {
        Listed { key: self.key.clone(), service_id: self.task.service_id.clone(), node_id: self.task.node_id.clone() }
    }

    pub(super) fn state(&self) -> TaskState {
        TaskState::try_from(self.status.state).unwrap_or(TaskState::New)
    }

    fn desired(&self) -> TaskState {
        // One of a later swarmkit is beyond what we know: it is an end.
        TaskState::try_from(self.task.desired_state).unwrap_or(TaskState::Shutdown)
    }

    fn event(&self, pod: Option<&PodStatus>) -> Event {
        match (&self.refused, pod) {
            // Also if the pod is there: it was prepared, and the node takes it no further.
            (Some(reason), _) if self.desired() < TaskState::Shutdown => Event::Impossible(reason.clone()),
            // What it wants for comes with the first assignments.
            (_, Some(pod)) if self.is_inherited && lacks_sandbox(pod) => Event::Making,
            (_, Some(pod)) => seen(pod),
            (_, None) => Event::Absent,
        }
    }

    /// Looks at the pod; whether the status is another one now. `is_assigned`: see the worker's.
    pub(super) fn look(&mut self, pod: Option<&PodStatus>, is_assigned: bool, now: SystemTime) -> bool {
        let event = self.event(pod);
        if event == Event::Absent {
            self.goal = None;
        }
        let Next { state, error, order } = next(self.desired(), self.state(), &event);
        // Before a manager has sent the secrets, nothing new is made and nothing is started.
        let is_early = !is_assigned && matches!(order, Order::Prepare | Order::Run);
        self.order = if is_early { Order::Nothing } else { order };
        self.is_making = event == Event::Making;
        let before = self.state();
        if is_early && event == Event::Absent {
            return false;
        }
        let container = pod.and_then(|pod| container_status(pod, state)).or_else(|| self.status.container.clone());
        let ports = pod.filter(|_| state == TaskState::Running).and_then(|pod| port_status(&self.task, &pod.ports));
        let ports = if state < TaskState::Running { None } else { ports.or_else(|| self.status.port_status.clone()) };
        if state == before && container == self.status.container && ports == self.status.port_status {
            return false;
        }
        if state != before {
            tracing::info!(task = %self.key.name, from = ?before, to = ?state, error, "task");
        }
        self.status = TaskStatus {
            timestamp: Some(now.into()),
            state: state.into(),
            message: message(state).to_owned(),
            err: error.unwrap_or_else(|| self.status.err.clone()),
            container,
            port_status: ports,
        };
        true
    }

    /// What is to be done that has not been asked for yet.
    pub(super) fn work(&self, is_there: bool) -> Option<Work> {
        let again = self.is_inherited && self.is_making;
        match (self.order, self.goal) {
            // Its secrets come with it.
            (Order::Prepare, Some(Goal::Prepared)) if again => Some(Work::Set(Goal::Prepared)),
            (Order::Run, Some(Goal::Running)) if again => Some(Work::Set(Goal::Running)),
            (Order::Prepare, None) => Some(Work::Set(Goal::Prepared)),
            (Order::Run, None | Some(Goal::Prepared)) => Some(Work::Set(Goal::Running)),
            (Order::Stop, Some(Goal::Prepared | Goal::Running)) => Some(Work::Set(Goal::Stopped)),
            (Order::Discard, _) if is_there && !self.is_discarded => Some(Work::Discard),
            _ => None,
        }
    }

    /// The name of its image.
    pub(super) fn image(&self) -> &str {
        let spec = self.task.spec.as_ref().and_then(|spec| spec.container.as_ref());
        spec.map_or("", |spec| spec.image.as_str())
    }

    /// The pod with a goal.
    pub(super) fn pod(
        &self,
        goal: Goal,
        payloads: &Payloads,
        node: &NodeDescription,
        host: &Arc<dyn Host>,
        image: Option<&HealthCheck>,
    ) -> Result<Pod, String> {
        if goal == Goal::Stopped {
            // What runs is stopped as it is, also when its secrets are not known any more.
            let found = host.pods().into_iter().find(|pod| pod.uid == self.uid);
            return found.map(|pod| Pod { goal, ..pod }).ok_or_else(|| "the node has no such pod".to_owned());
        }
        mapping::pod(&self.task, payloads, node, image)
            .map(|pod| Pod { goal, ..pod })
            .map_err(|refused| refused.to_string())
    }
}

fn container_status(pod: &PodStatus, state: TaskState) -> Option<ContainerStatus> {
    let container = pod.containers.get(CONTAINER)?;
    let container_id = container.runtime_id.clone()?;
    let is_running = state == TaskState::Running || state == TaskState::Starting;
    let pid = if is_running { container.pid as i32 } else { 0 };
    Some(ContainerStatus { container_id, pid, exit_code: exit_code(container) })
}

/// swarmkit's words.
fn message(state: TaskState) -> &'static str {
    match state {
        TaskState::New | TaskState::Pending | TaskState::Assigned => "assigned",
        TaskState::Accepted => "accepted",
        TaskState::Preparing => "preparing",
        TaskState::Ready => "prepared",
        TaskState::Starting => "starting",
        TaskState::Running => "started",
        TaskState::Complete => "finished",
        TaskState::Shutdown => "shutdown",
        TaskState::Failed => "failed",
        TaskState::Rejected => "rejected",
        TaskState::Remove | TaskState::Orphaned => "removed",
    }
}
