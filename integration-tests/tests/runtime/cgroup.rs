//! Cgroups: limits as the kernel's files tell them, where processes stand, and what is removed.

use std::fs;
use std::path::{Path, PathBuf};

use integration_tests::{Bundle, Case, peers, skip, under_test_only};
use serde_json::{Value, json};

/// Where the v1 hierarchy of `controller` is mounted.
fn hierarchy(controller: &str) -> Option<PathBuf> {
    let path = Path::new("/sys/fs/cgroup").join(controller);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = table.lines().any(|line| {
        line.contains(" - cgroup cgroup ") && line.split(' ').nth(4).is_some_and(|point| Path::new(point) == path)
    });
    if !mounted {
        skip(&format!("no v1 hierarchy of {controller} on this host"));
    }
    mounted.then_some(path)
}

/// A bundle with these resources in a cgroup of the case's own name.
fn limited(case: &Case, resources: &Value) -> Bundle {
    let path = format!("/{}parent/child", case.prefix);
    case.bundle().forever().edit(json!({"linux": {"cgroupsPath": path, "resources": resources}}))
}

/// The files of the container's cgroup in `controller`, under each peer; they must be equal and as expected.
///
/// The parent stays for the test to remove: who makes a parent of a configured path does not own it.
#[track_caller]
fn same(controller: &str, resources: &Value, files: &[(&str, &str)]) {
    let (Some(peers), Some(root)) = (peers(), hierarchy(controller)) else {
        return;
    };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&limited(&case, resources), "a");
        let dir = root.join(format!("{}parent/child", case.prefix));
        for (file, expected) in files {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(text, *expected, "{}: {file}", runtime.name);
        }
        case.delete(&id);
        assert!(!dir.exists(), "{} leaves {}", runtime.name, dir.display());
        remove_parents(&case);
        case.finish();
    }
}

fn remove_parents(case: &Case) {
    for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        // The memory hierarchy may put us below a cgroup of our own.
        let mut queue = vec![entry.path()];
        while let Some(dir) = queue.pop() {
            for child in fs::read_dir(&dir).into_iter().flatten().flatten() {
                if child.file_name().to_string_lossy() == format!("{}parent", case.prefix) {
                    let _ = fs::remove_dir(child.path());
                } else if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                    queue.push(child.path());
                }
            }
        }
    }
}

#[test]
fn cpu() {
    same(
        "cpu",
        &json!({"cpu": {"shares": 300, "quota": 25_000, "period": 50_000}}),
        &[("cpu.shares", "300"), ("cpu.cfs_quota_us", "25000"), ("cpu.cfs_period_us", "50000")],
    );
}

#[test]
fn cpuset() {
    same("cpuset", &json!({"cpu": {"cpus": "0", "mems": "0"}}), &[("cpuset.cpus", "0"), ("cpuset.mems", "0")]);
}

#[test]
fn cpuset_is_inherited_where_not_set() {
    let all = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus").unwrap_or_default();
    same("cpuset", &json!({"cpu": {"mems": "0"}}), &[("cpuset.cpus", all.trim()), ("cpuset.mems", "0")]);
}

#[test]
fn pids() {
    same("pids", &json!({"pids": {"limit": 23}}), &[("pids.max", "23")]);
    same("pids", &json!({"pids": {"limit": -1}}), &[("pids.max", "max")]);
}

#[test]
fn memory() {
    let Some(peers) = peers() else { return };
    if hierarchy("memory").is_none() {
        return;
    }
    for runtime in peers {
        let case = Case::new(&runtime);
        let resources = json!({"memory": {
            "limit": 67_108_864, "reservation": 33_554_432, "swappiness": 10, "disableOOMKiller": false
        }});
        let id = case.detached(&limited(&case, &resources), "a");
        let pid = case.state(&id)["pid"].as_i64().expect("a pid");
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
        let path = own.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path).expect("memory");
        let dir = Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/'));
        let read = |file: &str| fs::read_to_string(dir.join(file)).expect(file).trim().to_owned();
        assert_eq!(read("memory.limit_in_bytes"), "67108864");
        assert_eq!(read("memory.soft_limit_in_bytes"), "33554432");
        assert_eq!(read("memory.swappiness"), "10");
        case.delete(&id);
        assert!(!dir.exists());
        remove_parents(&case);
        case.finish();
    }
}

#[test]
fn memory_limits_kill() {
    let Some(peers) = peers() else { return };
    if hierarchy("memory").is_none() {
        return;
    }
    for runtime in peers {
        let case = Case::new(&runtime);
        // tail keeps a line without an end in memory.
        let bundle = case.bundle().shell("tail /dev/zero; echo $?").edit(json!({
            "linux": {"resources": {"memory": {"limit": 20_971_520, "swap": 20_971_520}}}
        }));
        assert_eq!(case.run(&bundle).ok().stdout, "137\n", "{}", runtime.name);
        case.finish();
    }
}

/// runc needs some megabytes for its own start.
#[test]
fn a_megabyte_is_enough_to_start_and_too_little_is_named() {
    let Some([runtime]) = under_test_only("containers with a megabyte of memory") else { return };
    if hierarchy("memory").is_none() {
        return;
    }
    let case = Case::new(&runtime);
    let limited = |bytes: u32| {
        let memory = json!({"limit": bytes, "swap": bytes});
        case.bundle().args(&["/bin/echo", "hello"]).edit(json!({"linux": {"resources": {"memory": memory}}}))
    };
    assert_eq!(case.run(&limited(1_048_576)).ok().stdout, "hello\n");
    let output = case.run(&limited(4096));
    assert_eq!(output.code, 1, "{}", output.stderr);
    let expected = "memory limit 4096: init was OOM-killed before the program ran: raise linux.resources.memory.limit";
    assert!(output.stderr.contains(expected), "{}", output.stderr);
    case.finish();
}

#[test]
fn the_pids_limit_refuses_forks() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done 2>/dev/null; echo many";
        let bundle = case.bundle().shell(script).edit(json!({"linux": {"resources": {"pids": {"limit": 5}}}}));
        let output = case.run(&bundle);
        assert_ne!(output.code, 0, "{}", runtime.name);
        assert!(!output.stdout.contains("many"), "{}", runtime.name);
        case.finish();
    }
}

/// The numbers of some whole disk (limits are refused for partitions); None after a skip.
fn disk() -> Option<(i64, i64)> {
    let numbers = fs::read_dir("/sys/block").into_iter().flatten().flatten().find_map(|disk| {
        let size = fs::read_to_string(disk.path().join("size")).ok()?;
        let numbers = fs::read_to_string(disk.path().join("dev")).ok()?;
        let (major, minor) = numbers.trim().split_once(':')?;
        (size.trim() != "0").then_some((major.parse().ok()?, minor.parse().ok()?))
    });
    if numbers.is_none() {
        skip("no disk to limit");
    }
    numbers
}

#[test]
fn blkio() {
    let Some((major, minor)) = disk() else { return };
    same(
        "blkio",
        &json!({"blockIO": {
            "throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1_048_576}],
            "throttleWriteIOPSDevice": [{"major": major, "minor": minor, "rate": 100}]
        }}),
        &[
            ("blkio.throttle.read_bps_device", &format!("{major}:{minor} 1048576")),
            ("blkio.throttle.write_iops_device", &format!("{major}:{minor} 100")),
        ],
    );
}

#[test]
fn devices() {
    let (Some(peers), Some(root)) = (peers(), hierarchy("devices")) else {
        return;
    };
    let lists = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let resources = json!({"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 7, "access": "r"},
            {"allow": false, "type": "c", "major": 5, "minor": 2, "access": "w"}
        ]});
        let id = case.detached(&limited(&case, &resources), "a");
        let text = fs::read_to_string(root.join(format!("{}parent/child/devices.list", case.prefix))).expect("list");
        case.delete(&id);
        remove_parents(&case);
        case.finish();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    });
    assert!(lists[1].contains(&"c 10:229 rw".to_owned()), "{:?}", lists[1]);
    assert_eq!(lists[0], lists[1]);
}

#[test]
fn the_default_devices_stay_allowed() {
    let (Some(peers), Some(root)) = (peers(), hierarchy("devices")) else {
        return;
    };
    let lists = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let text = fs::read_to_string(root.join(&id).join("devices.list")).expect("list");
        case.delete(&id);
        case.finish();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    });
    assert!(!lists[1].contains(&"a *:* rwm".to_owned()), "{:?}", lists[1]);
    assert_eq!(lists[0], lists[1]);
}

#[test]
fn processes_stand_in_every_hierarchy() {
    let Some(peers) = peers() else { return };
    let shapes = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let pid = case.state(&id)["pid"].as_i64().expect("a pid");
        let shape = case.neutral(&fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup"));
        // An exec'ed process stands beside it.
        let inside = case.neutral(&case.exec(&id, &["cat", "/proc/self/cgroup"]).ok().stdout);
        assert_eq!(shape, inside, "{}", runtime.name);
        case.delete(&id);
        case.finish();
        shape
    });
    // flint uses misc on v1 too, runc 1.1 does not know it.
    let shapes = shapes.map(|shape| shape.lines().filter(|line| !line.contains(":misc:")).map(str::to_owned).collect());
    let [own, runc]: [Vec<String>; 2] = shapes;
    assert!(runc.iter().all(|line| line.ends_with("/<id>-a")), "{runc:?}");
    assert_eq!(own, runc);
}

#[test]
fn cgroups_of_the_container_are_removed_with_it() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case
            .bundle()
            .shell("mkdir -p /sys/fs/cgroup/freezer/own/deep; echo made")
            .capabilities(&["CAP_DAC_OVERRIDE"])
            .edit(json!({"mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
            ]}));
        assert_eq!(case.run(&bundle).ok().stdout, "made\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn a_relative_path_without_dots_is_accepted_and_dots_stay_inside() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let path = format!("../../{}dots", case.prefix);
        let bundle =
            case.bundle().args(&["/bin/cat", "/proc/self/cgroup"]).edit(json!({"linux": {"cgroupsPath": path}}));
        // Refused or kept inside: both are safe. Outside would be neither.
        let output = case.run(&bundle);
        assert!(!output.stdout.contains(".."), "{}: {}", runtime.name, output.stdout);
        assert!(output.code != 0 || output.stdout.contains(&case.prefix), "{}", runtime.name);
        case.finish();
    }
}
