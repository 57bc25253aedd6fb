//! Cgroup v2 with all controllers: that limits are written, and that they hold.
//!
//! Few machines hand all controllers to v2; `cargo xtask vm --test vm_cgroup` has one that does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use integration_tests::{Bundle, Case, Runtime, peers, skip, under_test_only, wait_until};
use serde_json::{Value, json};

const ROOT: &str = "/sys/fs/cgroup";
const MIB: i64 = 1 << 20;

/// Whether this is a host with v2 alone and all its controllers; says so if not.
fn full_v2() -> bool {
    let list = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
    let has = |controller: &&str| list.split_whitespace().any(|word| word == *controller);
    let full = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"].iter().all(has);
    if !full {
        skip("needs cgroup v2 with all controllers (cargo xtask vm --test vm_cgroup)");
    }
    full
}

fn both() -> Option<[Runtime; 2]> {
    if full_v2() { peers() } else { None }
}

/// The folder of a container's cgroup, from the host.
fn cgroup_of(case: &Case, id: &str) -> PathBuf {
    let pid = case.state(id)["pid"].as_i64().expect("a pid");
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup");
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).expect("a v2 cgroup");
    Path::new(ROOT).join(path.trim_start_matches('/'))
}

fn read(dir: &Path, file: &str) -> String {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number in a file of `key value` lines.
fn counter(dir: &Path, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let value = text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key));
    value.unwrap_or_else(|| panic!("{file} has no {key}: {text}")).1.trim().parse().expect("a number")
}

fn with(bundle: Bundle, resources: &Value) -> Bundle {
    bundle.edit(json!({"linux": {"resources": resources}}))
}

/// The numbers of the scratch disk that the virtual machine has, and its device.
fn scratch() -> Option<(PathBuf, i64, i64)> {
    let folders = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|disk| disk.path());
    let found = folders.into_iter().find(|disk| {
        fs::read_to_string(disk.join("serial")).is_ok_and(|serial| serial.trim_end_matches('\0').trim() == "scratch")
    });
    let Some(disk) = found else {
        skip("no disk with the serial scratch that could be overwritten");
        return None;
    };
    let numbers = fs::read_to_string(disk.join("dev")).expect("its numbers");
    let (major, minor) = numbers.trim().split_once(':').expect("two numbers");
    let device = Path::new("/dev").join(disk.file_name().expect("its name"));
    Some((device, major.parse().expect("a number"), minor.parse().expect("a number")))
}

/// Every limit that config.json knows, as the files say under each peer.
#[test]
fn limits_are_written() {
    let Some(peers) = both() else { return };
    let mut seen = Vec::new();
    for runtime in peers {
        let case = Case::new(&runtime);
        let resources = json!({
            "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
            "cpu": {"quota": 25_000, "period": 50_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 23},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
        });
        let id = case.detached(&with(case.bundle().forever(), &resources), "a");
        let dir = cgroup_of(&case, &id);
        let files = [
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("memory.swap.max", "33554432"),
            ("memory.high", "max"),
            ("cpu.max", "25000 50000"),
            ("cpuset.cpus", "0"),
            ("cpuset.cpus.effective", "0"),
            ("cpuset.mems", "0"),
            ("pids.max", "23"),
            ("hugetlb.2MB.max", "4194304"),
        ];
        let mut values = BTreeMap::new();
        for (file, expected) in files {
            let value = read(&dir, file);
            assert_eq!(value, expected, "{}: {file}", runtime.name);
            values.insert(file, value);
        }
        seen.push(values);
        case.delete(&id);
        assert!(!dir.exists(), "{} leaves {}", runtime.name, dir.display());
        case.finish();
    }
    assert_eq!(seen.first(), seen.last());
}

/// Files of v2 by their own names. runc 1.1 has them, too.
#[test]
fn unified_files_are_written() {
    let Some(peers) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let resources = json!({"unified": {
            "memory.high": "50331648", "memory.min": "1048576", "cpu.weight": "321", "pids.max": "17"
        }});
        let id = case.detached(&with(case.bundle().forever(), &resources), "a");
        let dir = cgroup_of(&case, &id);
        for (file, expected) in
            [("memory.high", "50331648"), ("memory.min", "1048576"), ("cpu.weight", "321"), ("pids.max", "17")]
        {
            assert_eq!(read(&dir, file), expected, "{}: {file}", runtime.name);
        }
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn memory_max_kills() {
    let Some(peers) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // tail keeps a line without an end in memory.
        let bundle = case.bundle().shell("tail /dev/zero; echo $?");
        let output = case.run(&with(bundle, &json!({"memory": {"limit": 20 * MIB, "swap": 20 * MIB}}))).ok();
        assert_eq!(output.stdout, "137\n", "{}", runtime.name);
        case.finish();
    }
}

/// What does not fit into memory.max goes to swap as far as config.json allows.
#[test]
fn swap_is_limited_by_itself() {
    let Some(peers) = both() else { return };
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        skip("no swap");
        return;
    }
    for runtime in peers {
        let case = Case::new(&runtime);
        // A tmpfs holds memory that can only be swapped.
        let fill = "head -c 20971520 /dev/zero > /dev/shm/big; echo $?";
        let memory = |swap: i64| {
            let shm = json!([
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=64m"]},
            ]);
            let bundle = case.bundle().shell(fill).edit(json!({"mounts": shm}));
            with(bundle, &json!({"memory": {"limit": 16 * MIB, "swap": swap}}))
        };
        let fits = case.run(&memory(80 * MIB));
        assert_eq!(fits.stdout, "0\n", "{}: {}", runtime.name, fits.stderr);
        let killed = case.run(&memory(16 * MIB));
        assert_ne!(killed.stdout, "0\n", "{}: without swap it cannot fit", runtime.name);
        case.finish();
    }
}

#[test]
fn memory_high_throttles_and_does_not_kill() {
    let Some(peers) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("head -c 12582912 /dev/zero | tail -c 12582912 | wc -c; exec sleep 1000");
        let resources = json!({"unified": {"memory.high": "8388608"}});
        let id = case.detached(&with(bundle, &resources), "a");
        let dir = cgroup_of(&case, &id);
        wait_until("memory.high is noticed", || counter(&dir, "memory.events", "high") > 0);
        assert_eq!(counter(&dir, "memory.events", "oom_kill"), 0, "{}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

/// An init that the limit does not let live: create fails, and the error says why.
#[test]
fn an_oom_of_init_is_told() {
    if !full_v2() {
        return;
    }
    let Some([runtime]) = under_test_only("runc says EOF or signal: killed") else { return };
    let case = Case::new(&runtime);
    let bundle = with(case.bundle().forever(), &json!({"memory": {"limit": 65_536, "swap": 65_536}}));
    let output = case.call(["run".into(), "--bundle".into(), bundle.write().into_os_string(), case.id("a").into()]);
    assert_ne!(output.code, 0);
    for words in ["memory limit 65536", "init was OOM-killed", "raise linux.resources.memory.limit"] {
        assert!(output.stderr.contains(words), "{}", output.stderr);
    }
    assert_eq!(output.error_lines().len(), 1, "one sentence: {}", output.stderr);
    case.finish();
}

#[test]
fn cpu_max_throttles() {
    let Some(peers) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("while :; do :; done");
        let id = case.detached(&with(bundle, &json!({"cpu": {"quota": 10_000, "period": 100_000}})), "a");
        let dir = cgroup_of(&case, &id);
        wait_until("the loop is throttled", || counter(&dir, "cpu.stat", "nr_throttled") > 2);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn the_cpuset_is_what_processes_see() {
    let Some(peers) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("nproc; grep Cpus_allowed_list /proc/self/status | cut -f2");
        let output = case.run(&with(bundle, &json!({"cpu": {"cpus": "0"}}))).ok();
        assert_eq!(output.stdout, "1\n0\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn the_pids_limit_refuses_forks() {
    let Some(peers) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // The shell ends when it cannot fork, so another one tries.
        let bundle = case.bundle().shell("sh -c 'for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done'; exec sleep 1000");
        let id = case.detached(&with(bundle, &json!({"pids": {"limit": 5}})), "a");
        let dir = cgroup_of(&case, &id);
        wait_until("a fork is refused", || counter(&dir, "pids.events", "max") > 0);
        assert!(read(&dir, "pids.current").parse::<u32>().expect("a number") <= 5, "{}", runtime.name);
        case.delete(&id);
        assert!(!dir.exists(), "{}", runtime.name);
        case.finish();
    }
}

/// A disk may not be read faster than config.json says. Slow it may be for any reason, so only fast is a failure. Reading, as
/// the kernel may charge the writes to whoever wrote to that disk before.
#[test]
fn io_max_slows_a_disk_down() {
    let Some(peers) = both() else { return };
    let Some((device, major, minor)) = scratch() else { return };
    for (index, runtime) in peers.iter().enumerate() {
        let case = Case::new(runtime);
        let device = device.display().to_string();
        // Each reads a part of its own, which nobody has in memory.
        let read = format!("dd if={device} of=/dev/null bs=65536 count=96 skip={} 2>/dev/null; echo $?", index * 200);
        let bundle = case.bundle().shell(&read).edit(json!({"linux": {"devices": [
            {"path": device, "type": "b", "major": major, "minor": minor, "fileMode": 0o600}
        ]}}));
        let allow = json!([{"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": major, "minor": minor, "access": "rw"}]);
        let limits = json!({"devices": allow, "blockIO": {
            "throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": MIB}]
        }});
        let started = Instant::now();
        let output = case.run(&with(bundle, &limits)).ok();
        assert_eq!(output.stdout, "0\n", "{}: {}", runtime.name, output.stderr);
        assert!(
            started.elapsed() >= Duration::from_secs(2),
            "{}: 6 MiB at 1 MiB/s in {:?}",
            runtime.name,
            started.elapsed()
        );
        case.finish();
    }
}

/// Pid namespaces of others are joined, and time namespaces made, by a throw-away process, which must not lose the way
/// into the cgroup.
#[test]
fn one_that_joins_a_pid_namespace_or_makes_time_is_in_its_own_cgroup() {
    let Some(peers) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let holder = case.detached(&case.bundle().forever(), "holder");
        let pid = case.state(&holder)["pid"].as_i64().expect("a pid");
        let bundle =
            case.bundle().shell("cat /proc/self/cgroup").edit(json!({"hostname": null, "linux": {"namespaces": [
                {"type": "pid", "path": format!("/proc/{pid}/ns/pid")}, {"type": "mount"}
            ]}}));
        let output = case.run(&bundle).ok();
        assert!(
            output.stdout.trim().ends_with(&format!("{}run", case.prefix())),
            "{}: {}",
            runtime.name,
            output.stdout
        );
        if !runtime.is_runc() {
            // runc 1.1 has no time namespaces.
            let bundle = case
                .bundle()
                .shell("cat /proc/self/cgroup")
                .push("/linux/namespaces", json!({"type": "time"}))
                .edit(json!({"linux": {"timeOffsets": {"monotonic": {"secs": 1000, "nanosecs": 0}}}}));
            let output = case.run(&bundle).ok();
            assert!(output.stdout.trim().ends_with(&format!("{}run", case.prefix())), "{}", output.stdout);
        }
        case.delete(&holder);
        case.finish();
    }
}

/// Without a cgroup namespace the host's tree is shown, and what the host mounted it with stays.
#[test]
fn the_hosts_mount_keeps_its_options() {
    if !full_v2() {
        return;
    }
    let Some([runtime]) = under_test_only("runc 1.1 takes nsdelegate from the host") else { return };
    let options = || {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let line = table.lines().find(|line| line.contains(" /sys/fs/cgroup ")).map(str::to_owned);
        line.and_then(|line| line.split_once(" - ").map(|(_, right)| right.to_owned())).expect("a mount")
    };
    let before = options();
    let case = Case::new(&runtime);
    let script = "test -d /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup) && echo found; \
                  mkdir /sys/fs/cgroup/mine 2>/dev/null || echo refused";
    assert_eq!(case.shell(script), "found\nrefused\n");
    assert_eq!(options(), before);
    case.finish();
}
