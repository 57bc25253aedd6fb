//! Scheduler, priorities, CPUs, memory policy, personality and time offsets: what is compiled and what is refused.

use super::refused::check;
use super::*;
use crate::Kind;

#[test]
fn steps_of_scheduling() {
    let mut config = set(
        "/process/scheduler",
        json!({"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"], "runtime": 1, "deadline": 2,
            "period": 3, "nice": 19}),
    );
    config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 4});
    config["linux"]["personality"] = json!({"domain": "LINUX32", "flags": ["X"]});
    config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0,2", "flags": ["MPOL_F_STATIC_NODES"]});
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_LOG"});
    let plan = compiled(&config);
    assert_eq!(lines_of(&plan, "set the scheduler"), ["set the scheduler to SCHED_DEADLINE"]);
    let scheduler = flint_init::SchedulerAttributes::new(6, 1, 19, 0).with_times(1, 2, 3);
    let at = position(&plan, |step| *step == Step::Scheduler { attributes: scheduler });
    let priority = position(&plan, |step| *step == Step::IoPriority { priority: 2 << 13 | 4 });
    let personality = position(&plan, |step| *step == Step::Personality { domain: 8 });
    let seccomp = position(&plan, |step| matches!(step, Step::Seccomp { .. }));
    assert!(at < seccomp && priority < seccomp && personality < seccomp);
    assert_eq!(lines_of(&plan, "set the memory policy"), ["set the memory policy to 0x8002 with nodes 0,2"]);
    assert!(plan.warnings.iter().any(|warning| warning.contains("personality")), "{:?}", plan.warnings);
}

#[test]
fn what_scheduling_refuses() {
    let scheduler = |value: Value| set("/process/scheduler", value);
    let policy = |value: Value| set("/linux/memoryPolicy", value);
    let io = |priority: i64| set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": priority}));
    check(
        Kind::Invalid,
        &[
            (scheduler(json!({"policy": "SCHED_OTHER", "nice": 20})), "invalid scheduler.nice: 20"),
            (scheduler(json!({"policy": "SCHED_BATCH", "priority": 1})), "scheduler.priority can only"),
            (scheduler(json!({"policy": "SCHED_FIFO", "priority": -1})), "process.scheduler.priority: -1"),
            (scheduler(json!({"policy": "SCHED_RR", "period": 1})), "scheduler runtime/deadline/period"),
            (scheduler(json!({"policy": "SCHED_FAST"})), "process.scheduler.policy"),
            (scheduler(json!({"nice": 1})), "process.scheduler"),
            (io(8), "invalid ioPriority.Priority: 8"),
            (io(-1), "invalid ioPriority.Priority: -1"),
            (set("/process/execCPUAffinity", json!({"initial": "1-0"})), "process.execCPUAffinity.initial"),
            (set("/process/execCPUAffinity", json!({"final": "a"})), "execCPUAffinity"),
            (policy(json!({"mode": "MPOL_BIND"})), "requires at least one node but got 0"),
            (policy(json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"})), "mode requires 0 nodes but got 8"),
            (policy(json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"})), "invalid memory policy nodes"),
            (policy(json!({"mode": "INTERLEAVE"})), "invalid memory policy mode"),
            (policy(json!({"nodes": "0"})), "invalid memory policy mode"),
            (policy(json!({"mode": "MPOL_LOCAL", "flags": ["x"]})), "invalid memory policy flag"),
            (set("/linux/personality", json!({"domain": "SOLARIS"})), "linux.personality.domain"),
        ],
    );
}

#[test]
fn affinity_is_reset_in_the_cgroup_and_set_for_exec() {
    let all = Step::CpuAffinity { mask: flint_init::plan::Range::default() };
    let announced = Step::Announce(flint_init::plan::Barrier::Born);
    let born = Step::Barrier(flint_init::plan::Barrier::Born);
    let config = set("/process/execCPUAffinity", json!({"initial": "1", "final": "0,65"}));
    let plan = compiled(&config);
    assert_eq!(position(&plan, |step| *step == announced) + 1, position(&plan, |step| *step == all));

    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/"});
    let plan = exec_plan(&config, &process).unwrap();
    let at = position(&plan, |step| *step == born);
    assert_eq!(lines(&plan)[at - 1], "use the CPUs 1");
    assert_eq!(lines(&plan)[at + 1], "use the CPUs 0,65");

    let mut initial = process.clone();
    initial["execCPUAffinity"] = json!({"initial": "1"});
    let plan = exec_plan(&config, &initial).unwrap();
    assert_eq!(lines_of(&plan, "use").len(), 1, "{:#?}", lines(&plan));

    let plan = exec_plan(&super::config(), &process).unwrap();
    assert_eq!(position(&plan, |step| *step == born) + 1, position(&plan, |step| *step == all));
}

#[test]
fn time_namespaces() {
    let time = || with_namespace(config(), json!({"type": "time"}));
    let offsets = |config: Value, offsets: Value| with(config, "/linux/timeOffsets", offsets);
    let plan = compiled(&time());
    assert_eq!(plan.time.map(|text| plan.string(text)).as_deref(), Some(""));
    assert_eq!(plan.clone_flags & 0x80, 0);
    let both = json!({"monotonic": {"secs": -1, "nanosecs": 5}, "boottime": {"secs": 2}});
    let plan = compiled(&offsets(time(), both.clone()));
    assert_eq!(plan.time.map(|text| plan.string(text)).as_deref(), Some("boottime 2 0\nmonotonic -1 5\n"));
    let plan = compiled(&with_user(offsets(time(), both.clone())));
    assert_eq!(plan.clone_flags & 0x80, 0);
    assert!(lines_of(&plan, "make new namespaces").iter().all(|line| !line.contains("time")));
    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/"});
    let plan = exec_plan(&offsets(time(), both.clone()), &process).unwrap();
    assert_eq!(plan.time, None);
    assert_ne!(plan.join_before_clone[0].1 & 0x80, 0);
    let joined = with_namespace(config(), json!({"type": "time", "path": "/proc/1/ns/time"}));
    assert_eq!(compiled(&joined).time, None);
    check(
        Kind::Invalid,
        &[
            (offsets(config(), both.clone()), "linux.timeOffsets: they need a time namespace"),
            (offsets(joined, both), "linux.timeOffsets: a time namespace that is joined"),
            (offsets(time(), json!({"realtime": {"secs": 1}})), "\"realtime\" is no clock"),
            (
                offsets(time(), json!({"monotonic": {"nanosecs": 1_000_000_000}})),
                "linux.timeOffsets.monotonic.nanosecs",
            ),
        ],
    );
}

#[test]
fn keyrings_of_init_and_of_exec() {
    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/"});
    assert_eq!(lines_of(&compiled(&config()), "join a new session"), ["join a new session keyring _ses.c1"]);
    let plan = exec_plan(&config(), &process).unwrap();
    assert_eq!(lines_of(&plan, "join the session"), ["join the session keyring _ses.c1"]);
    let permissions = |plan: &Plan| {
        plan.init.iter().find_map(|step| match step {
            Step::Keyring { permissions, .. } => Some(*permissions),
            _ => None,
        })
    };
    assert_eq!(permissions(&compiled(&config())), Some(0x8_0000));
    assert_eq!(permissions(&compiled(&with_user(config()))), Some(0x8));
}
