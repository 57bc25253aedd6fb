//! Probes: questions put to containers again and again, and hooks of their lives.
//!
//! ```text
//!  Scheduler::watch ──> heap of due times ──> ask (exec | http | tcp | grpc) ──> Machine ──> Report ──> the pod's worker
//!                            ^                                                      |
//!                            └───────────────── the next due time ──────────────────┘
//! ```
//!
//! [`Machine`] is a function of answers and given time. One task serves all probes of the node: what waits costs an entry of a
//! heap, and only a question that is on its way has a task of its own.
//!
//! Nothing here knows the runtime: programs are run in containers by an [`Exec`] of the caller. Nothing here kills or starts a
//! container: it reports, and the pod's worker decides.

mod ask;
mod grpc;
mod hook;
mod http;
mod machine;
mod scheduler;
mod tls;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::desired::{Key, Probe};

pub use ask::{Answer, ask};
pub use hook::run_hook;
pub use machine::{Change, Machine};
pub use scheduler::{Beginning, Scheduler};

/// The container that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its id in the runtime: another one after each restart.
    pub id: String,
    /// Its pod.
    pub pod: Key,
    /// Its name in the pod.
    pub container: String,
    /// The pod's address (the loopback address with the host's network); none: a pod without a network.
    pub address: Option<IpAddr>,
}

/// How a program in a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Its exit status; 128 and the signal if one killed it.
    pub status: u32,
    /// The beginning of what it wrote, standard output and error together.
    pub output: String,
}

/// Why there is no exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRun {
    /// It was not started, or took too long: a sentence.
    Failed(String),
    /// Who ran it has died, or was about to: nobody knows how it ended, or will. A sentence.
    Lost(String),
}

/// Runs programs in containers.
#[async_trait]
pub trait Exec: Send + Sync + 'static {
    /// Runs `argv` in the container as its user with its environment, and waits for the end. A program that takes longer than
    /// `timeout` is killed.
    ///
    /// # Errors
    ///
    /// See [`NotRun`].
    async fn exec(&self, target: &Target, argv: &[String], timeout: Duration) -> Result<Exited, NotRun>;
}

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Has it started?
    Startup,
    /// Is it alive?
    Liveness,
    /// May it be sent requests?
    Readiness,
}

impl Kind {
    /// `startup`, `liveness`, `readiness`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// A container to be asked, from its start to its end.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The container.
    pub target: Target,
    /// When it was started.
    pub since: SystemTime,
    /// Whether it is known to have started (its status says so: it was adopted). Its startup probe then is over.
    pub started: bool,
    /// Whether it was ready when it was last asked (its status says so).
    pub ready: bool,
    /// Its startup probe.
    pub startup: Option<Probe>,
    /// Its liveness probe.
    pub liveness: Option<Probe>,
    /// Its readiness probe.
    pub readiness: Option<Probe>,
}

/// Something about a watched container: an answer that was no, or that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The container.
    pub target: Target,
    /// Which probe.
    pub kind: Kind,
    /// Why it is not well, for an event `Unhealthy`; none after a yes.
    pub failure: Option<String>,
    /// What has changed, in this order.
    pub changes: Vec<Change>,
}
