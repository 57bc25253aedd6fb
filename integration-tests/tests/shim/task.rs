//! The shim, spoken to without containerd: dialects of `start`, the task API, its events, its end.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, DeleteResponse, Empty, PidsRequest, PidsResponse, ShutdownRequest, StatsRequest,
    StatsResponse, Status,
};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message as _;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use integration_tests::{
    Case, EventServer, Fifo, Shim, Streams, TASK_V2, TASK_V3, flint, refused, shim_case, shim_command, shim_delete,
    shim_namespace, shim_program, under_test_only, wait_until,
};
use serde_json::{Value, json};

const LIFE: [&str; 4] = ["create", "start", "exit", "delete"];

fn case() -> Option<(Case, PathBuf)> {
    let [flint] = under_test_only("a shim")?;
    Some((Case::new(&flint), shim_program()?))
}

fn process(script: &str) -> Value {
    json!({"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
}

/// An ended task's status is told before its deletion.
#[track_caller]
fn delete(shim: &Shim, id: &str) -> u32 {
    shim.wait(id, "").expect("wait");
    shim.delete(id, "").expect("delete").exit_status
}

#[test]
fn start_answers_in_the_dialect_that_it_is_asked_in() {
    let Some((case, program)) = case() else { return };
    let any = Any { type_url: "containerd.runc.v1.Options".into(), ..Any::default() }.write_to_bytes().unwrap();
    for (dialect, maximum) in [("bare", None), ("2", Some("2")), ("3", Some("3")), ("protobuf", Some("3"))] {
        let id = case.id(dialect);
        let bundle = case.bundle().write();
        let params =
            BootstrapParams { instance_id: id.clone(), namespace: shim_namespace(&case), ..BootstrapParams::default() };
        let input = if dialect == "protobuf" { params.write_to_bytes().unwrap() } else { any.clone() };
        let start = || {
            let mut command = shim_command(&case, &program, &bundle, &id, "start").input(input.clone());
            if let Some(maximum) = maximum {
                command = command.env("MAX_SHIM_VERSION", maximum);
            }
            let output = command.output().ok();
            assert_eq!(output.stderr, "", "{dialect}");
            output.stdout
        };
        let answer = start();
        let address = match dialect {
            "bare" => answer.clone(),
            "protobuf" => {
                let result = BootstrapResult::parse_from_bytes(answer.as_bytes()).expect("a BootstrapResult");
                assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
                result.address
            }
            version => {
                let answer: Value = serde_json::from_str(&answer).expect("JSON");
                assert_eq!((answer["version"].to_string().as_str(), &answer["protocol"]), (version, &json!("ttrpc")));
                answer["address"].as_str().expect("an address").to_owned()
            }
        };
        assert_eq!(fs::read_to_string(bundle.join("address")).unwrap(), address);
        // Alive: the same answer, no second shim.
        assert_eq!(start(), answer);
        let shim = Shim::connect(&case, &address);
        let parent = Path::new(address.trim_start_matches("unix://")).parent().unwrap().to_owned();
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(parent).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700);
        shim.shutdown();
    }
    case.finish();
}

#[test]
fn start_refuses_what_is_no_bundle_and_leaves_no_socket() {
    let Some((case, program)) = case() else { return };
    let folder = case.path().join("empty");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), "{").unwrap();
    let output = shim_command(&case, &program, &folder, &case.id("a"), "start").output().exits(1);
    assert!(output.stderr.contains("config.json"), "{}", output.stderr);
    assert!(!folder.join("address").exists());
    case.finish();
}

/// containerd's CRI plugin derives from them what pods may ask for.
#[test]
fn info_tells_the_features_that_the_runtime_has() {
    if under_test_only("a shim").is_none() {
        return;
    }
    let Some(program) = shim_program() else { return };
    let answer = |program: &Path, argument: &str| {
        let output = std::process::Command::new(program).arg(argument).output().expect("run the program");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        output.stdout
    };
    let info = RuntimeInfo::parse_from_bytes(&answer(&program, "-info")).expect("a RuntimeInfo");
    let features = info.features.as_ref().expect("features");
    assert_eq!(features.type_url, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let features: Value = serde_json::from_slice(&features.value).expect("JSON");
    let of_the_command: Value = serde_json::from_slice(&answer(&flint().path, "features")).expect("JSON");
    assert_eq!(features, of_the_command);
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
}

#[test]
fn containers_of_a_group_share_a_shim() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let ids = ["a", "b"].map(|name| case.id(name));
    let grouped = |case: &Case| {
        case.bundle().forever().edit(json!({"annotations": {"io.kubernetes.cri.sandbox-id": case.id("pod")}}))
    };
    let bundles = [grouped(&case), grouped(&case)];
    let first = Shim::start(&case, &program, &bundles[0], &ids[0], &events);
    let second = Shim::start(&case, &program, &bundles[1], &ids[1], &events);
    assert_eq!(first.address(), second.address());
    for (id, bundle) in ids.iter().zip(&bundles) {
        first.create(id, bundle.path(), &Streams::default()).expect("create");
        first.run(id, "").expect("start");
    }
    // It stays while there are tasks.
    first.call::<Empty>("Shutdown", &ShutdownRequest::default()).expect("shutdown");
    for id in &ids {
        first.kill(id, "", 9).expect("kill");
        assert_eq!(delete(&first, id), 137);
        events.wait_for(id, &LIFE);
    }
    drop(second);
    first.shutdown();
    case.finish();
}

#[test]
fn a_life() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let bundle = case.bundle().shell("echo out; echo err >&2; exit 7");
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    let (out, err) = (Fifo::new(&case, "out"), Fifo::new(&case, "err"));
    let (stdout, stderr) = (out.read_all(), err.read_all());
    let streams = Streams { stdout: out.path(), stderr: err.path(), ..Streams::default() };
    let pid = shim.create(&id, bundle.path(), &streams).expect("create");
    let state = shim.state(&id, "").expect("state");
    assert_eq!((state.status.unwrap(), state.pid, state.stdout), (Status::CREATED, pid, out.path()));
    assert_eq!(refused(shim.create(&id, bundle.path(), &streams)).0, Code::ALREADY_EXISTS);
    assert_eq!(shim.run(&id, "").expect("start"), pid);
    assert_eq!(shim.wait(&id, "").expect("wait"), 7);
    assert_eq!(refused(shim.run(&id, "")).0, Code::FAILED_PRECONDITION);
    assert_eq!(refused(shim.kill(&id, "", 15)), (Code::NOT_FOUND, "process already finished".into()));
    assert_eq!(refused(shim.exec(&id, "e", &process("true"), &Streams::default())).0, Code::FAILED_PRECONDITION);
    let state = shim.state(&id, "").expect("state");
    assert_eq!((state.status.unwrap(), state.exit_status), (Status::STOPPED, 7));
    assert!(state.exited_at.seconds > 0);
    // What it counted can be asked until it is deleted.
    let used = shim.call::<StatsResponse>("Stats", &StatsRequest { id: id.clone(), ..Default::default() });
    assert!(used.expect("stats").stats.type_url.starts_with("io.containerd.cgroups.v"));
    let deleted = shim.delete(&id, "").expect("delete");
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 7));
    assert_eq!((stdout.join().unwrap().as_str(), stderr.join().unwrap().as_str()), ("out\n", "err\n"));
    assert_eq!(refused(shim.state(&id, "")).0, Code::NOT_FOUND);
    assert_eq!(refused(shim.delete(&id, "")).0, Code::NOT_FOUND);
    let connected = shim.call::<ConnectResponse>("Connect", &ConnectRequest { id: id.clone(), ..Default::default() });
    assert_eq!(connected.expect("connect").task_pid, 0);
    events.wait_for(&id, &LIFE);
    shim.shutdown();
    case.finish();
}

#[test]
fn execs_end_before_their_container() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let bundle = case.bundle().forever();
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    let none = Streams::default();
    shim.exec(&id, "one", &process("exit 3"), &none).expect("exec");
    assert_eq!(refused(shim.exec(&id, "one", &process("true"), &none)).0, Code::ALREADY_EXISTS);
    assert_eq!(refused(shim.kill(&id, "one", 9)).0, Code::FAILED_PRECONDITION);
    shim.run(&id, "one").expect("start");
    assert_eq!(shim.wait(&id, "one").expect("wait"), 3);
    assert_eq!(refused(shim.run(&id, "one")).0, Code::FAILED_PRECONDITION);
    assert_eq!(shim.delete(&id, "one").expect("delete").exit_status, 3);
    assert_eq!(refused(shim.wait(&id, "one")).0, Code::NOT_FOUND);
    shim.exec(&id, "two", &process("sleep 1000"), &none).expect("exec");
    let pid = shim.run(&id, "two").expect("start");
    assert_eq!(refused(shim.delete(&id, "two")).0, Code::FAILED_PRECONDITION);
    let pids = shim.call::<PidsResponse>("Pids", &PidsRequest { id: id.clone(), ..Default::default() }).expect("pids");
    let found = pids.processes.iter().find(|process| process.pid == pid).expect("the exec's process");
    assert_eq!(found.info.type_url, "containerd.runc.v1.ProcessDetails");
    assert_eq!(refused(shim.delete(&id, "")).0, Code::FAILED_PRECONDITION);
    shim.kill(&id, "", 9).expect("kill");
    assert_eq!(delete(&shim, &id), 137);
    events.wait_for(
        &id,
        &[
            "create",
            "start",
            "exec-added:one",
            "exec-started:one",
            "exit:one",
            "exec-added:two",
            "exec-started:two",
            "exit:two",
            "exit",
            "delete",
        ],
    );
    shim.shutdown();
    case.finish();
}

/// containerd is away: nothing is lost, and all comes in its order when it is back.
#[test]
fn events_wait_for_containerd() {
    let Some((case, program)) = case() else { return };
    let events = EventServer::new(case.path());
    let (first, bundle) = (case.id("first"), case.bundle().args(&["true"]));
    let shim = Shim::start(&case, &program, &bundle, &first, &events);
    let ids: Vec<String> = (0..20).map(|number| case.id(&format!("c{number}"))).collect();
    for id in &ids {
        shim.create(id, bundle.path(), &Streams::default()).expect("create");
        shim.run(id, "").expect("start");
        assert_eq!(delete(&shim, id), 0);
    }
    assert!(events.of(&ids[0]).is_empty());
    let _server = events.listen();
    for id in &ids {
        events.wait_for(id, &LIFE);
    }
    shim.shutdown();
    case.finish();
}

/// What containerd does with a shim that is gone: twice, as it may.
#[test]
fn delete_takes_away_what_a_killed_shim_left() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let bundle = case.bundle().forever();
    let shim = Shim::start(&case, &program, &bundle, &id, &events);
    let pid = shim.create(&id, bundle.path(), &Streams::default()).expect("create");
    shim.run(&id, "").expect("start");
    let own = rustix::process::Pid::from_raw(shim.pid()).unwrap();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
    wait_until("the shim is gone", || !Path::new(&format!("/proc/{}", own.as_raw_nonzero())).exists());
    for expected in [pid, 0] {
        let output = shim_delete(&case, &program, bundle.path(), &id);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let told = DeleteResponse::parse_from_bytes(&output.stdout_bytes).expect("a DeleteResponse");
        assert_eq!((told.pid, told.exit_status), (expected, 137));
        assert!(told.exited_at.seconds > 0);
        // Its new parent may not have reaped it yet.
        wait_until(&format!("its container has ended ({expected})"), || {
            fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
    }
    assert!(!Path::new(shim.address().trim_start_matches("unix://")).exists(), "its socket is left");
    case.finish();
}

#[test]
fn unknown_calls_are_unimplemented() {
    let Some((case, program, events, _server)) = shim_case() else { return };
    let id = case.id("a");
    let shim = Shim::start(&case, &program, &case.bundle(), &id, &events);
    for (service, method) in [
        (TASK_V3, "Nothing"),
        (TASK_V2, "Nothing"),
        ("containerd.services.streaming.v1.TTRPCStreaming", "Stream"),
        ("x.Y", "Z"),
    ] {
        let answer = shim.call_service::<Empty>(service, method, &Empty::default());
        assert_eq!(refused(answer).0, Code::UNIMPLEMENTED, "{service}/{method}");
    }
    // Version 2 is served by the same hands.
    let shim = shim.speaking(TASK_V2);
    assert_eq!(refused(shim.state("x", "")).0, Code::NOT_FOUND);
    shim.shutdown();
    case.finish();
}
