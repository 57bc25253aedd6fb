//! The node, as the local API sees it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, watch};

use crate::desired::{Goal, Key, Pod, Quality, RestartPolicy, Source};
use crate::observed::{Event, PodStatus, Usage};

/// A file of manifests, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The file's name at the client, for messages; `-` for its standard input.
    pub name: String,
    /// YAML, or JSON, of one or several documents.
    pub text: String,
}

/// A field of a manifest that the node cannot honour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Where it is: `spec.containers[0].ports[0].hostIP`. Empty: the document as a whole.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What applying a document did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// There was none.
    Created,
    /// It was otherwise.
    Changed {
        /// Containers that are made anew.
        containers: Vec<String>,
        /// Whether the pod is made anew with all its containers.
        sandbox: bool,
    },
    /// It is so already.
    Unchanged,
    /// It is taken away.
    Removed,
    /// The node cannot do it; nothing of the document was done.
    Refused {
        /// Each field, and why.
        fields: Vec<Refusal>,
    },
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file that it is of, see [`Manifest::name`].
    pub file: String,
    /// `Pod`, `ConfigMap`, ...
    pub kind: String,
    /// What it names.
    pub key: Key,
    /// What was done.
    #[serde(flatten)]
    pub action: Action,
}

/// What a list tells of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    /// What is.
    pub status: PodStatus,
    /// Who wants it; none: nobody any more, it is on its way out.
    pub source: Option<Source>,
    /// How far it should go.
    pub goal: Goal,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The image of each container, as its specification names it, by the container's name; init containers too.
    pub images: BTreeMap<String, String>,
    /// The names of its init containers.
    pub init_containers: Vec<String>,
    /// Its class.
    pub quality: Quality,
    /// What happens to containers that end.
    pub restart: RestartPolicy,
}

/// All of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// What is wanted, without secrets; none: nobody wants it any more.
    pub desired: Option<Pod>,
    /// What is.
    pub status: PodStatus,
}

/// What a pod uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodUsage {
    /// Its name.
    pub key: Key,
    /// When it was looked at.
    pub at: SystemTime,
    /// Of its containers that run, by name.
    pub containers: BTreeMap<String, Usage>,
    /// The limits of memory in bytes, by the container's name; what has none is not listed.
    pub memory_limits: BTreeMap<String, u64>,
}

/// An image of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// Its name.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// Bytes of its layers, as they were pulled.
    pub bytes: u64,
    /// The pods that are made of it.
    pub pods: Vec<Key>,
}

/// What happens in a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum PullStep {
    /// What is going to be taken is known.
    Image {
        /// Layers of the image.
        layers: usize,
        /// Bytes that are not here yet.
        bytes: u64,
    },
    /// A layer begins.
    Begins {
        /// Its digest.
        layer: String,
        /// Its size.
        bytes: u64,
    },
    /// More of a layer has come.
    Bytes {
        /// Its digest.
        layer: String,
        /// Bytes of it that are here.
        done: u64,
    },
    /// A layer is here and unpacked.
    Ends {
        /// Its digest.
        layer: String,
    },
    /// The registry is asked again.
    Retry {
        /// Why.
        reason: String,
    },
}

/// What the node is and has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The host's name.
    pub hostname: String,
    /// The kernel's release.
    pub kernel: String,
    /// As `uname -m` says it.
    pub architecture: String,
    /// The version of flintd.
    pub version: String,
    /// When flintd was started.
    pub started: Option<SystemTime>,
    /// Thousandths of a CPU that the host has, and that pods may ask for.
    pub milli_cpus: (u64, u64),
    /// Bytes of memory that the host has, and that pods may ask for.
    pub memory: (u64, u64),
    /// Pods that the node may have.
    pub pods: u64,
    /// Thousandths of a CPU that pods have asked for.
    pub requested_milli_cpus: u64,
    /// Bytes of memory that pods have asked for.
    pub requested_memory: u64,
    /// Pressure and other conditions (`MemoryPressure`, `DiskPressure`, `Ready`, ...), whether each holds, and a sentence.
    pub conditions: BTreeMap<String, (bool, String)>,
    /// What is left: bytes, inodes or process ids by the kubelet's names of signals (`memory.available`, ...).
    #[serde(default)]
    pub available: BTreeMap<String, u64>,
    /// The schedulers that the node works for, and how that goes.
    pub schedulers: BTreeMap<String, String>,
    /// What the node cannot do here, one sentence each.
    pub limitations: Vec<String>,
}

/// A program to be run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its input is ours; else it is empty.
    pub stdin: bool,
    /// Variables of its environment, beside the container's.
    pub env: Vec<(String, String)>,
    /// `USER[:GROUP]` in place of the container's.
    pub user: Option<String>,
    /// The working directory in place of the container's.
    pub cwd: Option<String>,
    /// The terminal's rows and columns at its start.
    pub size: Option<(u16, u16)>,
}

/// How a client connects to a container's own streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attach {
    /// Whether its input is ours. One that is for a single client (`stdinOnce`) ends with us.
    pub stdin: bool,
    /// Whether all that its last run wrote comes first, also if that has ended; else what comes from now on.
    pub from_start: bool,
}

/// The streams of a program. Reading to the end of both outputs comes before [`SessionControl::wait`] in a client's eyes: nothing
/// that was written is lost by an early exit.
pub struct Session {
    /// Its input; dropped: the end of it.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its output, and all of a terminal.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Its errors.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// The rest.
    pub control: Box<dyn SessionControl>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("stdin", &self.stdin.is_some()).finish_non_exhaustive()
    }
}

/// What is not a stream of a [`Session`].
#[async_trait]
pub trait SessionControl: Send + Sync {
    /// Tells the terminal its size.
    async fn resize(&self, rows: u16, columns: u16);

    /// The program's exit status; 128 and the signal if one killed it. May be called again.
    ///
    /// # Errors
    ///
    /// Nobody knows it any more.
    async fn wait(&self) -> Result<u32, Failure>;

    /// The client has gone: an exec's program is killed, an attached container goes on.
    async fn abandon(&self);
}

/// What kind of failure it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// There is no such thing.
    Missing,
    /// What was asked for cannot be.
    Refused,
    /// It cannot be now: a container that does not run, a pod of another source.
    NotNow,
    /// The node failed.
    Broken,
}

/// Why something was not done: one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// Step, object, error, what to do.
    pub sentence: String,
}

impl Failure {
    /// There is no such thing.
    #[must_use]
    pub fn missing(sentence: impl Into<String>) -> Self {
        Self { kind: FailureKind::Missing, sentence: sentence.into() }
    }

    /// What was asked for cannot be.
    #[must_use]
    pub fn refused(sentence: impl Into<String>) -> Self {
        Self { kind: FailureKind::Refused, sentence: sentence.into() }
    }

    /// It cannot be now.
    #[must_use]
    pub fn not_now(sentence: impl Into<String>) -> Self {
        Self { kind: FailureKind::NotNow, sentence: sentence.into() }
    }

    /// The node failed.
    #[must_use]
    pub fn broken(sentence: impl Into<String>) -> Self {
        Self { kind: FailureKind::Broken, sentence: sentence.into() }
    }
}

/// The node. Whatever changes it is in the store when the call returns.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Applies manifests, each document by itself, in their order; what becomes of each. A dry run answers the same and does
    /// nothing.
    ///
    /// # Errors
    ///
    /// No document could be looked at.
    async fn apply(&self, manifests: Vec<Manifest>, dry_run: bool) -> Result<Vec<Change>, Failure>;

    /// Takes a pod of the local API away; `grace` in place of its own.
    ///
    /// # Errors
    ///
    /// There is none, or another source wants it.
    async fn remove(&self, key: &Key, grace: Option<Duration>) -> Result<(), Failure>;

    /// Stops a pod's containers and keeps it, until it is restarted or removed.
    ///
    /// # Errors
    ///
    /// There is none.
    async fn stop(&self, key: &Key, grace: Option<Duration>) -> Result<(), Failure>;

    /// Stops and starts a pod's containers, or one of them; a stopped pod is started.
    ///
    /// # Errors
    ///
    /// There is none.
    async fn restart(&self, key: &Key, container: Option<&str>) -> Result<(), Failure>;

    /// All pods that are wanted or on their way out, by their keys.
    fn pods(&self) -> Vec<PodView>;

    /// A pod by its name; of two, as in a rolling update, the one that is not on its way out.
    fn pod(&self, key: &Key) -> Option<PodView>;

    /// Changes when any pod has, or has come or gone.
    fn changes(&self) -> watch::Receiver<u64>;

    /// What is wanted of a pod, with all its secrets (the server takes them out).
    fn desired(&self, key: &Key) -> Option<Pod>;

    /// The folder of a container's logs: `ATTEMPT.log`, and rotated ones beside them. None: there is no such container.
    fn log_folder(&self, key: &Key, container: &str) -> Option<PathBuf>;

    /// Runs a program in a container.
    ///
    /// # Errors
    ///
    /// The container does not run, or the program cannot be started.
    async fn exec(&self, key: &Key, container: &str, exec: Exec) -> Result<Session, Failure>;

    /// Connects to a container's own streams, until this run of it ends; an input only if the container keeps one open. A client
    /// that does not read holds up neither the container nor its log.
    ///
    /// # Errors
    ///
    /// The container does not run.
    async fn attach(&self, key: &Key, container: &str, attach: Attach) -> Result<Session, Failure>;

    /// What pods use.
    async fn usage(&self) -> Vec<PodUsage>;

    /// The last events, and those to come.
    fn events(&self) -> (Vec<Event>, broadcast::Receiver<Event>);

    /// The images that are here.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    async fn images(&self) -> Result<Vec<ImageView>, Failure>;

    /// Pulls an image and tells each step; a receiver that is gone or full stops nothing.
    ///
    /// # Errors
    ///
    /// The registry, the store.
    async fn pull(&self, name: &str, steps: mpsc::Sender<PullStep>) -> Result<ImageView, Failure>;

    /// Forgets an image's name; its layers go with the next collection.
    ///
    /// # Errors
    ///
    /// There is none, or pods are made of it.
    async fn remove_image(&self, name: &str) -> Result<(), Failure>;

    /// What the node is and has.
    fn node(&self) -> NodeFacts;
}
