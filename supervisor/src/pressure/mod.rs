//! Whether the node runs out of memory, disk or pids, and which pod goes first then.
//!
//! ```text
//!  Reading::take ─> Gauge::update ─> signals that are short ─> choose: the pod to evict ─> message: what it is told
//! ```
//!
//! A signal goes on as soon as less than its threshold is left, and off only once more than that has been left for a while:
//! a node at the edge would else evict, start and evict again. A soft threshold puts it on at once, too, but evicts only after a while. What is chosen is a function of its arguments; nothing is
//! evicted here. Names, defaults and the order are the kubelet's (kubernetes.io, "Node-pressure Eviction").

mod choice;
mod gauge;
mod message;
mod reading;
mod threshold;

pub use choice::{Candidate, Share, choose};
pub use gauge::{Gauge, Short, Soft};
pub use message::{evicted, quantity};
pub use reading::{Amount, Places, Reading};
pub use threshold::{Threshold, Thresholds};

use serde::Deserialize;

/// What the node runs out of, those that are mended first at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Signal {
    /// The host's memory.
    Memory,
    /// What is left of the memory that pods may have together: their cgroup is looked at. The threshold is that of
    /// [`Signal::Memory`].
    AllocatableMemory,
    /// Bytes of the file system with flintd's data: volumes, logs, writable layers.
    NodeDisk,
    /// Its inodes.
    NodeInodes,
    /// Bytes of the file system with images.
    ImageDisk,
    /// Its inodes.
    ImageInodes,
    /// Process ids.
    Pids,
}

/// A condition of the node (Kubernetes' NodeCondition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// MemoryPressure.
    Memory,
    /// DiskPressure.
    Disk,
    /// PIDPressure.
    Pids,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Memory,
        Self::AllocatableMemory,
        Self::NodeDisk,
        Self::NodeInodes,
        Self::ImageDisk,
        Self::ImageInodes,
        Self::Pids,
    ];

    /// The kubelet's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::AllocatableMemory => "allocatableMemory.available",
            Self::NodeDisk => "nodefs.available",
            Self::NodeInodes => "nodefs.inodesFree",
            Self::ImageDisk => "imagefs.available",
            Self::ImageInodes => "imagefs.inodesFree",
            Self::Pids => "pid.available",
        }
    }

    /// What pods are told to be short.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Memory | Self::AllocatableMemory => "memory",
            Self::NodeDisk | Self::ImageDisk => "ephemeral-storage",
            Self::NodeInodes | Self::ImageInodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// The condition that it makes.
    #[must_use]
    pub const fn condition(self) -> Condition {
        match self {
            Self::Memory | Self::AllocatableMemory => Condition::Memory,
            Self::NodeDisk | Self::NodeInodes | Self::ImageDisk | Self::ImageInodes => Condition::Disk,
            Self::Pids => Condition::Pids,
        }
    }

    /// Whether the removal of images mends it.
    #[must_use]
    pub const fn is_disk(self) -> bool {
        matches!(self.condition(), Condition::Disk)
    }
}

impl TryFrom<String> for Signal {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|signal| signal.name() == name);
        known.ok_or_else(|| format!("{name:?} is no signal; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Pids];

    /// Kubernetes' name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pids => "PIDPressure",
        }
    }

    /// The kubelet's word for the event that it begins or ends.
    #[must_use]
    pub const fn event(self, holds: bool) -> &'static str {
        match (self, holds) {
            (Self::Memory, true) => "NodeHasInsufficientMemory",
            (Self::Memory, false) => "NodeHasSufficientMemory",
            (Self::Disk, true) => "NodeHasDiskPressure",
            (Self::Disk, false) => "NodeHasNoDiskPressure",
            (Self::Pids, true) => "NodeHasInsufficientPID",
            (Self::Pids, false) => "NodeHasSufficientPID",
        }
    }
}
