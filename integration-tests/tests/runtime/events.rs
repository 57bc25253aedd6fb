//! `events`: what is told, that it ends with the container, and that want of memory is told.

use std::collections::BTreeSet;
use std::fs;

use integration_tests::{Case, Running, Runtime, on_v2, peers, skip, under_test_only, wait_until};
use serde_json::{Value, json};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The paths of all members; one element stands for an array's.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                paths(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                paths(element, &format!("{at}[]"), found);
            }
        }
        _ => {
            found.insert(at.to_owned());
        }
    }
}

#[test]
fn stats_have_runcs_fields_and_the_kernels_numbers() {
    let Some(peers) = peers() else { return };
    let told = peers.map(|runtime| {
        let case = Case::new(&runtime);
        // Work under a quota: the kernel counts a period when its timer fires, some 100 ms after the first work in it.
        let bundle = case.bundle().shell("i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; sleep 1000");
        let bundle = bundle.edit(json!({"linux": {"resources": {
            "memory": {"limit": 67_108_864}, "pids": {"limit": 23}, "cpu": {"quota": 50_000, "cpus": "0", "mems": "0"}
        }}}));
        let id = case.detached(&bundle, "a");
        wait_until("it sleeps", || case.call(["ps", &id]).stdout.contains("sleep"));
        let mut event = Value::Null;
        wait_until("a counted period", || {
            let output = case.call(["events", "--stats", &id]).ok();
            let all = lines(&output.stdout);
            assert_eq!(all.len(), 1, "{}", output.stdout);
            event = all[0].clone();
            event.pointer("/data/cpu/throttling/periods").and_then(Value::as_u64).is_some_and(|periods| periods > 0)
        });
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(id)), "{}", runtime.name);
        case.delete(&id);
        case.finish();
        event["data"].clone()
    });
    let [ours, runcs] = &told;
    let (mut our_paths, mut runc_paths) = (BTreeSet::new(), BTreeSet::new());
    paths(ours, "", &mut our_paths);
    paths(runcs, "", &mut runc_paths);
    // What comes and goes: counters that are left out at 0, and the kernel's own list of memory.stat.
    let may_be_zero = |path: &&String| {
        ["/blkio", "/memory/raw", "/cpu/throttling", "/memory/kernel", "/network_interfaces"]
            .iter()
            .any(|start| path.starts_with(start))
    };
    let missing: Vec<_> = runc_paths.difference(&our_paths).filter(|path| !may_be_zero(path)).collect();
    assert!(missing.is_empty(), "{missing:?} of {runcs} are not in {ours}");
    // Not /hugetlb: a hybrid may count it on v2, where runc does not look.
    for at in ["/memory/usage/limit", "/pids/limit", "/pids/current", "/cpuset", "/intel_rdt"] {
        assert_eq!(ours.pointer(at), runcs.pointer(at), "{at}");
    }
    assert_eq!(ours["memory"]["usage"]["limit"], 67_108_864, "{ours}");
    for at in ["/cpu/usage/total", "/memory/usage/usage"] {
        assert!(ours.pointer(at).and_then(Value::as_u64).is_some_and(|number| number > 0), "{at}: {ours}");
    }
    let raw = |stats: &Value| stats["memory"]["raw"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(raw(ours), raw(runcs));
}

/// `events` in the background, after its first line.
fn watching(case: &Case, id: &str, interval: &str) -> Running {
    let events = case.command(["events", "--interval", interval, id]).spawn();
    wait_until("the first event", || events.stdout().contains('\n'));
    events
}

#[test]
fn it_prints_again_and_ends_with_the_container() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let events = watching(&case, &id, "50ms");
        wait_until("the third event", || events.stdout().lines().count() > 2);
        case.delete(&id);
        let output = events.finish("events of a container that ended").ok();
        assert!(lines(&output.stdout).iter().all(|event| event["type"] == "stats"), "{}", output.stdout);
        case.finish();
    }
}

fn counts_swap() -> bool {
    fs::metadata("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").is_ok()
}

fn runs_out_of_memory(runtime: &Runtime) {
    let case = Case::new(runtime);
    let memory = json!({"limit": 33_554_432, "swap": 33_554_432});
    let bundle = case.bundle().forever().edit(json!({"linux": {"resources": {"memory": memory}}}));
    let id = case.detached(&bundle, "a");
    let events = watching(&case, &id, "100ms");
    // tail keeps a line without an end in memory.
    assert_eq!(case.exec(&id, &["tail", "/dev/zero"]).code, 137, "{}", runtime.name);
    let oom = format!("{{\"type\":\"oom\",\"id\":\"{id}\"}}\n");
    wait_until("the event", || events.stdout().contains(&oom));
    case.delete(&id);
    let output = events.finish("events of a container that ended").ok();
    let told = lines(&output.stdout).iter().filter(|event| event["type"] == "oom").count();
    assert!((1..=2).contains(&told), "{}: told {told} times", runtime.name);
    case.finish();
}

#[test]
fn want_of_memory_is_told() {
    let Some(peers) = peers() else { return };
    if !counts_swap() {
        skip("no v1 hierarchy of memory that counts swap");
        return;
    }
    peers.iter().for_each(runs_out_of_memory);
}

#[test]
fn wrong_calls_are_refused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        for interval in ["0s", "-1s", "soon"] {
            assert_eq!(case.call(["events", "--interval", interval, &id]).code, 1, "{}: {interval}", runtime.name);
        }
        assert_eq!(case.call(["events", "--stats", "flint-it-nobody"]).code, 1, "{}", runtime.name);
        let _ = case.call(["kill", &id, "KILL"]).ok();
        case.wait_for(&id, "stopped");
        let stopped = case.call(["events", "--stats", &id]);
        assert_eq!(stopped.code, 1, "{}", runtime.name);
        assert!(stopped.stderr.contains("is not running"), "{}: {}", runtime.name, stopped.stderr);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn on_cgroup_v2() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let bundle = case.bundle().forever().write();
    let id = case.id("a");
    let script = format!(
        "f() {{ $FLINT --root $ROOT \"$@\"; }}; f run --detach --bundle {} {id} > /dev/null; \
         f events --stats {id}; test -e /sys/fs/cgroup/cpu.pressure -o -e /proc/pressure/cpu && echo pressure || echo none; \
         f events --interval 20ms {id} > {out} & while ! grep -q stats {out}; do sleep 0.02; done; \
         f delete --force {id}; wait; echo end",
        bundle.display(),
        out = case.path().join("events").display(),
    );
    let output = on_v2(&case, &script).ok();
    let told: Vec<&str> = output.stdout.lines().collect();
    let stats = &lines(told[0])[0]["data"];
    // forever's shell and its sleep.
    assert!(stats["pids"]["current"].as_u64().is_some_and(|count| count >= 1), "{stats}");
    if told[1] == "pressure" {
        for controller in ["cpu", "memory", "blkio"] {
            assert!(stats[controller]["psi"]["some"]["avg10"].is_number(), "{controller}: {stats}");
        }
    }
    assert_eq!(told.last(), Some(&"end"));
    case.finish();
}
