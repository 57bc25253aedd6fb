//! `update`: what the kernel's files hold before and after, and that a refused one changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use integration_tests::{Case, Runtime, on_v2, peers, skip, under_test_only};
use serde_json::{Value, json};

/// A container with these resources, and where its cgroups are.
struct Limited {
    case: Case,
    id: String,
}

impl Limited {
    fn new(runtime: &Runtime, resources: &Value) -> Self {
        let case = Case::new(runtime);
        let id = case.detached(&case.bundle().forever().edit(json!({"linux": {"resources": resources}})), "a");
        Self { case, id }
    }

    /// The container's folder in the v1 hierarchy of `controller`; None after a skip.
    fn folder(&self, controller: &str) -> Option<PathBuf> {
        let pid = self.case.state(&self.id)["pid"].as_i64().expect("a pid");
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
        let line = own.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            names.split(',').any(|name| name == controller).then(|| (names.to_owned(), path.to_owned()))
        });
        let Some((names, path)) = line else {
            skip(&format!("no v1 hierarchy of {controller} on this host"));
            return None;
        };
        Some(PathBuf::from("/sys/fs/cgroup").join(names).join(path.trim_start_matches('/')))
    }

    fn read(&self, file: &str) -> Option<String> {
        let controller = file.split('.').next().unwrap_or_default();
        let text = fs::read_to_string(self.folder(controller)?.join(file)).expect(file);
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[track_caller]
    fn update(&self, options: &[&str], files: &[(&str, &str)]) {
        let name = self.case.runtime.name;
        let _ = self.case.command(["update"]).args(options.iter().copied()).args([&self.id]).output().ok();
        self.holds(files, &format!("{name} {options:?}"));
    }

    #[track_caller]
    fn update_json(&self, resources: &Value, files: &[(&str, &str)]) {
        let name = self.case.runtime.name;
        let command = self.case.command(["update", "--resources", "-", &self.id]);
        let _ = command.input(resources.to_string()).output().ok();
        self.holds(files, &format!("{name} {resources}"));
    }

    #[track_caller]
    fn holds(&self, files: &[(&str, &str)], what: &str) {
        for (file, expected) in files {
            let Some(value) = self.read(file) else { return };
            assert_eq!(value, *expected, "{what}: {file}");
        }
    }

    fn end(self) {
        self.case.delete(&self.id);
        self.case.finish();
    }
}

#[test]
fn cpu() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited = Limited::new(
            &runtime,
            &json!({"cpu": {"shares": 100, "quota": 500_000, "period": 1_000_000, "cpus": "0"}}),
        );
        limited.update(&["--cpu-period", "900000"], &[("cpu.cfs_period_us", "900000"), ("cpu.cfs_quota_us", "500000")]);
        limited.update(&["--cpu-quota", "600000"], &[("cpu.cfs_period_us", "900000"), ("cpu.cfs_quota_us", "600000")]);
        limited.update(&["--cpu-quota", "-1"], &[("cpu.cfs_quota_us", "-1")]);
        limited.update(&["--cpu-share", "200"], &[("cpu.shares", "200")]);
        // Down, both at once: the period alone would be more than a whole processor.
        limited.update(
            &["--cpu-period", "10000", "--cpu-quota", "3000"],
            &[("cpu.cfs_period_us", "10000"), ("cpu.cfs_quota_us", "3000")],
        );
        if let Ok(all) = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus") {
            limited.update(&["--cpuset-cpus", all.trim()], &[("cpuset.cpus", all.trim())]);
        }
        limited.update_json(
            &json!({"cpu": {"shares": 100, "quota": 500_000, "period": 1_000_000, "cpus": "0"}}),
            &[
                ("cpu.shares", "100"),
                ("cpu.cfs_period_us", "1000000"),
                ("cpu.cfs_quota_us", "500000"),
                ("cpuset.cpus", "0"),
            ],
        );
        limited.end();
    }
}

#[test]
fn memory() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited = Limited::new(&runtime, &json!({"memory": {"limit": 33_554_432, "reservation": 25_165_824}}));
        let limit = |bytes| ("memory.limit_in_bytes", bytes);
        limited.update(&["--memory", "64M"], &[limit("67108864"), ("memory.soft_limit_in_bytes", "25165824")]);
        limited.update(&["--memory-reservation", "33554432"], &[("memory.soft_limit_in_bytes", "33554432")]);
        limited.update(&["--memory", "-1"], &[limit("9223372036854771712")]);
        limited.update_json(&json!({"memory": {"limit": 33_554_432}}), &[limit("33554432")]);
        limited.end();
    }
}

/// Memory and swap together are never below memory alone, so up and down want different orders.
#[test]
fn memory_and_swap_go_up_and_down() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited = Limited::new(&runtime, &json!({"memory": {"limit": 33_554_432}}));
        let Some(folder) = limited.folder("memory") else { return };
        if !folder.join("memory.memsw.limit_in_bytes").exists() {
            limited.end();
            skip("this kernel does not count swap on cgroup v1");
            return;
        }
        for (memory, swap) in [("31457280", "52428800"), ("62914560", "83886080"), ("31457280", "41943040")] {
            limited.update(
                &["--memory", memory, "--memory-swap", swap],
                &[("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", swap)],
            );
        }
        limited.update(&["--memory", "-1"], &[("memory.memsw.limit_in_bytes", "9223372036854771712")]);
        limited.end();
    }
}

#[test]
fn pids() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited = Limited::new(&runtime, &json!({"pids": {"limit": 20}}));
        limited.update(&["--pids-limit", "10"], &[("pids.max", "10")]);
        // Another limit leaves this one.
        limited.update(&["--cpu-share", "100"], &[("pids.max", "10")]);
        limited.update_json(&json!({"cpu": {"shares": 100}, "pids": {}}), &[("pids.max", "10")]);
        limited.update(&["--pids-limit", "-1"], &[("pids.max", "max")]);
        if !runtime.is_runc() {
            // runc 1.1 leaves it as it is, runc 1.4 writes 1.
            limited.update(&["--pids-limit", "0"], &[("pids.max", "1")]);
        }
        limited.end();
    }
}

#[test]
fn idle_and_burst() {
    let Some([runtime]) = under_test_only("cpu idle and burst, which runc 1.1.5 does not have") else { return };
    let limited =
        Limited::new(&runtime, &json!({"cpu": {"quota": 50_000, "period": 100_000, "burst": 20_000, "idle": 1}}));
    let Some(folder) = limited.folder("cpu") else { return };
    limited.holds(&[("cpu.cfs_burst_us", "20000"), ("cpu.idle", "1")], "at create");
    // Half the old burst: each order is refused by the other's old value once.
    limited.update(&["--cpu-quota", "10000", "--cpu-burst", "10000"], &[("cpu.cfs_burst_us", "10000")]);
    limited.update(&["--cpu-idle", "0", "--cpu-burst", "0"], &[("cpu.idle", "0"), ("cpu.cfs_burst_us", "0")]);
    limited.update(&["--cpu-idle", "1"], &[("cpu.idle", "1")]);
    // Back to a weight: the idle cgroup refuses the shares until it is none.
    limited.update(&["--cpu-idle", "0", "--cpu-share", "300"], &[("cpu.idle", "0"), ("cpu.shares", "300")]);
    let refused = limited.case.call(["update", "--cpu-idle", "2", &limited.id]);
    assert_eq!(refused.code, 1);
    let expected = format!("to {}: invalid argument", folder.join("cpu.idle").display());
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    limited.end();
}

#[test]
fn a_refused_update_puts_the_others_back() {
    let Some([runtime]) = under_test_only("an update that is undone") else { return };
    let limited = Limited::new(
        &runtime,
        &json!({"memory": {"limit": 33_554_432}, "cpu": {"shares": 500, "quota": 50_000}, "pids": {"limit": 20}}),
    );
    let before = [
        ("memory.limit_in_bytes", "33554432"),
        ("cpu.shares", "500"),
        ("cpu.cfs_quota_us", "50000"),
        ("pids.max", "20"),
    ];
    limited.holds(&before, "before");
    let resources = json!({
        "memory": {"limit": 67_108_864}, "cpu": {"shares": 600, "quota": 60_000, "cpus": "4096"}, "pids": {"limit": 30}
    });
    let output =
        limited.case.command(["update", "--resources", "-", &limited.id]).input(resources.to_string()).output();
    assert_eq!(output.code, 1, "there is no processor 4096: {}", output.stderr);
    assert!(output.stderr.contains("4096") && output.stderr.contains("cpuset.cpus"), "{}", output.stderr);
    assert!(!output.stderr.contains("while cleaning up"), "{}", output.stderr);
    limited.holds(&before, "after");
    limited.end();
}

/// Go, and so runc, reads keys in any letters, and takes those of one field for one.
#[test]
fn keys_in_any_letters_set_their_limit() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited =
            Limited::new(&runtime, &json!({"PIDs": {"limit": 20}, "cpu": {"shares": 100}, "CPU": {"Quota": 20_000}}));
        limited.holds(&[("pids.max", "20"), ("cpu.shares", "100"), ("cpu.cfs_quota_us", "20000")], runtime.name);
        limited.update_json(
            &json!({"CPU": {"SHARES": 200}, "Pids": {"Limit": 30}}),
            &[("pids.max", "30"), ("cpu.shares", "200"), ("cpu.cfs_quota_us", "20000")],
        );
        limited.end();
    }
}

#[test]
fn devices_stay_as_they_are() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited = Limited::new(&runtime, &json!({"devices": [{"allow": false, "access": "rwm"}]}));
        let Some(before) = limited.read("devices.list") else { return };
        limited.update_json(
            &json!({"pids": {"limit": 30}, "devices": [{"allow": true, "access": "rwm"}]}),
            &[("devices.list", &before)],
        );
        limited.end();
    }
}

#[test]
fn wrong_updates_are_refused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited = Limited::new(&runtime, &json!({"pids": {"limit": 20}}));
        let id = &limited.id;
        for args in [
            vec!["update", "--memory", "much", id],
            vec!["update", "--cpu-period", "-5", id],
            vec!["update", "--resources", "/nonexistent", id],
            vec!["update", "--l3-cache-schema", "L3:0=f", id],
            vec!["update", "--pids-limit", "5", "flint-it-nobody"],
            vec!["update"],
        ] {
            let output = limited.case.call(args.iter().copied());
            assert_eq!(output.code, 1, "{} {args:?}: {}", runtime.name, output.stderr);
        }
        let malformed = limited.case.command(["update", "-r", "-", id]).input("{\"cpu\": 3}").output();
        assert_eq!(malformed.code, 1, "{}", runtime.name);
        let _ = limited.case.call(["kill", id, "KILL"]).ok();
        limited.case.wait_for(id, "stopped");
        assert_eq!(limited.case.call(["update", "--pids-limit", "5", id]).code, 1, "{}", runtime.name);
        limited.end();
    }
}

#[test]
fn a_paused_container_stays_paused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let limited = Limited::new(&runtime, &json!({"pids": {"limit": 20}}));
        limited.case.pause(&limited.id);
        limited.update(&["--pids-limit", "30"], &[("pids.max", "30")]);
        assert_eq!(limited.case.status(&limited.id), "paused", "{}", runtime.name);
        limited.end();
    }
}

/// Whether limits are set by cgroup v1 here.
fn on_v1() -> bool {
    let v1 = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !v1 {
        skip("needs controllers on cgroup v1");
    }
    v1
}

#[test]
fn unified_is_refused_on_v1() {
    let Some(peers) = peers().filter(|_| on_v1()) else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().edit(json!({"linux": {"resources": {"unified": {"memory.min": "131072"}}}}));
        let output = case.run(&bundle);
        assert_eq!(output.code, 1, "{}", runtime.name);
        assert!(output.stderr.contains("invalid configuration"), "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}

/// hugetlb is the controller that this machine's v2 tree has, and cgroup's own files are always there.
#[test]
fn on_cgroup_v2() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let unified = json!({"cgroup.max.descendants": "7"});
    let bundle = case.bundle().forever().edit(json!({"linux": {"resources": {"unified": unified}}})).write();
    let id = case.id("a");
    let script = format!(
        "f() {{ $FLINT --root $ROOT \"$@\"; }}; f run --detach --bundle {} {id} > /dev/null; \
         cd $(find /sys/fs/cgroup -name {id}); cat cgroup.max.descendants; \
         update() {{ echo \"$1\" | f update -r - {id} || echo refused; }}; \
         update '{{\"unified\": {{\"cgroup.max.descendants\": \"9\", \"cgroup.max.depth\": \"5\"}}}}'; \
         cat cgroup.max.descendants cgroup.max.depth; \
         update '{{\"unified\": {{\"cgroup.max.depth\": \"3\", \"cgroup.max.descendants\": \"-7\"}}}}'; \
         cat cgroup.max.descendants cgroup.max.depth; \
         grep -q hugetlb /sys/fs/cgroup/cgroup.controllers && {{ \
             update '{{\"hugepageLimits\": [{{\"pageSize\": \"2MB\", \"limit\": 4194304}}]}}'; cat hugetlb.2MB.max; }} || echo 4194304; \
         update '{{\"unified\": {{\"nothing.max\": \"1\"}}}}' 2>&1; \
         cd /; f delete --force {id}; echo end",
        bundle.display(),
    );
    let output = on_v2(&case, &script).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..7], ["7", "9", "5", "refused", "9", "5", "4194304"], "{}", output.stderr);
    assert!(lines[7].contains("can't be set: controller ") && lines[7].contains("not available"), "{}", output.stdout);
    assert_eq!(lines[8..], ["refused", "end"], "{}", output.stderr);
    case.finish();
}

/// With all controllers on v2, as in the virtual machine (`cargo xtask vm --test update`).
#[test]
fn on_cgroup_v2_with_its_controllers() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let resources = json!({
        "memory": {"limit": 33_554_432, "reservation": 25_165_824, "swap": 67_108_864},
        "cpu": {"shares": 100, "quota": 500_000, "period": 1_000_000}, "pids": {"limit": 20},
        "unified": {"memory.high": "30003200"}
    });
    let bundle = case.bundle().forever().edit(json!({"linux": {"resources": resources}})).write();
    let id = case.id("a");
    let script = format!(
        "for name in memory cpu pids; do grep -qw $name /sys/fs/cgroup/cgroup.controllers || exit 0; done; \
         f() {{ $FLINT --root $ROOT \"$@\"; }}; f run --detach --bundle {} {id} > /dev/null; \
         cd $(find /sys/fs/cgroup -name {id}); \
         show() {{ echo $(cat memory.max memory.low memory.high cpu.max cpu.weight pids.max); }}; show; \
         f update --memory 64M --cpu-quota 300000 --cpu-share 200 --pids-limit 0 {id}; show; \
         f update --cpu-period 900000 {id}; show; f update --memory -1 --cpu-quota -1 {id}; show; \
         update() {{ echo \"$1\" | f update -r - {id} 2>/dev/null || echo refused; }}; \
         update '{{\"memory\": {{\"limit\": 67108864}}, \"unified\": {{\"memory.high\": \"max\", \"pids.max\": \"none\"}}}}'; \
         show; update '{{\"memory\": {{\"limit\": 1024, \"checkBeforeUpdate\": true}}}}'; \
         cd /; f delete --force {id}; echo end",
        bundle.display(),
    );
    let output = on_v2(&case, &script).ok();
    if output.stdout.is_empty() {
        skip("the v2 tree of this host has no controllers of memory, cpu and pids");
        case.finish();
        return;
    }
    let expected = [
        "33554432 25165824 30003200 500000 1000000 17 20",
        "67108864 25165824 30003200 300000 1000000 29 1",
        "67108864 25165824 30003200 300000 900000 29 1",
        "max 25165824 30003200 max 900000 29 1",
        "refused",
        "max 25165824 30003200 max 900000 29 1",
        "refused",
        "end",
    ];
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), expected, "{}", output.stderr);
    case.finish();
}

#[test]
fn what_there_is_nothing_to_set_by_is_left_out() {
    let Some(peers) = peers().filter(|_| on_v1()) else { return };
    for runtime in peers {
        let limited = Limited::new(&runtime, &json!({"cpu": {"shares": 100}}));
        let resources = json!({
            "cpu": {"shares": 300}, "network": {"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 1}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3}}
        });
        limited.update_json(&resources, &[("cpu.shares", "300")]);
        limited.update_json(&Value::Null, &[("cpu.shares", "300")]);
        let list = limited.case.command(["update", "--resources", "-", &limited.id]).input("[]").output();
        assert_eq!(list.code, 1, "{}: {}", runtime.name, list.stderr);
        limited.end();
    }
}
