//! How far init goes ahead of the host, and `run` of init.

use flint_init::plan::Barrier;
use serde_json::{Value, json};

use super::steps::runc_spec;
use super::*;
use crate::plan::HostStep;

fn announces(config: &Value) -> bool {
    compiled(config).init.contains(&Step::Announce(Barrier::Born))
}

/// Where init waits, and the step before which it does.
fn waits_before(config: &Value) -> Step {
    let plan = compiled(config);
    let announced = position(&plan, |step| *step == Step::Announce(Barrier::Born));
    let waits = position(&plan, |step| *step == Step::Barrier(Barrier::Born));
    assert!(announced < waits, "{:#?}", lines(&plan));
    plan.init[waits + 1]
}

fn runs_straight(config: &Value) -> bool {
    let plan = run_plan(config);
    let ready = plan.host.iter().position(|step| *step == HostStep::AwaitReady);
    plan.host.iter().position(|step| *step == HostStep::Start).is_some_and(|start| Some(start + 1) == ready)
}

#[test]
fn init_waits_for_its_record_before_what_is_seen_outside() {
    assert_eq!(waits_before(&runc_spec()), Step::PivotRoot);
    let mut hooked = runc_spec();
    hooked["hooks"] = json!({"createContainer": [{"path": "/bin/true"}]});
    assert!(matches!(waits_before(&hooked), Step::RunHook(_)));
    let mut awaited = runc_spec();
    awaited["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}]});
    assert_eq!(waits_before(&awaited), Step::Barrier(Barrier::Mounted));
    let devices = with(runc_spec(), "/linux/netDevices", json!({"eth0": {}}));
    assert_eq!(waits_before(&devices), Step::Barrier(Barrier::Network));
}

#[test]
fn init_waits_at_once_where_the_host_has_to_do_with_it() {
    assert!(announces(&runc_spec()));
    assert!(!announces(&with_user(runc_spec())), "id maps");
    assert!(announces(&config()));
    assert!(!announces(&without_namespace(config(), "mount")), "mounts on the host");
    let systemd = CompileOptions { cgroup_manager: crate::CgroupManager::Systemd, ..options() };
    let plan = compile(&bundle(&runc_spec()).unwrap(), &unified(), &systemd).unwrap();
    assert!(!plan.init.contains(&Step::Announce(Barrier::Born)), "a unit of systemd");
    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/"});
    let exec = exec_plan(&runc_spec(), &process).unwrap();
    assert!(!exec.init.contains(&Step::Announce(Barrier::Born)), "exec");
}

#[test]
fn only_run_says_start_ahead_and_only_with_nothing_in_between() {
    assert!(runs_straight(&runc_spec()));
    assert!(!compiled(&runc_spec()).host.contains(&HostStep::Start), "create");
    for hooks in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mut config = runc_spec();
        config["hooks"] = json!({hooks: [{"path": "/bin/true"}]});
        assert!(!runs_straight(&config), "{hooks}");
    }
    let devices = with(runc_spec(), "/linux/netDevices", json!({"eth0": {}}));
    assert!(!runs_straight(&devices));
    let agent = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
        "syscalls": [{"names": ["chdir"], "action": "SCMP_ACT_NOTIFY"}]
    });
    assert!(!runs_straight(&with(runc_spec(), "/linux/seccomp", agent)));
}
