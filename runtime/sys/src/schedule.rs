//! Where and when a process runs: CPU scheduling and affinity, I/O priority, memory policy, personality.

use core::ffi::c_ulong;

use crate::Result;
use crate::raw::call;

/// What sched_setattr(2) sets (`struct sched_attr`, its first version: 48 bytes).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl SchedulerAttributes {
    /// A policy (`SCHED_*`) with its flags (`SCHED_FLAG_*`), nice value and static priority.
    #[must_use]
    pub const fn new(policy: u32, flags: u64, nice: i32, priority: u32) -> Self {
        Self { size: 48, policy, flags, nice, priority, runtime: 0, deadline: 0, period: 0 }
    }

    /// The same with the three times of the deadline policy, in nanoseconds.
    #[must_use]
    pub const fn with_times(self, runtime: u64, deadline: u64, period: u64) -> Self {
        Self { runtime, deadline, period, ..self }
    }

    /// The policy (`SCHED_*`).
    #[must_use]
    pub const fn policy(&self) -> u32 {
        self.policy
    }
}

/// sched_setattr(2) of the calling process (Linux 3.14).
///
/// # Errors
///
/// EINVAL for values that do not go together, EPERM without CAP_SYS_NICE or for a deadline without all CPUs, EBUSY.
pub fn set_scheduler(attributes: &SchedulerAttributes) -> Result<()> {
    // SAFETY: the attributes are live and begin with their size.
    unsafe { call!(SYS_sched_setattr, 0, (&raw const *attributes) as usize, 0) }.map(drop)
}

/// sched_setaffinity(2) of the calling process; bit n of the mask is CPU n.
///
/// # Errors
///
/// EINVAL when no CPU of the mask may be used here.
pub fn set_affinity(mask: &[u64]) -> Result<()> {
    // SAFETY: the mask is live and its length in bytes given; the kernel takes what it knows of a longer one.
    unsafe { call!(SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr() as usize) }.map(drop)
}

/// ioprio_set(2) of the calling process: the class in bits 13 to 15, the level below.
///
/// # Errors
///
/// EPERM for the real-time class without CAP_SYS_ADMIN or CAP_SYS_NICE, EINVAL.
pub fn set_io_priority(priority: u32) -> Result<()> {
    const WHO_PROCESS: usize = 1;
    // SAFETY: takes no memory.
    unsafe { call!(SYS_ioprio_set, WHO_PROCESS, 0, priority as usize) }.map(drop)
}

/// set_mempolicy(2): `mode` is a `MPOL_*` mode with its flags, bit n of the mask is NUMA node n.
///
/// # Errors
///
/// EINVAL for a mode that the kernel does not know, or nodes that it does not have.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    // The kernel looks at one bit less than it is told.
    let (mask, bits) =
        if nodes.is_empty() { (0, 0) } else { (nodes.as_ptr() as usize, nodes.len() * u64::BITS as usize + 1) };
    // SAFETY: the mask is null, or live and holds all bits that the kernel looks at; u64 is its unsigned long.
    unsafe { call!(SYS_set_mempolicy, mode as usize, mask, bits) }.map(drop)
}

/// personality(2): `PER_*`.
///
/// # Errors
///
/// None that the kernel documents; a filter may forbid the call.
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_personality, domain as usize) }.map(drop)
}

// A mask of 64-bit words is one of the kernel's words on the machines that flint is built for.
const _: () = assert!(size_of::<c_ulong>() == size_of::<u64>());
