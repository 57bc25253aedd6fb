//! What should run: pods, in the shape of Kubernetes' CRI, whoever wants them.
//!
//! ```text
//!  a folder of Pod manifests ─┐
//!  the local API             ─┼─> Pod ─> store ─> reconciler
//!  a remote scheduler        ─┘
//! ```
//!
//! These are plain values that know nothing of manifests, clusters or the runtime: a source translates into them once, and
//! refuses what they cannot say. They are stored as JSON; a field that is added later has a serde default.

mod container;
mod hash;
mod late;
mod probe;
mod volume;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use container::{
    Container, EnvVar, Lifecycle, PullPolicy, Resources, Rlimit, SeccompProfile, SecurityContext, StopSignal, User,
};
pub use hash::SpecHash;
pub use late::{Late, Places};
pub use probe::{Check, Hook, HttpCheck, Probe};
pub use volume::{Item, Mount, PathKind, Propagation, Volume, VolumeSource};

/// A pod's name, unique on the node while the pod is wanted or anything of it is left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Kubernetes' namespace; a scheduler has one of its own, so that its pods meet no others.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl Key {
    /// The key of a name in a namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Who wants a pod. Only its source may change or remove it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A file in the folder of manifests.
    Manifest(PathBuf),
    /// The local API.
    Api,
    /// A remote scheduler, by its name (`swarm`).
    Scheduler(String),
}

/// How far a pod should go (a scheduler may want it prepared and not yet started).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// Images, volumes, network and sandbox are there, and no container has started.
    Prepared,
    /// Its containers run, each as its restart policy says.
    #[default]
    Running,
    /// Its containers are stopped and kept, with their statuses and logs, until the pod is removed.
    Stopped,
}

/// What happens to a container that has ended (Kubernetes' restartPolicy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It is started again, after a pause that grows.
    #[default]
    Always,
    /// The same, unless it ended with status 0.
    OnFailure,
    /// It stays as it is.
    Never,
}

/// Where a pod's packets go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The host's own network namespace.
    Host,
    /// A namespace with a loopback device only.
    None,
    /// The node's own network: addresses, NAT and host ports by flintd.
    #[default]
    Node,
    /// A configuration list of CNI, by its name.
    Cni(String),
}

/// Whose processes a container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pids {
    /// Its own.
    #[default]
    Container,
    /// Those of all containers of its pod.
    Pod,
    /// The host's.
    Host,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the host that leads to one of the pod's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// The host's address; all of them if none is given.
    pub address: Option<IpAddr>,
    /// The host's port; 0 lets the node choose one of its ephemeral range, and say which in the pod's status.
    pub host: u16,
    /// The pod's port.
    pub pod: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
}

/// What resolv.conf says. All empty: what the host's says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Dns {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// Lines of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostAlias {
    /// The address.
    pub ip: IpAddr,
    /// Its names.
    pub names: Vec<String>,
}

/// The group of a pod's volumes: what is in them is made the group's, readable and writable to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeGroup {
    /// The group's number.
    pub gid: u32,
    /// Whether a named volume whose top folder belongs to the group already is left as it is (OnRootMismatch).
    #[serde(default)]
    pub only_on_mismatch: bool,
}

/// How a changed pod takes the place of the one before without a gap: it is made beside it, and gets its host ports when it is
/// ready. The names are those of Kubernetes' Deployments; of one pod `maxSurge` is 1 and `maxUnavailable` 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RollingUpdate {
    /// For how long it has to be ready before (minReadySeconds).
    pub min_ready: Duration,
    /// After how long it is told that it is not (progressDeadlineSeconds).
    pub progress_deadline: Duration,
}

impl Default for RollingUpdate {
    fn default() -> Self {
        Self { min_ready: Duration::ZERO, progress_deadline: Duration::from_secs(600) }
    }
}

/// A pod: a sandbox, and the containers in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub key: Key,
    /// Unique for ever: another pod of the same key has another one. At most 63 letters of `[a-z0-9-]`; names of cgroups,
    /// folders and containers of the runtime begin with it.
    pub uid: String,
    /// Who wants it.
    pub source: Source,
    /// How far it should go.
    #[serde(default)]
    pub goal: Goal,
    /// Kubernetes' labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes' annotations; they are given to containers of the runtime as they are.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The name that the pod has of itself.
    pub hostname: String,
    /// Where its packets go.
    #[serde(default)]
    pub network: Network,
    /// Ports of the host that lead to it.
    #[serde(default)]
    pub ports: Vec<HostPort>,
    /// Whose processes its containers see.
    #[serde(default)]
    pub pids: Pids,
    /// Whether it uses the host's IPC namespace.
    #[serde(default)]
    pub host_ipc: bool,
    /// resolv.conf.
    #[serde(default)]
    pub dns: Dns,
    /// More lines of /etc/hosts.
    #[serde(default)]
    pub host_aliases: Vec<HostAlias>,
    /// Namespaced sysctls.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Volumes that its containers mount.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// The group that its volumes belong to (Kubernetes' fsGroup); its containers have it among their groups already.
    #[serde(default)]
    pub volume_group: Option<VolumeGroup>,
    /// Run to their end one after the other, before the containers.
    #[serde(default)]
    pub init_containers: Vec<Container>,
    /// Run together.
    pub containers: Vec<Container>,
    /// What happens to one that has ended.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How long its containers have between their stop signal and SIGKILL.
    pub grace: Duration,
    /// How long the pod may be active, from its start on; then it has failed (Kubernetes' activeDeadlineSeconds).
    #[serde(default)]
    pub active_deadline: Option<Duration>,
    /// Under pressure, pods of a lower priority go first.
    #[serde(default)]
    pub priority: i32,
    /// How it takes the place of another one of its name; none: containers that have changed are stopped and made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<RollingUpdate>,
}

impl Pod {
    /// As it is written down: the secrets of a scheduler's pod are in memory alone, and come again from the scheduler.
    #[must_use]
    pub fn to_keep(&self) -> std::borrow::Cow<'_, Self> {
        let is_secret = |volume: &Volume| matches!(volume.source, VolumeSource::Secret(_));
        if !matches!(self.source, Source::Scheduler(_)) || !self.volumes.iter().any(is_secret) {
            return std::borrow::Cow::Borrowed(self);
        }
        let mut pod = self.clone();
        for volume in pod.volumes.iter_mut().filter(|volume| is_secret(volume)) {
            *volume = volume.without_content();
        }
        std::borrow::Cow::Owned(pod)
    }

    /// Whether a secret volume's content is not known any more: what is there already is all there is. No scheduler has empty
    /// secrets.
    #[must_use]
    pub fn has_forgotten(&self, volume: &Volume) -> bool {
        let VolumeSource::Secret(items) = &volume.source else { return false };
        matches!(self.source, Source::Scheduler(_)) && items.iter().any(|item| item.content.is_empty())
    }

    /// All its containers, the init containers first.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// What its sandbox is made from: a pod in which this has changed is made anew, else only containers are. The content
    /// of files is not part of it: `Volumes::refresh` puts changed content in place.
    #[must_use]
    pub fn sandbox_hash(&self) -> SpecHash {
        let volumes: Vec<Volume> = self.volumes.iter().map(Volume::without_content).collect();
        SpecHash::of(&(
            (&self.uid, &self.hostname, &self.network, &self.ports, self.pids, self.host_ipc),
            (&self.dns, &self.host_aliases, &self.sysctls, &volumes, self.volume_group, &self.init_containers),
        ))
    }

    /// Whether a rolling update is due when this pod becomes another one: if anything that runs would be made anew, and for another
    /// annotation, as in a Deployment's template. Those of the strategy itself do not count.
    #[must_use]
    pub fn is_made_anew_for(&self, other: &Self) -> bool {
        let told = |pod: &Self| -> Vec<(String, String)> {
            let others = pod.annotations.iter().filter(|(name, _)| !name.starts_with("org.flint."));
            others.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let specs = |pod: &Self| -> BTreeMap<String, SpecHash> {
            pod.all_containers().map(|container| (container.name.clone(), container.spec_hash())).collect()
        };
        self.sandbox_hash() != other.sandbox_hash() || specs(self) != specs(other) || told(self) != told(other)
    }

    /// The same pod with another uid, also where the downward API has put it: what reads like a random uid is it. One that
    /// somebody has chosen may be any word, and is not looked for.
    ///
    /// # Errors
    ///
    /// None that a pod which was read could have.
    pub fn with_uid(&self, uid: &str) -> Result<Self, serde_json::Error> {
        const RANDOM: usize = 32;
        if self.uid.len() < RANDOM {
            return Ok(Self { uid: uid.to_owned(), ..self.clone() });
        }
        let text = serde_json::to_string(self)?.replace(self.uid.as_str(), uid);
        let mut pod: Self = serde_json::from_str(&text)?;
        for volume in &mut pod.volumes {
            let (VolumeSource::Files(items) | VolumeSource::Secret(items)) = &mut volume.source else { continue };
            for item in items {
                if let Ok(text) = std::str::from_utf8(&item.content)
                    && text.contains(&self.uid)
                {
                    item.content = text.replace(&self.uid, uid).into_bytes();
                }
            }
        }
        Ok(pod)
    }

    /// The class by which the kernel and flintd spare it when memory is short (Kubernetes' QoS).
    #[must_use]
    pub fn quality(&self) -> Quality {
        let all = || self.all_containers().map(|container| &container.resources);
        let is_guaranteed = |resources: &Resources| {
            resources.cpu_limit.is_some()
                && resources.memory_limit.is_some()
                && resources.cpu_request.is_none_or(|request| Some(request) == resources.cpu_limit)
                && resources.memory_request.is_none_or(|request| Some(request) == resources.memory_limit)
        };
        if all().all(is_guaranteed) {
            return Quality::Guaranteed;
        }
        let asks = |resources: &Resources| {
            resources.cpu_request.is_some()
                || resources.memory_request.is_some()
                || resources.cpu_limit.is_some()
                || resources.memory_limit.is_some()
        };
        if all().any(asks) { Quality::Burstable } else { Quality::BestEffort }
    }
}

/// Kubernetes' classes of pods, those that go first at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quality {
    /// Asks for nothing.
    BestEffort,
    /// Asks for something.
    Burstable,
    /// Each container has limits of CPU and memory, and asks for just these.
    Guaranteed,
}

#[cfg(test)]
pub(crate) mod tests;
