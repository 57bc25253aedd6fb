//! Real cgroups: on the host's own layout, and on cgroup v2. Needs root.
#![forbid(unsafe_code)]

mod container;
mod v2;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use flint_runtime::Kind;
use flint_runtime::cgroup::{Cgroup, Layout, Mode, Paths, compile};

use container::{Container, RootControl, eventually, has_v1, may_run, status_of};

/// By the usual places or by mountinfo: the same.
#[test]
fn the_layout_is_what_mountinfo_tells() {
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let told = Layout::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup")).unwrap();
    let seen = Layout::detect().unwrap();
    assert_eq!(format!("{seen:?}"), format!("{told:?}"));
}

#[test]
fn every_joined_hierarchy_gets_the_process() {
    if !may_run("every_joined_hierarchy_gets_the_process") {
        return;
    }
    let layout = Layout::detect().unwrap();
    let mut container = Container::new("join", "{}");
    let pid = container.start("exec sleep 100");
    let joined = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let suffix = format!("/flint-test-{}-join/box", std::process::id());
    for hierarchy in layout.hierarchies().iter().filter(|hierarchy| hierarchy.is_joined()) {
        let line = joined.lines().find(|line| line.contains(&format!(":{}:", hierarchy.name))).unwrap();
        assert!(line.ends_with(&suffix), "{line}");
    }
    if layout.unified().is_some() {
        assert!(joined.lines().any(|line| line == format!("0::{suffix}")), "{joined}");
    }
    assert_eq!(container.cgroup.processes().unwrap(), [pid]);
    assert_eq!(container.cgroup.clone_into().is_some(), layout.mode() != Mode::V1);

    // What another command sees.
    let paths: Paths = serde_json::from_str(&serde_json::to_string(container.cgroup.paths()).unwrap()).unwrap();
    let again = Cgroup::from_paths(&paths);
    assert_eq!(again.paths(), container.cgroup.paths());
    assert_eq!(again.processes().unwrap(), [pid]);
}

#[test]
fn limits_on_v1_arrive() {
    if !may_run("limits_on_v1_arrive") {
        return;
    }
    for controller in ["memory", "cpu", "pids", "cpuset", "devices"] {
        if !has_v1(controller) {
            println!("skipped limits_on_v1_arrive: no v1 hierarchy for {controller}");
            return;
        }
    }
    let container = Container::new(
        "limits",
        r#"{"memory":{"limit":33554432,"swap":67108864,"reservation":16777216,"swappiness":10},
            "cpu":{"shares":512,"quota":20000,"period":50000,"cpus":"0","mems":"0"},"pids":{"limit":9},
            "devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"minor":0,"access":"r"}]}"#,
    );
    let table = [
        ("memory", "memory.limit_in_bytes", "33554432"),
        ("memory", "memory.memsw.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "16777216"),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "9"),
    ];
    for (controller, file, value) in table {
        assert_eq!(container.read(controller, file), value, "{file}");
    }
    let list = container.read("devices", "devices.list");
    let rules: Vec<&str> = list.lines().collect();
    assert_eq!(rules.len(), 12, "{list}");
    for rule in ["b 8:0 r", "c 1:3 rwm", "c *:* m", "c 136:* rwm", "c 10:200 rwm"] {
        assert!(rules.contains(&rule), "{rule} in {list}");
    }
}

#[test]
fn an_empty_cgroup_is_used_again_and_its_limits_change() {
    if !may_run("an_empty_cgroup_is_used_again_and_its_limits_change") || !has_v1("memory") || !has_v1("cpu") {
        println!("skipped: needs root, and memory and cpu on v1");
        return;
    }
    let layout = Layout::detect().unwrap();
    let container = Container::new(
        "again",
        r#"{"memory":{"limit":33554432,"swap":33554432},"cpu":{"quota":10000,"period":10000}}"#,
    );
    // Raising wants swap first, lowering the limit first; the quota and period likewise.
    for (limit, swap, quota, period) in
        [(67_108_864, 134_217_728, 500_000, 1_000_000), (16_777_216, 20_971_520, 1_000, 1_000)]
    {
        let resources =
            format!(r#"{{"memory":{{"limit":{limit},"swap":{swap}}},"cpu":{{"quota":{quota},"period":{period}}}}}"#);
        let again = Cgroup::create(&layout, &Container::plan(&layout, "again", &resources)).unwrap();
        assert_eq!(again.paths(), container.cgroup.paths());
        assert_eq!(container.read("memory", "memory.limit_in_bytes"), limit.to_string());
        assert_eq!(container.read("memory", "memory.memsw.limit_in_bytes"), swap.to_string());
        assert_eq!(container.read("cpu", "cpu.cfs_quota_us"), quota.to_string());
    }
}

#[test]
fn a_used_or_frozen_cgroup_is_refused() {
    if !may_run("a_used_or_frozen_cgroup_is_refused") {
        return;
    }
    let layout = Layout::detect().unwrap();
    let mut container = Container::new("used", "{}");
    let plan = Container::plan(&layout, "used", "{}");
    container.cgroup.freeze().unwrap();
    let error = Cgroup::create(&layout, &plan).unwrap_err();
    assert!(error.kind() == Kind::AlreadyExists && error.to_string().contains("frozen"), "{error}");
    container.cgroup.thaw().unwrap();

    let pid = container.start("exec sleep 100");
    let error = Cgroup::create(&layout, &plan).unwrap_err();
    assert!(error.kind() == Kind::AlreadyExists && error.to_string().contains("1 process(es) found"), "{error}");
    assert_eq!(container.cgroup.processes().unwrap(), [pid], "the refused command left the other's cgroup alone");
}

#[test]
fn a_refused_limit_leaves_nothing_behind() {
    if !may_run("a_refused_limit_leaves_nothing_behind") {
        return;
    }
    let layout = Layout::detect().unwrap();
    let resources = if has_v1("cpuset") {
        r#"{"cpu":{"cpus":"4000"}}"#
    } else {
        r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#
    };
    let plan = Container::plan(&layout, "refused", resources);
    let error = Cgroup::create(&layout, &plan).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cpuset.cpus") || text.contains("hugetlb.3MB"), "{text}");
    assert!(!text.contains("while cleaning up"), "{text}");
    let top = format!("flint-test-{}-refused", std::process::id());
    let mountpoints = layout.hierarchies().iter().map(|h| h.mountpoint.as_path()).chain(layout.unified());
    for mountpoint in mountpoints {
        assert!(!mountpoint.join(&top).exists(), "{} has {top}", mountpoint.display());
    }
}

#[test]
fn freeze_and_thaw() {
    if !may_run("freeze_and_thaw") {
        return;
    }
    let mut container = Container::new("freeze", "{}");
    let pid = container.start("while :; do :; done");
    assert!(!container.cgroup.is_frozen().unwrap());
    container.cgroup.freeze().unwrap();
    assert!(container.cgroup.is_frozen().unwrap());
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse().unwrap()
    };
    let before = ticks();
    thread::sleep(Duration::from_millis(60));
    assert_eq!(ticks(), before, "a frozen process uses no time");
    container.cgroup.thaw().unwrap();
    assert!(!container.cgroup.is_frozen().unwrap());
    eventually("it goes on", || ticks() > before);
}

#[test]
fn kill_all_reaches_a_forking_tree_and_frozen_processes() {
    if !may_run("kill_all_reaches_a_forking_tree_and_frozen_processes") {
        return;
    }
    // Two shells that leave children behind as fast as they can.
    let mut container = Container::new("kill", "{}");
    container.start("while :; do sleep 100 & sleep 0.001; done");
    container.start("while :; do sh -c 'sleep 100' & sleep 0.001; done");
    eventually("it forks", || container.cgroup.processes().unwrap().len() > 6);
    container.cgroup.kill_all().unwrap();
    container.reap();
    eventually("all are gone", || container.cgroup.processes().unwrap().is_empty());

    let pid = container.start("exec sleep 100");
    container.cgroup.freeze().unwrap();
    container.cgroup.kill_all().unwrap();
    eventually("the frozen one dies", || matches!(status_of(pid).as_str(), "Z" | ""));
    container.reap();
    container.cgroup.kill_all().unwrap();
}

#[test]
fn kill_all_without_cgroup_kill() {
    if !may_run("kill_all_without_cgroup_kill") || Layout::detect().unwrap().mode() == Mode::V2 {
        println!("skipped: needs root and v1 hierarchies");
        return;
    }
    let mut container = Container::new("kill-v1", "{}");
    for _ in 0..3 {
        container.start("while :; do sh -c 'sleep 100 & sleep 100' & sleep 0.001; done");
    }
    eventually("it forks", || container.cgroup.processes().unwrap().len() > 12);
    let v1_alone = Cgroup::from_paths(&Paths { unified: None, ..container.cgroup.paths().clone() });
    v1_alone.freeze().unwrap();
    v1_alone.kill_all().unwrap();
    container.reap();
    eventually("all are gone", || container.cgroup.processes().unwrap().is_empty());
}

#[test]
fn the_default_path_is_below_flints_own_cgroups() {
    if !may_run("the_default_path_is_below_flints_own_cgroups") {
        return;
    }
    let layout = Layout::detect().unwrap();
    let id = format!("flint-test-{}-default", std::process::id());
    let plan = compile(&layout, &id, None, &mut Vec::new()).unwrap();
    let cgroup = Cgroup::create(&layout, &plan).unwrap();
    for (name, path) in cgroup.mount_sources() {
        let own =
            layout.hierarchies().iter().find(|hierarchy| hierarchy.name == name).map(|h| h.mountpoint.join(&h.own));
        if let Some(own) = own {
            assert_eq!(path, own.join(&id));
        }
        assert!(path.is_dir() && path.ends_with(&id), "{}", path.display());
    }
    cgroup.delete().unwrap();
}

#[test]
fn cpusets_that_others_left_empty_are_filled() {
    if !may_run("cpusets_that_others_left_empty_are_filled") || !has_v1("cpuset") {
        println!("skipped: needs root and cpuset on v1");
        return;
    }
    let cpuset = Layout::detect().unwrap().hierarchy_of("cpuset").unwrap().mountpoint.clone();
    let top = cpuset.join(format!("flint-test-{}-cpuset", std::process::id()));
    fs::create_dir(&top).unwrap();
    assert_eq!(fs::read_to_string(top.join("cpuset.cpus")).unwrap().trim(), "");
    let mut container = Container::new("cpuset", "{}");
    container.start("exec sleep 100");
    assert_eq!(container.read("cpuset", "cpuset.cpus"), fs::read_to_string(cpuset.join("cpuset.cpus")).unwrap().trim());
}

#[test]
fn delete_waits_for_the_dying_and_takes_sub_cgroups_along() {
    if !may_run("delete_waits_for_the_dying_and_takes_sub_cgroups_along") {
        return;
    }
    let mut container = Container::new("delete", "{}");
    let folders: Vec<PathBuf> = container.cgroup.mount_sources().map(|(_, path)| path.to_owned()).collect();
    for folder in &folders {
        fs::create_dir_all(folder.join("a/b")).unwrap();
    }
    // Freeing 64 MB takes the process some time after the signal.
    let pid = container.start("exec dd if=/dev/zero of=/dev/null bs=64M");
    if let Some((_, devices)) = container.cgroup.mount_sources().find(|(name, _)| *name == "devices") {
        fs::write(devices.join("a/b/cgroup.procs"), pid.to_string()).unwrap();
        assert_eq!(container.cgroup.processes().unwrap(), [pid], "processes of sub-cgroups count");
    }
    container.cgroup.kill_all().unwrap();
    container.cgroup.delete().unwrap();
    for folder in &folders {
        assert!(!folder.exists(), "{}", folder.display());
        assert!(folder.parent().unwrap().exists(), "the parent is not the container's");
    }
    container.cgroup.delete().unwrap();
    assert!(container.cgroup.processes().unwrap().is_empty());
    container.cgroup.kill_all().unwrap();
    container.cgroup.thaw().unwrap();
}

#[test]
fn an_out_of_memory_kill_and_refused_forks_are_counted() {
    if !may_run("an_out_of_memory_kill_and_refused_forks_are_counted") || !has_v1("memory") || !has_v1("pids") {
        println!("skipped: needs root, and memory and pids on v1");
        return;
    }
    let mut container = Container::new("oom", r#"{"memory":{"limit":4194304,"swap":4194304},"pids":{"limit":1}}"#);
    assert_eq!((container.cgroup.oom_kills(), container.cgroup.refused_forks()), (0, 0));
    container.start("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    eventually("the kill is counted", || container.cgroup.oom_kills() >= 1);
    container.reap();
    container.start("true & true & exec sleep 100");
    eventually("the fork is counted", || container.cgroup.refused_forks() >= 1);
}

#[test]
fn a_symbolic_link_or_file_in_the_way_is_not_followed() {
    if !may_run("a_symbolic_link_or_file_in_the_way_is_not_followed") {
        return;
    }
    // cgroupfs itself holds no symbolic links, but has files that may stand where a folder is wanted.
    let layout = Layout::detect().unwrap();
    let linux = serde_json::from_str(r#"{"cgroupsPath":"/cgroup.procs/box"}"#).unwrap();
    let plan = compile(&layout, "unused", Some(&linux), &mut Vec::new()).unwrap();
    let error = Cgroup::create(&layout, &plan).unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
}

#[test]
fn a_hybrid_limits_by_v2_what_v1_does_not_have() {
    let layout = Layout::detect().unwrap();
    let offers = layout.mode() == Mode::Hybrid && layout.unified_controllers().iter().any(|name| name == "hugetlb");
    if !may_run("a_hybrid_limits_by_v2_what_v1_does_not_have") || !offers || has_v1("hugetlb") {
        println!("skipped: needs root, and a hybrid with hugetlb on v2");
        return;
    }
    let _control = RootControl::remember();
    let container = Container::new("hybrid", r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#);
    assert_eq!(fs::read_to_string(container.folder("").join("hugetlb.2MB.max")).unwrap().trim(), "4194304");
}
