//! Who of `exec` is born late.

use flint_init::plan::Step;
use serde_json::{Value, json};

use super::{config, exec_plan, position, with, with_namespace, with_user, without_namespace};

fn is_late(config: &Value, process: &Value) -> bool {
    exec_plan(config, process).unwrap().as_ref().is_born_late()
}

fn process(capabilities: &[&str], no_new_privileges: bool) -> Value {
    json!({"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": no_new_privileges,
        "capabilities": {"bounding": capabilities, "permitted": capabilities, "effective": capabilities}})
}

fn in_pid_namespace() -> Value {
    with_namespace(without_namespace(config(), "pid"), json!({"type": "pid"}))
}

#[test]
fn where_somebody_could_take_it_over() {
    let plain = process(&["CAP_KILL"], true);
    let traces = with(in_pid_namespace(), "/process/capabilities/bounding", json!(["CAP_SYS_PTRACE"]));
    let shared = with_namespace(without_namespace(config(), "pid"), json!({"type": "pid", "path": "/proc/7/ns/pid"}));
    assert!(!is_late(&in_pid_namespace(), &plain), "nobody has the capability");
    assert!(is_late(&traces, &plain), "the container has it");
    assert!(is_late(&in_pid_namespace(), &process(&["CAP_SYS_PTRACE"], true)), "the process has it");
    assert!(is_late(&shared, &plain), "others in the pid namespace may have it");
    assert!(!is_late(&with_user(traces), &plain), "it holds for the container's user namespace alone");
    assert!(!is_late(&without_namespace(config(), "pid"), &plain), "the host's pid namespace");
}

#[test]
fn not_where_the_filter_must_come_first_and_forbids_it() {
    let filtered = |names: &[&str], errno: u32| {
        let rule = json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno});
        let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        with(
            with(in_pid_namespace(), "/process/capabilities/bounding", json!(["CAP_SYS_PTRACE"])),
            "/linux/seccomp",
            filter,
        )
    };
    for (names, errno, late) in [
        (&["mount"][..], 1, true),
        (&["clone3"], 38, true),
        (&["clone3"], 13, false),
        (&["setsid"], 1, false),
        (&["clone"], 1, false),
    ] {
        assert_eq!(is_late(&filtered(names, errno), &process(&[], false)), late, "{names:?}");
        assert!(is_late(&filtered(names, errno), &process(&[], true)), "{names:?}: the filter comes last");
    }
}

#[test]
fn all_that_needs_rights_comes_before() {
    let traces = with(in_pid_namespace(), "/process/capabilities/bounding", json!(["CAP_SYS_PTRACE"]));
    let plan = exec_plan(&traces, &process(&[], true)).unwrap();
    let birth = position(&plan, |step| *step == Step::Birth);
    let behind: Vec<_> = plan.init[birth + 1..].iter().map(std::mem::discriminant).collect();
    let execute = plan.init.last().map(std::mem::discriminant).unwrap();
    assert_eq!(behind, [std::mem::discriminant(&Step::Session), execute]);
}
