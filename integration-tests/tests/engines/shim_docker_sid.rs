//! flint's shim under Debian sid's dockerd 28 (`runtimeType` in daemon.json), beside its runc.

use std::sync::Arc;

use integration_tests::{Dockerd, System, missing, pause_until_frozen, peers, wait_until};

use crate::docker_scenario::checkpoint;

const SHIM: &str = "flint-shim";

fn docker() -> Option<Arc<Dockerd>> {
    let _ = peers()?;
    if missing(&["unshare", "nsenter", "tar"]) {
        return None;
    }
    let docker = Dockerd::shared_of(System::Sid)?;
    docker.place().shim().map(|_| docker)
}

#[test]
fn containers_see_the_same() {
    let Some(docker) = docker() else { return };
    let script = "id; pwd; hostname; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ulimit -n; \
                  cut -d' ' -f5 /proc/self/mountinfo | sort; echo err >&2; exit 42";
    let variants: &[&[&str]] = &[
        &["--rm", "--hostname", "h"],
        &["--rm", "--hostname", "h", "--read-only", "--tmpfs", "/s:size=1m", "--user", "1000:5", "--cap-drop", "ALL"],
        &["--rm", "--pid", "host", "--network", "host", "--ipc", "host", "--uts", "host"],
    ];
    for options in variants {
        let outputs = [SHIM, "runc"].map(|runtime| {
            let reply = docker.run(runtime, options, &["sh", "-c", script]);
            assert!(reply.output.stderr.contains("err\n"), "{runtime}: {}", reply.output.stderr);
            let output = reply.output.exits(42);
            docker.assert_gone(&reply.id);
            output.stdout
        });
        assert!(outputs[1].contains("CapEff"), "{}", outputs[1]);
        assert_eq!(outputs[0], outputs[1], "flint's shim (left) against runc, {options:?}");
    }
}

#[test]
fn failures_have_dockers_exit_codes() {
    let Some(docker) = docker() else { return };
    for runtime in [SHIM, "runc"] {
        for (program, code) in [("no-such-program", 127), ("/etc/passwd", 126)] {
            let reply = docker.run(runtime, &[], &[program]);
            assert_eq!(reply.output.code, code, "{runtime} {program}: {}", reply.output.stderr);
            docker.remove(&reply.id);
        }
    }
}

#[test]
fn exec_logs_pause_update_stats_and_stop() {
    let Some(docker) = docker() else { return };
    for runtime in [SHIM, "runc"] {
        let id = docker.forever(runtime, &["--memory", "64m"]);
        let exec = docker.call(&["exec", "--user", "1000", &id, "sh", "-c", "id -u; exit 3"]).exits(3);
        assert_eq!(exec.stdout, "1000\n", "{runtime}");
        pause_until_frozen(|| docker.call(&["pause", &id]));
        assert_eq!(docker.inspect(&id, "{{.State.Status}}"), "paused", "{runtime}");
        let _ = docker.call(&["unpause", &id]).ok();
        let _ = docker.call(&["update", "--memory", "80m", "--memory-swap", "-1", &id]).ok();
        let stats = docker.call(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &id]).ok().stdout;
        assert!(stats.contains("80MiB"), "{runtime}: {stats}");
        assert!(docker.call(&["top", &id]).ok().stdout.contains("sleep"), "{runtime}");
        let _ = docker.call(&["stop", &id]).ok();
        assert_eq!(docker.inspect(&id, "{{.State.ExitCode}}"), "7", "{runtime}");
        let _ = docker.call(&["start", &id]).ok();
        let _ = docker.call(&["kill", &id]).ok();
        wait_until("it has stopped", || docker.inspect(&id, "{{.State.Status}}") == "exited");
        assert_eq!(docker.inspect(&id, "{{.State.ExitCode}}"), "137", "{runtime}");
        docker.remove(&id);
        let reply = docker.run(runtime, &["--detach"], &["sh", "-c", "echo one; echo two >&2"]);
        let _ = docker.call(&["wait", &reply.id]).ok();
        let logs = docker.call(&["logs", &reply.id]).ok();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\n", "two\n"), "{runtime}");
        docker.remove(&reply.id);
    }
}

#[test]
fn an_oom_kill_is_told() {
    let Some(docker) = docker() else { return };
    for runtime in [SHIM, "runc"] {
        // Not init itself: containerd's shim may lose the word of one that ends at once.
        let hog = "tail /dev/zero; sleep 1; exit 137";
        let reply = docker.run(runtime, &["--memory", "16m", "--memory-swap", "16m"], &["sh", "-c", hog]);
        assert_eq!(reply.output.code, 137, "{runtime}: {}", reply.output.stderr);
        // runc's shim says it when it comes to it, which may be after the exit.
        if runtime == SHIM {
            assert_eq!(docker.inspect(&reply.id, "{{.State.OOMKilled}}"), "true", "{runtime}");
        }
        docker.remove(&reply.id);
    }
}

#[test]
fn terminals_and_input() {
    let Some(docker) = docker() else { return };
    let mut run = docker.on_terminal(&["run", "--rm", "-it", "--runtime", SHIM, "flint-it-busybox", "sh"]);
    run.wait_for("# ");
    run.send("echo si'ze' $(stty size)\n");
    run.wait_for("size 33 77");
    run.send("exit 5\n");
    let _ = run.finish().exits(5);
    let id = docker.forever(SHIM, &[]);
    let script = format!("echo data | docker exec -i {id} cat");
    let piped = docker.place().command("sh").env("DOCKER_HOST", docker.socket()).args(["-c", &script]).output().ok();
    assert_eq!(piped.stdout, "data\n");
    docker.remove(&id);
}

#[test]
fn checkpoint_and_restore() {
    if let Some(docker) = docker() {
        checkpoint::checkpoint_and_restore(&docker, &[SHIM, "runc"], &["runc"]);
    }
}
