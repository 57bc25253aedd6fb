//! A shim that lives and does not answer in its time: a disk that hangs for minutes, a machine that is short of everything.

use std::time::{Duration, Instant};

use integration_tests::{skip, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::rig::Node;

/// Longer than flintd waits for an answer.
const LONGEST: Duration = Duration::from_secs(300);

#[test]
fn a_container_whose_shim_answers_too_late_is_found_and_not_made_twice() {
    if std::env::var_os("FLINT_STALLED_SHIM").is_none() {
        skip("it takes more than two minutes, with FLINT_STALLED_SHIM=1");
        return;
    }
    let Some(node) = Node::start() else { return };
    let out = node.folder("out");
    let volume =
        format!("  restartPolicy: Always\n  volumes: [{{name: out, hostPath: {{path: {}}}}}]\n", out.display());
    // After its second end it rests for 10 s.
    let script = "echo begun >> /out/begun; [ $(wc -l < /out/begun) -lt 3 ] && exit 1; sleep 100000";
    let manifest = node.manifest("late", &volume, script);
    let more = "    volumeMounts: [{name: out, mountPath: /out}]\n    \
                lifecycle: {postStart: {exec: {command: [/bin/sh, -c, 'echo hook >> /out/hooks']}}}\n    command:";
    node.apply(&manifest.replace("    command:", more));
    let begun = || std::fs::read_to_string(out.join("begun")).unwrap_or_default().lines().count();
    wait_until("it rests", || begun() == 2 && node.state("late")["waiting"]["word"] == "CrashLoopBackOff");
    let shims = node.shims();
    let all = |signal| {
        for pid in &shims {
            kill_process(Pid::from_raw(*pid).expect("a pid"), signal).expect("a signal");
        }
    };
    all(Signal::STOP);
    let since = Instant::now();
    while !std::fs::read_to_string(node.log()).expect("the log").contains("start: the shim is lost") {
        assert!(since.elapsed() < LONGEST, "flintd waits for ever");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(begun(), 2);
    all(Signal::CONT);
    node.wait_for("late", "Running");
    wait_until("it has begun", || begun() == 3);
    wait_until("its record says so", || node.state("late")["running"].is_object());
    assert_eq!(node.shims(), shims, "it is the same shim");
    wait_until("its hook has run, too", || node.status("late")["containers"]["main"]["ready"] == true);
    let _ = node.ctl(["rm", "late"]).ok();
    node.wait_gone("late");
    assert_eq!(begun(), 3);
    node.finish();
}
