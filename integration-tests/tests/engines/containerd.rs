//! Under a real containerd: `ctr run --runc-binary flint`, by containerd's own shim, beside runc.

use std::fs;
use std::sync::Arc;

use integration_tests::{
    Containerd, Runtime, TELL_SIZE, cgroup_of, missing, peers, scenarios, wait_until, whole_output,
};

use crate::containerd_scenario;

const FOREVER: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done";

fn containerd() -> Option<(Arc<Containerd>, [Runtime; 2])> {
    let peers = peers()?;
    if missing(&["containerd", "ctr", "containerd-shim-runc-v2", "unshare", "nsenter", "sha256sum", "tar"]) {
        return None;
    }
    Some((Containerd::shared(), peers))
}

/// `ctr run -d` of a shell that waits; its id.
fn forever(containerd: &Containerd, runtime: &Runtime, options: &[&str]) -> String {
    let id = containerd.id();
    // Without its output going nowhere the client of a detached task holds fifos open.
    let mut all = vec!["--detach", "--null-io"];
    all.extend_from_slice(options);
    let _ = containerd.run(runtime, &all, &id, &["sh", "-c", FOREVER]).ok();
    id
}

fn remove(containerd: &Containerd, id: &str) {
    let _ = containerd.ctr(&["task", "rm", "--force", id]).ok();
    let _ = containerd.ctr(&["container", "rm", id]).ok();
    containerd.assert_gone(id);
}

/// The status column of `ctr task ls`.
fn status(containerd: &Containerd, id: &str) -> String {
    let list = containerd.ctr(&["task", "ls"]).ok().stdout;
    let line = list.lines().find(|line| line.starts_with(id)).unwrap_or_default();
    line.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

#[test]
fn run_and_exit_code() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let once = |script: &'static str| {
            let id = containerd.id();
            let mut output = containerd.run(&runtime, &["--rm"], &id, &["sh", "-c", script]).exits(6);
            containerd.assert_gone(&id);
            // Either stream.
            output.stdout.push_str(&output.stderr);
            output
        };
        for script in ["echo hi; exit 6", "echo hi >&2; exit 6"] {
            whole_output(|| once(script), |text| text.contains("hi\n"));
        }
    }
}

#[test]
fn run_sees_the_same() {
    let Some((containerd, peers)) = containerd() else { return };
    let script = "grep -E 'Cap|Seccomp:|NoNew|Groups|Uid' /proc/self/status; id; env | sort; ls -ln /dev | wc -l; pwd; \
                  cut -d' ' -f5 /proc/self/mountinfo | sort; cat /proc/self/limits; echo end";
    let options: &[&[&str]] = &[
        &["--rm"],
        &["--rm", "--cap-drop", "CAP_CHOWN", "--allow-new-privs", "--cwd", "/var", "--env", "A=b", "--seccomp"],
        &["--rm", "--read-only"],
    ];
    for options in options {
        let outputs = peers.clone().map(|runtime| {
            let once = || {
                let id = containerd.id();
                let mut output = containerd.run(&runtime, options, &id, &["sh", "-c", script]).ok();
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
fn run_with_limits() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let id = forever(&containerd, &runtime, &["--memory-limit", "67108864", "--cpus", "0.5"]);
        let file = |controller: &str, name: &str| {
            fs::read_to_string(cgroup_of(controller, &id).join(name)).unwrap_or_default().trim().to_owned()
        };
        if std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            assert_eq!(file("memory", "memory.limit_in_bytes"), "67108864", "{}", runtime.name);
            assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000", "{}", runtime.name);
        } else {
            assert_eq!(file("", "memory.max"), "67108864", "{}", runtime.name);
            assert_eq!(file("", "cpu.max"), "50000 100000", "{}", runtime.name);
        }
        remove(&containerd, &id);
    }
}

#[test]
fn exec_kill_and_ps() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let id = forever(&containerd, &runtime, &[]);
        let exec = |options: &[&str], program: &[&str]| {
            let mut args = vec!["task", "exec", "--exec-id", "one"];
            args.extend_from_slice(options);
            args.push(&id);
            args.extend_from_slice(program);
            containerd.ctr(&args)
        };
        let inside = || exec(&[], &["sh", "-c", "echo inside; exit 5"]).exits(5);
        let output = whole_output(inside, |stdout| !stdout.is_empty());
        assert_eq!(output.stdout, "inside\n", "{}", runtime.name);
        let other = || exec(&["--user", "1000:5", "--cwd", "/var"], &["sh", "-c", "id -u; pwd"]).ok();
        let output = whole_output(other, |stdout| stdout.lines().count() == 2);
        assert_eq!(output.stdout, "1000\n/var\n", "{}", runtime.name);
        let pids = containerd.ctr(&["task", "ps", &id]).ok().stdout;
        assert_eq!(pids.lines().count(), 3, "{}: a headline, sh and sleep: {pids}", runtime.name);
        let _ = containerd.ctr(&["task", "kill", "--signal", "SIGTERM", &id]).ok();
        wait_until("the task has stopped", || status(&containerd, &id) == "STOPPED");
        let removed = containerd.ctr(&["task", "rm", &id]).ok();
        assert!(removed.stderr.contains("exit code 7"), "{}: {}", runtime.name, removed.stderr);
        let _ = containerd.ctr(&["container", "rm", &id]).ok();
        containerd.assert_gone(&id);
    }
}

#[test]
fn kill_with_all_and_force() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let id = forever(&containerd, &runtime, &[]);
        let _ = containerd.ctr(&["task", "kill", "--all", "--signal", "SIGKILL", &id]).ok();
        wait_until("the task has stopped", || status(&containerd, &id) == "STOPPED");
        remove(&containerd, &id);
        let id = forever(&containerd, &runtime, &[]);
        remove(&containerd, &id);
    }
}

#[test]
fn terminal() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let id = containerd.id();
        let binary = runtime.path.display().to_string();
        let image = "localhost/flint-it:busybox";
        let mut run = containerd.on_terminal(&["run", "--rm", "--tty", "--runc-binary", &binary, image, &id, "sh"]);
        run.wait_for("# ");
        run.send(TELL_SIZE);
        run.wait_for("size 33 77");
        // Only now: ctr does not wait for output that is still under way when the task ends.
        run.send("exit 4\n");
        let output = run.finish().exits(4);
        assert!(output.stdout.contains("/dev/pts/0"), "{}: {}", runtime.name, output.stdout);
        assert!(output.stdout.contains("size 33 77"), "{}: {}", runtime.name, output.stdout);
        containerd.assert_gone(&id);
    }
}

#[test]
fn exec_on_a_terminal() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        let id = forever(&containerd, &runtime, &[]);
        let mut exec = containerd.on_terminal(&["task", "exec", "--exec-id", "shell", "--tty", &id, "sh"]);
        exec.wait_for("# ");
        exec.send(TELL_SIZE);
        exec.wait_for("size 33 77");
        // Only now: ctr does not wait for output that is still under way when the task ends.
        exec.send("exit 3\n");
        let output = exec.finish().exits(3);
        assert!(output.stdout.contains("size 33 77"), "{}: {}", runtime.name, output.stdout);
        remove(&containerd, &id);
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

#[test]
fn ten_at_once() {
    let Some((containerd, peers)) = containerd() else { return };
    for runtime in peers {
        std::thread::scope(|scope| {
            for number in 0..10 {
                let (containerd, runtime) = (&containerd, &runtime);
                scope.spawn(move || {
                    let text = number.to_string();
                    let once = || {
                        let id = containerd.id();
                        let output = containerd.run(runtime, &["--rm"], &id, &["echo", &text]).ok();
                        containerd.assert_gone(&id);
                        output
                    };
                    let output = whole_output(once, |stdout| !stdout.is_empty());
                    assert_eq!(output.stdout, format!("{number}\n"), "{}", runtime.name);
                });
            }
        });
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
