//! `exec`: what a second process in a container sees and inherits, flint beside runc.

use std::fs;

use integration_tests::{Case, peers, under_test_only};
use serde_json::json;

#[test]
fn exec_sees_what_init_sees() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // Not a shell: it ignores signals of its own accord.
        let bundle =
            case.bundle().args(&["/bin/sleep", "1000"]).edit(json!({"process": {"oomScoreAdj": 77, "cwd": "/var"}}));
        let id = case.detached(&bundle, "a");
        let script = "for p in self 1; do for n in pid net mnt uts ipc user; do readlink /proc/$p/ns/$n; done; \
                      readlink /proc/$p/root; readlink /proc/$p/cwd; cat /proc/$p/oom_score_adj; \
                      grep -E '^(Cap|NoNew|Seccomp:|Groups|Uid|SigBlk|SigIgn)' /proc/$p/status; cat /proc/$p/limits; done";
        let output = case.exec(&id, &["sh", "-c", script]).ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        let (exec, init) = lines.split_at(lines.len() / 2);
        assert_eq!(exec, init, "{}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn exec_flags() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let script = "id; pwd; echo $A $B; exit 9";
        let flags = ["exec", "--user", "1000:5", "-g", "2000", "--cwd", "/var", "-e", "A=1", "-e", "B=2"];
        let output = case.command(flags).args([id.as_str(), "sh", "-c", script]).output().exits(9);
        assert!(output.stdout.starts_with("uid=1000(user) gid=5(tty) groups=2000(wheel)"), "{}", output.stdout);
        assert!(output.stdout.ends_with("/var\n1 2\n"), "{}: {}", runtime.name, output.stdout);
        let output = case.command(["exec", "-u", "1", &id, "id", "-u"]).output().ok();
        assert_eq!(output.stdout, "1\n", "CVE-2026-30892");
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn exec_of_a_process_file() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let file = case.path().join("process.json");
        let process = json!({
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5]}, "cwd": "/tmp",
            "args": ["/bin/sh", "-c", "id; pwd; grep -E 'Cap|NoNew' /proc/self/status; grep 'file size' /proc/self/limits | tr -s ' '; env | sort"],
            "env": ["PATH=/bin", "X=y"], "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_FSIZE", "soft": 4096, "hard": 8192}]
        });
        fs::write(&file, process.to_string()).expect("write");
        let output = case.command(["exec", "--process"]).args([&file]).args([&id]).output().ok();
        for part in
            ["uid=1000(user)", "groups=5(tty)", "/tmp\n", "CapAmb:\t0000000000000020", "Max file size 4096 8192", "X=y"]
        {
            assert!(output.stdout.contains(part), "{}: no {part:?} in {}", runtime.name, output.stdout);
        }
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn a_process_file_leaves_to_the_container_what_it_does_not_say() {
    let Some(peers) = peers() else { return };
    let seen = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let bundle = case.bundle().forever().edit(json!({"process": {"oomScoreAdj": 77, "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_FSIZE", "soft": 4096, "hard": 8192}]}}));
        let id = case.detached(&bundle, "a");
        let script =
            "grep -E 'Cap|NoNew' /proc/self/status; cat /proc/self/oom_score_adj; grep 'file size' /proc/self/limits";
        let exec = |user: u32| {
            let file = case.path().join("process.json");
            let process = json!({"user": {"uid": user, "gid": 0}, "cwd": "/", "args": ["/bin/sh", "-c", script]});
            fs::write(&file, process.to_string()).expect("write");
            case.command(["exec", "--process"]).args([&file]).args([&id]).output().ok().stdout
        };
        let seen = [exec(0), exec(1000)];
        case.delete(&id);
        case.finish();
        seen
    });
    assert!(seen[0][0].contains("CapBnd:\t0000000020000420") && seen[0][0].contains("\n77\n"), "{:?}", seen[0]);
    assert_eq!(seen[0], seen[1], "flint (left) against runc");
}

#[test]
fn exec_capabilities_are_not_inheritable() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let output =
            case.command(["exec", "--cap", "CAP_SYS_ADMIN", &id, "grep", "Cap", "/proc/self/status"]).output().ok();
        assert!(output.stdout.contains("CapInh:\t0000000000000000"), "CVE-2022-29162: {}", output.stdout);
        assert!(output.stdout.contains("CapEff:\t0000000020200420"), "{}: {}", runtime.name, output.stdout);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn exec_codes_and_output() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let output = case.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 200"]).exits(200);
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        let _ = case.exec(&id, &["sh", "-c", "kill -TERM $$"]).exits(143);
        let _ = case.exec(&id, &["sh", "-c", "kill -34 $$"]).exits(162);
        let output = case.exec(&id, &["no-such-program"]).exits(255);
        assert!(output.stderr.contains("executable file not found"), "{}", output.stderr);
        let output = case.exec(&id, &["/etc/passwd"]).exits(255);
        assert!(output.stderr.contains("permission denied"), "{}", output.stderr);
        let output = case.exec(&case.id("never"), &["true"]);
        assert_ne!(output.code, 0);
        assert!(output.stderr.contains("does not exist"), "{}", output.stderr);
        let output = case.command(["exec", &id, "cat"]).input("through stdin\n").output().ok();
        assert_eq!(output.stdout, "through stdin\n");
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn options_after_the_id_are_the_programs() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        let output = case.exec(&id, &["echo", "-d", "--user", "x"]).ok();
        assert_eq!(output.stdout, "-d --user x\n");
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn exec_in_a_user_namespace() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        let bundle = case
            .bundle()
            .forever()
            .push("/linux/namespaces", json!({"type": "user"}))
            .edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps}}));
        let id = case.detached(&bundle, "a");
        let output = case.exec(&id, &["sh", "-c", "id -u; cat /proc/self/uid_map | tr -s ' '"]).ok();
        assert_eq!(output.stdout, "0\n 0 100000 65536\n", "{}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn exec_has_an_umask() {
    let Some(peers) = under_test_only("umask of an exec'ed process") else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().forever().edit(json!({"process": {"user": {"umask": 0o027}}}));
        let id = case.detached(&bundle, "a");
        let file = case.path().join("process.json");
        // Newer runcs have the container's in any case.
        for (user, umask) in [(json!({"umask": 0o077}), "0077\n"), (json!({}), "0027\n")] {
            let process = json!({"user": user, "cwd": "/", "args": ["/bin/sh", "-c", "umask"], "env": ["PATH=/bin"]});
            fs::write(&file, process.to_string()).expect("write");
            let output = case.command(["exec", "--process"]).args([&file]).args([&id]).output().ok();
            assert_eq!(output.stdout, umask);
        }
        case.delete(&id);
        case.finish();
    }
}

/// A container that `run` has started looks as if it were being made while another command is at work on it.
#[test]
fn many_at_once_and_beside_other_commands() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&case.bundle().forever(), "a");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| drop(case.exec(&id, &["true"]).ok())));
            }
            for args in [&["state"][..], &["update", "--pids-limit", "100"]] {
                let (case, id) = (&case, &id);
                scope.spawn(move || {
                    for _ in 0..25 {
                        let _ = case.command(args.iter().copied().chain([id.as_str()])).output().ok();
                    }
                });
            }
        });
        case.delete(&id);
        case.finish();
    }
}
