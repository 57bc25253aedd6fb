//! Limits of config.json as writes to cgroup v1 (runtime-spec, config-linux.md, "Control groups").
//!
//! A file that rejects a value because of another file's old value (memory against memory+swap, period against quota, in a
//! cgroup that is used again) is written once more after the others: no order fits both raising and lowering.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxPids, LinuxThrottleDevice,
};

use super::limits::page_size;
use super::plan::Write;
use crate::{Error, Result};

/// The kernel clamps shares to this range (`MIN_SHARES` and `MAX_SHARES` in kernel/sched/core.c); runc refuses what it clamps.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

pub(super) fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<()> {
    // 0 is "unset" everywhere here, as runc has it.
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    let (limit, swap) = (set(memory.limit()), set(memory.swap()));
    if let Some(limit) = limit {
        writes.push(Write::new("memory", "memory.limit_in_bytes", limit));
    }
    match swap {
        // Nothing is limited where the kernel does not count swap.
        Some(-1) => writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", -1).optional()),
        Some(swap) => writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", swap)),
        None if limit == Some(-1) => writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", -1).optional()),
        None => {}
    }
    if let Some(reservation) = set(memory.reservation()) {
        writes.push(Write::new("memory", "memory.soft_limit_in_bytes", reservation));
    }
    if memory.disable_oom_killer() == Some(true) {
        writes.push(Write::new("memory", "memory.oom_control", 1));
    }
    match memory.swappiness() {
        // Docker's -1 for "unset".
        None | Some(u64::MAX) => {}
        Some(swappiness @ 0..=100) => writes.push(Write::new("memory", "memory.swappiness", swappiness)),
        Some(other) => {
            return Err(Error::invalid(format!("linux.resources.memory.swappiness is {other}: it goes from 0 to 100")));
        }
    }
    match memory.use_hierarchy() {
        // Linux 5.11 has nothing else.
        Some(true) => writes.push(Write::new("memory", "memory.use_hierarchy", 1).optional()),
        Some(false) => warnings.push(
            "linux.resources.memory.useHierarchy is false: ignored, as the kernel always counts memory hierarchically"
                .to_owned(),
        ),
        None => {}
    }
    Ok(())
}

pub(super) fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        if !SHARES.contains(&shares) {
            let (least, most) = (SHARES.start(), SHARES.end());
            return Err(Error::invalid(format!(
                "linux.resources.cpu.shares is {shares}: it goes from {least} to {most}"
            )));
        }
        writes.push(Write::new("cpu", "cpu.shares", shares));
    }
    if let Some(period) = cpu.period().filter(|&period| period != 0) {
        writes.push(Write::new("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        writes.push(Write::new("cpu", "cpu.cfs_quota_us", quota));
    }
    burst_and_idle(cpu, "cpu.cfs_burst_us", writes);
    if let Some(period) = cpu.realtime_period().filter(|&period| period != 0) {
        writes.push(Write::new("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|&runtime| runtime != 0) {
        writes.push(Write::new("cpu", "cpu.rt_runtime_us", runtime));
    }
    Ok(())
}

/// Files of both versions, where 0 is a value; on kernels without them it is what is so.
pub(super) fn burst_and_idle(cpu: &LinuxCpu, burst_file: &str, writes: &mut Vec<Write>) {
    let mut add = |file: &str, value: i128| {
        let write = Write::new("cpu", file, value);
        writes.push(if value == 0 { write.optional() } else { write });
    };
    if let Some(burst) = cpu.burst() {
        add(burst_file, burst.into());
    }
    // After the shares: an idle cgroup refuses them.
    if let Some(idle) = cpu.idle() {
        add("cpu.idle", idle.into());
    }
}

/// The same files on v2.
pub(super) fn cpuset(cpu: &LinuxCpu, writes: &mut Vec<Write>) {
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            writes.push(Write::new("cpuset", file, list));
        }
    }
}

/// The same file on v2. 0 is told as 1, as runc does: init is one process already, so both forbid every other one.
pub(super) fn pids(pids: LinuxPids, writes: &mut Vec<Write>) {
    writes.push(match pids.limit() {
        limit @ 0.. => Write::new("pids", "pids.max", limit.max(1)),
        _ => Write::new("pids", "pids.max", "max").optional(),
    });
}

pub(super) fn block_io(io: &LinuxBlockIo, writes: &mut Vec<Write>) {
    // Linux 5.0 dropped CFQ and blkio.weight with it; BFQ has its own.
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        writes.push(Write::new("blkio", "blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    if let Some(weight) = io.leaf_weight().filter(|&weight| weight != 0) {
        writes.push(Write::new("blkio", "blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            let line = line(weight);
            writes.push(Write::new("blkio", "blkio.weight_device", &line).or("blkio.bfq.weight_device", &line));
        }
        if let Some(weight) = device.leaf_weight().filter(|&weight| weight != 0) {
            writes.push(Write::new("blkio", "blkio.leaf_weight_device", line(weight)));
        }
    }
    let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("read_bps", io.throttle_read_bps_device()),
        ("write_bps", io.throttle_write_bps_device()),
        ("read_iops", io.throttle_read_iops_device()),
        ("write_iops", io.throttle_write_iops_device()),
    ];
    for (name, devices) in throttles {
        for device in devices.iter().flatten() {
            let line = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            writes.push(Write::new("blkio", format!("blkio.throttle.{name}_device"), line));
        }
    }
}

pub(super) fn hugepages(limits: &[LinuxHugepageLimit], writes: &mut Vec<Write>) -> Result<()> {
    for limit in limits {
        let size = page_size(limit)?;
        let bytes = limit.limit();
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), bytes));
        // Reservations are counted apart since Linux 5.7.
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.rsvd.limit_in_bytes"), bytes).optional());
    }
    Ok(())
}

pub(super) fn network(network: &LinuxNetwork, class: &mut Vec<Write>, priorities: &mut Vec<Write>) {
    if let Some(id) = network.class_id().filter(|&id| id != 0) {
        class.push(Write::new("net_cls", "net_cls.classid", id));
    }
    for entry in network.priorities().iter().flatten() {
        priorities.push(Write::new("net_prio", "net_prio.ifpriomap", format!("{} {}", entry.name(), entry.priority())));
    }
}
