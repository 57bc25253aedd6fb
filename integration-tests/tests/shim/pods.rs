//! Containers that share a pod: its pids, or the host's; and which processes are a container's.

use std::collections::BTreeSet;
use std::fs;

use containerd_shim_protos::api::{Empty, KillRequest, PidsRequest, PidsResponse, Status};
use integration_tests::{Bundle, Case, Shim, Streams, processes_with, shim_case, wait_until};
use serde_json::{Value, json};

fn grouped(case: &Case, pids: Option<Value>, script: &str) -> Bundle {
    let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "ipc"}), json!({"type": "uts"})];
    namespaces.extend(pids);
    case.bundle().shell(script).edit(json!({
        "annotations": {"io.kubernetes.cri.sandbox-id": case.id("pod")}, "linux": {"namespaces": namespaces}
    }))
}

const FOREVER: &str = "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done";
const EXEC: &str = "e";

fn exec(shim: &Shim, id: &str) -> u32 {
    let process = json!({"args": ["sh", "-c", "sleep 3000; true"], "cwd": "/", "env": ["PATH=/bin"],
                         "user": {"uid": 0, "gid": 0}});
    shim.exec(id, EXEC, &process, &Streams::default()).expect("exec");
    shim.run(id, EXEC).expect("start the exec")
}

fn pids(shim: &Shim, id: &str) -> BTreeSet<u32> {
    let request = PidsRequest { id: id.to_owned(), ..PidsRequest::default() };
    let answer = shim.call::<PidsResponse>("Pids", &request).expect("pids");
    answer.processes.iter().map(|process| process.pid).collect()
}

/// Processes of a container that run this.
fn running(id: &str, line: &[u8]) -> usize {
    let is = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == line);
    processes_with(id).iter().filter(|pid| is(pid)).count()
}

/// Process 1 of shared pids is seen by the pod's containers: whatever one of them can trace, there is nothing in it.
#[track_caller]
pub(crate) fn assert_confined(pid: u32) {
    let root = fs::read_dir(format!("/proc/{pid}/root")).expect("its root");
    assert_eq!(root.count(), 0, "its root is not empty");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
    assert!(mounts.lines().count() == 1 && mounts.contains(" / / ro,"), "{mounts}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
}

/// The pause container ends first: with it the kernel ends all that share its pids, and each end is told in its order.
#[test]
fn a_pause_container_that_is_killed_first_ends_its_pod() {
    let Some((case, program, events, _listener)) = shim_case() else { return };
    let ids = ["pause", "first", "second"].map(|name| case.id(name));
    let pause = grouped(&case, Some(json!({"type": "pid"})), FOREVER);
    let shim = Shim::start(&case, &program, &pause, &ids[0], &events);
    let pid = shim.create(&ids[0], pause.path(), &Streams::default()).expect("create");
    shim.run(&ids[0], "").expect("start");
    for id in &ids[1..] {
        let joins = grouped(&case, Some(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")})), FOREVER);
        let other = Shim::start(&case, &program, &joins, id, &events);
        assert_eq!(other.address(), shim.address());
        shim.create(id, joins.path(), &Streams::default()).expect("create");
        shim.run(id, "").expect("start");
    }
    exec(&shim, &ids[1]);
    shim.kill(&ids[0], "", 9).expect("kill");
    for id in &ids {
        assert_eq!(shim.wait(id, "").expect("wait"), 137);
    }
    assert_eq!(shim.wait(&ids[1], EXEC).expect("wait"), 137);
    // In whatever order they are deleted.
    for id in &ids {
        shim.delete(id, "").expect("delete");
    }
    events.wait_for(&ids[0], &["create", "start", "exit", "delete"]);
    events.wait_for(&ids[1], &["create", "start", "exec-added:e", "exec-started:e", "exit:e", "exit", "delete"]);
    events.wait_for(&ids[2], &["create", "start", "exit", "delete"]);
    shim.shutdown();
    case.finish();
}

/// Without a pid namespace the kernel ends nobody with init: the shim does, before it tells the end.
#[test]
fn with_the_hosts_pids_the_end_of_init_ends_all() {
    let Some((case, program, events, _listener)) = shim_case() else { return };
    let script = format!("busybox setsid sleep 2000 & {FOREVER}");
    for (name, signal, all, status) in [("term", 15, false, 7), ("kill", 9, false, 137), ("all", 9, true, 137)] {
        let id = case.id(name);
        let bundle = grouped(&case, None, &script);
        let shim = Shim::start(&case, &program, &bundle, &id, &events);
        shim.create(&id, bundle.path(), &Streams::default()).expect("create");
        shim.run(&id, "").expect("start");
        exec(&shim, &id);
        wait_until("all are there", || {
            running(&id, b"sleep\x002000\0") == 1
                && running(&id, b"sleep\x003000\0") == 1
                && pids(&shim, &id).len() >= 5
        });
        let request = KillRequest { id: id.clone(), signal, all, ..KillRequest::default() };
        shim.call::<Empty>("Kill", &request).expect("kill");
        assert_eq!(shim.wait(&id, "").expect("wait"), status, "{name}");
        assert_eq!(shim.wait(&id, EXEC).expect("wait"), 137, "{name}");
        // Killed before the end is told; the kernel may still be at it.
        wait_until("no process is left", || running(&id, b"sleep\x002000\0") + running(&id, b"sleep\x003000\0") == 0);
        shim.delete(&id, "").expect("delete");
        events.wait_for(&id, &["create", "start", "exec-added:e", "exec-started:e", "exit:e", "exit", "delete"]);
        shim.shutdown();
    }
    case.finish();
}

/// All processes of the container, by the host's numbers, those of execs and their children too; after its end its init's.
#[test]
fn pids_are_all_of_a_container() {
    let Some((case, program, events, _listener)) = shim_case() else { return };
    let id = case.id("a");
    let bundle = case.bundle().shell(&format!("sleep 2000 & (sleep 2001 & wait) & {FOREVER}"));
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    let init = shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    assert_eq!(pids(&shim, &id), BTreeSet::from([init]));
    shim.run(&id, "").expect("start");
    let of_exec = exec(&shim, &id);
    // By their cgroups; the shim's own command line holds the id, too.
    let found = || -> BTreeSet<u32> {
        let inside = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&id));
        processes_with(&id).into_iter().filter(inside).map(i32::cast_unsigned).collect()
    };
    wait_until("all are there", || found().len() == 7);
    assert_eq!(pids(&shim, &id), found());
    assert!(found().contains(&init) && found().contains(&of_exec));
    shim.kill(&id, "", 9).expect("kill");
    assert_eq!(shim.wait(&id, "").expect("wait"), 137);
    assert_eq!(shim.state(&id, "").expect("state").status.unwrap(), Status::STOPPED);
    assert_eq!(pids(&shim, &id), BTreeSet::from([init]));
    shim.delete(&id, "").expect("delete");
    shim.shutdown();
    case.finish();
}
