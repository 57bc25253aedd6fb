//! Statistics of cgroup v2 (kernel: cgroup-v2.rst), in the terms of v1, as runc tells them.

use super::stats::{BlkioEntry, Hugetlb, MemoryEntry, Pressure, PressureLine, Reader, Stats, list, page_sizes};
use super::stats_v1;
use crate::Result;

pub(super) fn cpu(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    let counters = files.keyed("cpu.stat")?;
    let get = |key: &str| counters.get(key).copied().unwrap_or(0);
    let cpu = &mut stats.cpu;
    cpu.usage.total = get("usage_usec") * 1000;
    cpu.usage.user = get("user_usec") * 1000;
    cpu.usage.kernel = get("system_usec") * 1000;
    cpu.throttling.periods = get("nr_periods");
    cpu.throttling.throttled_periods = get("nr_throttled");
    cpu.throttling.throttled_time = get("throttled_usec") * 1000;
    cpu.throttling.bursts = get("nr_bursts");
    cpu.throttling.burst_time = get("burst_usec") * 1000;
    Ok(())
}

/// `cpuset.cpus` is empty where nothing was asked for.
pub(super) fn cpuset(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    stats.cpuset.cpus = list(&files.text("cpuset.cpus.effective")?.unwrap_or_default());
    stats.cpuset.mems = list(&files.text("cpuset.mems.effective")?.unwrap_or_default());
    Ok(())
}

pub(super) fn memory(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.raw = files.keyed("memory.stat")?;
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let entry = |name: &str| -> Result<Option<MemoryEntry>> {
        let Some(usage) = files.number(&format!("{name}.current"))? else { return Ok(None) };
        Ok(Some(MemoryEntry {
            usage,
            limit: files.number_or_zero(&format!("{name}.max"))?,
            // Linux 5.19; of swap 6.5.
            max: files.number_or_zero(&format!("{name}.peak"))?,
            failcnt: 0,
        }))
    };
    let Some(usage) = entry("memory")? else { return Ok(()) };
    memory.usage = usage;
    memory.events = files.keyed("memory.events")?;
    // v1 counted memory and swap together; the peaks of both were not at the same time.
    let swap = entry("memory.swap")?.unwrap_or_default();
    memory.swap_peak = swap.max;
    memory.swap = MemoryEntry {
        usage: swap.usage + usage.usage,
        limit: if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_add(usage.limit) },
        max: 0,
        failcnt: 0,
    };
    Ok(())
}

pub(super) fn pids(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    if files.number("pids.current")?.is_some() {
        return stats_v1::pids(files, stats);
    }
    // Without the controller the processes are counted one by one.
    let processes = files.text("cgroup.procs")?.or(files.text("cgroup.threads")?);
    stats.pids.current = processes.unwrap_or_default().lines().count() as u64;
    Ok(())
}

pub(super) fn io(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    for line in files.text("io.stat")?.unwrap_or_default().lines() {
        let Some((device, counters)) = line.split_once(' ') else { continue };
        for counter in counters.split_ascii_whitespace() {
            let Some((key, value)) = counter.split_once('=') else { continue };
            let (op, entries) = match key {
                "rbytes" => ("Read", &mut stats.blkio.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut stats.blkio.io_service_bytes_recursive),
                "rios" => ("Read", &mut stats.blkio.io_serviced_recursive),
                "wios" => ("Write", &mut stats.blkio.io_serviced_recursive),
                _ => continue,
            };
            entries.extend(entry(device, op, value));
        }
    }
    Ok(())
}

fn entry(device: &str, op: &str, value: &str) -> Option<BlkioEntry> {
    stats_v1::entry(&format!("{device} {op} {value}"))
}

pub(super) fn hugetlb(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    for size in page_sizes() {
        for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
            if let Some(usage) = files.number(&format!("{prefix}.current"))? {
                let events = files.keyed(&format!("hugetlb.{size}.events"))?;
                let failcnt = events.get("max").copied().unwrap_or(0);
                let limit = files.number_or_zero(&format!("hugetlb.{size}.max"))?;
                stats.hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt, limit });
                break;
            }
        }
    }
    Ok(())
}

/// Linux 4.20, where the kernel was built with it.
pub(super) fn pressures(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    for (file, pressure) in [
        ("cpu.pressure", &mut stats.cpu.psi),
        ("memory.pressure", &mut stats.memory.psi),
        ("io.pressure", &mut stats.blkio.psi),
    ] {
        *pressure = files.text(file)?.map(|text| parse_pressure(&text));
    }
    Ok(())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`.
pub(super) fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let Some((name, values)) = line.split_once(' ') else { continue };
        let mut parsed = PressureLine::default();
        for (key, value) in values.split_ascii_whitespace().filter_map(|value| value.split_once('=')) {
            match key {
                "avg10" => parsed.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => parsed.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => parsed.avg300 = value.parse().unwrap_or(0.0),
                "total" => parsed.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        match name {
            "some" => pressure.some = parsed,
            "full" => pressure.full = parsed,
            _ => {}
        }
    }
    pressure
}
