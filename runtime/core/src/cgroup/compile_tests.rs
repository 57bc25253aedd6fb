//! Tables: what config.json asks for, and what is written for it on v1, hybrid and v2.

use super::super::v2 as on_v2;
use super::*;
use crate::Kind;

fn v1() -> Layout {
    let mounts = "31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  34 31 0:31 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                  35 31 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                  36 31 0:33 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
                  37 31 0:34 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                  38 31 0:35 / /sys/fs/cgroup/net_cls,net_prio rw - cgroup cgroup rw,net_cls,net_prio\n\
                  39 31 0:36 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n";
    let own = "9:cpu,cpuacct:/\n8:memory:/\n7:devices:/\n6:pids:/\n5:blkio:/\n4:cpuset:/\n3:net_cls,net_prio:/\n2:hugetlb:/\n";
    Layout::parse(mounts, own).unwrap()
}

fn v2(controllers: &[&str]) -> Layout {
    let mounts = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    Layout::parse(mounts, "0::/\n").unwrap().with_unified_controllers(controllers)
}

const ALL: [&str; 6] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"];

fn compiled(layout: &Layout, linux: &str) -> (Result<Plan>, Vec<String>) {
    let linux: Linux = serde_json::from_str(linux).unwrap();
    let mut warnings = Vec::new();
    (compile(layout, "box", Some(&linux), &mut warnings), warnings)
}

/// The writes for `resources` but those of the devices, as `file=value`.
fn writes(layout: &Layout, resources: &str) -> Vec<String> {
    let plan = compiled(layout, &format!(r#"{{"resources":{resources}}}"#)).0.unwrap();
    let limits = plan.writes.iter().filter(|write| write.controller != "devices");
    limits.map(|write| format!("{}={}", write.file, write.value)).collect()
}

fn refusal(layout: &Layout, resources: &str) -> (Kind, String) {
    let error = compiled(layout, &format!(r#"{{"resources":{resources}}}"#)).0.unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn paths() {
    let table = [
        (r"{}", "box", Base::Own),
        (r#"{"cgroupsPath":""}"#, "box", Base::Own),
        (r#"{"cgroupsPath":"/docker/abc"}"#, "docker/abc", Base::Root),
        (r#"{"cgroupsPath":"docker//./abc/"}"#, "docker/abc", Base::Own),
        (r#"{"cgroupsPath":"../../../etc"}"#, "etc", Base::Own),
        (r#"{"cgroupsPath":"/a/../../../b/../c"}"#, "c", Base::Root),
        (r#"{"cgroupsPath":"system.slice:docker:abc"}"#, "system.slice:docker:abc", Base::Own),
    ];
    for (linux, path, base) in table {
        let plan = compiled(&v1(), linux).0.unwrap();
        assert_eq!((plan.path.as_str(), plan.base), (path, base), "{linux}");
    }
    for linux in [r#"{"cgroupsPath":"/"}"#, r#"{"cgroupsPath":"a/.."}"#, r#"{"cgroupsPath":"a\nb"}"#] {
        assert_eq!(compiled(&v1(), linux).0.unwrap_err().kind(), Kind::Invalid, "{linux}");
    }
    assert_eq!(compile(&v1(), "box", None, &mut Vec::new()).unwrap().path, "box");
}

#[test]
fn memory() {
    let table: [(&str, &[&str], &[&str]); 9] = [
        ("{}", &[], &[]),
        (r#"{"limit":0,"swap":0}"#, &[], &[]),
        (r#"{"limit":100}"#, &["memory.limit_in_bytes=100"], &["memory.max=100"]),
        (
            r#"{"limit":100,"swap":250,"reservation":50}"#,
            &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=250", "memory.soft_limit_in_bytes=50"],
            &["memory.swap.max=150", "memory.max=100", "memory.low=50"],
        ),
        (
            r#"{"limit":100,"swap":100}"#,
            &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=100"],
            &["memory.swap.max=0", "memory.max=100"],
        ),
        (
            r#"{"limit":100,"swap":-1}"#,
            &["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=-1"],
            &["memory.swap.max=max", "memory.max=100"],
        ),
        (
            r#"{"limit":-1}"#,
            &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
            &["memory.swap.max=max", "memory.max=max"],
        ),
        (r#"{"swappiness":0}"#, &["memory.swappiness=0"], &[]),
        (r#"{"swappiness":18446744073709551615,"disableOOMKiller":true}"#, &["memory.oom_control=1"], &[]),
    ];
    for (memory, on_v1, on_v2) in table {
        let resources = format!(r#"{{"memory":{memory}}}"#);
        assert_eq!(writes(&v1(), &resources), on_v1, "{memory}");
        assert_eq!(writes(&v2(&ALL), &resources), on_v2, "{memory}");
    }
    assert_eq!(refusal(&v1(), r#"{"memory":{"swappiness":101}}"#).0, Kind::Invalid);
    let (kind, text) = refusal(&v2(&ALL), r#"{"memory":{"limit":100,"swap":50}}"#);
    assert!(kind == Kind::Invalid && text.contains("swap is 50"), "{text}");
    assert_eq!(refusal(&v2(&ALL), r#"{"memory":{"swap":50}}"#).0, Kind::Invalid);
}

#[test]
fn cpu() {
    let table: [(&str, &[&str], &[&str]); 7] = [
        (
            r#"{"quota":50000,"burst":20000}"#,
            &["cpu.cfs_quota_us=50000", "cpu.cfs_burst_us=20000"],
            &["cpu.max=50000 100000", "cpu.max.burst=20000"],
        ),
        (
            r#"{"idle":1,"shares":1024,"burst":0}"#,
            &["cpu.shares=1024", "cpu.cfs_burst_us=0", "cpu.idle=1"],
            &["cpu.weight=100", "cpu.max.burst=0", "cpu.idle=1"],
        ),
        (r#"{"shares":1024}"#, &["cpu.shares=1024"], &["cpu.weight=100"]),
        (r#"{"quota":50000}"#, &["cpu.cfs_quota_us=50000"], &["cpu.max=50000 100000"]),
        (
            r#"{"quota":50000,"period":20000}"#,
            &["cpu.cfs_period_us=20000", "cpu.cfs_quota_us=50000"],
            &["cpu.max=50000 20000"],
        ),
        (r#"{"quota":-1,"period":20000}"#, &["cpu.cfs_period_us=20000", "cpu.cfs_quota_us=-1"], &["cpu.max=max 20000"]),
        (r#"{"cpus":"0-1","mems":"0"}"#, &["cpuset.cpus=0-1", "cpuset.mems=0"], &["cpuset.cpus=0-1", "cpuset.mems=0"]),
    ];
    for (cpu, on_v1, on_v2) in table {
        let resources = format!(r#"{{"cpu":{cpu}}}"#);
        assert_eq!(writes(&v1(), &resources), on_v1, "{cpu}");
        assert_eq!(writes(&v2(&ALL), &resources), on_v2, "{cpu}");
    }
    let realtime = r#"{"cpu":{"realtimeRuntime":9,"realtimePeriod":10}}"#;
    assert_eq!(writes(&v1(), realtime), ["cpu.rt_period_us=10", "cpu.rt_runtime_us=9"]);
    assert_eq!(refusal(&v2(&ALL), realtime).0, Kind::Unsupported);
    for shares in [1, 262_145] {
        assert_eq!(refusal(&v1(), &format!(r#"{{"cpu":{{"shares":{shares}}}}}"#)).0, Kind::Invalid);
    }
}

#[test]
fn shares_and_weights_as_runc_converts_them() {
    // The three fixed points, and the formula worked out with 40 digits in between.
    let table = [
        (0, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (100, 17),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (102_400, 4429),
        (262_144, 10_000),
    ];
    for (shares, weight) in table {
        assert_eq!(on_v2::weight_of_shares(shares), weight, "{shares}");
    }
    assert_eq!([10, 100, 500, 1000].map(on_v2::io_weight_of_blkio), [1, 910, 4950, 10_000]);
}

#[test]
fn pids_and_block_io() {
    for (limit, value) in [(0, "1"), (-1, "max"), (7, "7")] {
        let resources = format!(r#"{{"pids":{{"limit":{limit}}}}}"#);
        assert_eq!(writes(&v1(), &resources), [format!("pids.max={value}")]);
        assert_eq!(writes(&v2(&ALL), &resources), [format!("pids.max={value}")]);
    }
    let io = r#"{"blockIO":{"weight":100,"weightDevice":[{"major":8,"minor":0,"weight":500,"leafWeight":20}],
        "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],"throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#;
    assert_eq!(
        writes(&v1(), io),
        [
            "blkio.weight=100",
            "blkio.weight_device=8:0 500",
            "blkio.leaf_weight_device=8:0 20",
            "blkio.throttle.read_bps_device=8:0 600",
            "blkio.throttle.write_iops_device=8:16 0",
        ]
    );
    assert_eq!(
        writes(&v2(&ALL), io),
        ["io.bfq.weight=100", "io.bfq.weight=8:0 500", "io.max=8:0 rbps=600", "io.max=8:16 wiops=max"]
    );
    let (plan, warnings) = compiled(&v2(&ALL), &format!(r#"{{"resources":{io}}}"#));
    let instead: Vec<_> = plan.unwrap().writes.into_iter().filter_map(|write| write.instead).collect();
    assert_eq!(instead, [("io.weight".into(), "910".into()), ("io.weight".into(), "8:0 4950".into())]);
    assert!(warnings[0].contains("leafWeight"), "{warnings:?}");
}

#[test]
fn hugepages_and_network() {
    let pages = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}"#;
    assert_eq!(writes(&v1(), pages), ["hugetlb.2MB.limit_in_bytes=4096", "hugetlb.2MB.rsvd.limit_in_bytes=4096"]);
    assert_eq!(writes(&v2(&ALL), pages), ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096"]);
    for size in ["", "MB", "2", "02MB", "../2MB", "2mb"] {
        let resources = format!(r#"{{"hugepageLimits":[{{"pageSize":"{size}","limit":1}}]}}"#);
        assert_eq!(refusal(&v1(), &resources).0, Kind::Invalid, "{size:?}");
    }
    let network = r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#;
    assert_eq!(writes(&v1(), network), ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"]);
    let (kind, text) = refusal(&v2(&ALL), network);
    assert!(kind == Kind::Unsupported && text.contains("network.classID"), "{text}");
}

#[test]
fn rdma_and_unified() {
    let rdma = r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000},"mlx4":{"hcaObjects":7},"a":{}}}"#;
    let with_rdma = v2(&["rdma", "memory", "io", "cpu"]);
    assert_eq!(
        writes(&with_rdma, rdma),
        ["rdma.max=mlx4 hca_object=7", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"]
    );
    // Behind the other fields, by name, and a write for each line.
    let unified = r#"{"memory":{"limit":5},"unified":{"memory.max":"7","io.max":"8:0 rbps=1\n8:16 rbps=2","cgroup.max.depth":"3"}}"#;
    assert_eq!(
        writes(&with_rdma, unified),
        ["memory.max=5", "cgroup.max.depth=3", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.max=7"]
    );
    let (kind, text) = refusal(&v1(), unified);
    assert!(kind == Kind::Invalid && text.contains("invalid configuration: cannot use unified on cgroup v1"), "{text}");
    let (kind, text) = refusal(&with_rdma, r#"{"unified":{"misc.max":"a 1"}}"#);
    assert!(kind == Kind::Unsupported && text.contains("controller \"misc\" not available"), "{text}");
    for file in ["memory", "", ".", ".max", "memory.", "../memory.max", "a/memory.max", "memory..max", "memory.max\\n"]
    {
        let (kind, text) = refusal(&with_rdma, &format!(r#"{{"unified":{{"{file}":"1"}}}}"#));
        assert!(kind == Kind::Invalid && text.contains("CONTROLLER.PARAMETER"), "{file}: {text}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let (kind, text) = refusal(&v1(), r#"{"rdma":{"mlx5":{"hcaHandles":1}}}"#);
    assert!(kind == Kind::Unsupported && text.contains("linux.resources.rdma "), "{text}");
    let memory = r#"{"resources":{"memory":{"kernel":1,"kernelTCP":1,"useHierarchy":false}}}"#;
    let (plan, warnings) = compiled(&v1(), memory);
    assert!(plan.is_ok());
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[test]
fn a_missing_controller_is_named_with_its_file() {
    let (kind, text) = refusal(&v2(&["cpu"]), r#"{"memory":{"limit":100}}"#);
    assert_eq!(kind, Kind::Unsupported);
    assert!(text.contains("memory controller") && text.contains("/sys/fs/cgroup/cgroup.controllers"), "{text}");
    assert_eq!(refusal(&v2(&["memory"]), r#"{"blockIO":{"weight":100}}"#).0, Kind::Unsupported);
    // Asking for no limit needs no controller.
    assert!(writes(&v2(&[]), r#"{"pids":{"limit":-1},"memory":{"swap":-1},"cpu":{"idle":0}}"#).is_empty());
}

#[test]
fn a_hybrid_takes_from_v2_what_v1_does_not_have() {
    let mounts = "31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                  33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  34 31 0:31 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let layout =
        Layout::parse(mounts, "2:devices:/\n1:memory:/\n0::/\n").unwrap().with_unified_controllers(&["hugetlb"]);
    let linux = r#"{"resources":{"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}}"#;
    let plan = compiled(&layout, linux).0.unwrap();
    let places: Vec<_> = plan.writes.iter().map(|w| (w.hierarchy.as_str(), w.file.as_str())).collect();
    assert!(places.contains(&("memory", "memory.limit_in_bytes")) && places.contains(&("", "hugetlb.2MB.max")));
    assert_eq!(plan.enable, ["hugetlb"]);
    assert!(!plan.device_filter);
    assert!(compiled(&layout, "{}").0.unwrap().enable.is_empty(), "nothing is enabled without need");
}

fn device_writes(devices: &str) -> Vec<String> {
    let plan = compiled(&v1(), &format!(r#"{{"resources":{{"devices":{devices}}}}}"#)).0.unwrap();
    plan.writes.iter().map(|write| format!("{} {}", write.file, write.value)).collect()
}

#[test]
fn devices_on_v1_are_what_runc_writes() {
    // devices.list of a container of `runc spec`, in the order they are written here.
    let default = [
        "c *:* m",
        "b *:* m",
        "c 1:3 rwm",
        "c 1:8 rwm",
        "c 1:7 rwm",
        "c 5:0 rwm",
        "c 1:5 rwm",
        "c 1:9 rwm",
        "c 136:* rwm",
        "c 5:2 rwm",
        "c 10:200 rwm",
    ];
    let mut expected = vec!["devices.deny a".to_owned()];
    expected.extend(default.iter().map(|rule| format!("devices.allow {rule}")));
    assert_eq!(device_writes(r#"[{"allow":false,"access":"rwm"}]"#), expected);
    assert_eq!(device_writes("[]"), expected);
    assert_eq!(device_writes(r#"[{"allow":true,"access":"rwm"}]"#), ["devices.allow a"]);
    let merged = device_writes(
        r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
        {"allow":true,"type":"b","major":8,"minor":0,"access":"w"},{"allow":false,"type":"b","major":8,"minor":0,"access":"r"}]"#,
    );
    assert_eq!(merged[1], "devices.allow b 8:0 w");
    let denied = device_writes(
        r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":1,"access":"rwm"}]"#,
    );
    assert_eq!(denied, ["devices.allow a", "devices.deny c 1:1 rwm"]);
}

#[test]
fn devices_that_cannot_be_are_refused() {
    let hole = r#"{"devices":[{"allow":true,"type":"b","major":8,"access":"rwm"},
        {"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]}"#;
    let (kind, text) = refusal(&v1(), hole);
    assert!(
        kind == Kind::Unsupported && text.contains("`deny b 8:1 w`") && text.contains("`allow b 8:* rwm`"),
        "{text}"
    );
    let linux = format!(r#"{{"resources":{hole}}}"#);
    assert!(compiled(&v2(&[]), &linux).0.unwrap().device_filter, "v2 can express it");
    for wrong in [
        r#"{"allow":true,"type":"c","major":1,"minor":1}"#,
        r#"{"allow":true,"type":"c","access":"x"}"#,
        r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#,
        r#"{"allow":true,"type":"p","access":"r"}"#,
    ] {
        assert_eq!(refusal(&v1(), &format!(r#"{{"devices":[{wrong}]}}"#)).0, Kind::Invalid, "{wrong}");
    }
}

#[test]
fn a_configured_device_takes_the_place_of_a_default_one() {
    let plan = compiled(&v2(&[]), r#"{"devices":[{"path":"/dev/null","type":"c","major":9,"minor":9}]}"#).0.unwrap();
    let rules: Vec<String> = plan.devices.iter().map(ToString::to_string).collect();
    assert!(!rules.contains(&"c 1:3 rwm".to_owned()) && rules.contains(&"c 1:5 rwm".to_owned()), "{rules:?}");
}

#[test]
fn a_plan_can_be_printed_and_kept() {
    let linux = r#"{"cgroupsPath":"/a/b","resources":{"memory":{"limit":5,"swap":-1}}}"#;
    let plan = compiled(&v2(&ALL), linux).0.unwrap();
    let text = plan.to_string();
    assert!(text.starts_with("cgroup /a/b\n  v2: enable cpuset cpu io memory pids hugetlb\n"), "{text}");
    assert!(text.contains("v2: memory.swap.max = max (if there)") && text.contains("allow c 1:3 rwm"), "{text}");
    let kept: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(kept, plan);
}
