//! Files as the kernel writes them, and what is told of them.

use std::os::fd::OwnedFd;

use super::*;

/// A folder with these files, read as if it were a cgroup.
fn of(files: &[(&str, &str)], fill: Fill) -> Stats {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let directory = OwnedFd::from(std::fs::File::open(folder.path()).unwrap());
    let branch = Branch::open_at("", folder.path().to_owned(), directory);
    let mut stats = Stats::default();
    fill(&Reader(&branch), &mut stats).unwrap();
    stats
}

#[test]
fn memory_of_v2_is_told_in_the_terms_of_v1() {
    let files = [
        ("memory.stat", "anon 10\nfile 20\nkernel 5\n"),
        ("memory.current", "100\n"),
        ("memory.max", "1000\n"),
        ("memory.peak", "300\n"),
        ("memory.swap.current", "7\n"),
        ("memory.swap.max", "50\n"),
        ("memory.swap.peak", "9\n"),
        ("memory.events", "low 0\noom_kill 2\n"),
    ];
    let memory = of(&files, stats_v2::memory).memory;
    assert_eq!((memory.swap_peak, memory.events["oom_kill"]), (9, 2));
    assert_eq!((memory.cache, memory.raw["anon"]), (20, 10));
    assert_eq!(memory.usage, MemoryEntry { limit: 1000, usage: 100, max: 300, failcnt: 0 });
    assert_eq!(memory.swap, MemoryEntry { limit: 1050, usage: 107, max: 0, failcnt: 0 });
    let unlimited = [
        ("memory.current", "1\n"),
        ("memory.max", "max\n"),
        ("memory.swap.current", "0\n"),
        ("memory.swap.max", "max\n"),
    ];
    let memory = of(&unlimited, stats_v2::memory).memory;
    assert_eq!((memory.usage.limit, memory.swap.limit), (u64::MAX, u64::MAX));
    assert_eq!(of(&[], stats_v2::memory).memory, Memory::default());
}

#[test]
fn times_are_nanoseconds() {
    let files = [(
        "cpu.stat",
        "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\nnr_bursts 6\nburst_usec 5\n",
    )];
    let cpu = of(&files, stats_v2::cpu).cpu;
    assert_eq!((cpu.usage.total, cpu.usage.user, cpu.usage.kernel), (30_000, 20_000, 10_000));
    assert_eq!(
        cpu.throttling,
        Throttling { periods: 4, throttled_periods: 3, throttled_time: 2000, bursts: 6, burst_time: 5000 }
    );
    let files = [
        ("cpuacct.usage", "5\n"),
        ("cpuacct.stat", "user 2\nsystem 1\n"),
        ("cpuacct.usage_percpu", "3 2 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 1 2\n1 0 2\n"),
    ];
    let usage = of(&files, stats_v1::cpu).cpu.usage;
    assert_eq!((usage.total, usage.user, usage.kernel), (5, 20_000_000, 10_000_000));
    assert_eq!((usage.percpu, usage.percpu_user, usage.percpu_kernel), (vec![3, 2], vec![1, 0], vec![2, 2]));
}

#[test]
fn devices() {
    let read = |value| BlkioEntry { major: 8, minor: 16, op: "Read".into(), value };
    let files = [("io.stat", "8:16 rbytes=5 wbytes=6 rios=7 wios=8 dbytes=0 dios=0\n7:0 \n")];
    let io = of(&files, stats_v2::io).blkio;
    assert_eq!((io.io_service_bytes_recursive.len(), &io.io_service_bytes_recursive[0]), (2, &read(5)));
    assert_eq!(io.io_serviced_recursive[0], read(7));
    let files = [
        ("blkio.bfq.io_service_bytes_recursive", "Total 0\n"),
        ("blkio.throttle.io_service_bytes_recursive", "8:16 Read 9\n8:16 Total 9\nTotal 9\n"),
        ("blkio.bfq.sectors_recursive", "8:16 3\n"),
    ];
    let io = of(&files, stats_v1::blkio).blkio;
    assert_eq!(io.io_service_bytes_recursive[0], read(9));
    assert_eq!(io.io_service_bytes_recursive.len(), 2);
    assert_eq!(io.sectors_recursive[0], BlkioEntry { op: String::new(), ..read(3) });
}

#[test]
fn pressure_and_lists() {
    let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
    let stats = of(&[("cpu.pressure", text)], stats_v2::pressures);
    let some = stats.cpu.psi.unwrap().some;
    assert!((some.avg10 - 1.5).abs() < f64::EPSILON && (some.avg60 - 0.25).abs() < f64::EPSILON && some.total == 123);
    assert!(stats.memory.psi.is_none());
    assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
    assert_eq!(list("\n"), Vec::<u16>::new());
    let without = of(&[("cgroup.procs", "1\n2\n")], stats_v2::pids);
    assert_eq!(without.pids, Pids { current: 2, limit: 0 });
    let limited = of(&[("pids.current", "3\n"), ("pids.max", "max\n")], stats_v2::pids);
    assert_eq!(limited.pids, Pids { current: 3, limit: 0 });
}

#[test]
fn what_runc_does_not_tell() {
    let current = "mlx4_0 hca_handle=2 hca_object=20\nocrdma1 hca_handle=1 hca_object=23\n";
    let files = [("rdma.current", current), ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_handle=3\n")];
    let stats = of(&files, stats_v1::rdma);
    let entry = |device: &str, hca_handle, hca_object| RdmaEntry { device: device.to_owned(), hca_handle, hca_object };
    assert_eq!(stats.rdma.current, [entry("mlx4_0", 2, 20), entry("ocrdma1", 1, 23)]);
    assert_eq!(stats.rdma.limit, [entry("mlx4_0", 2, u32::MAX), entry("ocrdma1", 3, 0)]);
    assert!(!serde_json::to_string(&stats).unwrap().contains("mlx4_0"));
    let oom = of(&[("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 4\n")], stats_v1::memory);
    assert_eq!((oom.memory.events["oom_kill_disable"], oom.memory.events["oom_kill"]), (1, 4));
}
