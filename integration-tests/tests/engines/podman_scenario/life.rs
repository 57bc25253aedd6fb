//! What is done to a container that runs: exec, terminals, stop, kill, logs, attach, health checks, restarts.

use integration_tests::{Podman, TELL_SIZE, wait_until};

use super::RUNTIMES;

pub(crate) fn exec(podman: &Podman) {
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &["-e", "OF=container", "--cap-drop", "KILL"]);
        let output = podman.call(&["exec", &id, "sh", "-c", "echo $OF; exit 5"]).exits(5);
        assert_eq!(output.stdout, "container\n", "{runtime}");
        let script = "id -u; id -g; pwd; echo $OF";
        let output = podman.call(&["exec", "-u", "1000:5", "-w", "/var", "-e", "OF=exec", &id, "sh", "-c", script]);
        assert_eq!(output.ok().stdout, "1000\n5\n/var\nexec\n", "{runtime}");
        let _ = podman.call(&["exec", &id, "no-such-program"]).exits(127);
        let _ = podman.call(&["exec", &id, "/etc/passwd"]).exits(126);
        let output = podman.command().args(["exec", "-i", &id, "tr", "a-z", "A-Z"]).input("typed\n").output().ok();
        assert_eq!(output.stdout, "TYPED\n", "{runtime}");
        let _ = podman.call(&["exec", "--detach", &id, "sh", "-c", "echo done > /tmp/detached"]).ok();
        wait_until("a detached exec", || podman.call(&["exec", &id, "cat", "/tmp/detached"]).stdout == "done\n");
        let caps = podman.call(&["exec", "--privileged", &id, "grep", "CapEff", "/proc/self/status"]).ok().stdout;
        assert!(!caps.contains("CapEff:\t0000000080"), "{runtime}: {caps}");
        let top = podman.call(&["top", &id, "args"]).ok().stdout;
        assert!(top.contains("sleep 1000"), "{runtime}: {top}");
        podman.remove(&id);
    }
}

pub(crate) fn terminals(podman: &Podman) {
    for runtime in RUNTIMES {
        let (name, parent) = (podman.place().name(), podman.parent());
        let image = "localhost/flint-it-busybox";
        let args =
            ["--runtime", runtime, "run", "--rm", "-it", "--name", &name, "--cgroup-parent", &parent, image, "sh"];
        let mut run = podman.on_terminal(&args);
        run.wait_for("# ");
        run.send(TELL_SIZE);
        run.wait_for("size 33 77");
        run.send("exit 4\n");
        let output = run.finish().exits(4);
        assert!(output.stdout.contains("/dev/pts/0"), "{runtime}: {}", output.stdout);

        let id = podman.forever(runtime, &[]);
        let mut exec = podman.on_terminal(&["exec", "-it", "-u", "1000", &id, "sh"]);
        exec.wait_for("$ ");
        exec.send(TELL_SIZE);
        exec.wait_for("size 33 77");
        exec.send("exit 3\n");
        let output = exec.finish().exits(3);
        assert!(output.stdout.contains("/dev/pts/"), "{runtime}: {}", output.stdout);
        podman.remove(&id);
    }
}

pub(crate) fn stop_kill_and_wait(podman: &Podman) {
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &[]);
        let _ = podman.call(&["stop", &id]).ok();
        assert_eq!(podman.inspect(&id, "{{.State.ExitCode}}"), "7", "{runtime}: the trap's, nothing was killed");
        let _ = podman.call(&["start", &id]).ok();
        podman.wait_for(&id, "running");
        let _ = podman.call(&["kill", &id]).ok();
        let waited = podman.call(&["wait", &id]).ok().stdout;
        assert_eq!(waited, "137\n", "{runtime}");
        let _ = podman.call(&["restart", &id]).ok();
        podman.wait_for(&id, "running");
        let _ = podman.call(&["kill", "--signal", "KILL", &id]).ok();
        podman.wait_for(&id, "exited");
        podman.remove(&id);

        let (name, output) = podman.run(runtime, &["--detach"], &["sh", "-c", "trap '' TERM; echo up; sleep 1000"]);
        let _ = output.ok();
        wait_until("the container is up", || podman.call(&["logs", &name]).stdout.contains("up"));
        let _ = podman.call(&["stop", "--time", "1", &name]).ok();
        assert_eq!(podman.inspect(&name, "{{.State.ExitCode}}"), "137", "{runtime}: killed after the time");
        podman.remove(&name);
    }
}

pub(crate) fn logs_attach_and_events(podman: &Podman) {
    for runtime in RUNTIMES {
        let (name, output) = podman.run(runtime, &[], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
        let output = output.exits(3);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"), "{runtime}");
        let logs = podman.call(&["logs", &name]).ok();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"), "{runtime}");
        let filter = format!("container={name}");
        let events = podman.call(&["events", "--stream=false", "--filter", &filter, "--format", "{{.Status}}"]).ok();
        for status in ["create", "start", "died"] {
            assert!(events.stdout.lines().any(|line| line == status), "{runtime}: {}", events.stdout);
        }
        podman.remove(&name);

        let (name, output) = podman.run(runtime, &["--detach", "-i"], &["sh", "-c", "read x; echo got $x; exit 6"]);
        let _ = output.ok();
        let output = podman.command().args(["attach", &name]).input("a line\n").output();
        assert_eq!(output.stdout.trim_end(), "got a line", "{runtime}");
        assert_eq!(podman.call(&["wait", &name]).ok().stdout, "6\n", "{runtime}");
        podman.remove(&name);
    }
}

pub(crate) fn health_and_restart(podman: &Podman) {
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &["--health-cmd", "test -e /tmp/well", "--health-interval", "disable"]);
        let _ = podman.call(&["healthcheck", "run", &id]).exits(1);
        let _ = podman.call(&["exec", &id, "touch", "/tmp/well"]).ok();
        let _ = podman.call(&["healthcheck", "run", &id]).ok();
        podman.remove(&id);

        let options = ["--detach", "--restart", "on-failure:2"];
        let (name, output) = podman.run(runtime, &options, &["sh", "-c", "echo again; exit 9"]);
        let _ = output.ok();
        wait_until("all restarts", || podman.call(&["logs", &name]).stdout.lines().count() == 3);
        podman.wait_for(&name, "exited");
        assert_eq!(podman.inspect(&name, "{{.State.ExitCode}} {{.RestartCount}}"), "9 2", "{runtime}");
        podman.remove(&name);
    }
}

pub(crate) fn thirty_at_once(podman: &Podman) {
    std::thread::scope(|scope| {
        for number in 0..30 {
            let _ = scope.spawn(move || {
                let text = number.to_string();
                let (_, output) = podman.run("flint", &["--rm", "--network", "none"], &["echo", &text]);
                assert_eq!(output.ok().stdout, format!("{number}\n"));
            });
        }
    });
}
