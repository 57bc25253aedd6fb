//! A container of a pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Hook, Mount, Probe, SpecHash};

/// When an image is pulled (Kubernetes' imagePullPolicy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Before each start; a name with a digest that is there already is not asked for again.
    Always,
    /// If it is not there.
    #[default]
    IfNotPresent,
    /// Never: it has to be there.
    Never,
}

/// A variable of the environment, in the order in which they were given; `$(NAME)` in values was put in already.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether the value is never to be shown (it comes from a secret).
    #[serde(default)]
    pub is_secret: bool,
}

/// What a container may use. What is not given is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU that it wants; its share under contention.
    pub cpu_request: Option<u64>,
    /// Thousandths of a CPU that it may use at most.
    pub cpu_limit: Option<u64>,
    /// Bytes of memory that it wants.
    pub memory_request: Option<u64>,
    /// Bytes of memory that it may use at most.
    pub memory_limit: Option<u64>,
    /// Bytes of disk (writable layer, logs, emptyDir volumes) that it wants.
    pub storage_request: Option<u64>,
    /// Bytes of disk that it may use; more evicts the pod.
    pub storage_limit: Option<u64>,
    /// Processes and threads that it may have.
    pub pids_limit: Option<u64>,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and the like.
    pub kind: String,
    /// The limit; `u64::MAX` is none.
    pub soft: u64,
    /// What it may be raised to; `u64::MAX` is none.
    pub hard: u64,
}

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct User {
    /// `USER[:GROUP]`, names or numbers, in place of the image's.
    pub user: Option<String>,
    /// More groups.
    #[serde(default)]
    pub groups: Vec<u32>,
    /// Refuses to start as uid 0.
    #[serde(default)]
    pub must_not_be_root: bool,
}

/// Which system calls are filtered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompProfile {
    /// docker's default profile.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// A file in the node's folder of profiles, by its relative path.
    Localhost(String),
}

/// What the program may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct SecurityContext {
    /// Who it runs as.
    pub user: User,
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Whether set-id programs give nothing.
    pub no_new_privileges: bool,
    /// Whether the root filesystem is read-only.
    pub read_only_rootfs: bool,
    /// Capabilities more than docker's default, without `CAP_`; `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities less; `ALL`. It counts before `cap_add`.
    pub cap_drop: Vec<String>,
    /// Which system calls are filtered.
    pub seccomp: SeccompProfile,
}

/// The signal that stops a container; none: the image's, else SIGTERM.
pub type StopSignal = Option<String>;

/// What is run beside its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Right after its start; a failure kills it.
    pub post_start: Option<Hook>,
    /// Before its stop signal, within the grace period.
    pub pre_stop: Option<Hook>,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Container {
    /// Its name in the pod: `[a-z0-9-]`, at most 63.
    pub name: String,
    /// The image's name, as a registry, a tag or a digest has it.
    pub image: String,
    /// When it is pulled.
    #[serde(default)]
    pub pull: PullPolicy,
    /// Credentials for the pull, as `user:password`; never shown, never logged, only in the store (0600).
    #[serde(default)]
    pub pull_credentials: Option<String>,
    /// In place of the image's entrypoint.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// In place of the image's command.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// The working directory in place of the image's.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The environment, beside the image's.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Volumes in it.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// What it may use.
    #[serde(default)]
    pub resources: Resources,
    /// What it may do.
    #[serde(default)]
    pub security: SecurityContext,
    /// Alive? If not it is killed, and its restart policy decides.
    #[serde(default)]
    pub liveness: Option<Probe>,
    /// Ready for requests?
    #[serde(default)]
    pub readiness: Option<Probe>,
    /// Started? Until then the others wait.
    #[serde(default)]
    pub startup: Option<Probe>,
    /// What is run beside its life.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// The signal that stops it.
    #[serde(default)]
    pub stop_signal: StopSignal,
    /// Whether it has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Whether its input is kept open for `attach`.
    #[serde(default)]
    pub stdin: bool,
    /// Whether its input ends with the first client that used it. Not written where it is false: what was made before there was this
    /// field is the same still, see [`Container::spec_hash`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin_once: bool,
    /// More annotations for the runtime.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Limits of its processes; those that are not named are flintd's own. (Left out where there are none: the hash of what is
    /// there from before this field stays.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// From -1000 (never) to 1000, who is killed first when memory is short; none: by the pod's quality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Where in the container a file is mounted that its message is read from when it ends; none: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_path: Option<String>,
}

impl Container {
    /// What it was made from: a container in which this has changed is made anew. Changed resources alone are applied to
    /// the running one, see [`Container::resources`]; where its message is read changes with the next start, so that those from
    /// before there was one run on.
    #[must_use]
    pub fn spec_hash(&self) -> SpecHash {
        SpecHash::of(&Self { resources: Resources::default(), message_path: None, ..self.clone() })
    }
}
