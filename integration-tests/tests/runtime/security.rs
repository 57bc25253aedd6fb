//! Past holes of container runtimes, tried on flint and on runc: the image or the config is hostile.

use std::fs;
use std::os::unix::fs::symlink;

use integration_tests::{Case, Command, copy_program, flint, peers, under_test_only, wait_until};
use serde_json::json;

/// CVE-2019-18837: a mount's destination leads through a symlink to the host.
#[test]
fn a_mount_through_a_symlink_stays_inside() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let host = case.path().join("host");
        fs::create_dir_all(host.join("b")).expect("mkdir");
        fs::write(host.join("b/file"), "host\n").expect("write");
        let bundle = case.bundle().writable().shell("grep -c ' - tmpfs evil' /proc/self/mountinfo");
        symlink(&host, bundle.rootfs().join("a")).expect("symlink");
        let mount = json!({"destination": "a/b", "type": "tmpfs", "source": "evil"});
        let absolute = json!({"destination": "/a/c", "type": "tmpfs", "source": "evil"});
        let _ = case.run(&bundle.push("/mounts", mount).push("/mounts", absolute));
        assert_eq!(fs::read_to_string(host.join("b/file")).expect("read"), "host\n", "{}", runtime.name);
        assert!(!host.join("c").exists(), "{}: made a folder of the host", runtime.name);
        case.finish();
    }
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc or /sys of the image is a symlink.
#[test]
fn proc_and_sys_may_not_be_symlinks() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        for name in ["proc", "sys"] {
            let case = Case::new(&runtime);
            let bundle = case.bundle().shell("echo ran; ls /elsewhere | head -3");
            fs::remove_dir(bundle.rootfs().join(name)).expect("rmdir");
            fs::create_dir(bundle.rootfs().join("elsewhere")).expect("mkdir");
            symlink("elsewhere", bundle.rootfs().join(name)).expect("symlink");
            let output = case.run(&bundle);
            assert_ne!(output.code, 0, "{}: /{name} is a symlink: {}", runtime.name, output.stdout);
            assert!(!output.stdout.contains("ran"), "{}", runtime.name);
            if name == "proc" && runtime.name != "crun" {
                let words = "must be mounted on ordinary directory";
                assert!(output.stderr.contains(words), "{}: {}", runtime.name, output.stderr);
            }
            case.finish();
        }
    }
}

/// CVE-2026-41579, CVE-2026-47766: /dev of the image is a symlink to a folder of the host.
#[test]
fn a_symlinked_dev_touches_nothing_of_the_host() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        for mounted in [true, false] {
            let case = Case::new(&runtime);
            let decoy = case.path().join("decoy");
            fs::create_dir(&decoy).expect("mkdir");
            fs::write(decoy.join("ptmx"), "the host's\n").expect("write");
            let mut bundle = case.bundle().writable().shell("true");
            if !mounted {
                bundle = bundle.edit(json!({"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]}));
            }
            fs::remove_dir(bundle.rootfs().join("dev")).expect("rmdir");
            symlink(&decoy, bundle.rootfs().join("dev")).expect("symlink");
            let _ = case.run(&bundle);
            let names: Vec<_> = fs::read_dir(&decoy).expect("read").flatten().map(|entry| entry.file_name()).collect();
            // runc before 1.5 has this hole.
            if !runtime.is_runc() {
                assert_eq!(names, ["ptmx"], "/dev mounted: {mounted}");
                assert_eq!(fs::read_to_string(decoy.join("ptmx")).expect("read"), "the host's\n");
            }
            case.finish();
        }
    }
}

/// CVE-2024-21626: the working directory is an fd of the runtime that leads to the host. Refusing it is right, and so
/// is to end up inside the root; seeing the case's folder in the host's /tmp is the hole.
#[test]
fn cwd_is_no_leaked_descriptor() {
    let Some(peers) = peers() else { return };
    let up = "ls -a . .. ../../../../../../../../../../../../tmp; cat ../../../../../../../../../../proc/1/comm; pwd";
    for runtime in peers {
        for fd in 3..40 {
            let case = Case::new(&runtime);
            // With a parameter, for which the runtime opens the host's procfs.
            let sysctl = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
            let edit = json!({"process": {"cwd": format!("/proc/self/fd/{fd}")}, "linux": {"sysctl": sysctl}});
            let bundle = case.bundle().shell(up).edit(edit);
            let output = case.run(&bundle);
            assert!(!output.stdout.contains("flint-it"), "{}: run, fd {fd}: {}", runtime.name, output.stdout);
            case.finish();
        }
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        for fd in 3..24 {
            let cwd = format!("/proc/self/fd/{fd}");
            let output = case.call(["exec", "--cwd", &cwd, &id, "sh", "-c", up]);
            assert!(!output.stdout.contains("flint-it"), "{}: exec, fd {fd}: {}", runtime.name, output.stdout);
        }
        case.delete(&id);
        case.finish();
    }
}

/// CVE-2016-3697: a user of the image is named like a number, with uid 0.
#[test]
fn numeric_user_names_give_no_root() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let passwd = "1000:x:0:0:evil:/evil:/bin/sh\n";
        let bundle = case.bundle().file("/etc/passwd", passwd, 0o644).file("/etc/group", "1000:x:0:\n", 0o644);
        let bundle = bundle.forever().edit(json!({"process": {"user": {"uid": 1000, "gid": 1000}}}));
        let id = case.detached(&bundle, "a");
        let status = "grep -E '^(Uid|Gid)' /proc/1/status; id -u";
        assert_eq!(
            case.exec(&id, &["sh", "-c", status]).ok().stdout,
            "Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n1000\n"
        );
        let output = case.call(["exec", "--user", "1000:1000", &id, "id", "-u"]).ok();
        assert_eq!(output.stdout, "1000\n", "{}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

/// -1 is "leave as it is" for setresuid(2): whoever asks for it would get root.
#[test]
fn no_id_is_minus_one() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let users = [
            json!({"uid": u32::MAX, "gid": 1000}),
            json!({"uid": 1000, "gid": u32::MAX}),
            json!({"uid": 1000, "gid": 1000, "additionalGids": [u32::MAX]}),
        ];
        for user in users {
            let output = case.run(&case.bundle().shell("id").edit(json!({"process": {"user": user.clone()}})));
            assert!(output.code != 0 && output.stdout.is_empty(), "{}: {user}: {output:?}", runtime.name);
            let file = case.path().join("process.json");
            let process = json!({"user": user.clone(), "cwd": "/", "args": ["id"], "env": ["PATH=/bin"]});
            fs::write(&file, process.to_string()).expect("write");
            let output = case.command(["exec", "--process"]).args([&file]).args([&id]).output();
            assert!(output.code != 0 && output.stdout.is_empty(), "{}: {user}: {output:?}", runtime.name);
        }
        case.delete(&id);
        case.finish();
    }
}

/// Masked paths are empty and cannot be laid bare, read-only ones not written.
#[test]
fn masks_hold_against_the_containers_root() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let script = "for f in /proc/kcore /proc/keys /proc/timer_list; do head -c 1 $f 2>/dev/null | wc -c; done; ls /sys/firmware | wc -l; \
                      umount /proc/keys 2>/dev/null && echo BARE; umount /proc/sys 2>/dev/null && echo BARE; \
                      for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do \
                      (echo x > $f) 2>/dev/null && echo WRITTEN; done; echo end";
        let output = case.run(&case.bundle().shell(script)).ok();
        assert_eq!(output.stdout, "0\n0\n0\n0\nend\n", "{}", runtime.name);
        case.finish();
    }
}

/// CVE-2016-9962, CVE-2024-21626: a process of the container looks into every process that enters, while it enters.
#[test]
fn entering_processes_show_no_descriptors() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // Each target that is a path of the host's file tree would hold the case's folder.
        let script = "touch /tmp/ready; while :; do for f in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd; do \
                      readlink $f 2>/dev/null; done | grep flint-it >> /tmp/seen; done";
        let bundle = case.bundle().writable().shell(script).capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
        let id = case.detached(&bundle, "a");
        wait_until("the spy spies", || bundle.rootfs().join("tmp/ready").exists());
        for _ in 0..30 {
            let _ = case.exec(&id, &["true"]).ok();
        }
        let seen = fs::read_to_string(bundle.rootfs().join("tmp/seen")).unwrap_or_default();
        if !runtime.is_runc() {
            assert_eq!(seen, "", "descriptors of the host were seen");
        }
        case.delete(&id);
        case.finish();
    }
}

/// CVE-2019-5736: the container's program is the runtime itself, which something inside then tries to overwrite.
#[test]
fn the_runtimes_binary_cannot_be_overwritten() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let binary = case.path().join("runtime-copy");
        copy_program(&runtime.path, &binary);
        let before = fs::read(&binary).expect("read");
        // While it runs, the kernel refuses that to anybody (ETXTBSY): a descriptor of it is kept, and tried again afterwards.
        let script = "touch /tmp/ready; while :; do for p in /proc/[0-9]*; do readlink $p/exe 2>/dev/null | grep -q busybox && continue; \
                      (exec 3<$p/exe && for i in 1 2 3 4 5 6; do echo owned > /proc/self/fd/3 && break; sleep 0.05; done) 2>/dev/null & \
                      done; done";
        let bundle = case.bundle().writable().shell(script).capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]).file(
            "/evil",
            "#!/proc/self/exe\n",
            0o755,
        );
        let call =
            |args: &[&str]| Command::new(&binary).args(["--root"]).args([case.state_root()]).args(args.iter().copied());
        let (id, dir) = (case.id("a"), bundle.write().display().to_string());
        let _ = call(&["run", "--detach", "--bundle", &dir, &id]).output().ok();
        wait_until("the attacker is at work", || bundle.rootfs().join("tmp/ready").exists());
        for _ in 0..20 {
            // What it does is its own business (it cannot run itself sensibly); it must only end.
            let _ = call(&["exec", &id, "/evil"]).output();
        }
        let entry = case.bundle().file("/evil", "#!/proc/self/exe\n", 0o755).args(&["/evil"]);
        let entry_dir = entry.write().display().to_string();
        let _ = call(&["run", "--bundle", &entry_dir, &case.id("b")]).output();
        assert!(fs::read(&binary).expect("read") == before, "{}: the binary was overwritten", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

/// The program may be mounted on a file, as in a container that is given another runtime: what lies below is another program,
/// which the folder's own file system shows, and which must not run in its place.
#[test]
fn the_runtime_runs_where_it_is_mounted_on_another_program() {
    let Some([runtime]) = under_test_only("a runtime that seals itself") else { return };
    let case = Case::new(&runtime);
    let bundle = case.bundle().shell("echo ran").write();
    let place = case.path().join("runtime");
    // An empty file that nobody may execute, and a program that does and says something else.
    for below in ["/dev/null", "/bin/echo"] {
        let script = "cat \"$1\" > \"$2\" && chmod \"$3\" \"$2\" && mount --bind \"$FLINT\" \"$2\" && \
                      exec \"$2\" --root \"$ROOT\" run --bundle \"$4\" \"$5\"";
        let mode = if below == "/dev/null" { "644" } else { "755" };
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", script, "sh", below])
            .args([&place])
            .args([mode])
            .args([&bundle])
            .args([case.id("a")])
            .env("FLINT", &runtime.path)
            .env("ROOT", case.state_root())
            .output()
            .ok();
        assert_eq!(output.stdout, "ran\n", "{below}");
    }
    case.finish();
}

/// A volume at /proc that is no procfs cannot be used to fake what is written there (CVE-2019-16884).
#[test]
fn no_volume_over_proc() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let volume = case.path().join("volume");
        fs::create_dir_all(volume.join("self/attr")).expect("mkdir");
        let mount = json!({"destination": "/proc", "type": "bind", "source": volume, "options": ["rbind"]});
        let inside = json!({"destination": "/proc/self", "type": "tmpfs", "source": "tmpfs"});
        for mount in [mount, inside] {
            let output = case.run(&case.bundle().writable().shell("echo ran").push("/mounts", mount));
            assert!(output.code != 0 && !output.stdout.contains("ran"), "{}: {output:?}", runtime.name);
        }
        case.finish();
    }
}

/// Sources that the runtime opens itself (for a user namespace, with id maps) come from the host's mount namespace.
#[test]
fn what_a_container_mounts_below_a_shared_volume_stays_its_own() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        for users in [false, true] {
            let case = Case::new(&runtime);
            let volume = case.path().join("data");
            fs::create_dir(&volume).expect("make the volume");
            let volume = volume.display().to_string();
            let script = "mount -t tmpfs mine /data && touch /data/inside && ls /data";
            let mut bundle = case.bundle().writable().shell(script).capabilities(&["CAP_SYS_ADMIN"]).push(
                "/mounts",
                json!({"destination": "/data", "type": "bind", "source": volume, "options": ["bind"]}),
            );
            if users {
                let maps = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
                bundle = bundle
                    .push("/linux/namespaces", json!({"type": "user"}))
                    .edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps}}));
            }
            // A shared mount of the test's own; the container's mount would be seen below it by the next one.
            let script = "mount --make-rprivate / && mount -t tmpfs shared \"$1\" && mount --make-shared \"$1\" && \
                          \"$FLINT\" --root \"$ROOT\" run --bundle \"$2\" \"$3\" && ls \"$1\" && grep -c \" $1 \" /proc/self/mountinfo";
            let output = Command::new("unshare")
                .args(["--mount", "sh", "-ec", script, "sh", &volume])
                .args([bundle.write()])
                .args([case.id("a")])
                .env("FLINT", &runtime.path)
                .env("ROOT", case.state_root())
                .output()
                .ok();
            assert_eq!(output.stdout, "inside\n1\n", "{}, user namespace: {users}", runtime.name);
            case.finish();
        }
    }
}

/// CVE-2026-30892: `exec -u 1` was read as user 0.
#[test]
fn exec_as_user_one_is_user_one() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        for (user, ids) in [("1", "1:0"), ("1:1", "1:1"), ("10", "10:0"), ("0:1", "0:1")] {
            let output = case.call(["exec", "--user", user, &id, "sh", "-c", "echo $(id -u):$(id -g)"]).ok();
            assert_eq!(output.stdout.trim(), ids, "{}: --user {user}", runtime.name);
        }
        if !runtime.is_runc() {
            for wrong in [" 1", "1 ", "+1", "-1", "1:", ":1", "1:2:3", "0x1", "01:x", "4294967296", "root"] {
                let output = case.call(["exec", "--user", wrong, &id, "id"]);
                assert_eq!((output.code, output.stdout.as_str()), (255, ""), "--user {wrong:?}: {output:?}");
            }
        }
        case.delete(&id);
        case.finish();
    }
}

/// CVE-2021-43784: what is larger than a message of runc's could hold arrives whole, or is refused.
#[test]
fn large_configs_are_taken_or_refused_whole() {
    let case = Case::new(&flint());
    let argument = "x".repeat(100_000);
    let bundle = case.bundle().args(&["/bin/sh", "-c", "echo ${#1}", "sh", &argument]);
    assert_eq!(case.run(&bundle).ok().stdout.trim(), "100000");
    // As many maps as the kernel takes (340, user_namespaces(7)), and one more.
    for (count, taken) in [(340, true), (341, false)] {
        let maps: Vec<_> = (0..count).map(|n| json!({"containerID": n, "hostID": 1000 + 2 * n, "size": 1})).collect();
        let bundle = case
            .bundle()
            .push("/linux/namespaces", json!({"type": "user"}))
            .edit(json!({"linux": {"uidMappings": maps, "gidMappings": maps}}))
            .shell("wc -l </proc/self/uid_map");
        let output = case.run(&bundle);
        if taken {
            assert_eq!(output.stdout.trim(), "340", "{output:?}");
        } else {
            assert!(output.code != 0 && output.stderr.contains("341 lines") && output.stderr.len() < 300, "{output:?}");
        }
    }
    // A path of more than PATH_MAX, and one with a part of more than NAME_MAX.
    for path in [format!("/{}", "a/".repeat(3000)), format!("/{}", "a".repeat(300))] {
        let output = case.run(
            &case.bundle().writable().push("/mounts", json!({"destination": path, "type": "tmpfs", "source": "tmpfs"})),
        );
        assert!(output.code != 0 && output.stderr.lines().count() == 1, "{output:?}");
    }
    case.finish();
}

/// With a propagation for `/` alone, the mounts below it are the host's peers still: the old root's end must not reach
/// them.
#[test]
fn the_hosts_mounts_survive_a_root_propagation() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        for propagation in ["private", "slave", "rslave", "unbindable", "rprivate"] {
            if propagation == "unbindable" && runtime.is_runc() {
                // runc 1.1 then cannot mount its root on itself.
                continue;
            }
            let case = Case::new(&runtime);
            let bundle = case.bundle().shell("echo ran").edit(json!({"linux": {"rootfsPropagation": propagation}}));
            let own = case.path().join("mounted");
            std::fs::create_dir(&own).expect("make a folder");
            // Shared as under systemd, but in a namespace of the test's own, where no mount of others arrives. They go, though,
            // when others remove what they are mounted on: only what nobody removes is counted.
            let script = "mount --make-rprivate / && mount --make-rshared / && mount -t tmpfs own \"$OWN\"; \
                          count() { cut -d' ' -f5 /proc/self/mountinfo | grep -cxE \"/|/proc|/sys|/dev|$OWN\"; }; count; \
                          \"$FLINT\" --root \"$ROOT\" run --bundle \"$1\" \"$2\"; count";
            let output = Command::new("unshare")
                .args(["--mount", "--propagation", "unchanged", "sh", "-ec", script, "sh"])
                .args([bundle.write()])
                .args([case.id("a")])
                .env("FLINT", &runtime.path)
                .env("ROOT", case.state_root())
                .env("OWN", &own)
                .output()
                .ok();
            let lines: Vec<&str> = output.stdout.lines().collect();
            assert_eq!(lines[1], "ran");
            assert!(lines[0].parse::<u32>().is_ok_and(|count| count > 2), "{}", output.stdout);
            assert_eq!(lines[0], lines[2], "{}, {propagation}: mounts of the host are gone", runtime.name);
            case.finish();
        }
    }
}
