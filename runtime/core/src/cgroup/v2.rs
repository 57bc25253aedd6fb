//! Limits of config.json, which are written for cgroup v1, as writes to cgroup v2 (kernel: cgroup-v2.rst). The
//! conversions are those of runc, as schedulers above count on their results.

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxRdma, LinuxThrottleDevice};

use super::limits::page_size;
use super::plan::Write;
use crate::{Error, Result};

/// The period of `cpu.max` when config.json gives a quota alone, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// cpu.shares (2 to 262144, 1024 by default) as cpu.weight (1 to 10000, 100 by default): the curve through these three
/// points, quadratic in the logarithms (runc 1.3.2, crun 1.23).
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[allow(clippy::cast_precision_loss, reason = "less than 2^18")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// blkio.weight (10 to 1000) as io.weight (1 to 10000), linear.
pub(super) fn io_weight_of_blkio(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

/// memory+swap of v1 as swap alone; `None` leaves it unset.
pub(super) fn swap_alone(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>> {
    match (limit, swap) {
        // "Unlimited" for memory alone meant both on v1.
        (Some(-1), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(swap @ -1)) | (Some(-1), Some(swap)) => Ok(Some(swap)),
        (None, Some(_)) => Err(Error::invalid(
            "linux.resources.memory.swap is set without a limit: on cgroup v2 it is counted from the limit, so give both",
        )),
        (Some(limit), Some(swap)) if limit < 0 || swap < limit => Err(Error::invalid(format!(
            "linux.resources.memory.swap is {swap}, less than the limit {limit}: it is memory and swap together",
        ))),
        (Some(limit), Some(swap)) => Ok(Some(swap - limit)),
    }
}

fn number_or_max(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

pub(super) fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<()> {
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    let (limit, swap) = (set(memory.limit()), set(memory.swap()));
    if let Some(swap) = swap_alone(limit, swap)? {
        let write = Write::new("memory", "memory.swap.max", number_or_max(swap));
        // Without swap accounting there is no swap to limit to 0, and no limit to lift.
        writes.push(if swap <= 0 { write.optional() } else { write });
    }
    if let Some(limit) = limit {
        writes.push(Write::new("memory", "memory.max", number_or_max(limit)));
    }
    if let Some(reservation) = set(memory.reservation()) {
        writes.push(Write::new("memory", "memory.low", number_or_max(reservation)));
    }
    let absent = [
        ("swappiness", memory.swappiness().is_some_and(|value| value != u64::MAX)),
        ("disableOOMKiller", memory.disable_oom_killer() == Some(true)),
    ];
    for (field, _) in absent.into_iter().filter(|&(_, is_set)| is_set) {
        warnings.push(format!("linux.resources.memory.{field} is ignored: cgroup v2 has nothing like it"));
    }
    Ok(())
}

pub(super) fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>) -> Result<()> {
    let realtime = [
        ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|value| value != 0)),
        ("realtimePeriod", cpu.realtime_period().is_some_and(|value| value != 0)),
    ];
    if let Some((field, _)) = realtime.into_iter().find(|&(_, is_set)| is_set) {
        return Err(Error::unsupported(format!(
            "linux.resources.cpu.{field} is set, and cgroup v2 has no limits for real-time processes: leave it out",
        )));
    }
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        writes.push(Write::new("cpu", "cpu.weight", weight_of_shares(shares)));
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    let period = cpu.period().filter(|&period| period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|&quota| quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        writes.push(Write::new("cpu", "cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD))));
    }
    super::v1::burst_and_idle(cpu, "cpu.max.burst", writes);
    Ok(())
}

/// The same file on v1: one line for each device.
pub(super) fn rdma(limits: &HashMap<String, LinuxRdma>, writes: &mut Vec<Write>) -> Result<()> {
    for (device, limit) in limits.iter().collect::<BTreeMap<_, _>>() {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::invalid(format!("linux.resources.rdma: {device:?} is no name of a device")));
        }
        let values = [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())];
        let given = values.into_iter().filter_map(|(key, value)| Some(format!(" {key}={}", value?)));
        let line: String = given.collect();
        if !line.is_empty() {
            writes.push(Write::new("rdma", "rdma.max", format!("{device}{line}")));
        }
    }
    Ok(())
}

pub(super) fn block_io(io: &LinuxBlockIo, writes: &mut Vec<Write>, warnings: &mut Vec<String>) {
    // BFQ takes the weight of v1 as it is; io.weight belongs to io.cost.
    let weigh = |device: &str, weight: u16| {
        Write::new("io", "io.bfq.weight", format!("{device}{weight}"))
            .or("io.weight", format!("{device}{}", io_weight_of_blkio(weight)))
    };
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        writes.push(weigh("", weight));
    }
    let mut leaf = io.leaf_weight().is_some_and(|weight| weight != 0);
    for device in io.weight_device().iter().flatten() {
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            writes.push(weigh(&format!("{}:{} ", device.major(), device.minor()), weight));
        }
        leaf |= device.leaf_weight().is_some_and(|weight| weight != 0);
    }
    if leaf {
        warnings.push("linux.resources.blockIO.leafWeight is ignored: cgroup v2 has nothing like it".to_owned());
    }
    let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            // v1 lifts a limit with 0, which v2 refuses.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            writes.push(Write::new("io", "io.max", format!("{}:{} {key}={rate}", device.major(), device.minor())));
        }
    }
}

pub(super) fn hugepages(limits: &[LinuxHugepageLimit], writes: &mut Vec<Write>) -> Result<()> {
    for limit in limits {
        let size = page_size(limit)?;
        let bytes = number_or_max(limit.limit());
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.max"), &bytes));
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.rsvd.max"), &bytes).optional());
    }
    Ok(())
}
