//! Scheduler, I/O priority, CPUs, memory policy, personality and the session keyring, for run and for exec. Debian's
//! runc and crun do not know most of them: what is expected is what the specification and the kernel's manual say.

use std::fs;

use integration_tests::{Case, Command, peers, under_test_only};
use serde_json::{Value, json};

/// Nice value, priority and policy of the reading process (proc_pid_stat(5): fields 19, 40, 41).
const SCHEDULER: &str = "cut -d' ' -f19,40,41 /proc/self/stat";
const CPUS: &str = "grep Cpus_allowed_list /proc/self/status";

/// Runs `script` with the config edited; stdout.
#[track_caller]
fn seen(edit: Value, script: &str) -> Option<String> {
    let [flint] = under_test_only("it is too old for this")?;
    let case = Case::new(&flint);
    let output = case.run(&case.bundle().shell(script).edit(edit)).ok();
    case.finish();
    Some(output.stdout)
}

/// What is wrong with the config, from a failing `run`.
#[track_caller]
fn refused(edit: Value) -> Option<String> {
    let [flint] = under_test_only("it is too old for this")?;
    let case = Case::new(&flint);
    let output = case.run(&case.bundle().args(&["true"]).edit(edit)).exits(1);
    case.finish();
    Some(output.stderr)
}

/// Writes a process for `exec --process`.
fn process_file(case: &Case, script: &str, edit: Value) -> std::path::PathBuf {
    let mut process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh", "-c", script],
        "env": ["PATH=/bin"]});
    integration_tests::merge(&mut process, edit);
    let file = case.path().join("process.json");
    fs::write(&file, process.to_string()).expect("write the process");
    file
}

#[test]
fn schedulers() {
    for (scheduler, stat) in [
        (json!({"policy": "SCHED_BATCH", "nice": 19}), "19 0 3\n"),
        (json!({"policy": "SCHED_OTHER", "nice": 5}), "5 0 0\n"),
        (json!({"policy": "SCHED_IDLE"}), "0 0 5\n"),
    ] {
        let Some(text) = seen(json!({"process": {"scheduler": scheduler}}), SCHEDULER) else { return };
        assert_eq!(text, stat, "{scheduler}");
    }
}

#[test]
fn exec_takes_the_containers_scheduling_or_its_own() {
    let Some([flint]) = under_test_only("it is too old for this") else { return };
    let case = Case::new(&flint);
    let bundle = case.bundle().forever().edit(json!({"process": {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 7},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    }}));
    let id = case.detached(&bundle, "a");
    let script = format!("{SCHEDULER}; ionice; ionice -p 1");
    let exec = |file: &std::path::Path| {
        let args = ["exec".into(), "--process".into(), file.as_os_str().to_owned(), (&id).into()];
        case.command(args).output().ok().stdout
    };
    let same = "7 0 3\nbest-effort: prio 4\nbest-effort: prio 4\n";
    assert_eq!(case.exec(&id, &["busybox", "sh", "-c", &busybox(&script)]).ok().stdout, same);
    assert_eq!(exec(&process_file(&case, &busybox(&script), json!({}))), same);
    let own = json!({"scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"], "nice": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}});
    // Reset on fork: the shell has it, its children not; a nice value above 0 stays.
    let text = exec(&process_file(&case, "busybox ionice; exec cut -d' ' -f19,40,41 /proc/self/stat", own));
    assert_eq!(text, "idle\n3 0 0\n");
    case.delete(&id);
    case.finish();
}

/// The rootfs has no links for all that busybox can do.
fn busybox(script: &str) -> String {
    script.replace("ionice", "busybox ionice")
}

#[test]
fn io_priorities() {
    for (priority, text) in [
        (json!({"class": "IOPRIO_CLASS_BE", "priority": 7}), "best-effort: prio 7\n"),
        (json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}), "idle\n"),
        (json!({"class": "IOPRIO_CLASS_RT", "priority": 2}), "realtime: prio 2\n"),
    ] {
        let Some(seen) = seen(json!({"process": {"ioPriority": priority}}), "busybox ionice") else { return };
        assert_eq!(seen, text, "{priority}");
    }
}

#[test]
fn a_personality_comes_before_the_filter_that_forbids_it() {
    let forbidden = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    let edit = json!({"linux": {"personality": {"domain": "LINUX32"}, "seccomp": forbidden}});
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let Some(text) = seen(edit, "uname -m") else { return };
    assert_eq!(text, "i686\n");
    let edit = json!({"linux": {"personality": {"domain": "LINUX"}}});
    assert_eq!(seen(edit, "uname -m").as_deref(), Some("x86_64\n"));
}

#[test]
fn memory_policies() {
    let script = "head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2";
    for (policy, text) in [
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0\n"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "bind=static:0\n"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}), "prefer=relative:0\n"),
        (json!({"mode": "MPOL_LOCAL"}), "local\n"),
        (json!({"mode": "MPOL_DEFAULT"}), "default\n"),
    ] {
        let Some(seen) = seen(json!({"linux": {"memoryPolicy": policy}}), script) else { return };
        assert_eq!(seen, text, "{policy}");
    }
    let Some(error) = refused(json!({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "60000"}}})) else {
        return;
    };
    assert!(error.contains("memory policy") && error.contains("set_mempolicy: invalid argument"), "{error}");
}

/// What the machine's own processes may use; a caller's affinity must not reach the container.
#[test]
fn a_callers_affinity_ends_at_the_container() {
    let Some([flint]) = under_test_only("it keeps the caller's affinity") else { return };
    let own = fs::read_to_string("/proc/self/status").expect("a procfs");
    let own = own.lines().find(|line| line.starts_with("Cpus_allowed_list")).expect("the line").to_owned() + "\n";
    if own.trim_end().ends_with("\t0") {
        integration_tests::skip("there is one CPU only");
        return;
    }
    let case = Case::new(&flint);
    let pinned = |args: Vec<std::ffi::OsString>| {
        let root = case.state_root().into_os_string();
        let front = ["-c".into(), "0".into(), flint.path.clone().into_os_string(), "--root".into(), root];
        Command::new("taskset").args(front).args(args).output().ok().stdout
    };
    let id = case.id("run");
    let bundle = case.bundle().shell(CPUS).write();
    assert_eq!(pinned(vec!["run".into(), "--bundle".into(), bundle.into(), (&id).into()]), own);

    let id = case.detached(&case.bundle().forever(), "a");
    let exec: Vec<std::ffi::OsString> = ["exec", &id, "sh", "-c", CPUS].map(Into::into).to_vec();
    assert_eq!(pinned(exec), own);
    for (affinity, list) in [
        (json!({"final": "1"}), "1"),
        (json!({"initial": "1"}), "1"),
        (json!({"initial": "0", "final": "0-1"}), "0-1"),
        (json!({"initial": "0", "final": "1"}), "1"),
    ] {
        let file = process_file(&case, CPUS, json!({"execCPUAffinity": affinity}));
        let text = pinned(vec!["exec".into(), "--process".into(), file.into(), (&id).into()]);
        assert_eq!(text, format!("Cpus_allowed_list:\t{list}\n"), "{affinity}");
    }
    case.delete(&id);
    case.finish();
}

#[test]
fn what_does_not_fit_is_refused_with_its_field() {
    for (edit, words) in [
        (json!({"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": 99}}}), "scheduler.nice: 99"),
        (json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 9}}}), "ioPriority.Priority: 9"),
        (json!({"process": {"execCPUAffinity": {"initial": "3-1"}}}), "process.execCPUAffinity.initial"),
        (json!({"linux": {"memoryPolicy": {"mode": "MPOL_BIND"}}}), "at least one node"),
    ] {
        let Some(error) = refused(edit) else { return };
        assert!(error.contains(words), "{error}");
    }
}

/// Name, uid and permissions of the session keyring (proc(5), /proc/keys).
#[test]
fn session_keyrings_are_those_of_runc() {
    let Some(peers) = peers() else { return };
    let script = "grep ' keyring  *_ses' /proc/keys | sed 's/^[^ ]* [^ ]* *[0-9]* [^ ]* //; s/: .*//'";
    let outputs = peers.map(|runtime| {
        let case = Case::new(&runtime);
        // Both shall see /proc/keys.
        let bundle = case.bundle().edit(json!({"linux": {"maskedPaths": null}}));
        let id = case.detached(&bundle.forever(), "a");
        let own = case.exec(&id, &["sh", "-c", script]).ok().stdout;
        assert!(own.contains(&format!("_ses.{id}")), "{}: {own}", runtime.name);
        // exec is in the container's own keyring, not in one more.
        assert_eq!(own.lines().filter(|line| line.contains(&id)).count(), 1, "{}: {own}", runtime.name);
        case.delete(&id);
        case.finish();
        own.lines().filter(|line| line.contains(&id)).map(|line| line.replace(&id, "ID")).collect::<String>()
    });
    assert_eq!(outputs[0], outputs[1]);
}
