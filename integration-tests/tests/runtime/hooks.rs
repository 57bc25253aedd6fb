//! Hooks: when they run, in which namespace, with which state on stdin, and what their failure does.

use std::fs;

use integration_tests::{Bundle, Case, Command, peers, under_test_only};
use serde_json::{Value, json};

/// A host script that appends `<name> <status> <mount ns> <pid of the state>` to the case's log.
fn script(case: &Case, name: &str) -> Value {
    let log = case.path().join("log");
    let text = format!(
        "state=$(cat); status=$(echo \"$state\" | sed -n 's/.*\"status\": *\"\\([a-z]*\\)\".*/\\1/p'); \
         echo {name} $status $(readlink /proc/self/ns/mnt) >> {log}; echo \"$state\" > {log}.{name}",
        log = log.display()
    );
    json!({"path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"]})
}

fn with_hooks(case: &Case, bundle: Bundle) -> Bundle {
    let mut hooks = json!({});
    for name in ["prestart", "createRuntime", "poststart", "poststop"] {
        hooks[name] = json!([script(case, name)]);
    }
    // These two run inside; the log is bound there at the same path.
    let log = case.path().display().to_string();
    for name in ["createContainer", "startContainer"] {
        hooks[name] = json!([script(case, name)]);
    }
    bundle
        .writable()
        .push("/mounts", json!({"destination": log, "type": "bind", "source": log, "options": ["rbind", "rw"]}))
        .edit(json!({"hooks": hooks, "annotations": {"key": "value"}}))
}

/// Each line of the log with `host` or `container` for its mount namespace.
fn told(case: &Case) -> Vec<String> {
    let host = fs::read_link("/proc/self/ns/mnt").expect("readlink").display().to_string();
    let log = fs::read_to_string(case.path().join("log")).unwrap_or_default();
    log.lines()
        .map(|line| {
            let place = if line.ends_with(&host) { "host" } else { "container" };
            format!("{} {place}", line.rsplit_once(' ').map_or(line, |(words, _)| words))
        })
        .collect()
}

#[test]
fn all_six_run_in_order() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.created(&with_hooks(&case, case.bundle().forever()), "a");
        let after_create = told(&case);
        let _ = case.call(["start", &id]).ok();
        let after_start = told(&case);
        let _ = case.call(["kill", &id, "KILL"]).ok();
        case.wait_for(&id, "stopped");
        let _ = case.call(["delete", &id]).ok();
        let in_create = ["prestart creating host", "createRuntime creating host", "createContainer creating container"];
        // runc 1.1 runs poststart within create; the spec has it after the program was started.
        let (poststart_in_create, in_start): (&[&str], &[&str]) = if runtime.is_runc() {
            (&["poststart created host"], &["startContainer created container"])
        } else {
            (&[], &["startContainer created container", "poststart running host"])
        };
        let created: Vec<&str> = in_create.iter().chain(poststart_in_create).copied().collect();
        let started: Vec<&str> = created.iter().chain(in_start).copied().collect();
        let deleted: Vec<&str> = started.iter().chain(&["poststop stopped host"]).copied().collect();
        assert_eq!(after_create, created, "{}", runtime.name);
        assert_eq!(after_start, started, "{}", runtime.name);
        assert_eq!(told(&case), deleted, "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn the_state_is_on_their_stdin() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&with_hooks(&case, case.bundle().forever()), "a");
        let pid = case.state(&id)["pid"].clone();
        case.delete(&id);
        for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
            let text = fs::read_to_string(case.path().join(format!("log.{name}"))).expect("the hook's state");
            let state: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(state["id"], json!(id), "{name}");
            assert_eq!(state["annotations"]["key"], "value", "{name}");
            assert!(state["bundle"].as_str().is_some_and(|path| path.starts_with('/')), "{name}: {state}");
            assert!(state["ociVersion"].is_string(), "{name}: {state}");
            // The host's pid for hooks outside, the container's inside. After the end there is none.
            match name {
                "prestart" | "createRuntime" | "poststart" => assert_eq!(state["pid"], pid, "{}: {name}", runtime.name),
                "poststop" => assert!([Value::Null, json!(0)].contains(&state["pid"]), "{}: {name}", runtime.name),
                _ => assert_eq!(state["pid"], 1, "{}: {name}", runtime.name),
            }
        }
        case.finish();
    }
}

#[test]
fn a_failing_hook_stops_the_creation() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        for name in ["prestart", "createRuntime", "createContainer", "startContainer"] {
            let case = Case::new(&runtime);
            let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]);
            let bundle = case.bundle().shell("echo ran").edit(json!({"hooks": {name: hook}}));
            let output = case.run(&bundle);
            assert_ne!(output.code, 0, "{} {name}", runtime.name);
            assert!(!output.stdout.contains("ran"), "{} {name}", runtime.name);
            assert!(output.stderr.contains("hook"), "{} {name}: {}", runtime.name, output.stderr);
            case.finish();
        }
    }
}

#[test]
fn a_missing_hook_is_an_error() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().edit(json!({"hooks": {"createRuntime": [{"path": "/no/such/hook"}]}}));
        let output = case.run(&bundle);
        assert_ne!(output.code, 0);
        assert!(output.stderr.contains("/no/such/hook"), "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}

#[test]
fn a_hanging_hook_ends_by_its_timeout() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let hook = json!([{"path": "/bin/sleep", "args": ["sleep", "10000"], "timeout": 1}]);
        let bundle = case.bundle().shell("echo ran").edit(json!({"hooks": {"createRuntime": hook}}));
        let output = case.run(&bundle);
        assert_ne!(output.code, 0, "{}", runtime.name);
        assert!(!output.stdout.contains("ran"), "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn hanging_hooks_inside_end_by_their_timeout_too() {
    let Some(peers) = under_test_only("a timeout's sentence for hooks that run inside the container") else { return };
    for runtime in peers {
        for name in ["createContainer", "startContainer"] {
            let case = Case::new(&runtime);
            let hook = json!([{"path": "/bin/sleep", "args": ["sleep", "10000"], "timeout": 1}]);
            let bundle = case.bundle().shell("echo ran").edit(json!({"hooks": {name: hook}}));
            let output = case.run(&bundle);
            assert_ne!(output.code, 0, "{name}");
            assert!(!output.stdout.contains("ran"), "{name}");
            assert!(output.stderr.contains(name) && output.stderr.contains("time"), "{name}: {}", output.stderr);
            assert_eq!(output.error_lines().len(), 1, "{name}: {}", output.stderr);
            case.finish();
        }
    }
}

/// startContainer hooks are what the program will be: its user, its capabilities, its filter.
#[test]
fn start_container_hooks_have_no_more_rights_than_the_program() {
    let Some(peers) = peers() else { return };
    for no_new_privileges in [false, true] {
        let seen = peers.clone().map(|runtime| {
            let case = Case::new(&runtime);
            let log = case.path().join("open");
            fs::create_dir(&log).expect("make a folder");
            fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
            let text = "id; grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; mkdir /tmp/x || echo refused";
            let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("({text}) > /log/hook 2>&1")]});
            // As docker's profile does with calls whose arguments it cannot see.
            let bundle = case
                .bundle()
                .writable()
                .push("/mounts", json!({"destination": "/log", "type": "bind", "source": log, "options": ["bind"]}))
                .args(&["/bin/true"])
                .edit(json!({
                    "hooks": {"startContainer": [hook]},
                    "process": {"user": {"uid": 1000, "gid": 1000}, "noNewPrivileges": no_new_privileges},
                    "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"},
                        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
                    ]}}
                }));
            let _ = case.run(&bundle).ok();
            let text = fs::read_to_string(log.join("hook")).expect("what the hook wrote");
            case.finish();
            text
        });
        assert!(seen[1].contains("uid=1000") && seen[1].contains("refused"), "{}", seen[1]);
        assert_eq!(seen[0], seen[1], "flint (left) against runc");
    }
}

#[test]
fn a_hook_that_the_filter_kills_is_told() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo ran").edit(json!({
            "hooks": {"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/dev/shm/foo"]}]},
            "process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]},
            "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}
            ]}}
        }));
        let output = case.run(&bundle);
        assert!(output.code != 0 && !output.stdout.contains("ran"), "{}: {output:?}", runtime.name);
        assert!(output.stderr.contains("error running"), "{}: {}", runtime.name, output.stderr);
        assert!(output.stderr.contains("bad system call"), "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}

/// Without a pid namespace of its own, init's pid is the host's also for hooks inside.
#[test]
fn the_pid_inside_is_that_of_the_namespace() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let namespaces = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]);
        let bundle = with_hooks(&case, case.bundle().forever())
            .edit(json!({"linux": {"namespaces": namespaces, "maskedPaths": null, "readonlyPaths": null}}));
        let id = case.detached(&bundle, "a");
        for name in ["createContainer", "startContainer"] {
            let text = fs::read_to_string(case.path().join(format!("log.{name}"))).expect("the hook's state");
            let state: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(state["pid"], case.state(&id)["pid"], "{}: {name}", runtime.name);
        }
        case.delete(&id);
        case.finish();
    }
}

#[test]
fn hooks_of_the_host_run_in_the_bundle_without_the_callers_descriptors() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let log = case.path().join("seen");
        let text = format!("pwd >> {0}; [ -e /proc/self/fd/7 ] && echo has 7 >> {0}; true", log.display());
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", text]}]);
        let hooks = json!({"prestart": hook, "createRuntime": hook, "poststart": hook, "poststop": hook});
        let bundle = case.bundle().args(&["/bin/true"]).edit(json!({"hooks": hooks}));
        let (runtime_path, root) = (runtime.path.display(), case.state_root());
        let call =
            format!("exec 7< /dev/null; exec {runtime_path} --root {} run --bundle \"$0\" \"$1\"", root.display());
        let shell = Command::new("sh").args(["-c", &call]).args([bundle.write()]).args([case.id("run")]);
        let _ = shell.dir("/".as_ref()).output().ok();
        let places = format!("{}\n", bundle.path().display()).repeat(4);
        assert_eq!(fs::read_to_string(&log).unwrap_or_default(), places, "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn a_failing_poststart_hook_ends_a_container_without_cgroups() {
    let Some([runtime]) = under_test_only("--cgroup-manager") else { return };
    let case = Case::new(&runtime);
    let bundle = case.bundle().forever().edit(json!({"hooks": {"poststart": [{"path": "/bin/false"}]}}));
    let (folder, id) = (bundle.write(), case.id("a"));
    let without = ["--cgroup-manager", "disabled"];
    let _ = case.command(without).args(["create", "--bundle"]).args([&folder]).args([&id]).output().ok();
    let started = case.call([without.as_slice(), &["start", &id]].concat());
    assert!(started.code != 0 && started.stderr.contains("poststart"), "{started:?}");
    assert_eq!(case.status(&id), "stopped");
    case.delete(&id);
    case.finish();
}

#[test]
fn after_a_failing_poststop_hook_the_others_run_and_delete_succeeds() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let ran = case.path().join("ran");
        let hooks = json!({"poststop": [{"path": "/bin/false"}, {"path": "/bin/touch", "args": ["touch", ran]}]});
        let id = case.created(&case.bundle().forever().edit(json!({"hooks": hooks})), "a");
        let output = case.call(["delete", "--force", &id]).ok();
        // runc 1.1 stops at the first and says nothing.
        if !runtime.is_runc() {
            assert!(output.stderr.contains("warning") && output.stderr.contains("/bin/false"), "{}", output.stderr);
            assert!(ran.exists());
        }
        assert_eq!(case.status(&id), "");
        case.finish();
    }
}

#[test]
fn a_failing_poststop_hook_does_not_keep_the_container() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let hook = json!([{"path": "/bin/false"}]);
        let output = case.run(&case.bundle().shell("echo ran").edit(json!({"hooks": {"poststop": hook}})));
        assert_eq!(output.stdout, "ran\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn hooks_have_only_their_own_environment() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let log = case.path().join("env");
        let hook = json!([{"path": "/usr/bin/env", "args": ["env"], "env": ["ONLY=this"]}, {
            "path": "/bin/sh", "args": ["sh", "-c", format!("env > {}; ls /proc/self/fd | wc -l >> {0}", log.display())], "env": ["ONLY=this"]
        }]);
        let _ = case.run(&case.bundle().edit(json!({"hooks": {"createRuntime": hook}}))).ok();
        let text = fs::read_to_string(&log).expect("the hook's environment");
        assert!(text.contains("ONLY=this") && !text.contains("HOME="), "{}: {text}", runtime.name);
        case.finish();
    }
}

#[test]
fn hooks_without_an_environment_have_the_runtimes() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let log = case.path().join("env");
        let script = format!("echo $FLINT_TEST >> {}", log.display());
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        let hooks = json!({"prestart": hook, "createRuntime": hook, "poststart": hook, "poststop": hook});
        let bundle = case.bundle().args(&["/bin/true"]).edit(json!({"hooks": hooks}));
        let run = case.command(["run", "--bundle"]).args([bundle.write()]).args([case.id("run")]);
        let _ = run.env("FLINT_TEST", "of the caller").output().ok();
        assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "of the caller\n".repeat(4), "{}", runtime.name);
        case.finish();
    }
}
