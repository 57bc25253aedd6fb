//! A shim is killed, and another takes its containers over.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use flint_shim_protocol::{Container, Phase, STATUS_UNKNOWN, Sandbox};
use integration_tests::{Node, Streams, processes_with, wait_until};

const FOREVER: &str = "trap 'exit 5' TERM; while :; do sleep 1000 & wait $!; done";

/// Major and minor of the kernel's version.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's version");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    (numbers.next().expect("a number"), numbers.next().expect("a number"))
}

/// What is told of an end that another process's child came to: all, since 6.15.
#[track_caller]
fn assert_told(told: u32, status: u32) {
    let hidden = kernel() < (6, 15) && told == STATUS_UNKNOWN;
    assert!(told == status || hidden, "{told} for {status}");
}

#[test]
fn what_runs_goes_on_and_its_end_is_told_by_the_next_shim() {
    let Some(mut node) = Node::start(FOREVER) else { return };
    let pod = Sandbox { shm_bytes: 1 << 20, ..node.sandbox("pod") };
    node.make(std::slice::from_ref(&pod));
    let inside = |container: Container| Container { sandbox: pod.id.clone(), ..container };
    let lives = inside(node.container("lives", None));
    let waits = inside(node.container("waits", Some("exit 6")));
    let ends = inside(node.container("ends", None));
    let inits = node.run(&[lives.clone(), ends.clone()]);
    node.create(std::slice::from_ref(&waits), false);
    node.events.wait_for(&waits.id, &["create"]);
    node.kill_shim();
    // While no shim lives, one container ends and the others do not notice.
    let pid = rustix::process::Pid::from_raw(inits[1] as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill an init");
    let stat = format!("/proc/{}/stat", inits[1]);
    wait_until("it has ended", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
    node.start_again();
    assert!(node.make(std::slice::from_ref(&pod)).remove(0).was_there);
    let never = inside(node.container("never", None));
    let adopted = node.adopt(&[lives.clone(), waits.clone(), ends.clone(), never.clone()]);
    let phases: Vec<_> = adopted.iter().map(|state| (state.failure.clone(), state.phase(), state.adopted)).collect();
    let expected = [Phase::Running, Phase::Created, Phase::Stopped].map(|phase| (None, phase, true));
    assert_eq!(phases[..3], expected, "{adopted:?}");
    assert_eq!(phases[3], (None, Phase::Absent, false));
    assert_eq!(adopted[0].pid, inits[0]);
    // A zombie that nobody has reaped tells still; else nobody knows.
    assert!([None, Some(137)].contains(&adopted[2].exit_status) && adopted[2].exited_at > 0, "{adopted:?}");
    assert_eq!(node.adopt(std::slice::from_ref(&lives)), adopted[..1], "once more is no change");
    // A new container of the pod is where the old ones are.
    let joins = inside(node.container("joins", None));
    let init = node.run(std::slice::from_ref(&joins)).remove(0);
    for kind in ["net", "ipc", "uts"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        assert_eq!(of(init), of(inits[0]), "{kind}");
    }
    assert_eq!(node.shim.run(&waits.id, "").expect("start"), adopted[1].pid);
    assert_told(node.shim.wait(&waits.id, "").expect("wait"), 6);
    node.events.wait_for(&waits.id, &["create", "start", "exit"]);
    // Exec, statistics and signals are as ever.
    let process = serde_json::json!({"args": ["/bin/sh", "-c", "exit 9"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    node.shim.exec(&lives.id, "e", &process, &Streams::default()).expect("exec");
    node.shim.run(&lives.id, "e").expect("start the exec");
    assert_eq!(node.shim.wait(&lives.id, "e").expect("wait"), 9);
    node.shim.kill(&lives.id, "", 15).expect("kill");
    assert_told(node.shim.wait(&lives.id, "").expect("wait"), 5);
    node.remove(&[lives, waits, ends, never, joins]);
    node.remove_sandboxes(&[pod]);
    node.end();
}

#[test]
fn shared_pids_outlive_the_shim() {
    let Some(mut node) = Node::start(FOREVER) else { return };
    let pod = Sandbox { share_pids: true, ..node.sandbox("pod") };
    let made = node.make(std::slice::from_ref(&pod)).remove(0);
    let container = Container { sandbox: pod.id.clone(), ..node.container("a", None) };
    node.run(std::slice::from_ref(&container));
    node.kill_shim();
    node.start_again();
    assert_eq!(node.make(std::slice::from_ref(&pod)).remove(0).pid, made.pid);
    assert_eq!(node.adopt(std::slice::from_ref(&container)).remove(0).phase(), Phase::Running);
    node.remove(std::slice::from_ref(&container));
    node.remove_sandboxes(std::slice::from_ref(&pod));
    let stat = fs::read_to_string(format!("/proc/{}/stat", made.pid));
    assert!(stat.map_or(true, |stat| stat.contains(") Z ")), "process 1 of the pod lives on");
    node.end();
}

/// Nobody adopts them: what is left is known from the folders alone.
#[test]
fn what_no_shim_has_is_removed_all_the_same() {
    let Some(mut node) = Node::start(FOREVER) else { return };
    let pod = Sandbox { share_pids: true, shm_bytes: 1 << 20, ..node.sandbox("pod") };
    node.make(std::slice::from_ref(&pod));
    let log = format!("cri-log://{}/0.log", node.case.path().display());
    let container = Container { sandbox: pod.id.clone(), stdout: log, ..node.container("a", None) };
    node.run(std::slice::from_ref(&container));
    node.kill_shim();
    node.start_again();
    assert_eq!(node.remove(std::slice::from_ref(&container))[0].exit_status, None);
    node.remove_sandboxes(std::slice::from_ref(&pod));
    // Its cgroup is free a moment before its process is a zombie.
    wait_until("no process is left", || processes_with(&container.id).is_empty());
    assert!(!Path::new(&container.bundle).join("stdout.fifo").exists());
    node.end();
}

/// What a container writes while no shim lives waits for the next one, and the container sees no broken pipe.
#[test]
fn output_survives_the_shim() {
    let Some(mut node) = Node::start(FOREVER) else { return };
    let go = node.case.path().join("go");
    let script = "echo before; while ! [ -e /go/go ]; do sleep 0.05; done; echo without || exit 1; echo 2>&1 too; exec sleep 1000";
    let mut container = node.container("a", Some(script));
    let config = Path::new(&container.bundle).join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).expect("read")).expect("JSON");
    fs::create_dir(&go).expect("make a folder");
    let mount = serde_json::json!({"destination": "/go", "type": "bind", "source": go, "options": ["bind"]});
    json["mounts"].as_array_mut().expect("mounts").push(mount);
    fs::write(&config, json.to_string()).expect("write");
    let log = node.case.path().join("logs/0.log");
    container.stdout = format!("cri-log://{}", log.display());
    container.stderr.clone_from(&container.stdout);
    node.run(std::slice::from_ref(&container));
    let texts = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    wait_until("the first line is written", || texts() == ["before"]);
    node.kill_shim();
    fs::write(go.join("go"), "").expect("let it go on");
    // It writes into a fifo that nobody reads: sleep is what it does afterwards.
    wait_until("it has written", || {
        processes_with(&container.id)
            .into_iter()
            .any(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x001000\0"))
    });
    let fifo = Path::new(&container.bundle).join("stdout.fifo");
    assert!(fs::metadata(&fifo).expect("a fifo").file_type().is_fifo());
    node.start_again();
    assert_eq!(node.adopt(std::slice::from_ref(&container)).remove(0).phase(), Phase::Running);
    wait_until("the rest is written", || texts() == ["before", "without", "too"]);
    node.remove(std::slice::from_ref(&container));
    assert!(!fifo.exists());
    node.end();
}

/// Events wait for a supervisor that is away, and come at once when it says that it is back.
#[test]
fn events_come_when_the_supervisor_is_back() {
    let Some(mut node) = Node::start_alone("exit 3") else { return };
    let container = node.container("a", None);
    node.run(std::slice::from_ref(&container));
    assert_eq!(node.shim.wait(&container.id, "").expect("wait"), 3);
    assert_eq!(node.status().events_waiting, 3);
    node.listen();
    node.configure(0, 0);
    node.events.wait_for(&container.id, &["create", "start", "exit"]);
    wait_until("all are taken", || node.status().events_waiting == 0);
    node.remove(&[container]);
    node.end();
}
