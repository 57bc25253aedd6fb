//! Under Debian sid's dockerd 28: flint beside sid's runc.

use std::sync::Arc;

use integration_tests::{Dockerd, System, TELL_SIZE, missing, peers, scenarios, wait_until};

use crate::docker_scenario;

/// The daemon, or None after a skip.
fn docker() -> Option<Arc<Dockerd>> {
    let _ = peers()?;
    if missing(&["unshare", "nsenter", "tar"]) {
        return None;
    }
    Dockerd::shared_of(System::Sid)
}

/// Runs the program with `docker run --rm` under both runtimes; the outputs must be equal and pass `check`.
#[track_caller]
fn prints(docker: &Dockerd, options: &[&str], program: &[&str], check: impl Fn(&str) -> bool) {
    let mut all = vec!["--rm"];
    all.extend_from_slice(options);
    let outputs = ["flint", "runc"].map(|runtime| {
        let reply = docker.run(runtime, &all, program);
        let output = reply.output.ok();
        docker.assert_gone(&reply.id);
        output.stdout
    });
    assert!(check(&outputs[1]), "runc does not print what the test expects, {options:?}: {}", outputs[1]);
    assert_eq!(outputs[0], outputs[1], "flint (left) against runc, {options:?}");
}

#[test]
fn containers_see_the_same() {
    let Some(docker) = docker() else { return };
    let script = "id; pwd; hostname; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ulimit -n; \
                  cut -d' ' -f5 /proc/self/mountinfo | sort; touch /x 2>/dev/null || echo refused";
    let program = ["sh", "-c", script];
    let variants: &[&[&str]] = &[
        &["--hostname", "h"],
        &["--hostname", "h", "--read-only", "--tmpfs", "/s:size=1m", "--user", "1000:5", "--cap-drop", "ALL"],
        &["--hostname", "h", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "-w", "/var"],
        &["--hostname", "h", "--security-opt", "no-new-privileges", "--ulimit", "nofile=60:60", "-v", "/anonymous"],
        &["--pid", "host", "--network", "host", "--ipc", "host", "--uts", "host"],
    ];
    for options in variants {
        prints(&docker, options, &program, |text| text.contains("CapEff"));
    }
    prints(&docker, &["--init"], &["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"], |text| text.contains("init"));
}

#[test]
fn exit_codes() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        for (program, code) in
            [(&["sh", "-c", "exit 42"][..], 42), (&["no-such-program"], 127), (&["/etc/passwd"], 126)]
        {
            let reply = docker.run(runtime, &[], program);
            assert_eq!(reply.output.code, code, "{runtime} {program:?}: {}", reply.output.stderr);
            docker.remove(&reply.id);
        }
    }
}

#[test]
fn exec_terminals_and_stop() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let options = ["--health-cmd", "test -e /tmp/well", "--health-interval", "100ms", "--health-retries", "1000"];
        let id = docker.forever(runtime, &options);
        assert_eq!(docker.call(&["exec", "-u", "1000:5", &id, "sh", "-c", "id -u; exit 5"]).exits(5).stdout, "1000\n");
        let _ = docker.call(&["exec", &id, "touch", "/tmp/well"]).ok();
        wait_until("the container is healthy", || docker.inspect(&id, "{{.State.Health.Status}}") == "healthy");
        let mut exec = docker.on_terminal(&["exec", "-it", &id, "sh"]);
        exec.wait_for("# ");
        exec.send(TELL_SIZE);
        exec.wait_for("size 33 77");
        exec.send("exit 3\n");
        let _ = exec.finish().exits(3);
        let _ = docker.call(&["stop", &id]).ok();
        assert_eq!(docker.inspect(&id, "{{.State.ExitCode}}"), "7", "{runtime}: the trap's, nothing was killed");
        let _ = docker.call(&["restart", &id]).ok();
        docker.remove(&id);
    }
}

#[test]
fn thirty_at_once() {
    let Some(docker) = docker() else { return };
    std::thread::scope(|scope| {
        for number in 0..30 {
            let docker = &docker;
            let _ = scope.spawn(move || {
                let text = number.to_string();
                let reply = docker.run("flint", &["--rm", "--network", "none"], &["echo", &text]);
                assert_eq!(reply.output.ok().stdout, format!("{number}\n"));
                docker.assert_gone(&reply.id);
            });
        }
    });
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
    build_by_a_runc_that_is_flint: |_| docker_scenario::build_by_a_runc_that_is_flint(System::Sid, &["0", "1"]),
    user_namespaces: |_| docker_scenario::user_namespaces(System::Sid),
    checkpoint_and_restore: |docker| docker_scenario::checkpoint::checkpoint_and_restore(docker, &["flint", "runc"], &["flint", "runc"]),
}
