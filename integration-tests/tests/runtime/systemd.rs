//! The systemd cgroup driver against the real systemd; skipped where it is not the init. Compared with runc.

mod update;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use integration_tests::{Bundle, Case, Output, Runtime, flint, missing, pause_until_frozen, peers, skip, wait_until};
use serde_json::{Value, json};

/// Both runtimes, where systemd is the init and answers.
///
/// One test at a time: a hundred containers at once take a slow machine's whole time.
fn both() -> Option<([Runtime; 2], MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    if !Path::new("/run/systemd/system").is_dir() {
        skip("systemd is not the init here: see cargo xtask vm --init systemd");
        return None;
    }
    if missing(&["systemctl"]) {
        return None;
    }
    peers().map(|peers| (peers, ONE.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// flint alone, where systemd makes its cgroups on v2.
fn flint_on_v2() -> Option<(Runtime, MutexGuard<'static, ()>)> {
    let ([flint, _], one) = both()?;
    if !is_v2() {
        skip("needs cgroup v2");
        return None;
    }
    Some((flint, one))
}

fn systemctl(args: &[&str]) -> String {
    let output = std::process::Command::new("systemctl").args(args).output().expect("run systemctl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `systemctl show` of a unit.
fn shown(unit: &str) -> BTreeMap<String, String> {
    let text = systemctl(&["show", unit]);
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        // A list has a line for each item; its order says nothing.
        let entry = all.entry(name.to_owned()).or_default();
        let mut items: Vec<String> = entry.lines().chain([value]).map(str::to_owned).collect();
        items.sort();
        *entry = items.join("\n");
    }
    all
}

/// Units that hold the case's prefix in their name.
fn units(case: &Case) -> String {
    systemctl(&["list-units", "--all", "--no-legend", "--plain", &format!("*{}*", case.prefix())])
}

fn finish(case: Case) {
    wait_until("no unit is left", || units(&case).is_empty());
    case.finish();
}

/// The runtime with the driver; `run --detach`, `create` and such.
fn call(case: &Case, args: &[&str]) -> Output {
    case.call(std::iter::once("--systemd-cgroup").chain(args.iter().copied()))
}

fn detached(case: &Case, bundle: &Bundle, name: &str) -> String {
    let id = case.id(name);
    let folder = bundle.write();
    let _ = call(case, &["run", "--detach", "--bundle", folder.to_str().expect("UTF-8"), &id]).ok();
    id
}

/// The cgroup of a container's init, by the hierarchy's name; the v2 tree has the empty one.
fn cgroups(case: &Case, id: &str) -> BTreeMap<String, String> {
    let pid = case.state(id)["pid"].as_i64().expect("a pid");
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its cgroups");
    let line = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':').map(|(name, path)| (name.to_owned(), path.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A file of the container's cgroup.
fn file(case: &Case, id: &str, v1: (&str, &str), v2: &str) -> String {
    let all = cgroups(case, id);
    let path: PathBuf = if is_v2() {
        format!("/sys/fs/cgroup{}/{v2}", all[""]).into()
    } else {
        let name = |names: &str| names.split(',').any(|name| name == v1.0);
        let (names, path) = all.iter().find(|(names, _)| name(names)).expect("the hierarchy");
        format!("/sys/fs/cgroup/{names}{path}/{}", v1.1).into()
    };
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn limits() -> Value {
    json!({"linux": {"resources": {
        "memory": {"limit": 67_108_864, "reservation": 33_554_432},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 50},
    }}})
}

/// What differs by nature from one container to the next, and between runc's two calls and flint's one.
const OTHER: [&str; 22] = [
    "CPUUsageNSec",
    "ConditionTimestamp",
    "ConditionTimestampMonotonic",
    "ControlGroup",
    "ControlGroupId",
    "Description",
    "DropInPaths",
    "FragmentPath",
    "Id",
    "InvocationID",
    "MemoryAvailable",
    "MemoryCurrent",
    "Names",
    "NeedDaemonReload",
    "TasksCurrent",
    "AssertTimestamp",
    "AssertTimestampMonotonic",
    "MemoryPeak",
    "IOReadBytes",
    "IOReadOperations",
    // runc before 1.3.2 converts the shares otherwise.
    "CPUWeight",
    "CPUShares",
];

#[test]
fn a_scope_has_the_properties_that_it_has_under_runc() {
    let Some((peers, _one)) = both() else { return };
    let mut seen = Vec::new();
    for runtime in peers {
        let case = Case::new(&runtime);
        let name = case.id("x");
        let edit = json!({"linux": {"cgroupsPath": format!("flinttest-a.slice:pre:{name}")}});
        let id = detached(&case, &case.bundle().forever().edit(limits()).edit(edit), "a");
        let unit = format!("pre-{name}.scope");
        let mut properties = shown(&unit);
        assert_eq!(properties["ActiveState"], "active", "{}", runtime.name);
        let place = format!("/flinttest.slice/flinttest-a.slice/{unit}");
        assert_eq!(properties["ControlGroup"], place, "{}", runtime.name);
        // Debian's runc leaves some hierarchies out.
        for (hierarchy, path) in cgroups(&case, &id).into_iter().filter(|_| !runtime.is_runc()) {
            assert!(path == place || hierarchy.starts_with("name="), "{}: {hierarchy} {path}", runtime.name);
        }
        properties.retain(|name, _| !OTHER.contains(&name.as_str()) && !name.contains("Timestamp"));
        for value in properties.values_mut() {
            // The name of a group of devices instead of its number; runc leaves out devices that the host lacks.
            *value = value
                .replace("char-pts", "char-136")
                .replace("/dev/char/10:200 rwm\n", "")
                .replace("/dev/char/10:200 rwm", "");
            let mut lines: Vec<&str> = value.lines().filter(|line| !line.is_empty()).collect();
            lines.sort_unstable();
            *value = case.neutral(&lines.join("\n"));
        }
        seen.push(properties);
        case.delete(&id);
        finish(case);
    }
    assert_eq!(seen[0], seen[1]);
    let _ = systemctl(&["stop", "flinttest.slice"]);
}

#[test]
fn limits_are_in_the_files_and_a_reload_keeps_them() {
    let Some((peers, _one)) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = detached(&case, &case.bundle().forever().edit(limits()), "a");
        let check = |memory: &str, when: &str| {
            let told = (&runtime.name, when);
            assert_eq!(file(&case, &id, ("memory", "memory.limit_in_bytes"), "memory.max"), memory, "{told:?}");
            assert_eq!(file(&case, &id, ("pids", "pids.max"), "pids.max"), "50", "{told:?}");
            let quota = file(&case, &id, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
            assert_eq!(quota, if is_v2() { "50000 100000" } else { "50000" }, "{told:?}");
            assert_eq!(file(&case, &id, ("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0", "{told:?}");
        };
        check("67108864", "made");
        let _ = systemctl(&["daemon-reload"]);
        check("67108864", "reloaded");
        let _ = call(&case, &["update", "--memory", "50331648", "--memory-swap", "-1", &id]).ok();
        check("50331648", "updated");
        let _ = systemctl(&["daemon-reload"]);
        check("50331648", "updated and reloaded");
        // It may still use its devices, and no others.
        let _ = case.exec(&id, &["dd", "if=/dev/zero", "of=/dev/null", "count=1"]).ok();
        case.delete(&id);
        finish(case);
    }
}

/// A cgroup that is there before its unit is somebody else's: it is refused, and left as it is.
#[test]
fn a_cgroup_that_others_have_is_left_alone() {
    let Some((flint, _one)) = flint_on_v2() else { return };
    let case = Case::new(&flint);
    let folder = format!("/sys/fs/cgroup/system.slice/p-{}.scope", case.id("n"));
    std::fs::create_dir(&folder).expect("make a cgroup");
    let edit = json!({"linux": {"cgroupsPath": format!("system.slice:p:{}", case.id("n"))}});
    let bundle = case.bundle().forever().edit(edit).write();
    let refused = |why: &str| {
        let output = call(&case, &["run", "--detach", "--bundle", bundle.to_str().expect("UTF-8"), &case.id("a")]);
        assert!(output.code != 0 && output.stderr.contains(why), "{why}: {}", output.stderr);
        assert!(Path::new(&folder).is_dir(), "{why}");
    };
    std::fs::write(format!("{folder}/cgroup.freeze"), "1").expect("freeze it");
    refused("unexpectedly frozen");
    std::fs::write(format!("{folder}/cgroup.freeze"), "0").expect("thaw it");
    let mut other = std::process::Command::new("sleep").arg("1000").spawn().expect("start a process");
    std::fs::write(format!("{folder}/cgroup.procs"), other.id().to_string()).expect("move it");
    refused("container's cgroup is not empty");
    assert_eq!(other.try_wait().expect("look at it"), None, "it was ended");
    other.kill().expect("end it");
    other.wait().expect("reap it");
    std::fs::remove_dir(&folder).expect("remove the cgroup");
    finish(case);
}

#[test]
fn annotations_become_properties() {
    let Some((peers, _one)) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let edit = json!({"annotations": {
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.After": "['a.service', 'b.service']",
            "org.systemd.property.SendSIGHUP": "true",
        }, "linux": {"cgroupsPath": format!("system.slice:p:{}", case.id("n"))}});
        let id = detached(&case, &case.bundle().forever().edit(edit), "a");
        let all = shown(&format!("p-{}.scope", case.id("n")));
        assert_eq!((all["TimeoutStopUSec"].as_str(), all["SendSIGHUP"].as_str()), ("7s", "yes"), "{}", runtime.name);
        assert_eq!(all["CollectMode"], "inactive-or-failed", "{}", runtime.name);
        assert!(all["After"].contains("a.service") && all["After"].contains("b.service"), "{}", runtime.name);
        case.delete(&id);

        let refused = |name: &str, value: &str| {
            let edit = json!({"annotations": {format!("org.systemd.property.{name}"): value}});
            let folder = case.bundle().forever().edit(edit).write();
            let id = case.id("refused");
            let output = call(&case, &["run", "--detach", "--bundle", folder.to_str().expect("UTF-8"), &id]);
            assert_ne!(output.code, 0, "{}: {name}", runtime.name);
            assert_eq!(case.status(&id), "", "{}", runtime.name);
        };
        refused("TimeoutStopSec", "'long'");
        refused("NoSuchProperty", "true");
        refused("x", "true");
        finish(case);
    }
}

#[test]
fn exec_kill_ps_and_pause_go_through_the_scope() {
    let Some((peers, _one)) = both() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = detached(&case, &case.bundle().forever(), "a");
        let own = cgroups(&case, &id);
        let inside = case.command(["--systemd-cgroup", "exec", "--detach", &id, "sleep", "1000"]).output().ok();
        drop(inside);
        let pids: Vec<i64> =
            serde_json::from_str(&case.call(["ps", "--format", "json", &id]).ok().stdout).expect("pids");
        assert!(pids.len() >= 2, "{}: {pids:?}", runtime.name);
        for pid in pids {
            let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its cgroups");
            let last = own.values().next().expect("a cgroup");
            assert!(text.contains(last.as_str()), "{}: {text}", runtime.name);
        }
        pause_until_frozen(|| call(&case, &["pause", &id]));
        assert_eq!(case.status(&id), "paused", "{}", runtime.name);
        let _ = systemctl(&["daemon-reload"]);
        let _ = call(&case, &["resume", &id]).ok();
        let _ = call(&case, &["kill", &id, "KILL"]).ok();
        case.wait_for(&id, "stopped");
        let _ = call(&case, &["delete", &id]).ok();
        finish(case);
    }
}

#[test]
fn a_subgroup_of_the_scope_may_be_the_containers_place() {
    let Some((flint, _one)) = flint_on_v2() else { return };
    let case = Case::new(&flint);
    let annotations = json!({"run.oci.systemd.subgroup": "container", "run.oci.delegate-cgroup": "payload"});
    let writable = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
    let bundle = case
        .bundle()
        .forever()
        .edit(limits())
        .edit(json!({"annotations": annotations, "process": {"user": {"uid": 1000, "gid": 1000}}}))
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .push("/mounts", writable);
    let id = detached(&case, &bundle, "a");
    let pid = case.state(&id)["pid"].clone();
    let place = cgroups(&case, &id)[""].clone();
    let scope = place.strip_suffix("/container/payload").unwrap_or_else(|| panic!("{pid}: {place}"));
    assert!(scope.contains(&id), "{place}");
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{scope}/pids.max")).expect("the scope has the limits");
    assert_eq!(limit.trim(), "50");
    // What the program sees writable is its user's; the scope, with the limits, stays root's.
    let owner = |cgroup: &str| std::fs::metadata(format!("/sys/fs/cgroup{cgroup}")).expect("look at a cgroup").uid();
    assert_eq!((owner(&place), owner(&format!("{place}/cgroup.procs")), owner(scope)), (1000, 1000, 0));
    let _ = case.exec(&id, &["true"]).ok();
    case.delete(&id);
    finish(case);
}

#[test]
fn a_unit_that_another_container_has_is_refused_and_left_alone() {
    let Some(([flint, _], _one)) = both() else { return };
    let case = Case::new(&flint);
    let edit = json!({"linux": {"cgroupsPath": format!("system.slice:p:{}", case.id("n"))}});
    let id = detached(&case, &case.bundle().forever().edit(edit.clone()), "a");
    let folder = case.bundle().forever().edit(edit).write();
    let output = call(&case, &["run", "--detach", "--bundle", folder.to_str().expect("UTF-8"), &case.id("b")]);
    assert_ne!(output.code, 0);
    let told = &output.stderr;
    assert!(told.contains("systemd has a unit") || told.contains("cgroup is not empty"), "{told}");
    assert_eq!(case.status(&id), "running");
    assert_eq!(case.status(&case.id("b")), "");
    case.delete(&id);
    finish(case);
}

/// Its memory ends it; the scope then is a failed unit, whose name the next container must get all the same.
#[test]
fn a_scope_that_failed_leaves_its_name() {
    let Some(([flint, _], _one)) = both() else { return };
    let case = Case::new(&flint);
    let edit = json!({"linux": {"resources": {"memory": {"limit": 16_777_216, "swap": 16_777_216}}}});
    for _ in 0..2 {
        let bundle = case.bundle().shell("tail /dev/zero").edit(edit.clone());
        let id = detached(&case, &bundle, "a");
        case.wait_for(&id, "stopped");
        let _ = call(&case, &["delete", &id]).ok();
    }
    finish(case);
}

#[test]
fn a_slice_can_be_asked_for() {
    let Some(([flint, _], _one)) = both() else { return };
    let case = Case::new(&flint);
    // A slice's name says where it is: dashes are levels.
    let name = format!("{}x", case.prefix().replace('-', ""));
    let edit = json!({"linux": {"cgroupsPath": format!("flinttest.slice:p:flinttest-{name}.slice")}});
    let id = detached(&case, &case.bundle().forever().edit(edit), "a");
    let place = format!("/flinttest.slice/flinttest-{name}.slice");
    assert!(cgroups(&case, &id).values().any(|path| *path == place), "{:?}", cgroups(&case, &id));
    assert_eq!(shown(&format!("flinttest-{name}.slice"))["ActiveState"], "active");
    case.delete(&id);
    assert_eq!(shown(&format!("flinttest-{name}.slice"))["ActiveState"], "inactive");
    finish(case);
}

#[test]
fn wrong_paths_are_refused_with_the_field() {
    let Some(([flint, _], _one)) = both() else { return };
    let case = Case::new(&flint);
    for wrong in ["/machine/x", "system.slice:a", "system:p:x", "a--b.slice:p:x"] {
        let folder = case.bundle().forever().edit(json!({"linux": {"cgroupsPath": wrong}})).write();
        let output = call(&case, &["create", "--bundle", folder.to_str().expect("UTF-8"), &case.id("a")]);
        assert!(output.code != 0 && output.stderr.contains("linux.cgroupsPath"), "{wrong}: {}", output.stderr);
    }
    finish(case);
}

#[test]
fn a_hundred_at_once() {
    let Some(([flint, _], _one)) = both() else { return };
    let case = Case::new(&flint);
    let folder = case.bundle().forever().write();
    let ids: Vec<String> = (0..100).map(|number| case.id(&format!("n{number}"))).collect();
    let makers: Vec<_> = ids
        .iter()
        .map(|id| {
            let command = case.command(["--systemd-cgroup", "create", "--bundle"]).args([folder.as_path()]).args([id]);
            command.spawn()
        })
        .collect();
    for maker in makers {
        let _ = maker.finish("create").ok();
    }
    for id in &ids {
        assert_eq!(case.status(id), "created", "{id}");
    }
    assert_eq!(units(&case).lines().filter(|line| line.contains("running")).count(), 100, "{}", units(&case));
    let enders: Vec<_> = ids.iter().map(|id| case.command(["delete", "--force", id]).spawn()).collect();
    for ender in enders {
        let _ = ender.finish("delete").ok();
    }
    finish(case);
}

/// A maker that is killed at any time leaves what delete finds.
#[test]
fn killed_makers_leave_nothing_that_delete_does_not_find() {
    let Some(([_, _], _one)) = both() else { return };
    let case = Case::new(&flint());
    let folder = case.bundle().forever().write();
    let mut found = 0;
    for round in 0..24 {
        let id = case.id(&format!("n{round}"));
        let mut maker = std::process::Command::new(&case.runtime.path)
            .arg("--root")
            .arg(case.state_root())
            .args(["--systemd-cgroup", "create", "--bundle"])
            .arg(&folder)
            .arg(&id)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start the runtime");
        std::thread::sleep(Duration::from_millis(round * round * 4));
        let _ = maker.kill();
        let _ = maker.wait();
        found += u32::from(!case.status(&id).is_empty());
        case.delete(&id);
        assert_eq!(case.status(&id), "");
    }
    assert!(found > 0, "no maker had come to anything");
    finish(case);
}
