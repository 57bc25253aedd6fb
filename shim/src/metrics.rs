//! What a container uses, in containerd's messages: `io.containerd.cgroups.v1.Metrics`, or v2's where the host's cgroups are
//! v2 alone.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use flint_runtime::cgroup::{BlkioEntry, MemoryEntry, Mode, Pressure, RdmaEntry, Stats};
use flint_runtime::{Kind, Runtime};
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use crate::error::{Error, Result};
use crate::events::any;

const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";
const NANOSECONDS: u64 = 1000;

/// Also between a container's end and its deletion.
///
/// # Errors
///
/// Its cgroup's files cannot be read.
pub(crate) fn of(runtime: &Runtime, id: &str) -> Result<Any> {
    let stats = match runtime.stats(id) {
        Err(error) if error.kind() == Kind::WrongState => runtime.cgroup_stats(id)?,
        stats => stats?,
    };
    let encoded = match runtime.cgroup_mode()? {
        Mode::V2 => any(V2, &unified(&stats)),
        _ => any(V1, &legacy(&stats)),
    };
    encoded.map_err(|error| Error::system("encode the metrics", error))
}

fn legacy(stats: &Stats) -> v1::Metrics {
    let (cpu, throttling) = (&stats.cpu.usage, &stats.cpu.throttling);
    v1::Metrics {
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v1::HugetlbStat {
                usage: pages.usage,
                max: pages.max,
                failcnt: pages.failcnt,
                pagesize: size.clone(),
                ..v1::HugetlbStat::default()
            })
            .collect(),
        pids: MessageField::some(v1::PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
            ..v1::PidsStat::default()
        }),
        cpu: MessageField::some(v1::CPUStat {
            usage: MessageField::some(v1::CPUUsage {
                total: cpu.total,
                kernel: cpu.kernel,
                user: cpu.user,
                per_cpu: cpu.percpu.clone(),
                ..v1::CPUUsage::default()
            }),
            throttling: MessageField::some(v1::Throttle {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_time: throttling.throttled_time,
                ..v1::Throttle::default()
            }),
            ..v1::CPUStat::default()
        }),
        memory: MessageField::some(legacy_memory(stats)),
        memory_oom_control: MessageField::some(v1::MemoryOomControl {
            oom_kill_disable: event(stats, "oom_kill_disable"),
            under_oom: event(stats, "under_oom"),
            oom_kill: event(stats, "oom_kill"),
            ..v1::MemoryOomControl::default()
        }),
        blkio: MessageField::some(legacy_block_io(stats)),
        rdma: MessageField::some(v1::RdmaStat {
            current: rdma(&stats.rdma.current, legacy_rdma),
            limit: rdma(&stats.rdma.limit, legacy_rdma),
            ..v1::RdmaStat::default()
        }),
        network: network(
            stats,
            |name, [rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped]| {
                v1::NetworkStat {
                    name,
                    rx_bytes,
                    rx_packets,
                    rx_errors,
                    rx_dropped,
                    tx_bytes,
                    tx_packets,
                    tx_errors,
                    tx_dropped,
                    ..v1::NetworkStat::default()
                }
            },
        ),
        ..v1::Metrics::default()
    }
}

fn legacy_rdma(device: String, hca_handles: u32, hca_objects: u32) -> v1::RdmaEntry {
    v1::RdmaEntry { device, hca_handles, hca_objects, ..v1::RdmaEntry::default() }
}

fn legacy_memory(stats: &Stats) -> v1::MemoryStat {
    let memory = &stats.memory;
    let raw = |key: &str| memory.raw.get(key).copied().unwrap_or(0);
    let entry = |entry: &MemoryEntry| {
        MessageField::some(v1::MemoryEntry {
            limit: entry.limit,
            usage: entry.usage,
            max: entry.max,
            failcnt: entry.failcnt,
            ..v1::MemoryEntry::default()
        })
    };
    v1::MemoryStat {
        cache: raw("cache"),
        rss: raw("rss"),
        rss_huge: raw("rss_huge"),
        mapped_file: raw("mapped_file"),
        dirty: raw("dirty"),
        writeback: raw("writeback"),
        pg_pg_in: raw("pgpgin"),
        pg_pg_out: raw("pgpgout"),
        pg_fault: raw("pgfault"),
        pg_maj_fault: raw("pgmajfault"),
        inactive_anon: raw("inactive_anon"),
        active_anon: raw("active_anon"),
        inactive_file: raw("inactive_file"),
        active_file: raw("active_file"),
        unevictable: raw("unevictable"),
        hierarchical_memory_limit: raw("hierarchical_memory_limit"),
        hierarchical_swap_limit: raw("hierarchical_memsw_limit"),
        total_cache: raw("total_cache"),
        total_rss: raw("total_rss"),
        total_rss_huge: raw("total_rss_huge"),
        total_mapped_file: raw("total_mapped_file"),
        total_dirty: raw("total_dirty"),
        total_writeback: raw("total_writeback"),
        total_pg_pg_in: raw("total_pgpgin"),
        total_pg_pg_out: raw("total_pgpgout"),
        total_pg_fault: raw("total_pgfault"),
        total_pg_maj_fault: raw("total_pgmajfault"),
        total_inactive_anon: raw("total_inactive_anon"),
        total_active_anon: raw("total_active_anon"),
        total_inactive_file: raw("total_inactive_file"),
        total_active_file: raw("total_active_file"),
        total_unevictable: raw("total_unevictable"),
        usage: entry(&memory.usage),
        swap: entry(&memory.swap),
        kernel: entry(&memory.kernel),
        kernel_tcp: entry(&memory.kernel_tcp),
        ..v1::MemoryStat::default()
    }
}

fn legacy_block_io(stats: &Stats) -> v1::BlkIOStat {
    let devices = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let entries = |entries: &[BlkioEntry]| {
        let entry = |entry: &BlkioEntry| v1::BlkIOEntry {
            device: device(&devices, entry).map_or_else(String::new, |name| format!("/dev/{name}")),
            op: entry.op.clone(),
            major: entry.major,
            minor: entry.minor,
            value: entry.value,
            ..v1::BlkIOEntry::default()
        };
        entries.iter().map(entry).collect()
    };
    let blkio = &stats.blkio;
    v1::BlkIOStat {
        io_service_bytes_recursive: entries(&blkio.io_service_bytes_recursive),
        io_serviced_recursive: entries(&blkio.io_serviced_recursive),
        io_queued_recursive: entries(&blkio.io_queued_recursive),
        io_service_time_recursive: entries(&blkio.io_service_time_recursive),
        io_wait_time_recursive: entries(&blkio.io_wait_time_recursive),
        io_merged_recursive: entries(&blkio.io_merged_recursive),
        io_time_recursive: entries(&blkio.io_time_recursive),
        sectors_recursive: entries(&blkio.sectors_recursive),
        ..v1::BlkIOStat::default()
    }
}

/// The device's name, of diskstats' lines: `8 0 sda ...`
fn device<'a>(devices: &'a str, entry: &BlkioEntry) -> Option<&'a str> {
    devices.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let numbers = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        words.next().filter(|_| numbers == (entry.major, entry.minor))
    })
}

/// How often something happened with memory.
fn event(stats: &Stats, key: &str) -> u64 {
    stats.memory.events.get(key).copied().unwrap_or(0)
}

fn rdma<T>(entries: &[RdmaEntry], message: impl Fn(String, u32, u32) -> T) -> Vec<T> {
    entries.iter().map(|entry| message(entry.device.clone(), entry.hca_handle, entry.hca_object)).collect()
}

/// Numbers of the interfaces in their messages' order: received, then sent.
fn network<T>(stats: &Stats, message: impl Fn(String, [u64; 8]) -> T) -> Vec<T> {
    let interfaces = stats.network_interfaces.iter().flatten();
    interfaces
        .map(|of| {
            message(
                of.name.clone(),
                [
                    of.rx_bytes,
                    of.rx_packets,
                    of.rx_errors,
                    of.rx_dropped,
                    of.tx_bytes,
                    of.tx_packets,
                    of.tx_errors,
                    of.tx_dropped,
                ],
            )
        })
        .collect()
}

fn unified(stats: &Stats) -> v2::Metrics {
    let (cpu, throttling) = (&stats.cpu.usage, &stats.cpu.throttling);
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: stats.pids.current,
            // 0 is v1's word for none.
            limit: Some(stats.pids.limit).filter(|limit| *limit != 0).unwrap_or(u64::MAX),
            ..v2::PidsStat::default()
        }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: cpu.total / NANOSECONDS,
            user_usec: cpu.user / NANOSECONDS,
            system_usec: cpu.kernel / NANOSECONDS,
            nr_periods: throttling.periods,
            nr_throttled: throttling.throttled_periods,
            throttled_usec: throttling.throttled_time / NANOSECONDS,
            nr_bursts: throttling.bursts,
            burst_usec: throttling.burst_time / NANOSECONDS,
            psi: pressure(stats.cpu.psi.as_ref()),
            ..v2::CPUStat::default()
        }),
        memory: MessageField::some(unified_memory(stats)),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: event(stats, "low"),
            high: event(stats, "high"),
            max: event(stats, "max"),
            oom: event(stats, "oom"),
            oom_kill: event(stats, "oom_kill"),
            oom_group_kill: event(stats, "oom_group_kill"),
            ..v2::MemoryEvents::default()
        }),
        rdma: MessageField::some(v2::RdmaStat {
            current: rdma(&stats.rdma.current, unified_rdma),
            limit: rdma(&stats.rdma.limit, unified_rdma),
            ..v2::RdmaStat::default()
        }),
        io: MessageField::some(v2::IOStat {
            usage: unified_block_io(stats),
            psi: pressure(stats.blkio.psi.as_ref()),
            ..v2::IOStat::default()
        }),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v2::HugeTlbStat {
                current: pages.usage,
                max: pages.limit,
                pagesize: size.clone(),
                failcnt: pages.failcnt,
                ..v2::HugeTlbStat::default()
            })
            .collect(),
        network: network(
            stats,
            |name, [rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped]| {
                v2::NetworkStat {
                    name,
                    rx_bytes,
                    rx_packets,
                    rx_errors,
                    rx_dropped,
                    tx_bytes,
                    tx_packets,
                    tx_errors,
                    tx_dropped,
                    ..v2::NetworkStat::default()
                }
            },
        ),
        ..v2::Metrics::default()
    }
}

fn unified_rdma(device: String, hca_handles: u32, hca_objects: u32) -> v2::RdmaEntry {
    v2::RdmaEntry { device, hca_handles, hca_objects, ..v2::RdmaEntry::default() }
}

fn unified_memory(stats: &Stats) -> v2::MemoryStat {
    let memory = &stats.memory;
    let raw = |key: &str| memory.raw.get(key).copied().unwrap_or(0);
    // The runtime tells v2 in v1's terms, where swap is memory and swap together.
    let swap_limit = match (memory.swap.limit, memory.usage.limit) {
        (u64::MAX, _) | (_, u64::MAX) => memory.swap.limit,
        (both, memory) => both.saturating_sub(memory),
    };
    v2::MemoryStat {
        anon: raw("anon"),
        file: raw("file"),
        kernel_stack: raw("kernel_stack"),
        slab: raw("slab"),
        sock: raw("sock"),
        shmem: raw("shmem"),
        file_mapped: raw("file_mapped"),
        file_dirty: raw("file_dirty"),
        file_writeback: raw("file_writeback"),
        anon_thp: raw("anon_thp"),
        inactive_anon: raw("inactive_anon"),
        active_anon: raw("active_anon"),
        inactive_file: raw("inactive_file"),
        active_file: raw("active_file"),
        unevictable: raw("unevictable"),
        slab_reclaimable: raw("slab_reclaimable"),
        slab_unreclaimable: raw("slab_unreclaimable"),
        pgfault: raw("pgfault"),
        pgmajfault: raw("pgmajfault"),
        workingset_refault: raw("workingset_refault_anon") + raw("workingset_refault_file"),
        workingset_activate: raw("workingset_activate_anon") + raw("workingset_activate_file"),
        workingset_nodereclaim: raw("workingset_nodereclaim"),
        pgrefill: raw("pgrefill"),
        pgscan: raw("pgscan"),
        pgsteal: raw("pgsteal"),
        pgactivate: raw("pgactivate"),
        pgdeactivate: raw("pgdeactivate"),
        pglazyfree: raw("pglazyfree"),
        pglazyfreed: raw("pglazyfreed"),
        thp_fault_alloc: raw("thp_fault_alloc"),
        thp_collapse_alloc: raw("thp_collapse_alloc"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        max_usage: memory.usage.max,
        swap_usage: memory.swap.usage.saturating_sub(memory.usage.usage),
        swap_limit,
        swap_max_usage: memory.swap_peak,
        psi: pressure(memory.psi.as_ref()),
        ..v2::MemoryStat::default()
    }
}

/// The runtime tells reads and writes of a device apart; the message has them in one entry.
fn unified_block_io(stats: &Stats) -> Vec<v2::IOEntry> {
    let mut devices: Vec<v2::IOEntry> = Vec::new();
    let mut add = |entries: &[BlkioEntry], set: fn(&mut v2::IOEntry, bool, u64)| {
        for entry in entries {
            let read = match entry.op.as_str() {
                "Read" => true,
                "Write" => false,
                _ => continue,
            };
            let same = |device: &v2::IOEntry| (device.major, device.minor) == (entry.major, entry.minor);
            let index = devices.iter().position(same).unwrap_or_else(|| {
                devices.push(v2::IOEntry { major: entry.major, minor: entry.minor, ..v2::IOEntry::default() });
                devices.len() - 1
            });
            if let Some(device) = devices.get_mut(index) {
                set(device, read, entry.value);
            }
        }
    };
    add(&stats.blkio.io_service_bytes_recursive, |device, read, value| {
        *(if read { &mut device.rbytes } else { &mut device.wbytes }) = value;
    });
    add(&stats.blkio.io_serviced_recursive, |device, read, value| {
        *(if read { &mut device.rios } else { &mut device.wios }) = value;
    });
    devices
}

fn pressure(pressure: Option<&Pressure>) -> MessageField<v2::PSIStats> {
    let line = |line: &flint_runtime::cgroup::PressureLine| {
        MessageField::some(v2::PSIData {
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
            total: line.total,
            ..v2::PSIData::default()
        })
    };
    pressure.map_or_else(MessageField::none, |pressure| {
        MessageField::some(v2::PSIStats {
            some: line(&pressure.some),
            full: line(&pressure.full),
            ..v2::PSIStats::default()
        })
    })
}

#[cfg(test)]
mod tests {
    use flint_runtime::cgroup::{BlkioEntry, Hugetlb, RdmaEntry, Stats};

    use super::{device, legacy, unified};

    fn stats() -> Stats {
        let mut stats = Stats::default();
        stats.cpu.usage.total = 5_000_000;
        stats.memory.usage.limit = 100;
        stats.memory.usage.usage = 60;
        stats.memory.swap.limit = 150;
        stats.memory.swap.usage = 70;
        stats.memory.swap_peak = 12;
        stats.cpu.throttling.bursts = 2;
        stats.cpu.throttling.burst_time = 3000;
        for (name, number) in [("oom_kill", 3), ("under_oom", 1), ("oom_group_kill", 1)] {
            stats.memory.events.insert(name.to_owned(), number);
        }
        stats.hugetlb.insert("2MB".to_owned(), Hugetlb { max: 5, limit: 6, ..Hugetlb::default() });
        stats.rdma.limit.push(RdmaEntry { device: "mlx4_0".to_owned(), hca_handle: 2, hca_object: u32::MAX });
        stats.memory.raw.insert("anon".to_owned(), 40);
        stats.memory.raw.insert("total_rss".to_owned(), 41);
        for (op, value) in [("Read", 1), ("Write", 2), ("Sync", 3)] {
            let entry = BlkioEntry { major: 8, minor: 1, op: op.to_owned(), value };
            stats.blkio.io_service_bytes_recursive.push(entry);
        }
        stats
    }

    #[test]
    fn version_1() {
        let metrics = legacy(&stats());
        assert_eq!(metrics.cpu.usage.total, 5_000_000);
        assert_eq!((metrics.memory.usage.limit, metrics.memory.total_rss), (100, 41));
        assert_eq!(metrics.blkio.io_service_bytes_recursive.len(), 3);
        assert_eq!((metrics.memory_oom_control.oom_kill, metrics.memory_oom_control.under_oom), (3, 1));
        assert_eq!((metrics.pids.limit, metrics.hugetlb[0].max), (0, 5));
        assert_eq!((metrics.rdma.limit[0].device.as_str(), metrics.rdma.limit[0].hca_objects), ("mlx4_0", u32::MAX));
    }

    #[test]
    fn devices_have_names() {
        let text = "   7       0 loop0 0 0\n   8       1 sda1 5 6\n";
        let of = |major, minor| device(text, &BlkioEntry { major, minor, ..BlkioEntry::default() });
        assert_eq!((of(8, 1), of(7, 0), of(8, 0)), (Some("sda1"), Some("loop0"), None));
    }

    #[test]
    fn version_2_counts_in_its_own_units() {
        let metrics = unified(&stats());
        assert_eq!(metrics.cpu.usage_usec, 5000);
        assert_eq!((metrics.memory.usage_limit, metrics.memory.swap_limit, metrics.memory.swap_usage), (100, 50, 10));
        assert_eq!(metrics.memory.anon, 40);
        assert_eq!((metrics.memory.swap_max_usage, metrics.cpu.nr_bursts, metrics.cpu.burst_usec), (12, 2, 3));
        assert_eq!((metrics.memory_events.oom_kill, metrics.memory_events.oom_group_kill), (3, 1));
        assert_eq!((metrics.pids.limit, metrics.hugetlb[0].max), (u64::MAX, 6));
        assert_eq!((metrics.rdma.limit[0].device.as_str(), metrics.rdma.limit[0].hca_handles), ("mlx4_0", 2));
        assert_eq!(metrics.io.usage.len(), 1);
        assert_eq!((metrics.io.usage[0].rbytes, metrics.io.usage[0].wbytes), (1, 2));
    }
}
