//! Calls that meet: Delete during Start, Wait for what never ran, and tasks that nobody asks for any more.

use std::fs;
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{DeleteRequest, StartRequest, Status, WaitRequest, WaitResponse};
use containerd_shim_protos::protobuf::Message as _;
use containerd_shim_protos::ttrpc::Code;
use integration_tests::{
    Bundle, Case, Fifo, Pending, Shim, Streams, processes_with, refused, shim_case, shim_command, wait_until,
};
use serde_json::json;

use crate::delays::{LIFE, Slow, process};

/// A hook after the start holds Start up: Delete waits for it, and refuses what it finds running; an end is told after the start.
#[test]
fn delete_waits_for_a_start() {
    let Some(slow) = Slow::new() else { return };
    let begin = Fifo::new(&slow.case, "begin");
    let waits = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!(": < {}", begin.path())]}]);
    for (name, script) in [("runs", "sleep 1000"), ("ends", "true")] {
        let bundle = slow.case.bundle().shell(script).edit(json!({"hooks": {"poststart": waits}}));
        let id = slow.case.id(name);
        slow.shim.create(&id, &bundle.write(), &Streams::default()).expect("create");
        let start = slow.shim.begin("Start", &StartRequest { id: id.clone(), ..StartRequest::default() });
        wait_until("the hook waits", || !processes_with(&begin.path()).is_empty());
        let delete = slow.begin_delete(&id);
        slow.taken();
        assert_eq!(slow.status(&id), Status::CREATED);
        assert!(start.is_pending() && delete.is_pending());
        assert_eq!(slow.events.of(&id), ["create"]);
        let go = fs::OpenOptions::new().read(true).write(true).open(begin.path()).expect("let it go on");
        let answer = start.answer().expect("an answer");
        assert!(answer.is_ok(), "{answer:?}");
        drop(go);
        match delete.answer().expect("an answer") {
            Err((code, _)) => {
                assert_eq!(code, Code::FAILED_PRECONDITION, "{name}");
                if name == "runs" {
                    slow.end_it(&id);
                } else {
                    assert_eq!(slow.shim.wait(&id, "").expect("wait"), 0);
                }
                slow.shim.delete(&id, "").expect("delete");
            }
            // It had ended by then.
            Ok(_) => assert_eq!(name, "ends"),
        }
        slow.events.wait_for(&id, &LIFE);
    }
    slow.finish();
}

fn waits(shim: &Shim, id: &str, exec: &str) -> Pending {
    let request = WaitRequest { id: id.to_owned(), exec_id: exec.to_owned(), ..WaitRequest::default() };
    shim.begin("Wait", &request)
}

#[track_caller]
fn ends_with(wait: Pending, status: u32) {
    let answer = wait.answer().expect("an answer").expect("its end");
    assert_eq!(WaitResponse::parse_from_bytes(&answer).expect("a WaitResponse").exit_status, status);
}

/// It is deleted; its start fails, and it is deleted; its container is.
#[test]
fn who_waits_for_an_exec_that_never_ran_is_told_its_end() {
    let Some(slow) = Slow::new() else { return };
    let id = slow.run("a", &Streams::default());
    let mut nothing = process("");
    nothing["args"] = json!(["no-such-program"]);
    for (exec, process) in [("deleted", &process("true")), ("fails", &nothing), ("left", &process("true"))] {
        slow.shim.exec(&id, exec, process, &Streams::default()).expect("exec");
        let wait = waits(&slow.shim, &id, exec);
        if exec == "fails" {
            refused(slow.shim.run(&id, exec));
        }
        assert_eq!(slow.shim.state(&id, exec).expect("state").status.unwrap(), Status::CREATED);
        slow.taken();
        assert!(wait.is_pending(), "{exec}");
        if exec == "left" {
            slow.end_it(&id);
            slow.shim.delete(&id, "").expect("delete");
        } else {
            let request = DeleteRequest { id: id.clone(), exec_id: exec.to_owned(), ..DeleteRequest::default() };
            assert!(slow.shim.begin("Delete", &request).answer().expect("an answer").is_ok());
        }
        ends_with(wait, 0);
    }
    slow.finish();
}

/// A bundle of its own, with the root filesystem of another.
fn bundle_of(case: &Case, bundle: &Bundle, name: &str) -> PathBuf {
    let folder = case.path().join(name);
    fs::create_dir(&folder).expect("make a bundle");
    let config = fs::read_to_string(bundle.path().join("config.json")).expect("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["root"]["path"] = bundle.rootfs().display().to_string().into();
    fs::write(folder.join("config.json"), config.to_string()).expect("write config.json");
    folder
}

/// containerd had called `delete` for the container, and removed its bundle: an ended task goes then, and no other, and the shim
/// ends with its last one.
#[test]
fn tasks_that_are_forgotten_are_deleted() {
    let Some((case, program, events, _listener)) = shim_case() else { return };
    let bundle = case.bundle().forever();
    let first = bundle.write();
    let start = shim_command(&case, &program, &first, &case.id("first"), "start");
    // Enough to make the first task in.
    let start = start.env("TTRPC_ADDRESS", events.address()).env("FLINT_SHIM_FORGOTTEN_AFTER", "5");
    let shim = Shim::connect(&case, start.output().ok().stdout.trim());
    let run = |name: &str| {
        let (id, folder) = (case.id(name), bundle_of(&case, &bundle, name));
        shim.create(&id, &folder, &Streams::default()).expect("create");
        shim.run(&id, "").expect("start");
        (id, folder)
    };
    let end = |id: &str| {
        shim.kill(id, "", 9).expect("kill");
        assert_eq!(shim.wait(id, "").expect("wait"), 137);
    };
    let is_gone = |id: &str| shim.state(id, "").is_err();
    let (ended, runs) = (run("ended"), run("runs"));
    end(&ended.0);
    fs::remove_dir_all(&runs.1).expect("remove a bundle");
    // Twice, so that the others were looked at in between.
    for name in ["one", "two"] {
        let forgotten = run(name);
        end(&forgotten.0);
        fs::remove_dir_all(&forgotten.1).expect("remove a bundle");
        wait_until("it is deleted", || is_gone(&forgotten.0));
        events.wait_for(&forgotten.0, &LIFE);
        assert!(!is_gone(&ended.0) && !is_gone(&runs.0));
    }
    fs::remove_dir_all(&ended.1).expect("remove a bundle");
    end(&runs.0);
    let (pid, socket) = (shim.pid(), shim.socket().to_owned());
    drop(shim);
    wait_until("the shim ends", || !Path::new(&format!("/proc/{pid}")).exists());
    assert!(!socket.exists(), "its socket is left");
    for id in [&ended.0, &runs.0] {
        events.wait_for(id, &LIFE);
    }
    case.finish();
}
