//! The container's cgroups: v1, hybrid and v2, by the cgroup file systems, or as a unit of systemd (`systemd/`).
//!
//! ```text
//!  Layout::detect --> compile (config.json -> Plan: path, writes, device rules)
//!                        |
//!                        v
//!  Cgroup::create --> mkdir in every hierarchy, limits, device filter      nothing runs in it yet
//!  clone              into Cgroup::clone_into on v2
//!  Cgroup::add        writes the pid to every cgroup.procs on v1 and hybrid
//!  Cgroup::paths  --> state.json --> Cgroup::from_paths in a later command
//!  Cgroup::kill_all, freeze, thaw, processes, update, stats, watch_oom
//!  Cgroup::delete     sub-cgroups deepest first, then itself; never its parents
//! ```
//!
//! Never done here: moving processes elsewhere, following a path out of a hierarchy, touching a cgroup that the container's path
//! does not name (but for `cgroup.subtree_control` and empty cpusets of the parents on the way).
//!
//! Limits are written here and not by cgroups-rs: it opens by path with `O_CREAT|O_TRUNC`, ignores failures of several files,
//! reads others back, and has no v2 devices. Its freezer and pids controllers are right, cheap (one open, one
//! read or write) and used; its memory statistics panic on files of another shape, so they are not.

mod beside;
mod branch;
mod compile;
mod device_filter;
mod devices;
mod freezer;
mod layout;
mod limits;
mod live;
mod oom;
mod plan;
mod removal;
mod stats;
mod stats_v1;
mod stats_v2;
pub mod systemd;
mod tree;
mod undo;
mod update;
mod usual;
mod v1;
mod v2;

pub use compile::compile;
pub(crate) use compile::{clean_path, has_limits};
pub use devices::{Access, DeviceKind, DeviceRule};
pub use layout::{Hierarchy, Layout, Mode};
pub use live::{Cgroup, Paths};
pub use oom::OomWatch;
pub use plan::{Base, Need, Plan, Write};
pub use stats::{
    Blkio, BlkioEntry, Cpu, CpuSet, CpuUsage, Hugetlb, Memory, MemoryEntry, NetworkInterface, Pids, Pressure,
    PressureLine, Rdma, RdmaEntry, Stats, Throttling,
};
pub use update::parse_resources;
