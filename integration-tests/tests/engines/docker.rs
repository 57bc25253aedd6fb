//! Under a real dockerd: `docker run --runtime flint` and its friends, beside docker's own runc.

use std::fs;
use std::sync::Arc;

use integration_tests::{Dockerd, cgroup_of, missing, peers, skip, wait_until};

/// The daemon, or None after a skip.
fn docker() -> Option<Arc<Dockerd>> {
    let _ = peers()?;
    if missing(&["dockerd", "docker", "containerd", "unshare"]) {
        return None;
    }
    Some(Dockerd::shared())
}

/// Runs the program with `docker run --rm` under both runtimes; the stdouts must agree with `check`.
#[track_caller]
fn prints(options: &[&str], program: &[&str], check: impl Fn(&str) -> bool) {
    let Some(docker) = docker() else { return };
    let mut all = vec!["--rm"];
    all.extend_from_slice(options);
    let outputs = ["flint", "runc"].map(|runtime| {
        let reply = docker.run(runtime, &all, program);
        let output = reply.output.ok();
        docker.assert_gone(&reply.id);
        assert_eq!(output.stderr, "", "{runtime} {options:?}");
        output.stdout
    });
    assert!(check(&outputs[1]), "runc does not print what the test expects: {}", outputs[1]);
    assert_eq!(outputs[0], outputs[1], "flint (left) against runc");
}

#[test]
fn run_echo() {
    prints(&[], &["echo", "hi"], |text| text == "hi\n");
}

#[test]
fn run_with_a_user() {
    prints(&["--user", "1000:5", "--group-add", "2000"], &["id"], |text| text.starts_with("uid=1000(user) gid=5(tty)"));
}

#[test]
fn run_readonly_with_tmpfs() {
    let script = "touch /x 2>/dev/null || echo refused; touch /scratch/x && ls /scratch; stat -c %a /scratch; \
                  grep -o ' /scratch .*' /proc/self/mountinfo | cut -d' ' -f2-4,6-";
    prints(&["--read-only", "--tmpfs", "/scratch:size=1m,mode=1770"], &["sh", "-c", script], |text| {
        text.starts_with("refused\nx\n1770\n") && text.contains("size=1024k")
    });
}

#[test]
fn run_with_volumes() {
    let Some(docker) = docker() else { return };
    let dir = tempfile::tempdir().expect("make a folder");
    fs::write(dir.path().join("file"), "from the host\n").expect("write");
    let (rw, ro) = (format!("{}:/rw", dir.path().display()), format!("{}:/deep/er/ro:ro", dir.path().display()));
    for runtime in ["flint", "runc"] {
        let script =
            "cat /rw/file /deep/er/ro/file; echo back > /rw/new; touch /deep/er/ro/x 2>/dev/null || echo refused";
        let reply = docker.run(runtime, &["--rm", "-v", &rw, "-v", &ro, "-v", "/anonymous"], &["sh", "-c", script]);
        assert_eq!(reply.output.ok().stdout, "from the host\nfrom the host\nrefused\n");
        assert_eq!(fs::read_to_string(dir.path().join("new")).expect("read"), "back\n");
        fs::remove_file(dir.path().join("new")).expect("remove");
        docker.assert_gone(&reply.id);
    }
}

#[test]
fn run_with_other_capabilities() {
    let all = &["grep", "-E", "Cap|NoNew|Seccomp", "/proc/self/status"];
    prints(&[], all, |text| text.contains("CapEff:\t00000000a80425fb") && text.contains("Seccomp:\t2"));
    prints(&["--cap-drop", "ALL"], all, |text| text.contains("CapBnd:\t0000000000000000"));
    prints(&["--cap-drop", "CHOWN", "--cap-add", "SYS_ADMIN"], all, |text| text.contains("CapEff:\t00000000a82425fa"));
    prints(&["--security-opt", "no-new-privileges", "--user", "1000"], all, |text| text.contains("NoNewPrivs:\t1"));
    prints(&["--security-opt", "seccomp=unconfined"], all, |text| text.contains("Seccomp:\t0"));
}

#[test]
fn run_with_limits() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let options =
            ["-m", "64m", "--cpus", "0.5", "--pids-limit", "20", "--cpuset-cpus", "0", "--ulimit", "nofile=100:100"];
        let id = docker.forever(runtime, &options);
        let file = |controller: &str, name: &str| {
            let text = fs::read_to_string(cgroup_of(controller, &id).join(name)).unwrap_or_default();
            text.trim().to_owned()
        };
        if std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            assert_eq!(file("memory", "memory.limit_in_bytes"), "67108864", "{runtime}");
            assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000", "{runtime}");
            assert_eq!(file("cpuset", "cpuset.cpus"), "0", "{runtime}");
        } else {
            assert_eq!(file("", "memory.max"), "67108864", "{runtime}");
            assert_eq!(file("", "cpu.max"), "50000 100000", "{runtime}");
            assert_eq!(file("", "cpuset.cpus"), "0", "{runtime}");
        }
        assert_eq!(file("pids", "pids.max"), "20", "{runtime}");
        let limits = docker.call(&["exec", &id, "sh", "-c", "ulimit -Sn; ulimit -Hn"]).ok();
        assert_eq!(limits.stdout, "100\n100\n", "{runtime}");
        docker.remove(&id);
    }
}

#[test]
fn the_oom_killer_is_told() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let options = ["-m", "20m", "--memory-swap", "20m"];
        // Not init itself: containerd's shim may lose the word of one that ends at once.
        let reply = docker.run(runtime, &options, &["sh", "-c", "tail /dev/zero; sleep 1; exit 137"]);
        assert_eq!(reply.output.code, 137, "{runtime}: {}", reply.output.stderr);
        wait_until(&format!("docker knows of the OOM under {runtime}"), || {
            docker.inspect(&reply.id, "{{.State.OOMKilled}}") == "true"
        });
        docker.remove(&reply.id);
    }
}

#[test]
fn environment_workdir_hostname_and_sysctl() {
    let script = "env | sort | grep -v HOSTNAME; pwd; hostname; cat /proc/sys/net/core/somaxconn";
    let options = [
        "-e",
        "A=b c",
        "-w",
        "/made/here",
        "--hostname",
        "h.example",
        "--sysctl",
        "net.core.somaxconn=77",
        "--env",
        "HOME=/h",
    ];
    prints(&options, &["sh", "-c", script], |text| {
        text.contains("A=b c\n") && text.ends_with("/made/here\nh.example\n77\n")
    });
}

#[test]
fn devices_and_privileged() {
    prints(
        &["--device", "/dev/null:/dev/mine:rw"],
        &["sh", "-c", "echo x > /dev/mine && ls -ln /dev/mine | cut -c1-10"],
        |text| text.starts_with("crw"),
    );
}

#[test]
fn privileged() {
    let Some(docker) = docker() else { return };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap_or_default();
    if u64::from_str_radix(bounding, 16).unwrap_or(0).count_ones() < 41 {
        // runc refuses capabilities that it cannot give.
        skip(&format!("the host itself lacks capabilities (CapBnd {bounding})"));
        return;
    }
    let script = "grep CapEff /proc/self/status; mount -t tmpfs tmpfs /tmp && echo mounted; grep -c '/proc/.* - tmpfs' /proc/self/mountinfo";
    for runtime in ["flint", "runc"] {
        let reply = docker.run(runtime, &["--rm", "--privileged"], &["sh", "-c", script]);
        assert!(reply.output.stdout.ends_with("mounted\n0\n"), "{runtime}: {:?}", reply.output);
        docker.assert_gone(&reply.id);
        let id = docker.forever(runtime, &[]);
        let caps = docker.call(&["exec", "--privileged", &id, "grep", "CapEff", "/proc/self/status"]).ok().stdout;
        assert!(!caps.contains("00000000a80425"), "{runtime}: {caps}");
        docker.remove(&id);
    }
}

#[test]
fn init_and_shared_namespaces() {
    prints(
        &["--pid", "host", "--network", "host", "--ipc", "host", "--uts", "host"],
        &["sh", "-c", "ls /proc/self/ns | wc -l; hostname"],
        |text| text.lines().count() == 2,
    );
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let id = docker.forever(runtime, &["--hostname", "first"]);
        let share = format!("container:{id}");
        let options = ["--rm", "--pid", &share, "--network", &share];
        let reply = docker.run(runtime, &options, &["sh", "-c", "hostname; ps | grep -c ' sleep 1000$'"]);
        assert_eq!(reply.output.ok().stdout, "first\n1\n", "{runtime}");
        docker.assert_gone(&reply.id);
        docker.remove(&id);
    }
}

#[test]
fn exit_codes() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        for (program, code) in [
            (&["sh", "-c", "exit 42"][..], 42),
            (&["no-such-program"], 127),
            (&["/no/such/path"], 127),
            (&["/etc/passwd"], 126),
            (&["/etc"], 126),
            (&["sh", "-c", "kill -9 $$; kill -9 1; sh -c 'kill -9 $$'; exit $?"], 137),
        ] {
            let reply = docker.run(runtime, &[], program);
            assert_eq!(reply.output.code, code, "{runtime} {program:?}: {}", reply.output.stderr);
            assert_eq!(docker.inspect(&reply.id, "{{.State.ExitCode}}"), code.to_string(), "{runtime} {program:?}");
            docker.remove(&reply.id);
        }
    }
}

#[test]
fn the_network_works_inside() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let reply = docker.run(
            runtime,
            &["--rm"],
            &["sh", "-c", "ip -o -4 addr | wc -l; ping -c1 -W5 127.0.0.1 | grep -c '1 packets received'"],
        );
        assert_eq!(reply.output.ok().stdout, "2\n1\n", "{runtime}: lo and eth0");
        docker.assert_gone(&reply.id);
        let reply = docker.run(runtime, &["--rm", "--network", "none"], &["sh", "-c", "ip -o link | grep -c ' lo:'"]);
        assert_eq!(reply.output.ok().stdout, "1\n", "{runtime}");
        docker.assert_gone(&reply.id);
    }
}

#[test]
fn twenty_at_once() {
    let Some(docker) = docker() else { return };
    for runtime in ["flint", "runc"] {
        let replies: Vec<_> = std::thread::scope(|scope| {
            let docker = &docker;
            let threads: Vec<_> = (0..20)
                .map(|number: i32| {
                    scope.spawn(move || {
                        let text = number.to_string();
                        (number, docker.run(runtime, &["--rm"], &["echo", &text]))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a docker run")).collect()
        });
        for (number, reply) in replies {
            assert_eq!(reply.output.ok().stdout, format!("{number}\n"), "{runtime}");
            docker.assert_gone(&reply.id);
        }
    }
}
