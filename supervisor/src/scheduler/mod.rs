//! Where a remote scheduler meets the node.
//!
//! ```text
//!  the scheduler's protocol <──> Scheduler::run ──set, remove──> Host ──> store, reconciler
//!                                      ^──statuses, changes, logs──┘
//! ```
//!
//! A scheduler is a task of flintd that speaks a cluster's protocol. It translates what the cluster wants into pods of its
//! own source, and reports their statuses. Each has a folder of this module; nothing outside of it knows the cluster's words,
//! and nothing in it knows the runtime, the network or the store: it has a [`Host`] and no more.
//!
//! What it may rely on: [`Host::set`] and [`Host::remove`] are written down when they return, so they may be acknowledged.
//! After a restart of flintd [`Host::pods`] has what was set before, and their statuses are those of the containers that went
//! on meanwhile. The content of secret volumes alone is not in the store: a pod that has such and was not prepared before the restart
//! waits until it is set again.

pub mod swarm;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use crate::desired::{Key, Pod};
use crate::observed::PodStatus;

/// What the node is, as schedulers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDescription {
    /// The host's name.
    pub hostname: String,
    /// As `uname -m` says it.
    pub architecture: String,
    /// Thousandths of a CPU that pods may use.
    pub milli_cpus: u64,
    /// Bytes of memory that pods may use.
    pub memory: u64,
    /// The version of flintd.
    pub version: String,
    /// Labels of the configuration, and flintd's own (what it cannot do, for one).
    pub labels: BTreeMap<String, String>,
}

/// Which stream of a container a line is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output, and all of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which lines of a container are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogRequest {
    /// Whether lines go on to come until the container is removed.
    pub follow: bool,
    /// So many of the last lines there are; none: all.
    pub tail: Option<u64>,
    /// No lines before.
    pub since: Option<SystemTime>,
}

/// A line of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: SystemTime,
    /// Where.
    pub stream: Stream,
    /// With its newline, if it has one: a longer line comes in parts.
    pub bytes: Vec<u8>,
}

/// The health check that an image brings along: `Healthcheck` of docker's image configuration, which OCI's has not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthCheck {
    /// `NONE`; `CMD` and the words of a program; `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// Between questions; zero in this and what follows: not given.
    #[serde(deserialize_with = "nanoseconds")]
    pub interval: Duration,
    /// How long an answer may take.
    #[serde(deserialize_with = "nanoseconds")]
    pub timeout: Duration,
    /// From the start, how long a no does not count.
    #[serde(deserialize_with = "nanoseconds")]
    pub start_period: Duration,
    /// Between questions within that time.
    #[serde(deserialize_with = "nanoseconds")]
    pub start_interval: Duration,
    /// So many no in a row are a no.
    pub retries: u32,
}

/// Go's durations; negative ones are zero.
fn nanoseconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    i64::deserialize(deserializer).map(|nanoseconds| Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)))
}

/// An image is not on the node, or cannot be read: then whoever makes a container of it is told why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the image is not here")]
pub struct NotHere;

/// What a scheduler says of itself, for `flintctl node`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// How it goes: one sentence.
    pub sentence: String,
    /// What of its cluster this node cannot do, one sentence each.
    pub limitations: Vec<String>,
}

/// Why a pod is not taken. It is not going to be with another try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// The node, to a scheduler: its own pods alone.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// What the node is.
    fn describe(&self) -> NodeDescription;

    /// Adds a pod or changes the one with this key and uid. It is in the store when this returns.
    ///
    /// # Errors
    ///
    /// What the node cannot do, or does not fit on it.
    async fn set(&self, pod: Pod) -> Result<(), Refused>;

    /// Stops and removes a pod, with its containers, logs and statuses. It is in the store when this returns; the pod's
    /// status goes when nothing of it is left. No error if there is none.
    async fn remove(&self, key: &Key);

    /// All that are set.
    fn pods(&self) -> Vec<Pod>;

    /// The statuses of all that are set, or on their way out.
    fn statuses(&self) -> Vec<PodStatus>;

    /// Changes when any status has.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The health check that an image brings along.
    ///
    /// # Errors
    ///
    /// The image is not here.
    async fn health_check(&self, image: &str) -> Result<Option<HealthCheck>, NotHere>;

    /// Takes what the scheduler says of itself; None: it works for no cluster.
    fn tell(&self, standing: Option<Standing>);

    /// A container's lines; the channel closes at their end. A reader that is slow holds nobody else up.
    async fn logs(&self, key: &Key, container: &str, request: LogRequest) -> mpsc::Receiver<LogLine>;
}

/// A scheduler's client.
#[async_trait]
pub trait Scheduler: Send {
    /// Its name; the source of its pods.
    fn name(&self) -> &'static str;

    /// Works until `stop` changes to true: for a cluster whenever the node is a member of one. Failures of the cluster are its own
    /// business: it tries again, or waits until the node joins once more.
    ///
    /// `folder` is its own, for what it has to keep (mode 0700).
    ///
    /// # Errors
    ///
    /// What nobody but a new start mends. A disk that is full is no such thing.
    async fn run(
        self: Box<Self>,
        host: std::sync::Arc<dyn Host>,
        folder: &Path,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()>;
}

/// How long a scheduler's task has to end once it was told to.
pub const LAST_WORDS: Duration = Duration::from_secs(5);
