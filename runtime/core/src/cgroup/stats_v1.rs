//! Statistics of cgroup v1 (kernel: cgroup-v1/*.rst).

use super::stats::{BlkioEntry, Hugetlb, MemoryEntry, RdmaEntry, Reader, Stats, list, page_sizes};
use crate::Result;

/// cpuacct.stat counts in ticks of `USER_HZ`, which is 100 for programs on every machine of ours.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

pub(super) fn throttling(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    let counters = files.keyed("cpu.stat")?;
    let get = |key: &str| counters.get(key).copied().unwrap_or(0);
    let throttling = &mut stats.cpu.throttling;
    throttling.periods = get("nr_periods");
    throttling.throttled_periods = get("nr_throttled");
    throttling.throttled_time = get("throttled_time");
    Ok(())
}

pub(super) fn cpu(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    let usage = &mut stats.cpu.usage;
    usage.total = files.number_or_zero("cpuacct.usage")?;
    let modes = files.keyed("cpuacct.stat")?;
    usage.user = modes.get("user").copied().unwrap_or(0) * NANOSECONDS_A_TICK;
    usage.kernel = modes.get("system").copied().unwrap_or(0) * NANOSECONDS_A_TICK;
    let each = files.text("cpuacct.usage_percpu")?.unwrap_or_default();
    usage.percpu = each.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    // `cpu user system`, a line for each.
    for line in files.text("cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let mut numbers = line.split_ascii_whitespace().skip(1).map(|number| number.parse().unwrap_or(0));
        usage.percpu_user.push(numbers.next().unwrap_or(0));
        usage.percpu_kernel.push(numbers.next().unwrap_or(0));
    }
    Ok(())
}

pub(super) fn cpuset(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    let set = &mut stats.cpuset;
    set.cpus = list(&files.text("cpuset.cpus")?.unwrap_or_default());
    set.mems = list(&files.text("cpuset.mems")?.unwrap_or_default());
    for (file, value) in [
        ("cpuset.cpu_exclusive", &mut set.cpu_exclusive),
        ("cpuset.mem_hardwall", &mut set.mem_hardwall),
        ("cpuset.mem_exclusive", &mut set.mem_exclusive),
        ("cpuset.memory_migrate", &mut set.memory_migrate),
        ("cpuset.memory_spread_page", &mut set.memory_spread_page),
        ("cpuset.memory_spread_slab", &mut set.memory_spread_slab),
        ("cpuset.memory_pressure", &mut set.memory_pressure),
        ("cpuset.sched_load_balance", &mut set.sched_load_balance),
    ] {
        *value = files.number_or_zero(file)?;
    }
    let level = files.text("cpuset.sched_relax_domain_level")?;
    set.sched_relax_domain_level = level.and_then(|level| level.trim().parse().ok()).unwrap_or(0);
    Ok(())
}

pub(super) fn memory(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    let memory = &mut stats.memory;
    memory.events = files.keyed("memory.oom_control")?;
    memory.raw = files.keyed("memory.stat")?;
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    for (name, entry) in [
        ("memory", &mut memory.usage),
        ("memory.memsw", &mut memory.swap),
        ("memory.kmem", &mut memory.kernel),
        ("memory.kmem.tcp", &mut memory.kernel_tcp),
    ] {
        // Swap and kernel memory are options of the kernel.
        let Some(usage) = files.number(&format!("{name}.usage_in_bytes"))? else { continue };
        *entry = MemoryEntry {
            usage,
            limit: files.number_or_zero(&format!("{name}.limit_in_bytes"))?,
            max: files.number_or_zero(&format!("{name}.max_usage_in_bytes"))?,
            failcnt: files.number_or_zero(&format!("{name}.failcnt"))?,
        };
    }
    Ok(())
}

/// The same files on v2.
pub(super) fn pids(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    stats.pids.current = files.number_or_zero("pids.current")?;
    stats.pids.limit = files.number("pids.max")?.filter(|&limit| limit != u64::MAX).unwrap_or(0);
    Ok(())
}

pub(super) fn blkio(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    let io = &mut stats.blkio;
    for (name, entries) in [
        ("io_service_bytes", &mut io.io_service_bytes_recursive),
        ("io_serviced", &mut io.io_serviced_recursive),
        ("io_queued", &mut io.io_queued_recursive),
        ("io_service_time", &mut io.io_service_time_recursive),
        ("io_wait_time", &mut io.io_wait_time_recursive),
        ("io_merged", &mut io.io_merged_recursive),
        ("time", &mut io.io_time_recursive),
        ("sectors", &mut io.sectors_recursive),
    ] {
        // The scheduler in use counts; without one the throttling layer does.
        for file in [
            format!("blkio.bfq.{name}_recursive"),
            format!("blkio.{name}_recursive"),
            format!("blkio.throttle.{name}_recursive"),
            format!("blkio.throttle.{name}"),
        ] {
            *entries = files.text(&file)?.unwrap_or_default().lines().filter_map(entry).collect();
            if !entries.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

/// `8:0 Read 5`, or `8:0 5`; not the last line, `Total 5`.
pub(super) fn entry(line: &str) -> Option<BlkioEntry> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let (op, value) = match (words.next()?, words.next()) {
        (op, Some(value)) => (op, value),
        (value, None) => ("", value),
    };
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

pub(super) fn hugetlb(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    for size in page_sizes() {
        // Reservations count since Linux 5.7.
        for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
            if let Some(usage) = files.number(&format!("{prefix}.usage_in_bytes"))? {
                let max = files.number_or_zero(&format!("{prefix}.max_usage_in_bytes"))?;
                let failcnt = files.number_or_zero(&format!("{prefix}.failcnt"))?;
                stats.hugetlb.insert(size, Hugetlb { usage, max, failcnt, limit: 0 });
                break;
            }
        }
    }
    Ok(())
}

/// The same files on v2.
pub(super) fn rdma(files: &Reader<'_>, stats: &mut Stats) -> Result<()> {
    for (file, entries) in [("rdma.current", &mut stats.rdma.current), ("rdma.max", &mut stats.rdma.limit)] {
        *entries = files.text(file)?.unwrap_or_default().lines().filter_map(rdma_entry).collect();
    }
    Ok(())
}

/// `mlx4_0 hca_handle=2 hca_object=max`
pub(super) fn rdma_entry(line: &str) -> Option<RdmaEntry> {
    let (device, counters) = line.split_once(' ')?;
    let counter = |name: &str| {
        let value = counters.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.map_or(0, |value| value.parse().unwrap_or(u32::MAX))
    };
    let (hca_handle, hca_object) = (counter("hca_handle"), counter("hca_object"));
    Some(RdmaEntry { device: device.to_owned(), hca_handle, hca_object })
}
