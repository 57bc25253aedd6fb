//! containerd dies after each call of a life: the next one goes on with what the shim has.

use integration_tests::Containerd;
use integration_tests::cri::tasks::{
    AnyMessage, CreateTask, DeleteProcess, DeleteTask, ExecTask, KillTask, PauseTask, ResumeTask, StartTask,
    UpdateTask, WaitTask,
};
use integration_tests::cri::{Call, Cri};
use serde_json::{Value, json};

use super::{FOREVER, has_status, nothing_is_left, remove, shims, task};

const EXEC: &str = "stays";

fn any(kind: &str, value: &Value) -> AnyMessage {
    let type_url = format!("types.containerd.io/opencontainers/runtime-spec/1/{kind}");
    AnyMessage { type_url, value: value.to_string().into_bytes() }
}

/// Each by a client of its own, as the last one's connection has gone with containerd.
#[track_caller]
fn get<Request: Call>(containerd: &Containerd, request: Request) -> Request::Response {
    Cri::of_containerd(containerd.address(), containerd.namespace()).get(request)
}

/// Every call, in the order of a life. `ctr` makes several at once; this client one at a time.
pub(crate) fn containerd_dies_after_each_call(containerd: &mut Containerd) {
    let id = containerd.id();
    let rootfs = containerd.place().path().join("rootfs");
    integration_tests::fill_rootfs(&rootfs);
    // Not as arguments: ctr would take some for options of its own.
    integration_tests::write_program(&rootfs.join("bin/program"), format!("#!/bin/sh\n{FOREVER}\n"));
    let (rootfs, shim) =
        (rootfs.display().to_string(), containerd.place().shim().expect("a shim").display().to_string());
    let create = ["container", "create", "--runtime", &shim, "--rootfs", &rootfs, &id, "/bin/program"];
    let _ = containerd.ctr(&create).ok();

    let (container_id, exec_id) = (id.clone(), EXEC.to_owned());
    let crash = |containerd: &mut Containerd| {
        containerd.crash();
        containerd.restart();
    };
    get(containerd, CreateTask { container_id: container_id.clone() });
    let (pid, _) = task(containerd, &id).expect("a task");
    crash(containerd);
    assert_eq!(task(containerd, &id), Some((pid, "CREATED".to_owned())));
    get(containerd, StartTask { container_id: container_id.clone(), exec_id: String::new() });
    crash(containerd);
    assert_eq!(task(containerd, &id), Some((pid, "RUNNING".to_owned())));
    // Not before: an init that waits for its start is a fork of the shim.
    let own = shims(&id);
    assert_eq!(own.len(), 1, "{own:?}");
    let process = json!({"args": ["/bin/sleep", "3000"], "cwd": "/", "env": [], "user": {"uid": 0, "gid": 0}});
    let spec = Some(any("Process", &process));
    get(containerd, ExecTask { container_id: container_id.clone(), spec, exec_id: exec_id.clone() });
    crash(containerd);
    get(containerd, StartTask { container_id: container_id.clone(), exec_id: exec_id.clone() });
    crash(containerd);
    assert_eq!(containerd.ctr(&["task", "ps", &id]).ok().stdout.matches(EXEC).count(), 1);
    get(containerd, PauseTask { container_id: container_id.clone() });
    crash(containerd);
    assert!(has_status(containerd, &id, "PAUSED"));
    get(containerd, ResumeTask { container_id: container_id.clone() });
    crash(containerd);
    assert!(has_status(containerd, &id, "RUNNING"));
    let resources = Some(any("LinuxResources", &json!({"pids": {"limit": 77}})));
    get(containerd, UpdateTask { container_id: container_id.clone(), resources });
    crash(containerd);
    get(containerd, KillTask { container_id: container_id.clone(), exec_id: exec_id.clone(), signal: 9 });
    crash(containerd);
    let wait = WaitTask { container_id: container_id.clone(), exec_id: exec_id.clone() };
    assert_eq!(get(containerd, wait).exit_status, 137);
    crash(containerd);
    let delete = DeleteProcess { container_id: container_id.clone(), exec_id };
    assert_eq!(get(containerd, delete).exit_status, 137);
    crash(containerd);
    get(containerd, KillTask { container_id: container_id.clone(), exec_id: String::new(), signal: 15 });
    crash(containerd);
    let wait = WaitTask { container_id: container_id.clone(), exec_id: String::new() };
    assert_eq!(get(containerd, wait).exit_status, 7);
    crash(containerd);
    assert_eq!(shims(&id), own, "the same shim");
    assert_eq!(get(containerd, DeleteTask { container_id }).exit_status, 7);
    crash(containerd);
    assert_eq!(task(containerd, &id), None);
    remove(containerd, &id);
    nothing_is_left(containerd, &[id]);
}
