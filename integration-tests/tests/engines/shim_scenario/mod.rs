//! What flint's shim has to do under a containerd, whichever it is.

use std::collections::BTreeMap;

use integration_tests::{Containerd, TELL_SIZE, pause_until_frozen, wait_until, whole_output};

use crate::containerd_scenario::checkpoint;

const FOREVER: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done";
const IMAGE: &str = "localhost/flint-it:busybox";

/// Runtimes by what `ctr --runtime` calls them; flint's first, then runc's.
pub(crate) type Runtimes = [String; 2];

/// `ctr run` of the image.
fn run(
    containerd: &Containerd,
    runtime: &str,
    options: &[&str],
    id: &str,
    program: &[&str],
) -> integration_tests::Output {
    let mut all = vec!["run", "--runtime", runtime];
    all.extend_from_slice(options);
    all.extend([IMAGE, id]);
    all.extend_from_slice(program);
    containerd.ctr(&all)
}

fn forever(containerd: &Containerd, runtime: &str) -> String {
    let id = containerd.id();
    let _ = run(containerd, runtime, &["--detach", "--null-io"], &id, &["sh", "-c", FOREVER]).ok();
    id
}

pub(crate) fn containers_see_the_same(containerd: &Containerd, runtimes: &Runtimes) {
    let script = "grep -E 'Cap|Seccomp:|NoNew|Groups|Uid' /proc/self/status; id; env | sort; ls -ln /dev | wc -l; pwd; \
                  cut -d' ' -f5 /proc/self/mountinfo | sort; cat /proc/self/limits; echo end; exit 6";
    let options: &[&[&str]] = &[
        &["--rm"],
        &["--rm", "--cap-drop", "CAP_CHOWN", "--allow-new-privs", "--cwd", "/var", "--env", "A=b", "--seccomp"],
        &["--rm", "--read-only"],
    ];
    for options in options {
        let outputs = runtimes.clone().map(|runtime| {
            let once = || {
                let id = containerd.id();
                let mut output = run(containerd, &runtime, options, &id, &["sh", "-c", script]).exits(6);
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

pub(crate) fn exec_kill_pause_metrics_and_ps(containerd: &Containerd, runtimes: &Runtimes) {
    for runtime in runtimes {
        let id = forever(containerd, runtime);
        let script = "echo in; exit 3";
        let exec = || containerd.ctr(&["task", "exec", "--exec-id", "e", &id, "sh", "-c", script]).exits(3);
        assert_eq!(whole_output(exec, |stdout| !stdout.is_empty()).stdout, "in\n", "{runtime}");
        let mut shell = containerd.on_terminal(&["task", "exec", "--exec-id", "shell", "--tty", &id, "sh"]);
        shell.wait_for("# ");
        shell.send(TELL_SIZE);
        shell.wait_for("size 33 77");
        // Only now: ctr does not wait for output that is still under way when the process ends.
        shell.send("exit 3\n");
        let output = shell.finish().exits(3);
        assert!(output.stdout.contains("/dev/pts/"), "{runtime}: {}", output.stdout);
        pause_until_frozen(|| containerd.ctr(&["task", "pause", &id]));
        assert_eq!(containerd.task_status(&id), "PAUSED", "{runtime}");
        let _ = containerd.ctr(&["task", "resume", &id]).ok();
        assert_eq!(containerd.task_status(&id), "RUNNING", "{runtime}");
        let metrics = containerd.ctr(&["task", "metrics", &id]).ok().stdout;
        assert!(metrics.contains("pids.current"), "{runtime}: {metrics}");
        assert!(containerd.ctr(&["task", "ps", &id]).ok().stdout.lines().count() >= 3, "{runtime}");
        let _ = containerd.ctr(&["task", "kill", "--signal", "TERM", &id]).ok();
        wait_until("it has stopped", || containerd.task_status(&id) == "STOPPED");
        let removed = containerd.ctr(&["task", "rm", &id]).ok();
        assert!(removed.stderr.contains("exit code 7"), "{runtime}: {}", removed.stderr);
        let _ = containerd.ctr(&["container", "rm", &id]).ok();
        containerd.assert_gone(&id);
    }
}

pub(crate) fn failures_are_told_and_leave_nothing(containerd: &Containerd, runtimes: &Runtimes) {
    for runtime in runtimes {
        for (program, text) in
            [("no-such-program", "executable file not found in $PATH"), ("/etc/passwd", "permission denied")]
        {
            let id = containerd.id();
            let output = run(containerd, runtime, &["--rm"], &id, &[program]).exits(1);
            assert!(output.stderr.contains(text), "{runtime} {program}: {}", output.stderr);
            containerd.assert_gone(&id);
        }
    }
}

/// A hundred at once; containerd forwards the events of each in its order.
pub(crate) fn a_hundred_at_once(containerd: &Containerd, [runtime, _]: &Runtimes) {
    let ids: Vec<String> = (0..100).map(|_| containerd.id()).collect();
    let events = containerd.events();
    std::thread::scope(|scope| {
        for part in ids.chunks(10) {
            let (containerd, runtime) = (containerd, runtime);
            scope.spawn(move || {
                for id in part {
                    let output = run(containerd, runtime, &["--rm"], id, &["echo", "x"]).ok();
                    // ctr may lose it: see `whole_output`.
                    assert!(["x\n", ""].contains(&output.stdout.as_str()), "{}", output.stdout);
                }
            });
        }
    });
    for id in &ids {
        containerd.assert_gone(id);
    }
    let of = |id: &str| {
        let text = events.stdout();
        let of_it = text.lines().filter(|line| line.contains(id));
        let topic = |line: &str| line.split_whitespace().find(|word| word.starts_with("/tasks/")).map(str::to_owned);
        of_it.filter_map(topic).collect::<Vec<_>>()
    };
    let mut wrong = BTreeMap::new();
    for id in &ids {
        wait_until("its delete event", || of(id).len() >= 4);
        let topics = of(id);
        if topics != ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"] {
            wrong.insert(id.clone(), topics);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

pub(crate) fn checkpoint_and_restore(containerd: &Containerd, [runtime, _]: &Runtimes) {
    checkpoint::to_an_image_and_back(containerd, |id, program| {
        run(containerd, runtime, &["--detach", "--null-io"], id, program)
    });
}

/// A client that dies takes nobody along.
pub(crate) fn a_client_that_is_killed_leaves_its_container(containerd: &Containerd, [runtime, _]: &Runtimes) {
    let id = containerd.id();
    let args = ["run", "--runtime", runtime, IMAGE, &id, "sh", "-c", FOREVER];
    let client = containerd.spawn(&args);
    wait_until("it runs", || containerd.task_status(&id) == "RUNNING");
    let pid = rustix::process::Pid::from_raw(client.pid().cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill the client");
    assert_eq!(containerd.task_status(&id), "RUNNING");
    let exec = || containerd.ctr(&["task", "exec", "--exec-id", "e", &id, "echo", "alive"]).ok();
    assert_eq!(whole_output(exec, |stdout| !stdout.is_empty()).stdout, "alive\n");
    // A client that nsenter left behind deletes the task, too: whoever is later finds the shim gone.
    wait_until("the task is deleted", || {
        let _ = containerd.ctr(&["task", "rm", "--force", &id]);
        containerd.task_status(&id).is_empty()
    });
    let _ = containerd.ctr(&["container", "rm", &id]).ok();
    containerd.assert_gone(&id);
}
