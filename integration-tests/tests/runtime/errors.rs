//! Bad input: one clear line on stderr, an exit code that is not 0, and nothing left behind.

use std::fs;
use std::path::Path;

use integration_tests::{Bundle, Case, Command, Output, Runtime, peers, under_test_only};
use serde_json::json;

/// Asserts a refusal: the code, one line that holds `words`, and no trace. runc may print more lines (warnings).
#[track_caller]
fn refused(case: Case, output: &Output, words: &[&str]) {
    let runtime: &Runtime = &case.runtime;
    assert_ne!(output.code, 0, "{}: stdout {}", runtime.name, output.stdout);
    let lines = output.error_lines();
    if runtime.is_runc() {
        assert!(!lines.is_empty());
    } else {
        assert_eq!(lines.len(), 1, "one line: {}", output.stderr);
        for word in words {
            assert!(lines[0].contains(word), "no {word:?} in: {}", lines[0]);
        }
        assert!(!lines[0].contains("panicked"), "{}", lines[0]);
    }
    assert_ne!(case.status(&case.id("run")), "running");
    case.finish();
}

/// `run` of the bundle that `build` makes is refused by both; flint's line holds `words`.
#[track_caller]
fn refuses(words: &[&str], build: impl Fn(&Case) -> Bundle) {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let output = case.run(&build(&case));
        refused(case, &output, words);
    }
}

/// `run` of a bundle whose config.json is `text`.
#[track_caller]
fn refuses_text(words: &[&str], text: &[u8]) {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let dir = case.bundle().write();
        fs::write(dir.join("config.json"), text).expect("write config.json");
        let output = case.command(["run", "--bundle"]).args([dir]).args([case.id("run")]).output();
        refused(case, &output, words);
    }
}

#[test]
fn no_bundle() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let output = case.call(["run", "--bundle", "/no/such/bundle", &case.id("run")]);
        refused(case, &output, &["/no/such/bundle", "no such file"]);
    }
}

#[test]
fn no_config() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let dir = case.path().join("empty");
        fs::create_dir(&dir).expect("mkdir");
        let output = case.command(["run", "--bundle"]).args([dir]).args([case.id("run")]).output();
        refused(case, &output, &["config.json"]);
    }
}

#[test]
fn config_is_not_json() {
    refuses_text(&["config.json"], b"");
    refuses_text(&["config.json"], b"{\"ociVersion\": \"1.0.2\", ");
    refuses_text(&["config.json"], b"[1, 2, 3]");
    refuses_text(&["config.json"], b"\"text\"");
    refuses_text(&["config.json"], b"\0\xff\xfe{}");
}

#[test]
fn config_is_huge() {
    let Some(peers) = under_test_only("a clear answer to a config.json of 100 MB") else { return };
    for runtime in peers {
        for text in [vec![b'['; 100 << 20], [b"{\"a\": \"".to_vec(), vec![b'x'; 100 << 20]].concat()] {
            let case = Case::new(&runtime);
            let dir = case.bundle().write();
            fs::write(dir.join("config.json"), &text).expect("write config.json");
            let output = case.command(["run", "--bundle"]).args([dir]).args([case.id("run")]).output();
            refused(case, &output, &["config.json"]);
        }
    }
}

#[test]
fn wrong_types_and_enums() {
    refuses(&["config.json", "Process"], |case| case.bundle().edit(json!({"process": "text"})));
    refuses(&["galaxy"], |case| case.bundle().push("/linux/namespaces", json!({"type": "galaxy"})));
    refuses(&["RLIMIT_NOTHING"], |case| {
        case.bundle().edit(json!({"process": {"rlimits": [{"type": "RLIMIT_NOTHING", "soft": 1, "hard": 1}]}}))
    });
    refuses(&["SCMP_ACT_DANCE"], |case| {
        case.bundle().edit(json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_DANCE"}}}))
    });
    refuses(&["sideways"], |case| case.bundle().edit(json!({"linux": {"rootfsPropagation": "sideways"}})));
}

#[test]
fn versions_that_are_no_1_x() {
    let Some(peers) = under_test_only("ociVersion is checked") else { return };
    for runtime in peers {
        for version in [json!("2.0.0"), json!("0.9"), json!("text"), json!("")] {
            let case = Case::new(&runtime);
            let output = case.run(&case.bundle().edit(json!({"ociVersion": version})));
            refused(case, &output, &["ociVersion"]);
        }
    }
}

#[test]
fn no_process() {
    refuses(&["args"], |case| case.bundle().edit(json!({"process": {"args": []}})));
    let Some(peers) = under_test_only("a clear answer to a missing process") else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let output = case.run(&case.bundle().edit(json!({"process": null})));
        refused(case, &output, &["process"]);
    }
}

#[test]
fn no_rootfs() {
    refuses(&["nowhere"], |case| case.bundle().edit(json!({"root": {"path": "nowhere"}})));
}

#[test]
fn programs_that_cannot_run() {
    refuses(&["no-such-program", "executable file not found"], |case| case.bundle().args(&["no-such-program"]));
    refuses(&["/no/such/path", "no such file or directory"], |case| case.bundle().args(&["/no/such/path"]));
    refuses(&["/etc/passwd", "permission denied"], |case| case.bundle().args(&["/etc/passwd"]));
    refuses(&["/etc", "permission denied"], |case| case.bundle().args(&["/etc"]));
    refuses(&["/script", "no such file or directory"], |case| {
        case.bundle().file("/script", "#!/no/interpreter\n", 0o755).args(&["/script"])
    });
    refuses(&["/broken", "exec format error"], |case| {
        case.bundle().file("/broken", "\u{1}\u{2}", 0o755).args(&["/broken"])
    });
}

#[test]
fn working_directories() {
    refuses(&["cwd"], |case| case.bundle().edit(json!({"process": {"cwd": "relative"}})));
    refuses(&["/etc/passwd"], |case| case.bundle().edit(json!({"process": {"cwd": "/etc/passwd"}})));
}

#[test]
fn ids() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        for id in ["", ".", "..", "a/b", "../x", "a b", "ä", "a\nb", &"x".repeat(5000)] {
            let case = Case::new(&runtime);
            let output = case.command(["run", "--bundle"]).args([case.bundle().write()]).args([id]).output();
            assert_ne!(output.code, 0, "{} accepts {id:?}", runtime.name);
            if !runtime.is_runc() {
                assert_eq!(output.error_lines().len(), 1, "{id:?}: {}", output.stderr);
            }
            case.finish();
        }
    }
}

#[test]
fn mounts_that_cannot_be_made() {
    let mount = |kind: &str, source: &str, destination: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    refuses(&["/no/source", "no such file or directory"], |case| {
        case.bundle().writable().push("/mounts", mount("bind", "/no/source", "/data", &["bind"]))
    });
    refuses(&["nofs"], |case| case.bundle().writable().push("/mounts", mount("nofs", "none", "/data", &[])));
    refuses(&["/etc/passwd"], |case| {
        case.bundle().writable().push("/mounts", mount("tmpfs", "tmpfs", "/etc/passwd", &[]))
    });
    refuses(&["/data"], |case| {
        case.bundle().writable().push("/mounts", mount("tmpfs", "tmpfs", "/data", &["size=nonsense"]))
    });
}

#[test]
fn a_volume_outside_the_root() {
    // Through a symlink or dots it must end inside the root, or be refused. Outside nothing may appear.
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let outside = case.path().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        let bundle = case.bundle().writable();
        std::os::unix::fs::symlink(&outside, bundle.rootfs().join("link")).expect("symlink");
        for destination in ["/link/made", "/../../outside/made", "/link/../outside/made"] {
            let mount = json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"});
            let bundle = case.bundle().writable().push("/mounts", mount);
            std::os::unix::fs::symlink(&outside, bundle.rootfs().join("link")).expect("symlink");
            let _ = case.run(&bundle);
            assert_eq!(fs::read_dir(&outside).expect("read").count(), 0, "{}: {destination}", runtime.name);
        }
        case.finish();
    }
}

#[test]
fn missing_controllers_and_impossible_limits() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let output = case.run(&case.bundle().edit(json!({"linux": {"resources": {"cpu": {"cpus": "4000-5000"}}}})));
        refused(case, &output, &["cpuset.cpus", "4000-5000"]);
        let case = Case::new(&runtime);
        let rdma = json!({"linux": {"resources": {"rdma": {"mlx5_1": {"hcaHandles": 3}}}}});
        let output = case.run(&case.bundle().edit(rdma));
        if runtime.is_runc() {
            // runc ignores controllers that are not mounted.
            case.finish();
        } else {
            refused(case, &output, &["rdma"]);
        }
    }
}

#[test]
fn an_unprivileged_user() {
    let Some(peers) = under_test_only("one line for users who may not") else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let dir = case.bundle().write();
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args([&runtime.path])
            .args(["--root"])
            .args([case.state_root()])
            .args(["run", "--bundle"])
            .args([dir])
            .args([case.id("run")])
            .output();
        refused(case, &output, &["permi"]);
    }
}

/// Runs the runtime with its state folder on a file system made by `mount_script`, in a mount namespace of its own.
#[track_caller]
fn with_state_on(runtime: &Runtime, mount_script: &str, words: &[&str]) {
    let case = Case::new(runtime);
    let dir = case.bundle().write();
    fs::create_dir(case.state_root()).expect("mkdir");
    let script = format!("root=$1; shift; {mount_script}; exec \"$@\"");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh"])
        .args([&case.state_root(), &runtime.path])
        .args([Path::new("--root"), &case.state_root()])
        .args(["run", "--bundle"])
        .args([dir])
        .args([case.id("run")])
        .output();
    refused(case, &output, words);
}

#[test]
fn a_readonly_state_folder() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        with_state_on(&runtime, "mount -t tmpfs -o ro tmpfs $root", &["read-only file system"]);
    }
}

#[test]
fn a_full_disk() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let fill = "mount -t tmpfs -o size=16k tmpfs $root; head -c 100000 /dev/zero > $root/fill 2>/dev/null";
        with_state_on(&runtime, fill, &["no space left on device"]);
    }
}

#[test]
fn the_log_gets_the_same_line() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let log = case.path().join("log.json");
        let bundle = case.bundle().args(&["no-such-program"]);
        let command = case.command(["--log-format", "json", "--log"]).args([&log]);
        let output = command.args(["create", "--bundle"]).args([bundle.write()]).args([case.id("run")]).output();
        assert_eq!(output.code, 1);
        let text = fs::read_to_string(&log).expect("the log");
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        assert_eq!(last["level"], "error");
        assert!(last["msg"].as_str().is_some_and(|text| text.contains("executable file not found")), "{last}");
        assert!(last["time"].as_str().is_some_and(|time| time.contains('T')), "{last}");
        if !runtime.is_runc() {
            assert_eq!(text.lines().count(), 1, "podman reads the whole file as one object: {text}");
        }
        case.finish();
    }
}
