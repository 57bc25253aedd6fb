//! What docker does with a runtime, whichever dockerd it is: flint beside runc.

pub(crate) mod checkpoint;

use std::fs;

use checkpoint::count;
use integration_tests::{
    COUNTING, Dockerd, DockerdOptions, SECCOMP_DENIED, SECCOMP_PROFILE, SECCOMP_TRIES, System, cgroup_value,
    pause_until_frozen, wait_until,
};

const RUNTIMES: [&str; 2] = ["flint", "runc"];

pub(crate) fn pause(docker: &Dockerd) {
    for runtime in RUNTIMES {
        let reply = docker.run(runtime, &["--detach"], &["sh", "-c", COUNTING]);
        let _ = reply.output.ok();
        let id = reply.id;
        wait_until("it counts", || count(docker, &id) > 3);
        pause_until_frozen(|| docker.call(&["pause", &id]));
        assert_eq!(docker.inspect(&id, "{{.State.Status}}"), "paused", "{runtime}");
        let frozen = cgroup_value("freezer", &id, "freezer.state", "cgroup.freeze");
        assert!(["FROZEN", "1"].contains(&frozen.as_str()), "{runtime}: {frozen}");
        let refused = docker.call(&["exec", &id, "true"]);
        assert!(refused.stderr.contains("paused"), "{runtime}: {refused:?}");
        let _ = docker.call(&["unpause", &id]).ok();
        let before = count(docker, &id);
        wait_until("it counts on", || count(docker, &id) > before);
        // A paused one ends, too.
        pause_until_frozen(|| docker.call(&["pause", &id]));
        docker.remove(&id);
    }
}

pub(crate) fn update(docker: &Dockerd) {
    for runtime in RUNTIMES {
        let id = docker.forever(runtime, &["--memory", "64m", "--cpus", "0.5"]);
        let mut all = vec!["update", "--memory", "96m", "--memory-swap", "192m", "--cpus", "0.25"];
        all.extend(["--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "33", &id]);
        let _ = docker.call(&all).ok();
        let limit = |controller, v1, v2| cgroup_value(controller, &id, v1, v2);
        assert_eq!(limit("memory", "memory.limit_in_bytes", "memory.max"), "100663296", "{runtime}");
        assert_eq!(limit("cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(), Some("25000"), "{runtime}");
        assert_eq!(limit("cpuset", "cpuset.cpus", "cpuset.cpus"), "0", "{runtime}");
        assert_eq!(limit("pids", "pids.max", "pids.max"), "33", "{runtime}");
        let _ = docker.call(&["exec", &id, "true"]).ok();
        docker.remove(&id);
    }
}

pub(crate) fn health_checks(docker: &Dockerd) {
    for runtime in RUNTIMES {
        let options = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "2"];
        let id = docker.forever(runtime, &options);
        let is = |status: &str| docker.inspect(&id, "{{.State.Health.Status}}") == status;
        wait_until("the container is unhealthy", || is("unhealthy"));
        let _ = docker.call(&["exec", &id, "touch", "/tmp/well"]).ok();
        wait_until("the container is healthy", || is("healthy"));
        docker.remove(&id);
    }
}

pub(crate) fn a_seccomp_profile_of_ones_own(docker: &Dockerd) {
    let profile = docker.place().path().join("profile.json");
    fs::write(&profile, SECCOMP_PROFILE).expect("write the profile");
    let option = format!("seccomp={}", profile.display());
    let options = ["--rm", "--cap-add", "SYS_ADMIN", "--security-opt", &option];
    for runtime in RUNTIMES {
        let reply = docker.run(runtime, &options, &["sh", "-c", SECCOMP_TRIES]);
        assert_eq!(reply.output.ok().stdout, SECCOMP_DENIED, "{runtime}");
        docker.assert_gone(&reply.id);
    }
}

const DOCKERFILE: &str = "FROM flint-it-busybox\n\
    RUN echo built > /made && id -u >> /made\n\
    COPY file /copied\n\
    WORKDIR /work\n\
    USER 1000\n\
    RUN pwd > /tmp/where && id -u >> /tmp/where\n\
    CMD [\"cat\", \"/made\", \"/copied\", \"/tmp/where\"]\n";

/// In a daemon where flint stands in runc's place, under its name: docker has no other way to build by another runtime.
/// `kits` says which of docker's builders are asked, as `DOCKER_BUILDKIT`.
pub(crate) fn build_by_a_runc_that_is_flint(system: System, kits: &[&str]) {
    let options = DockerdOptions { runc_is_flint: true, ..DockerdOptions::default() };
    let Some(docker) = Dockerd::of(system, options) else { return };
    let dir = docker.place().path().join("context");
    fs::create_dir_all(&dir).expect("make the context");
    fs::write(dir.join("Dockerfile"), DOCKERFILE).expect("write the Dockerfile");
    fs::write(dir.join("Failing"), "FROM flint-it-busybox\nRUN exit 5\n").expect("write the other");
    fs::write(dir.join("file"), "copied\n").expect("write a file");
    let (context, failing) = (dir.display().to_string(), dir.join("Failing").display().to_string());
    for kit in kits {
        let build = |args: &[&str]| docker.command().env("DOCKER_BUILDKIT", *kit).args(args.iter().copied()).output();
        let _ = build(&["build", "--no-cache", "--network", "none", "-t", "built", &context]).ok();
        let output = docker.call(&["run", "--rm", "--network", "none", "built"]).ok();
        assert_eq!(output.stdout, "built\n0\ncopied\n/work\n1000\n", "DOCKER_BUILDKIT={kit}");
        let output = build(&["build", "--no-cache", "--network", "none", "-f", &failing, &context]);
        assert_ne!(output.code, 0, "DOCKER_BUILDKIT={kit}");
        let told = output.stdout + &output.stderr;
        assert!(told.contains("returned a non-zero code: 5") || told.contains("exit code: 5"), "{kit}: {told}");
    }
}

/// A daemon that maps every container's root to a range of a user.
pub(crate) fn user_namespaces(system: System) {
    let options = DockerdOptions { remapped: true, ..DockerdOptions::default() };
    let Some(docker) = Dockerd::of(system, options) else { return };
    let script = "tr -s ' ' < /proc/self/uid_map; id -u; touch /x && stat -c '%u %g' /x /bin/busybox; \
                  grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ls /dev | sort | tr '\\n' ' '";
    let options: &[&[&str]] = &[
        &["--rm"],
        &["--rm", "--user", "1000:5", "--tmpfs", "/x", "--memory", "64m"],
        &["--rm", "--cap-drop", "ALL", "-v", "/anonymous"],
        &["--rm", "--userns", "host"],
    ];
    for options in options {
        let outputs = RUNTIMES.map(|runtime| {
            let reply = docker.run(runtime, options, &["sh", "-c", script]);
            let output = reply.output;
            assert!(output.code == 0 || options.contains(&"--user"), "{runtime} {options:?}: {output:?}");
            docker.assert_gone(&reply.id);
            output.stdout
        });
        let mapped = outputs[1].starts_with(" 0 700000 65536\n");
        assert_eq!(mapped, !options.contains(&"--userns"), "{options:?}: {}", outputs[1]);
        assert_eq!(outputs[0], outputs[1], "flint (left) against runc, {options:?}");
    }
    for runtime in RUNTIMES {
        let id = docker.forever(runtime, &[]);
        let exec = docker.call(&["exec", "-u", "7", &id, "sh", "-c", "id -u; cat /proc/self/uid_map"]).ok().stdout;
        assert!(exec.starts_with("7\n") && exec.contains("700000"), "{runtime}: {exec}");
        docker.remove(&id);
    }
}
