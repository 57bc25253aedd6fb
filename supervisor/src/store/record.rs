//! What is written down of a pod: enough to go on after flintd's death at any moment.
//!
//! Each change says first what is going to be done (`Making`, `Creating`), then what came of it. Whoever finds an intention
//! without its result asks the shim.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::desired::{HostPort, Pod, Resources, SpecHash};
use crate::observed::{Exit, Reason};

/// A pod, as it is wanted and as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// What is wanted.
    #[serde(with = "shared")]
    pub pod: Arc<Pod>,
    /// Grows from pod to pod: the order in which they came.
    pub order: u64,
    /// When it came.
    pub since: SystemTime,
    /// It is on its way out.
    #[serde(default)]
    pub removal: Option<Removal>,
    /// It has failed as a whole, and runs no more.
    #[serde(default)]
    pub ending: Option<Ending>,
    /// Its sandbox, network and volumes.
    #[serde(default)]
    pub sandbox: SandboxRecord,
    /// Its containers by name; also those that are wanted no more and not gone yet.
    #[serde(default)]
    pub containers: BTreeMap<String, ContainerRecord>,
    /// How often `restart` was asked for; containers of an earlier one are stopped and started.
    #[serde(default)]
    pub generation: u64,
    /// When the containers of a pod that is stopped are killed at the latest.
    #[serde(default)]
    pub stop_by: Option<SystemTime>,
    /// It is beside another pod of its name, which serves until this one is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// A pod that takes the place of another one (see [`crate::desired::RollingUpdate`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The other's uid.
    pub replaces: String,
    /// Since when it is meant to.
    pub since: SystemTime,
    /// Whether it was told that its time is over.
    #[serde(default)]
    pub is_late: bool,
}

/// A pod is written as a plain value, without a scheduler's secrets, and read into a shared one: whoever looks at pods gets no copy.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::desired::Pod;

    pub(super) fn serialize<S: Serializer>(pod: &Arc<Pod>, serializer: S) -> Result<S::Ok, S::Error> {
        pod.to_keep().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Pod>, D::Error> {
        Pod::deserialize(deserializer).map(Arc::new)
    }
}

/// It is wanted no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Since when.
    pub since: SystemTime,
    /// In place of the pod's grace period, in seconds.
    pub grace: Option<u64>,
    /// Nothing of it is ended before: what was sent to it is answered first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<SystemTime>,
}

/// A pod that failed as a whole: evicted, out of its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// When.
    pub at: SystemTime,
    /// Why.
    pub reason: Reason,
    /// In place of the pod's grace period, in seconds.
    #[serde(default)]
    pub grace: Option<u64>,
}

/// What a pod's containers share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// How far it is.
    pub state: Sandbox,
    /// The shim that holds the pod. It is chosen and written down before anything is made in it.
    pub shim: Option<String>,
    /// What it was made from.
    pub spec: Option<SpecHash>,
    /// When it was ready.
    pub started: Option<SystemTime>,
    /// The pod's addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Host ports as they are.
    pub ports: Vec<HostPort>,
    /// The network namespace's file; none with the host's network.
    pub network: Option<std::path::PathBuf>,
    /// Why it is not there yet.
    pub retry: Retry,
    /// The content of files in volumes has changed since it was put in place.
    #[serde(default)]
    pub is_stale: bool,
}

/// How far a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sandbox {
    /// Nothing is there.
    #[default]
    Absent,
    /// Something may be there.
    Making,
    /// It is there.
    Ready,
}

/// Failures in a row, and when the next try is due.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retry {
    /// How many.
    pub failures: u32,
    /// Not before.
    pub next: Option<SystemTime>,
    /// What the last one said.
    pub reason: Option<Reason>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each was seen by itself")]
pub struct ContainerRecord {
    /// Of its last creation; the last part of its id in the runtime. 0: none yet.
    pub attempt: u32,
    /// Where it is.
    pub phase: ContainerPhase,
    /// Whether something of this attempt may be there: a task in the shim, a bundle.
    pub is_left: bool,
    /// What it was made from.
    pub spec: Option<SpecHash>,
    /// The limits that it has.
    pub resources: Option<Resources>,
    /// The generation of the pod that it was started in.
    #[serde(default)]
    pub generation: u64,
    /// Its first process on the host; 0: none.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// Ends in a row, for the back-off.
    pub crashes: u32,
    /// How it ended the time before.
    pub last_exit: Option<Exit>,
    /// It is being stopped.
    pub stopping: Option<Stopping>,
    /// The digest of its image, once it is here.
    pub image: Option<String>,
    /// The attempt that the image was looked after for.
    pub pulled_for: u32,
    /// Failures to pull, or to start.
    pub retry: Retry,
    /// Whether its startup probe has said yes, or it has none.
    pub started: bool,
    /// Whether it may be sent requests.
    pub ready: bool,
    /// Since when it may.
    #[serde(default)]
    pub ready_since: Option<SystemTime>,
    /// Its hook after the start has not come to its end: it may not be sent requests before.
    #[serde(default)]
    pub hook_due: bool,
    /// The kernel took it, or a process of it, for want of memory.
    #[serde(default)]
    pub oom: bool,
}

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerPhase {
    /// Not there.
    #[default]
    Absent,
    /// Create was, or is about to be, asked for.
    Creating,
    /// It waits for Start.
    Created,
    /// It runs.
    Running {
        /// Since when.
        started: SystemTime,
    },
    /// It has ended.
    Exited(Exit),
}

/// A container that was told to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// When SIGKILL is due.
    pub until: SystemTime,
    /// Whether SIGKILL was sent.
    pub killed: bool,
    /// Why.
    pub reason: Reason,
}

/// A shim that was started, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// Where it listens; none: it was about to be started.
    pub address: Option<String>,
}

impl ContainerRecord {
    /// Writes down whether it may be sent requests, and since when.
    pub fn set_ready(&mut self, ready: bool) {
        if ready != self.ready {
            self.ready_since = ready.then(SystemTime::now);
        }
        self.ready = ready;
    }
}

impl PodRecord {
    /// A pod that nothing was done for yet.
    #[must_use]
    pub fn new(pod: Arc<Pod>, order: u64, since: SystemTime) -> Self {
        Self {
            pod,
            order,
            since,
            removal: None,
            ending: None,
            sandbox: SandboxRecord::default(),
            containers: BTreeMap::new(),
            generation: 0,
            stop_by: None,
            rollout: None,
        }
    }

    /// The id in the runtime of a container's last attempt.
    #[must_use]
    pub fn runtime_id(&self, container: &str) -> Option<String> {
        let attempt = self.containers.get(container)?.attempt;
        (attempt > 0).then(|| format!("{}.{container}.{attempt}", self.pod.uid))
    }

    /// After a restart of the host: nothing is there, and nobody saw how it ended.
    pub fn forget_the_world(&mut self, now: SystemTime) {
        self.sandbox = SandboxRecord::default();
        for container in self.containers.values_mut() {
            container.pid = 0;
            container.stopping = None;
            container.set_ready(false);
            container.retry = Retry::default();
            // Its writable layer is on the disk still.
            container.is_left |= container.attempt > 0;
            if !matches!(container.phase, ContainerPhase::Absent | ContainerPhase::Exited(_)) {
                let started = match container.phase {
                    ContainerPhase::Running { started } => Some(started),
                    _ => None,
                };
                container.phase = ContainerPhase::Exited(Exit {
                    status: None,
                    oom: false,
                    started,
                    finished: now,
                    reason: Reason {
                        word: "NodeReboot".to_owned(),
                        sentence: "the host was started anew while it ran".to_owned(),
                    },
                    message: String::new(),
                });
                container.crashes = 0;
            }
        }
        // What they made is gone with the sandbox.
        for name in self.pod.init_containers.iter().map(|container| &container.name) {
            if let Some(container) = self.containers.get_mut(name)
                && matches!(&container.phase, ContainerPhase::Exited(Exit { status: Some(0), .. }))
            {
                container.phase = ContainerPhase::Absent;
            }
        }
    }
}
