//! What a container uses, in the shape of `runc events --stats`.
//!
//! Field names are those of runc's `types/events.go`; there 0 and empty are left out. Units: bytes, nanoseconds, microseconds
//! for the totals of pressure (PSI).

use std::collections::BTreeMap;

use nix::errno::Errno;
use serde::Serialize;

use super::branch::Branch;
use super::live::Cgroup;
use super::{stats_v1, stats_v2};
use crate::resctrl::IntelRdt;
use crate::{Error, Result};

/// What a container uses, and what its limits are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Processors and memory nodes it may use.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Processes.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages by their size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// What RDMA devices are used for; runc tells nothing of it.
    #[serde(skip)]
    pub rdma: Rdma,
    /// Intel's resource director; empty for a container that is in no group of it.
    pub intel_rdt: IntelRdt,
    /// Interfaces of the container's own network namespace, but loopback; `None` when it has none of its own.
    pub network_interfaces: Option<Vec<NetworkInterface>>,
}

/// Processor time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// How often the quota stopped it.
    pub throttling: Throttling,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time used, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// In all.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// By processor (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// By processor, in the kernel (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// By processor, in user space (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user space.
    pub user: u64,
}

/// What the quota did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which it was stopped.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// How long, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
    /// Periods in which it used more than the quota, from what it had saved (v2, Linux 5.14). runc does not tell it.
    #[serde(skip)]
    pub bursts: u64,
    /// How much more, in nanoseconds.
    #[serde(skip)]
    pub burst_time: u64,
}

/// Stalls (kernel: accounting/psi.rst).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some process waited.
    pub some: PressureLine,
    /// All of them did.
    pub full: PressureLine,
}

/// Shares of time in percent, and the time in all in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PressureLine {
    /// Of the last 10 s.
    pub avg10: f64,
    /// Of the last 60 s.
    pub avg60: f64,
    /// Of the last 300 s.
    pub avg300: f64,
    /// Since the beginning.
    pub total: u64,
}

/// The cpuset: on v1 its switches too, on v2 what it may really use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "named as the files of cgroup v1's cpuset are")]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Of files.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// In all.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// Of the kernel (v1).
    pub kernel: MemoryEntry,
    /// Of the kernel's TCP buffers (v1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
    /// memory.events as it is; on v1 memory.oom_control. Of both, runc tells nothing.
    #[serde(skip)]
    pub events: BTreeMap<String, u64>,
    /// The most swap so far (v2, Linux 6.5).
    #[serde(skip)]
    pub swap_peak: u64,
}

/// One counter of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// The limit; 2^64 - 1 for none on v2, the largest number of whole pages on v1.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// At most so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met (v1).
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// The limit; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes read and written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Requests that wait (v1 with BFQ or CFQ, and so all below).
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Time of the device, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Time in the queue, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Merged requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Time that was given to it, in milliseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A number about one device and one operation (`Read`, `Write`, and on v1 `Sync`, `Async`, `Discard`, `Total`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the device's numbers, the operation and what is counted")]
pub struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Handles and objects of RDMA devices, and how many there may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rdma {
    /// Now.
    pub current: Vec<RdmaEntry>,
    /// The limits; 2^32 - 1 for none.
    pub limit: Vec<RdmaEntry>,
}

/// Of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in rdma.current")]
pub struct RdmaEntry {
    pub device: String,
    pub hca_handle: u32,
    pub hca_object: u32,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// At most so far (v1).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
    /// The limit; 2^64 - 1 for none (v2). runc does not tell it.
    #[serde(skip)]
    pub limit: u64,
}

/// An interface's counters, seen from inside. (runc writes these names with capitals.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "named as the columns of /proc/net/dev")]
pub struct NetworkInterface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Cgroup {
    /// What the container uses, by the controllers that it has; interfaces are not the cgroup's.
    ///
    /// # Errors
    ///
    /// A file of a controller cannot be read; one that the kernel does not have counts nothing.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for (controller, v1, v2) in FILLERS {
            let (branch, fill) = match (self.with(controller), &self.unified) {
                (Some(branch), _) => (branch, v1),
                (None, Some(branch)) => (branch, v2),
                (None, None) => continue,
            };
            fill(&Reader(branch), &mut stats)?;
        }
        // A hybrid's v2 tree knows it, too.
        if let Some(unified) = &self.unified {
            stats_v2::pressures(&Reader(unified), &mut stats)?;
        }
        Ok(stats)
    }
}

type Fill = fn(&Reader<'_>, &mut Stats) -> Result<()>;

const FILLERS: [(&str, Fill, Fill); 8] = [
    ("cpu", stats_v1::throttling, stats_v2::cpu),
    ("cpuacct", stats_v1::cpu, |_, _| Ok(())),
    ("cpuset", stats_v1::cpuset, stats_v2::cpuset),
    ("memory", stats_v1::memory, stats_v2::memory),
    ("pids", stats_v1::pids, stats_v2::pids),
    ("blkio", stats_v1::blkio, stats_v2::io),
    ("hugetlb", stats_v1::hugetlb, stats_v2::hugetlb),
    ("rdma", stats_v1::rdma, stats_v1::rdma),
];

/// A cgroup whose files are read; what is missing is told as missing, not as an error.
pub(super) struct Reader<'a>(&'a Branch);

impl Reader<'_> {
    pub(super) fn text(&self, file: &str) -> Result<Option<String>> {
        match self.0.read(file) {
            Ok(text) => Ok(Some(text)),
            // EOPNOTSUPP: PSI of a kernel that was booted without psi=1.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(Error::os(format!("cannot read {}", self.0.shown(file)), errno)),
        }
    }

    /// A file's one number; `max` is 2^64 - 1.
    pub(super) fn number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.text(file)?.and_then(|text| match text.trim() {
            "max" => Some(u64::MAX),
            // v1 counts below zero for a moment (memory.kmem.usage_in_bytes).
            number if number.starts_with('-') => Some(0),
            number => number.parse().ok(),
        }))
    }

    pub(super) fn number_or_zero(&self, file: &str) -> Result<u64> {
        Ok(self.number(file)?.unwrap_or(0))
    }

    /// `key number` lines.
    pub(super) fn keyed(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(file)?.unwrap_or_default();
        let line = |line: &str| {
            let (key, number) = line.split_once(' ')?;
            Some((key.to_owned(), number.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(line).collect())
    }
}

/// The sizes of huge pages that the kernel has, as cgroups name them.
pub(super) fn page_sizes() -> Vec<String> {
    let folders = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let size = |name: &str| {
        let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(match kilobytes {
            size if size >= 1 << 20 => format!("{}GB", size >> 20),
            size if size >= 1 << 10 => format!("{}MB", size >> 10),
            size => format!("{size}KB"),
        })
    };
    folders.filter_map(|folder| size(folder.file_name().to_str()?)).collect()
}

/// `0-2,7` as numbers.
pub(super) fn list(text: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
