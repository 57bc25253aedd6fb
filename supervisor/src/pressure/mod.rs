//! Whether the node runs out of memory, disk or pids, and which pod goes first then.
//!
//! ```text
//!  Reading::take ─> Gauge::update ─> signals that are on ─> choose: the pod to evict
//! ```
//!
//! A signal goes on as soon as less than its threshold is left, and off only once more than that has been left for a while:
//! a node at the edge would else evict, start and evict again. What is chosen is a function of its arguments; nothing is
//! evicted here.

mod choice;
mod gauge;
mod reading;

pub use choice::{Candidate, choose};
pub use gauge::{Gauge, Thresholds};
pub use reading::{Amount, Reading};

/// What the node runs out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory (Kubernetes' MemoryPressure).
    Memory,
    /// Bytes or inodes of the file system with flintd's data (DiskPressure).
    Disk,
    /// Process ids (PIDPressure).
    Pids,
}
