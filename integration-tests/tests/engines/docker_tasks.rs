//! Under a real dockerd: what is done to a container that runs (exec, terminals, stop, kill, rm, top), beside runc.

use std::sync::Arc;

use integration_tests::{Dockerd, System, TELL_SIZE, missing, peers, scenarios, wait_until};

use crate::docker_scenario;

/// The daemon, or None after a skip.
fn docker() -> Option<Arc<Dockerd>> {
    let _ = peers()?;
    if missing(&["dockerd", "docker", "containerd", "unshare"]) {
        return None;
    }
    Some(Dockerd::shared())
}

#[test]
fn exec() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let id = docker.forever(runtime, &["-e", "OF=container", "--cap-drop", "KILL"]);
        let output = docker.call(&["exec", &id, "sh", "-c", "echo $OF; exit 5"]).exits(5);
        assert_eq!(output.stdout, "container\n", "{runtime}");
        let output = docker.call(&[
            "exec",
            "-u",
            "1000:5",
            "-w",
            "/var",
            "-e",
            "OF=exec",
            &id,
            "sh",
            "-c",
            "id -u; id -g; pwd; echo $OF",
        ]);
        assert_eq!(output.ok().stdout, "1000\n5\n/var\nexec\n", "{runtime}");
        let status = |program: &[&str]| docker.call(program).ok().stdout;
        let caps = status(&["exec", &id, "grep", "-E", "Cap|Seccomp:|NoNew", "/proc/self/status"]);
        assert_eq!(caps, status(&["exec", &id, "grep", "-E", "Cap|Seccomp:|NoNew", "/proc/1/status"]), "{runtime}");
        // 20.10 tells 126 for both with runc; later ones 127 for the first. What counts is that it gives a verdict.
        let missing = docker.call(&["exec", &id, "no-such-program"]).code;
        assert!([126, 127].contains(&missing), "{runtime}: {missing}");
        assert_eq!(docker.call(&["exec", &id, "/etc/passwd"]).code, 126, "{runtime}");
        docker.remove(&id);
    }
}

#[test]
fn terminals() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let mut run = docker.on_terminal(&["run", "--rm", "--runtime", runtime, "-it", "flint-it-busybox", "sh"]);
        run.wait_for("# ");
        // docker tells the size some time after the start. The words are put together so that the echo of what is
        // typed does not match.
        run.send(TELL_SIZE);
        run.wait_for("size 33 77");
        run.send("test -t 0 && echo ter'minal'\n");
        run.wait_for("terminal");
        let id = docker.call(&["ps", "--quiet", "--no-trunc", "--filter", "status=running"]).ok().stdout;
        assert!(!id.is_empty());
        run.send("exit 4\n");
        let output = run.finish().exits(4);
        assert!(output.stdout.contains("/dev/pts/0"), "{runtime}: {}", output.stdout);
        assert!(output.stdout.contains("size 33 77"), "{runtime}: {}", output.stdout);
    }
}

#[test]
fn exec_on_a_terminal() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let id = docker.forever(runtime, &[]);
        let mut exec = docker.on_terminal(&["exec", "-it", "-u", "1000", &id, "sh"]);
        exec.wait_for("$ ");
        exec.send(TELL_SIZE);
        exec.wait_for("size 33 77");
        exec.send("exit 3\n");
        let output = exec.finish().exits(3);
        assert!(output.stdout.contains("/dev/pts/"), "{runtime}: {}", output.stdout);
        assert!(output.stdout.contains("size 33 77"), "{runtime}: {}", output.stdout);
        docker.remove(&id);
    }
}

#[test]
fn stop_kill_and_restart() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let id = docker.forever(runtime, &[]);
        let _ = docker.call(&["stop", &id]).ok();
        // The trap's exit code: the signal arrived, nothing was killed.
        assert_eq!(docker.inspect(&id, "{{.State.ExitCode}}"), "7", "{runtime}");
        let _ = docker.call(&["start", &id]).ok();
        assert_eq!(docker.inspect(&id, "{{.State.Running}}"), "true");
        let _ = docker.call(&["kill", &id]).ok();
        wait_until("the container is killed", || docker.inspect(&id, "{{.State.Running}}") == "false");
        assert_eq!(docker.inspect(&id, "{{.State.ExitCode}}"), "137", "{runtime}");
        let before = docker.ups(&id);
        let _ = docker.call(&["restart", &id]).ok();
        wait_until("its trap is set again", || docker.ups(&id) > before);
        let _ = docker.call(&["kill", "--signal", "TERM", &id]).ok();
        wait_until("the container has ended", || docker.inspect(&id, "{{.State.Running}}") == "false");
        assert_eq!(docker.inspect(&id, "{{.State.ExitCode}}"), "7", "{runtime}");
        docker.remove(&id);
    }
}

#[test]
fn rm_force_of_a_running_container() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let id = docker.forever(runtime, &[]);
        let _ = docker.call(&["exec", "--detach", &id, "sleep", "1000"]).ok();
        docker.remove(&id);
    }
}

#[test]
fn ps_and_logs() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let id = docker.forever(runtime, &[]);
        let top = docker.call(&["top", &id]).ok().stdout;
        assert!(top.contains("sleep 1000"), "{runtime}: {top}");
        docker.remove(&id);
        let reply = docker.run(runtime, &[], &["sh", "-c", "echo out; echo err >&2"]);
        let logs = docker.call(&["logs", &reply.id]).ok();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"), "{runtime}");
        docker.remove(&reply.id);
    }
}

fn with(scenario: fn(&Dockerd)) {
    if let Some(docker) = docker() {
        scenario(&docker);
    }
}

scenarios! {
    with;
    pause: docker_scenario::pause,
    update: docker_scenario::update,
    health_checks: docker_scenario::health_checks,
    a_seccomp_profile_of_ones_own: docker_scenario::a_seccomp_profile_of_ones_own,
    build_by_a_runc_that_is_flint: |_| docker_scenario::build_by_a_runc_that_is_flint(System::Host, &["0", "1"]),
    user_namespaces: |_| docker_scenario::user_namespaces(System::Host),
    checkpoint_and_restore: |docker| docker_scenario::checkpoint::checkpoint_and_restore(docker, &["flint", "runc"], &["flint", "runc"]),
}
