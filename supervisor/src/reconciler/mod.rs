//! What to do next: a function of what is wanted, what is, and the time.
//!
//! ```text
//!  removed, failed, stopped, made from something else ─> Stop ─> Kill ─> Delete ─> TearDown ─> Forget
//!  wanted, beside another of its name ─> TakeOver, as soon as it is ready ─> the other one is removed
//!  wanted ─> Prepare (Refresh) ─> (Pull ─> Create ─> Start) of each init container, then of each container ─> wait
//! ```
//!
//! It says one action of a pod at a time, removals first, and when to ask again if nothing happens before. It must not know
//! clients, clocks or IO. An action that is said again after flintd died in it does no harm: see `pod`.

mod backoff;
mod rollout;
mod status;
mod waning;
mod waxing;

pub use backoff::{pull_pause, restart_pause};
pub(crate) use rollout::too_late;
pub use status::status;

use std::time::{Duration, SystemTime};

use crate::observed::Reason;
use crate::store::PodRecord;

/// One step of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin to end a container: its hook, its signal, and SIGKILL when its grace is over.
    Stop {
        /// Its name.
        container: String,
        /// How long it has.
        grace: Duration,
        /// Why.
        reason: Reason,
    },
    /// SIGKILL: its grace is over.
    Kill {
        /// Its name.
        container: String,
    },
    /// Take away what an ended container left in the runtime and on the disk.
    Delete {
        /// Its name.
        container: String,
    },
    /// Forget a container that is wanted no more, and of which nothing is left.
    Drop {
        /// Its name.
        container: String,
    },
    /// Take away the sandbox, the network and the volumes.
    TearDown,
    /// Forget the pod: nothing of it is left.
    Forget,
    /// The pod is out of its time.
    Expire,
    /// Give the pod the host ports of the one that it takes the place of, which then goes.
    TakeOver,
    /// Tell that it is not ready to do so in its time.
    Delay,
    /// Make the volumes, the sandbox and the network.
    Prepare,
    /// Put changed content of files in place, while containers run.
    Refresh,
    /// See to it that a container's image is here.
    Pull {
        /// The container's name.
        container: String,
    },
    /// Make a container.
    Create {
        /// Its name.
        container: String,
    },
    /// Start a container that was made.
    Start {
        /// Its name.
        container: String,
    },
    /// Give a running container its new limits.
    Update {
        /// Its name.
        container: String,
    },
}

/// What is to be done with a pod now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This; then ask again.
    Act(Action),
    /// Nothing, until something changes, or this time has come.
    Wait(Option<SystemTime>),
}

/// The next step of a pod.
#[must_use]
pub fn next(record: &PodRecord, now: SystemTime) -> Decision {
    let mut wake = Wake::default();
    let action = waning::next(record, now, &mut wake).or_else(|| waxing::next(record, now, &mut wake));
    let action = action.or_else(|| rollout::next(record, now, &mut wake));
    action.map_or(Decision::Wait(wake.at), Decision::Act)
}

/// The earliest time that something is due.
#[derive(Debug, Default)]
struct Wake {
    at: Option<SystemTime>,
}

impl Wake {
    /// Whether the time has come; if not, it is remembered.
    fn is_due(&mut self, at: Option<SystemTime>, now: SystemTime) -> bool {
        let Some(at) = at.filter(|at| *at > now) else { return true };
        self.at = Some(self.at.map_or(at, |before| before.min(at)));
        false
    }
}

#[cfg(test)]
mod tests;
