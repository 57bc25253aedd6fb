//! What is: the states of pods and containers, as far as flintd has seen and written them down.
//!
//! Schedulers report from these, `flintctl` shows them, and the reconciler compares them with what is desired.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::desired::{HostPort, Key, SpecHash};

/// Where a pod is in its life (Kubernetes' phase).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Accepted; images, volumes, network or sandbox are being made, or init containers run.
    #[default]
    Pending,
    /// Its sandbox is there and all containers have been started at least once; for [`Goal::Prepared`] see
    /// [`PodStatus::is_prepared`].
    ///
    /// [`Goal::Prepared`]: crate::desired::Goal::Prepared
    Running,
    /// All containers ended with status 0 and are not started again.
    Succeeded,
    /// All containers ended, one of them badly, and are not started again; or it was evicted, or is out of its time.
    Failed,
}

/// Why something is not (or no longer) as it should be: a word for programs, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Reason {
    /// `ErrImagePull`, `ImagePullBackOff`, `CrashLoopBackOff`, `OOMKilled`, `Evicted`, ...: Kubernetes' words.
    pub word: String,
    /// Step, object, error, what to do.
    pub sentence: String,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit status; 128 and the signal if one killed it. None: nobody saw it (its shim had died, on a kernel that does
    /// not tell others).
    pub status: Option<u32>,
    /// Whether the kernel took it for want of memory.
    pub oom: bool,
    /// When it was started; none: never.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub finished: SystemTime,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, ...
    pub reason: Reason,
    /// What it has written to where its message is read, at most [`Exit::MESSAGE`] bytes of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Exit {
    /// Bytes of a message that are kept, as by kubelet.
    pub const MESSAGE: u64 = 4096;
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerState {
    /// It is going to be started.
    Waiting(Reason),
    /// Made in the runtime, not started.
    Created,
    /// It runs.
    Running {
        /// Since when.
        started: SystemTime,
    },
    /// It has ended.
    Exited(Exit),
}

/// A container's status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its state.
    pub state: ContainerState,
    /// Its id in the runtime, once it has one: `UID.NAME.ATTEMPT`.
    pub runtime_id: Option<String>,
    /// The process id of its first process on the host; 0: none.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended the time before.
    pub last_exit: Option<Exit>,
    /// Whether its startup probe has said yes, or it has none.
    pub started: bool,
    /// Whether it may be sent requests.
    pub ready: bool,
    /// The digest of the image it was made of.
    pub image: Option<String>,
    /// What it was made from.
    pub spec: Option<SpecHash>,
}

/// A pod's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// Its name.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it is not further, or has failed.
    pub reason: Option<Reason>,
    /// Whether images, volumes, network and sandbox are there.
    pub is_prepared: bool,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Host ports as they are, also those that the node chose.
    pub ports: Vec<HostPort>,
    /// The uid of the pod of its name that serves until this one is ready.
    #[serde(default)]
    pub replaces: Option<String>,
    /// When its sandbox was made.
    pub started: Option<SystemTime>,
    /// By name, init containers too.
    pub containers: BTreeMap<String, ContainerStatus>,
    /// Grows with each change of this status.
    pub revision: u64,
}

impl PodStatus {
    /// A pod that nothing was done for yet.
    #[must_use]
    pub fn new(key: Key, uid: String) -> Self {
        Self {
            key,
            uid,
            phase: Phase::Pending,
            reason: None,
            is_prepared: false,
            terminating: false,
            addresses: Vec::new(),
            ports: Vec::new(),
            replaces: None,
            started: None,
            containers: BTreeMap::new(),
            revision: 0,
        }
    }

    /// Whether all its containers may be sent requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.containers.values().all(|container| container.ready)
    }
}

/// What a container uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Bytes of memory, without caches that can be dropped.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Something worth telling, for `flintctl events`, schedulers and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// Whose; none: the node's.
    pub pod: Option<Key>,
    /// The container's name.
    pub container: Option<String>,
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// `Scheduled`, `Pulling`, `Started`, `Killing`, `BackOff`, `Unhealthy`, ...: a word, and a sentence.
    pub reason: Reason,
}
