//! Under Debian sid's containerd 2: `ctr run --runc-binary flint`, by containerd's own shim, beside sid's runc.

use std::sync::Arc;

use integration_tests::{Containerd, Runtime, System, TELL_SIZE, missing, peers, scenarios, wait_until, whole_output};

use crate::containerd_scenario;

/// The daemon and flint and runc as paths in its place, or None after a skip.
fn containerd() -> Option<(Arc<Containerd>, [Runtime; 2])> {
    let [flint, runc] = peers()?;
    if missing(&["unshare", "nsenter", "sha256sum", "tar"]) {
        return None;
    }
    let containerd = Containerd::shared_of(System::Sid)?;
    let flint = Runtime { path: containerd.place().flint(), ..flint };
    Some((containerd, [flint, Runtime { path: "/usr/sbin/runc".into(), ..runc }]))
}

const FOREVER: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done";

#[test]
fn a_task_runs_and_is_seen_the_same() {
    let Some((containerd, peers)) = containerd() else { return };
    let script = "grep -E 'Cap|Seccomp:|NoNew|Groups|Uid' /proc/self/status; id; env | sort; ls -ln /dev | wc -l; pwd; \
                  cut -d' ' -f5 /proc/self/mountinfo | sort; cat /proc/self/limits; echo end; exit 6";
    let options: &[&[&str]] =
        &[&["--rm"], &["--rm", "--cap-drop", "CAP_CHOWN", "--seccomp", "--cwd", "/var"], &["--rm", "--read-only"]];
    for options in options {
        let outputs = peers.clone().map(|runtime| {
            let once = || {
                let id = containerd.id();
                let mut output = containerd.run(&runtime, options, &id, &["sh", "-c", script]).exits(6);
                containerd.assert_gone(&id);
                output.stdout = output.stdout.replace(&id, "<id>");
                output
            };
            whole_output(once, |stdout| stdout.ends_with("end\n")).stdout
        });
        assert!(outputs[1].contains("CapEff"), "{}", outputs[1]);
        assert_eq!(outputs[0], outputs[1], "flint (left) against runc, {options:?}");
    }
}

#[test]
fn exec_kill_and_remove() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let id = containerd.id();
        let _ = containerd.run(&runtime, &["--detach", "--null-io"], &id, &["sh", "-c", FOREVER]).ok();
        let args = ["task", "exec", "--exec-id", "one", "--user", "1000:5", &id, "sh", "-c", "id -u; exit 5"];
        let output = whole_output(|| containerd.ctr(&args).exits(5), |stdout| !stdout.is_empty());
        assert_eq!(output.stdout, "1000\n", "{}", runtime.name);
        let mut exec = containerd.on_terminal(&["task", "exec", "--exec-id", "shell", "--tty", &id, "sh"]);
        exec.wait_for("# ");
        exec.send(TELL_SIZE);
        exec.wait_for("size 33 77");
        exec.send("exit 3\n");
        let _ = exec.finish().exits(3);
        let _ = containerd.ctr(&["task", "kill", "--signal", "SIGTERM", &id]).ok();
        let stopped = || {
            containerd.ctr(&["task", "ls"]).stdout.lines().any(|line| line.starts_with(&id) && line.contains("STOPPED"))
        };
        wait_until("the task has stopped", stopped);
        assert!(containerd.ctr(&["task", "rm", &id]).stderr.contains("exit code 7"), "{}", runtime.name);
        let _ = containerd.ctr(&["container", "rm", &id]).ok();
        containerd.assert_gone(&id);
    }
}

#[test]
fn a_missing_program_is_told() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let id = containerd.id();
        let output = containerd.run(&runtime, &["--rm"], &id, &["no-such-program"]);
        assert_ne!(output.code, 0, "{}", runtime.name);
        assert!(output.stderr.contains("executable file not found"), "{}: {}", runtime.name, output.stderr);
        let _ = containerd.ctr(&["container", "rm", &id]);
        containerd.assert_gone(&id);
    }
}

fn with(scenario: fn(&Containerd, &[Runtime; 2])) {
    if let Some((containerd, peers)) = containerd() {
        scenario(&containerd, &peers);
    }
}

scenarios! {
    with;
    pause: containerd_scenario::pause,
    checkpoint_and_restore: containerd_scenario::checkpoint_and_restore,
    user_namespaces: containerd_scenario::user_namespaces,
    a_seccomp_profile_of_ones_own: containerd_scenario::a_seccomp_profile_of_ones_own,
}
