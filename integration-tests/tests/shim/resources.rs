//! What the shim does with a container's resources, and tells of them: on v1 and on v2.

use std::fs;

use containerd_shim_protos::api::{
    Empty, PauseRequest, PidsRequest, PidsResponse, ResumeRequest, StatsRequest, StatsResponse, Status,
    UpdateTaskRequest,
};
use containerd_shim_protos::cgroups::metrics::Metrics;
use containerd_shim_protos::cgroups_v2::metrics::Metrics as UnifiedMetrics;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message as _, MessageField};
use containerd_shim_protos::ttrpc::Code;
use integration_tests::{Shim, Streams, refused, shim_case, wait_until};
use serde_json::json;

/// An ended task's status is told before its deletion.
#[track_caller]
fn delete(shim: &Shim, id: &str) -> u32 {
    shim.wait(id, "").expect("wait");
    shim.delete(id, "").expect("delete").exit_status
}

#[test]
fn pause_update_and_stats() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let bundle = case.bundle().forever().edit(json!({"linux": {"resources": {"pids": {"limit": 20}}}}));
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    let pause = || shim.call::<Empty>("Pause", &PauseRequest { id: id.clone(), ..Default::default() });
    let resume = || shim.call::<Empty>("Resume", &ResumeRequest { id: id.clone(), ..Default::default() });
    let status = || shim.state(&id, "").expect("state").status.unwrap();
    assert_eq!(refused(resume()).0, Code::FAILED_PRECONDITION);
    pause().expect("pause");
    assert_eq!(status(), Status::PAUSED);
    assert_eq!(refused(pause()).0, Code::FAILED_PRECONDITION);
    resume().expect("resume");
    assert_eq!(status(), Status::RUNNING);
    let resources = Any { value: br#"{"pids": {"limit": 30}}"#.to_vec(), ..Any::default() };
    let update = UpdateTaskRequest { id: id.clone(), resources: MessageField::some(resources), ..Default::default() };
    shim.call::<Empty>("Update", &update).expect("update");
    let used = shim.call::<StatsResponse>("Stats", &StatsRequest { id: id.clone(), ..Default::default() });
    let used = used.expect("stats").stats.into_option().expect("metrics");
    let (pids, memory) = if used.type_url == "io.containerd.cgroups.v1.Metrics" {
        let metrics = Metrics::parse_from_bytes(&used.value).expect("metrics");
        ((metrics.pids.limit, metrics.pids.current), metrics.memory.usage.usage)
    } else {
        let metrics = UnifiedMetrics::parse_from_bytes(&used.value).expect("metrics");
        ((metrics.pids.limit, metrics.pids.current), metrics.memory.usage)
    };
    assert!(pids.0 == 30 && pids.1 > 0, "{pids:?}");
    assert!(memory > 0);
    // A paused one dies, too.
    pause().expect("pause");
    shim.kill(&id, "", 9).expect("kill");
    assert_eq!(delete(&shim, &id), 137);
    events.wait_for(&id, &["create", "start", "paused", "resumed", "paused", "exit", "delete"]);
    shim.shutdown();
    case.finish();
}

/// What is sent to one that is paused comes when it goes on, but SIGKILL ends it; it takes no new process meanwhile, and tells who
/// is in it.
#[test]
fn signals_of_a_paused_container() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let bundle = case.bundle().shell("trap 'exit 7' TERM; : > /dev/shm/ready; while :; do sleep 1000 & wait $!; done");
    let shim = Shim::start(&case, &program, &bundle, &case.id("first"), &events);
    let process = json!({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    for (name, signal, status) in [("term", 15, 7), ("kill", 9, 137)] {
        let id = case.id(name);
        let none = Streams::default();
        shim.create(&id, bundle.path(), &none).expect("create");
        let init = shim.run(&id, "").expect("start");
        let ready = format!("/proc/{init}/root/dev/shm/ready");
        wait_until("its trap is set", || fs::remove_file(&ready).is_ok());
        for exec in ["runs", "waits"] {
            shim.exec(&id, exec, &process, &none).expect("exec");
        }
        let pid = shim.run(&id, "runs").expect("start");
        shim.call::<Empty>("Pause", &PauseRequest { id: id.clone(), ..Default::default() }).expect("pause");
        for exec in ["", "runs"] {
            assert_eq!(shim.state(&id, exec).expect("state").status.unwrap(), Status::PAUSED, "{exec}");
        }
        let pids = shim.call::<PidsResponse>("Pids", &PidsRequest { id: id.clone(), ..Default::default() });
        assert!(pids.expect("pids").processes.iter().any(|process| process.pid == pid));
        assert!(refused(shim.run(&id, "waits")).1.contains("paused"));
        shim.kill(&id, "", signal).expect("kill");
        if signal == 15 {
            assert_eq!(shim.state(&id, "").expect("state").status.unwrap(), Status::PAUSED);
            shim.call::<Empty>("Resume", &ResumeRequest { id: id.clone(), ..Default::default() }).expect("resume");
        }
        assert_eq!(delete(&shim, &id), status);
        let resumed: &[&str] = if signal == 15 { &["resumed"] } else { &[] };
        let before = ["create", "start", "exec-added:runs", "exec-added:waits", "exec-started:runs", "paused"];
        events.wait_for(&id, &[&before[..], resumed, &["exit:runs", "exit", "delete"]].concat());
    }
    shim.shutdown();
    case.finish();
}

/// A signal that it has a handler for waits until the thaw (on cgroup v2 another one ends it before), so that it ends while the
/// resume is on its way.
#[test]
fn what_ends_by_a_resume_is_told_after_it() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let (id, bundle) = (case.id("a"), case.bundle().forever());
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    let script = "trap 'exit 7' TERM; : > /dev/shm/ready; while :; do sleep 1000 & wait $!; done";
    let process = json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    let mut told = vec!["create".to_owned(), "start".to_owned()];
    for round in 0..20 {
        let exec = format!("e{round}");
        shim.exec(&id, &exec, &process, &Streams::default()).expect("exec");
        let pid = shim.run(&id, &exec).expect("start");
        let ready = format!("/proc/{pid}/root/dev/shm/ready");
        wait_until("its trap is set", || fs::remove_file(&ready).is_ok());
        shim.call::<Empty>("Pause", &PauseRequest { id: id.clone(), ..Default::default() }).expect("pause");
        shim.kill(&id, &exec, 15).expect("kill");
        shim.call::<Empty>("Resume", &ResumeRequest { id: id.clone(), ..Default::default() }).expect("resume");
        assert_eq!(shim.wait(&id, &exec).expect("wait"), 7);
        shim.delete(&id, &exec).expect("delete");
        told.extend([format!("exec-added:{exec}"), format!("exec-started:{exec}"), "paused".into(), "resumed".into()]);
        told.push(format!("exit:{exec}"));
    }
    shim.kill(&id, "", 9).expect("kill");
    assert_eq!(delete(&shim, &id), 137);
    told.extend(["exit".to_owned(), "delete".to_owned()]);
    events.wait_for(&id, &told.iter().map(String::as_str).collect::<Vec<_>>());
    shim.shutdown();
    case.finish();
}

#[test]
fn want_of_memory_is_told_before_the_exit() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let hog = "x=0123456789abcdef; while :; do x=$x$x; done";
    let limits = json!({"linux": {"resources": {"memory": {"limit": 16_777_216, "swap": 16_777_216}}}});
    let bundle = case.bundle().shell(hog).edit(limits);
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    assert_eq!(delete(&shim, &id), 137);
    wait_until("delete is told", || events.of(&id).contains(&"delete".to_owned()));
    let topics: Vec<String> = events.of(&id);
    let place = |topic: &str| topics.iter().position(|seen| seen == topic);
    assert!(place("oom").is_some() && place("oom") < place("exit"), "{topics:?}");
    shim.shutdown();
    case.finish();
}

/// A container that runs out of memory again and again while nobody takes events has one that says so: they do not fill the shim.
#[test]
fn want_of_memory_is_told_once_while_containerd_is_away() {
    let Some((case, program, events, listener)) = shim_case() else { return };
    drop(listener);
    let _ = std::fs::remove_file(events.address());
    let id = case.id("a");
    let hog = "for time in 1 2 3 4 5; do sh -c 'x=0123456789abcdef; while :; do x=$x$x; done'; done; exit 3";
    let limits = json!({"linux": {"resources": {"memory": {"limit": 16_777_216, "swap": 16_777_216}}}});
    let bundle = case.bundle().shell(hog).edit(limits);
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    assert_eq!(delete(&shim, &id), 3);
    let _listener = events.listen();
    events.wait_for(&id, &["create", "start", "oom", "exit", "delete"]);
    shim.shutdown();
    case.finish();
}
