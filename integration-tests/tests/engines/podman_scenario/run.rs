//! `podman run`: what the container sees.

use std::fs;

use integration_tests::{Podman, SECCOMP_DENIED, SECCOMP_PROFILE, SECCOMP_TRIES, cgroup_of, remove_by_force};

use super::{RUNTIMES, prints};

pub(crate) fn basics(podman: &Podman) {
    prints(podman, &[], &["echo", "hi"], |text| text == "hi\n");
    let options = ["--user", "1000:5", "-w", "/home/user", "-e", "A=b c", "--hostname", "h.example"];
    let script = "id -u; id -g; pwd; echo $A; hostname";
    prints(podman, &options, &["sh", "-c", script], |text| text == "1000\n5\n/home/user\nb c\nh.example\n");
    prints(podman, &["--init"], &["sh", "-c", "tr '\\0' '\\n' < /proc/1/cmdline | tail -n 1"], |text| {
        text.contains("cmdline") || text == "1\n"
    });
    let script = "touch /x 2>/dev/null || echo refused; touch /s/x && ls /s; stat -c %a /s; touch /tmp/y && ls /tmp";
    let options = ["--read-only", "--tmpfs", "/s:size=1m,mode=1770"];
    prints(podman, &options, &["sh", "-c", script], |text| text == "refused\nx\n1770\ny\n");
    prints(podman, &["--sysctl", "net.core.somaxconn=77"], &["cat", "/proc/sys/net/core/somaxconn"], |text| {
        text == "77\n"
    });
    let script = "ls -ln /dev/mine | cut -c1-10; echo x > /dev/mine && echo written";
    prints(podman, &["--device", "/dev/null:/dev/mine:rw"], &["sh", "-c", script], |text| {
        text == "crw-rw-rw-\nwritten\n"
    });
}

pub(crate) fn exit_codes(podman: &Podman) {
    for runtime in RUNTIMES {
        for (program, code) in [
            (&["sh", "-c", "exit 42"][..], 42),
            (&["no-such-program"], 127),
            (&["/no/such/path"], 127),
            (&["/etc/passwd"], 126),
            (&["/etc"], 126),
            (&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        ] {
            let (name, output) = podman.run(runtime, &[], program);
            assert_eq!(output.code, code, "{runtime} {program:?}: {}", output.stderr);
            remove_by_force(|args| podman.call(args), &name);
        }
        let (_, output) = podman.run(runtime, &["--no-such-option"], &["true"]);
        assert_eq!(output.code, 125, "{runtime}: {}", output.stderr);
        let (name, output) = podman.run(runtime, &["-w", "/etc/passwd"], &["true"]);
        assert!([125, 126, 127].contains(&output.code), "{runtime}: {output:?}");
        remove_by_force(|args| podman.call(args), &name);
    }
}

pub(crate) fn security(podman: &Podman) {
    let all = &["grep", "-E", "Cap|NoNew|Seccomp:", "/proc/self/status"];
    prints(podman, &[], all, |text| text.contains("Seccomp:\t2"));
    prints(podman, &["--cap-drop", "ALL"], all, |text| text.contains("CapBnd:\t0000000000000000"));
    prints(podman, &["--cap-add", "SYS_ADMIN", "--cap-drop", "CHOWN"], all, |text| text.contains("Seccomp:\t2"));
    prints(podman, &["--cap-add", "NET_RAW", "--user", "1000"], all, |text| text.contains("CapEff"));
    prints(podman, &["--security-opt", "no-new-privileges"], all, |text| text.contains("NoNewPrivs:\t1"));
    prints(podman, &["--security-opt", "seccomp=unconfined"], all, |text| text.contains("Seccomp:\t0"));
    let profile = podman.place().path().join("profile.json");
    fs::write(&profile, SECCOMP_PROFILE).expect("write the profile");
    let option = format!("seccomp={}", profile.display());
    let options = ["--cap-add", "SYS_ADMIN", "--security-opt", &option];
    prints(podman, &options, &["sh", "-c", SECCOMP_TRIES], |text| text == SECCOMP_DENIED);
    let script = "mount -t tmpfs tmpfs /tmp && echo mounted; grep -c '/proc/.* - tmpfs' /proc/self/mountinfo; \
                  test -c /dev/full && echo full; touch /proc/sys/kernel/hostname && echo writable";
    prints(podman, &["--privileged"], &["sh", "-c", script], |text| text.starts_with("mounted\n0\nfull\n"));
}

pub(crate) fn volumes(podman: &Podman) {
    let dir = podman.place().path().join("volume");
    fs::create_dir_all(&dir).expect("make a folder");
    fs::write(dir.join("file"), "from outside\n").expect("write");
    let (rw, ro) = (format!("{}:/rw", dir.display()), format!("{}:/deep/er/ro:ro", dir.display()));
    let tmpfs = "type=tmpfs,destination=/scratch,tmpfs-size=1m";
    for runtime in RUNTIMES {
        let script = "cat /rw/file /deep/er/ro/file; echo back > /rw/new; \
                      touch /deep/er/ro/x 2>/dev/null || echo refused; touch /named/x /anonymous/x /scratch/x; ls /named";
        let options = ["--rm", "-v", &rw, "-v", &ro, "-v", "/anonymous", "-v", "named:/named", "--mount", tmpfs];
        let (_, output) = podman.run(runtime, &options, &["sh", "-c", script]);
        assert_eq!(output.ok().stdout, "from outside\nfrom outside\nrefused\nx\n", "{runtime}");
        assert_eq!(fs::read_to_string(dir.join("new")).expect("read"), "back\n");
        fs::remove_file(dir.join("new")).expect("remove");
        let _ = podman.call(&["volume", "rm", "named"]).ok();
    }
    assert_eq!(podman.call(&["volume", "ls", "--quiet"]).ok().stdout, "", "volumes are left");
}

pub(crate) fn namespaces(podman: &Podman) {
    let links = "for name in pid net ipc uts; do readlink /proc/self/ns/$name; done";
    let outside = podman.place().command("sh").args(["-c", links]).output().ok().stdout;
    let options = ["--pid", "host", "--network", "host", "--ipc", "host", "--uts", "host"];
    prints(podman, &options, &["sh", "-c", links], |text| text == outside);
    prints(podman, &["--network", "none"], &["sh", "-c", "ip -o link | wc -l"], |text| text == "1\n");
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &["--hostname", "first", "--network", "none", "--ipc", "shareable"]);
        let share = format!("container:{id}");
        let options = ["--rm", "--pid", &share, "--network", &share, "--ipc", &share, "--uts", &share];
        let (_, output) = podman.run(runtime, &options, &["sh", "-c", "hostname; ps | grep -c ' sleep 1000$'"]);
        assert_eq!(output.ok().stdout, "first\n1\n", "{runtime}");
        podman.remove(&id);
    }
}

pub(crate) fn user_namespaces(podman: &Podman) {
    let script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; touch /tmp/x; stat -c '%u %g' /tmp/x /bin/busybox";
    let options = ["--uidmap", "0:100000:5000", "--gidmap", "0:200000:5000"];
    prints(podman, &options, &["sh", "-c", script], |text| text == " 0 100000 5000\n 0 200000 5000\n0\n0 0\n0 0\n");
    let options = ["--uidmap", "0:100000:5000", "--user", "1000:5", "--cap-drop", "ALL"];
    prints(podman, &options, &["sh", "-c", script], |text| text.contains("\n1000\n1000 5\n"));
    for runtime in RUNTIMES {
        let id = podman.forever(runtime, &["--uidmap", "0:100000:5000"]);
        let output = podman.call(&["exec", "--user", "7", &id, "sh", "-c", "id -u; cat /proc/self/uid_map"]).ok();
        assert!(output.stdout.starts_with("7\n") && output.stdout.contains("100000"), "{runtime}: {}", output.stdout);
        podman.remove(&id);
    }
}

pub(crate) fn limits(podman: &Podman) {
    for runtime in RUNTIMES {
        // Without nproc podman asks for more processes than the host may allow.
        let (nofile, nproc) = ("nofile=100:100", "nproc=4000:4000");
        let options = [
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "20",
            "--cpuset-cpus",
            "0",
            "--ulimit",
            nofile,
            "--ulimit",
            nproc,
        ];
        let id = podman.forever(runtime, &options);
        let file = |controller: &str, name: &str| {
            fs::read_to_string(cgroup_of(controller, &id).join(name)).unwrap_or_default().trim().to_owned()
        };
        if std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            assert_eq!(file("memory", "memory.limit_in_bytes"), "67108864", "{runtime}");
            assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000", "{runtime}");
            assert_eq!(file("cpuset", "cpuset.cpus"), "0", "{runtime}");
        } else {
            assert_eq!(file("", "memory.max"), "67108864", "{runtime}");
            assert_eq!(file("", "cpu.max"), "50000 100000", "{runtime}");
        }
        assert_eq!(file("pids", "pids.max"), "20", "{runtime}");
        let limits = podman.call(&["exec", &id, "sh", "-c", "ulimit -Sn; ulimit -Hn"]).ok();
        assert_eq!(limits.stdout, "100\n100\n", "{runtime}");
        podman.remove(&id);
    }
}
