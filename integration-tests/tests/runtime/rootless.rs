//! Containers of an ordinary user: flint called without privileges, beside runc.

use std::os::unix::fs::PermissionsExt as _;

use integration_tests::{Bundle, Rootless, Runtime, peers, under_test_only};
use serde_json::json;

/// What both runtimes show for a bundle; `expected` proves that the comparison compares something.
#[track_caller]
fn same(bundle: impl Fn(&Rootless) -> Bundle, expected: impl Fn(&Rootless, &str) -> bool) {
    let Some(peers) = peers() else { return };
    let mut seen: Vec<String> = Vec::new();
    for runtime in peers {
        let Some(rootless) = Rootless::new(&runtime) else { return };
        let output = rootless.run(&bundle(&rootless)).ok();
        assert!(expected(&rootless, &output.stdout), "{}: {}{}", runtime.name, output.stdout, output.stderr);
        let user = &rootless.user;
        let neutral = (output.stdout.split_ascii_whitespace())
            .map(|word| match word.parse::<u32>() {
                Ok(id) if id == user.uid => "<user>".to_owned(),
                Ok(id) if id == user.subuids.0 || id == user.subgids.0 => "<range>".to_owned(),
                _ => word.to_owned(),
            })
            .collect::<Vec<_>>();
        seen.push(neutral.join(" "));
        rootless.case.finish();
    }
    assert_eq!(seen.first(), seen.last());
}

#[track_caller]
fn each(peers: impl IntoIterator<Item = Runtime>, test: impl Fn(&Rootless)) {
    for runtime in peers {
        let Some(rootless) = Rootless::new(&runtime) else { return };
        test(&rootless);
        rootless.case.finish();
    }
}

#[test]
fn a_single_id() {
    same(
        |rootless| {
            rootless.bundle().args(&[
                "/bin/sh",
                "-c",
                "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; \
                 grep -E '^(Cap|NoNewPrivs|Uid|Gid)' /proc/self/status; ls -ln /dev | tr -s ' ' | cut -d' ' -f1-6; \
                 hostname; touch /x 2>/dev/null || echo read-only",
            ])
        },
        |rootless, text| text.contains(&format!("0 {:10} ", rootless.user.uid)) && text.contains("deny\n"),
    );
}

#[test]
fn ranges_by_newuidmap() {
    same(
        |rootless| {
            let script =
                "id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; grep Groups /proc/self/status";
            rootless
                .with_ranges(rootless.bundle(), 1)
                .args(&["/bin/sh", "-c", script])
                .edit(json!({"process": {"user": {"uid": 1000, "gid": 2000}}}))
        },
        |_, text| text.contains("uid=1000(user) gid=2000(wheel)") && text.contains("65536") && text.contains("allow"),
    );
}

/// runc refuses them for every user; with a range they can be had.
#[test]
fn groups_of_a_range_are_set_and_others_refused() {
    let Some(flint) = under_test_only("supplementary groups of a user's own range") else { return };
    each(flint, |rootless| {
        let groups = json!({"process": {"user": {"additionalGids": [5, 2000]}}});
        let bundle = rootless.bundle().args(&["/bin/id"]).edit(groups);
        let refused = rootless.run(&bundle);
        assert_eq!(refused.code, 1);
        assert!(
            refused.stderr.contains("cannot set any additional groups in a rootless container"),
            "{}",
            refused.stderr
        );
        let output = rootless.run(&rootless.with_ranges(bundle, 1)).ok();
        assert_eq!(output.stdout, "uid=0(root) gid=0(root) groups=5(tty),2000(wheel)\n");
    });
}

#[test]
fn what_is_not_mapped_is_told_by_its_field() {
    let Some(flint) = under_test_only("the words of the errors") else { return };
    each(flint, |rootless| {
        let user = |user| rootless.bundle().edit(json!({"process": {"user": user}}));
        let devpts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["gid=5"]});
        for (bundle, words) in [
            (user(json!({"uid": 7})), "process.user.uid: 7 is not mapped by linux.uidMappings"),
            (user(json!({"gid": 8})), "process.user.gid: 8 is not mapped by linux.gidMappings"),
            (rootless.bundle().push("/mounts", devpts), "cannot specify gid=5 mount option for rootless container"),
            (
                rootless.bundle().push("/linux/uidMappings", json!({"containerID": 1, "hostID": 1, "size": 9})),
                "newuidmap: uid range [1-10) -> [1-10) not allowed",
            ),
            (
                rootless.bundle().edit(json!({"linux": {"uidMappings": [], "gidMappings": []}})),
                "linux.uidMappings: a new user namespace needs at least one line",
            ),
            (
                rootless.bundle().edit(json!({"linux": {
                    "uidMappings": null, "gidMappings": null, "namespaces": [{"type": "pid"}, {"type": "mount"}]
                }})),
                "rootless container requires user namespaces",
            ),
        ] {
            let output = rootless.run(&bundle);
            assert_eq!(output.code, 1, "{words}");
            assert!(output.stderr.contains(words), "expected {words:?}: {}", output.stderr);
        }
        // Without the tools in PATH.
        let bundle = rootless.with_ranges(rootless.bundle(), 1);
        let dir = bundle.write();
        let output = rootless
            .user
            .command("/usr/bin/env".as_ref())
            .args(["PATH=/nowhere".as_ref(), rootless.program.as_os_str(), "run".as_ref(), "--bundle".as_ref()])
            .args([dir.as_os_str(), rootless.case.id("a").as_ref()])
            .output();
        assert!(output.stderr.contains("newuidmap, which could, is not in PATH (package uidmap)"), "{}", output.stderr);
    });
}

#[test]
fn a_life_without_cgroups() {
    let Some(peers) = peers() else { return };
    each(peers, |rootless| {
        let id = rootless.detached(&rootless.bundle().forever(), "a");
        assert_eq!(rootless.status(&id), "running");
        let output = rootless.call(&["exec", &id, "sh", "-c", "id -u; ls /proc | grep -c '^[0-9]'; exit 7"]).exits(7);
        assert!(output.stdout.starts_with("0\n"), "{}", output.stdout);
        assert!(rootless.call(&["list", "-q"]).ok().stdout.contains(&id));
        let _ = rootless.call(&["kill", &id, "TERM"]).ok();
        integration_tests::wait_until("it stops", || rootless.status(&id) == "stopped");
        let _ = rootless.call(&["delete", &id]).ok();
        assert_eq!(rootless.status(&id), "");
        // Two steps, and an end by force.
        let bundle = rootless.bundle().forever().write();
        let _ = rootless.call(&["create", "--bundle", &bundle.to_string_lossy(), &id]).ok();
        assert_eq!(rootless.status(&id), "created");
        let _ = rootless.call(&["start", &id]).ok();
        assert_eq!(rootless.status(&id), "running");
        rootless.delete(&id);
    });
}

/// Another user's empty cgroup of the container's name is theirs.
#[test]
fn a_cgroup_of_somebody_else_is_let_be() {
    let Some(peers) = under_test_only("cgroups that are there already") else { return };
    each(peers, |rootless| {
        let id = rootless.case.id("run");
        let mut folders = Vec::new();
        for hierarchy in ["memory", "pids", "unified", "."] {
            let folder = std::path::Path::new("/sys/fs/cgroup").join(hierarchy).join(&id);
            if folder.parent().is_some_and(|parent| parent.join("cgroup.procs").exists()) {
                std::fs::create_dir(&folder).expect("make a cgroup");
                folders.push(folder);
            }
        }
        let output = rootless.run(&rootless.bundle().args(&["/bin/echo", "ran"])).ok();
        assert_eq!(output.stdout, "ran\n");
        for folder in folders {
            std::fs::remove_dir(folder).expect("it is still there");
        }
    });
}

#[test]
fn limits_without_permission_for_cgroups_are_an_error() {
    let Some(peers) = peers() else { return };
    each(peers, |rootless| {
        let limits = json!({"linux": {"resources": {"pids": {"limit": 20}}}});
        let output = rootless.run(&rootless.bundle().args(&["/bin/true"]).edit(limits));
        assert_eq!(output.code, 1);
        let words = ["cannot set pids limit: container could not join or create cgroup", "rootless needs no limits"];
        assert!(words.iter().any(|words| output.stderr.contains(words)), "{}", output.stderr);
        let named = json!({"linux": {"cgroupsPath": format!("/{}", rootless.case.id("c"))}});
        let output = rootless.run(&rootless.bundle().args(&["/bin/true"]).edit(named));
        assert_eq!(output.code, 1);
        let words = ["unable to apply cgroup configuration", "permission denied"];
        assert!(words.iter().all(|words| output.stderr.contains(words)), "{}", output.stderr);
    });
}

#[test]
fn the_state_is_in_the_users_own_folder() {
    let Some(peers) = under_test_only("the name of the folder") else { return };
    each(peers, |rootless| {
        let call = |args: &[&str]| rootless.user.command(&rootless.program).args(args.iter().copied());
        let (dir, id) = (rootless.bundle().forever().write(), rootless.case.id("a"));
        let _ = call(&["run", "--detach", "--bundle", &dir.to_string_lossy(), &id]).output().ok();
        let root = rootless.user.runtime_dir().join("flint");
        assert!(root.join(&id).is_dir());
        let mode = std::fs::metadata(&root).expect("stat").permissions().mode();
        assert_eq!(mode & 0o7777, 0o1700, "sticky, and nobody else's business");
        assert!(call(&["list", "-q"]).output().ok().stdout.contains(&id));
        let _ = call(&["delete", "--force", &id]).output().ok();
        // Nowhere to put it, and a folder of somebody else.
        let output = rootless
            .user
            .command("/usr/bin/env".as_ref())
            .args(["-u", "XDG_RUNTIME_DIR"])
            .args([&rootless.program])
            .args(["list"])
            .output();
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains("XDG_RUNTIME_DIR is not set"), "{}", output.stderr);
        std::fs::remove_dir(&root).expect("remove the state root");
        std::fs::create_dir(&root).expect("make a folder of root's");
        let output = call(&["list"]).output();
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains("it belongs to user 0"), "{}", output.stderr);
    });
}

/// CVE-2023-25809: what the user may write to on the host is not the container's to write to.
#[test]
fn the_hosts_cgroups_are_not_writable() {
    let Some(peers) = peers() else { return };
    each(peers, |rootless| {
        let script = "cd /sys/fs/cgroup && for f in */cgroup.procs cgroup.procs */tasks; do [ -e $f ] || continue; \
                      (echo 0 > $f) 2>/dev/null && echo written $f; done; for d in . *; do \
                      mkdir $d/flint-was-here 2>/dev/null && { [ $d = . ] || echo made in $d; rmdir $d/flint-was-here; }; done; echo looked";
        let output = rootless.run(&rootless.bundle().args(&["/bin/sh", "-c", script])).ok();
        assert_eq!(output.stdout, "looked\n", "{}", rootless.case.runtime.name);
    });
}

#[test]
fn bind_mounts_and_devices_of_the_users() {
    same(
        |rootless| {
            let source = rootless.user.home().join("volume");
            std::fs::create_dir(&source).expect("make the volume");
            std::fs::write(source.join("file"), "content\n").expect("write");
            rootless.user.own(&source);
            std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o700)).expect("chmod");
            let mount = |to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": source, "options": options});
            rootless
                .bundle()
                .edit(json!({"root": {"readonly": false}}))
                .push("/mounts", mount("/rw", &["rbind"]))
                .push("/mounts", mount("/ro", &["bind", "ro", "nosuid", "nodev", "noexec"]))
                .args(&["/bin/sh", "-c", "cat /rw/file /ro/file; echo x > /rw/new && cat /ro/new; echo y > /ro/new || echo refused; \
                          grep -E ' /(rw|ro) ' /proc/self/mountinfo | cut -d' ' -f6; echo z > /dev/null; head -c 4 /dev/zero | wc -c"])
        },
        |_, text| text.starts_with("content\ncontent\nx\n") && text.contains("refused"),
    );
}

#[test]
fn processes_are_told_and_signalled_without_cgroups() {
    let Some(peers) = under_test_only("ps and kill --all without a cgroup") else { return };
    each(peers, |rootless| {
        // What ignores the signal, in pid namespaces of its own too, and one more by exec.
        let script = "trap : USR1; trap 'exit 0' TERM; \
                      (trap 'echo got >> /tmp/got; exit 0' USR1; : > /tmp/ready; while :; do sleep 0.1; done) & \
                      while :; do sleep 1 & wait $!; done";
        let bundle = rootless
            .bundle()
            .push("/mounts", json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
            .args(&["/bin/sh", "-c", script]);
        let id = rootless.detached(&bundle, "a");
        let other = rootless.detached(&rootless.bundle().forever(), "b");
        let _ = rootless.call(&["exec", "--detach", &id, "/bin/sleep", "4242"]).ok();
        let pids = || -> Vec<i32> {
            serde_json::from_str(&rootless.call(&["ps", "--format", "json", &id]).ok().stdout)
                .expect("an array of pids")
        };
        let name = |pid: i32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        integration_tests::wait_until("three and more", || pids().len() >= 3);
        let ready = || rootless.call(&["exec", &id, "test", "-e", "/tmp/ready"]).code == 0;
        integration_tests::wait_until("the child's trap is set", ready);
        assert!(pids().into_iter().any(|pid| name(pid).contains("4242")), "what exec started is the container's");
        let _ = rootless.call(&["kill", "--all", &id, "USR1"]).ok();
        integration_tests::wait_until("all got it", || !pids().into_iter().any(|pid| name(pid).contains("4242")));
        let got = || rootless.call(&["exec", &id, "cat", "/tmp/got"]).stdout;
        integration_tests::wait_until("the child got it too", || got() == "got\n");
        assert_eq!(rootless.status(&other), "running", "another container of the user gets no signal");
        let _ = rootless.call(&["kill", "--all", &id, "KILL"]).ok();
        integration_tests::wait_until("it stops", || rootless.status(&id) == "stopped");
        assert_eq!(pids(), Vec::<i32>::new());
        rootless.delete(&id);
        rootless.delete(&other);
    });
}

/// What a user's state says would be done with root's rights: processes signalled, cgroups removed, namespaces joined.
#[test]
fn root_does_not_act_on_a_users_state() {
    let Some(peers) = under_test_only("the owner of the state") else { return };
    each(peers, |rootless| {
        let id = rootless.detached(&rootless.bundle().forever(), "a");
        let root = |args: &[&str]| rootless.case.call(args.iter().copied());
        // Looking is fine.
        assert!(root(&["state", &id]).ok().stdout.contains("running"));
        assert!(root(&["list", "-q"]).ok().stdout.contains(&id));
        for command in [
            &["delete", "--force", &id][..],
            &["kill", &id, "KILL"],
            &["exec", &id, "id"],
            &["start", &id],
            &["ps", &id],
        ] {
            let output = root(command);
            assert_ne!(output.code, 0, "{command:?}");
            let words = format!("belongs to user {}", rootless.user.uid);
            assert!(output.stderr.contains(&words), "{command:?}: {}", output.stderr);
        }
        // Links and fifos in the place of what is read.
        let folder = rootless.case.state_root().join(&id);
        let state = folder.join("state.json");
        let kept = std::fs::read(&state).expect("read state.json");
        std::fs::remove_file(&state).expect("remove state.json");
        std::os::unix::fs::symlink("/etc/shadow", &state).expect("link");
        let output = root(&["state", &id]);
        assert!(output.code != 0 && !output.stderr.contains("root:"), "{}{}", output.stdout, output.stderr);
        std::fs::remove_file(&state).expect("remove the link");
        rustix::fs::mknodat(rustix::fs::CWD, &state, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("mkfifo");
        let _ = root(&["state", &id]);
        let _ = root(&["list"]).ok();
        std::fs::remove_file(&state).expect("remove the fifo");
        std::fs::write(&state, kept).expect("write state.json");
        rootless.user.own(&state);
        rootless.delete(&id);
    });
}

/// An ordinary user may not mount an overlay, so the program runs from a copy in memory (CVE-2019-5736).
#[test]
fn the_runtimes_program_is_sealed() {
    let Some(peers) = under_test_only("where its own program runs from") else { return };
    each(peers, |rootless| {
        let dir = rootless.bundle().forever().write();
        let id = rootless.case.id("a");
        let _ = rootless.call(&["create", "--bundle", &dir.to_string_lossy(), &id]).ok();
        let state: serde_json::Value = serde_json::from_str(&rootless.call(&["state", &id]).ok().stdout).expect("JSON");
        let program = std::fs::read_link(format!("/proc/{}/exe", state["pid"])).expect("readlink");
        assert!(
            program.starts_with("/memfd:flint (deleted)") || program.to_string_lossy().contains("memfd:flint"),
            "{}",
            program.display()
        );
        rootless.delete(&id);
    });
}

#[test]
fn disabled_cgroups() {
    let Some(peers) = under_test_only("--cgroup-manager") else { return };
    each(peers, |rootless| {
        // For root too.
        let limits = json!({"linux": {"resources": {"pids": {"limit": 20}}}});
        let bundle = rootless.case.bundle().args(&["/bin/cat", "/proc/self/cgroup"]).edit(limits);
        let dir = bundle.write();
        let id = rootless.case.id("a");
        let output =
            rootless.case.call(["--cgroup-manager", "disabled", "run", "--bundle", &dir.to_string_lossy(), &id]).ok();
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("read");
        assert_eq!(output.stdout, own, "it stays where its maker is");
        assert!(output.stderr.contains("linux.resources is ignored: cgroups are disabled"), "{}", output.stderr);
    });
}
