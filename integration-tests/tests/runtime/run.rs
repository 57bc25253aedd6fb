//! `run`: the main job, and what the default container looks like from inside, flint beside runc.

use std::fs;

use integration_tests::{
    Allowed, Case, Command, assert_same, debian_rootfs, default_spec, fill_rootfs, peers, under_test_only, view_script,
};
use serde_json::{Value, json};

#[test]
fn prints_and_exits() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let output = case.run(&case.bundle().shell("echo out; echo err >&2; exit 42")).exits(42);
        assert_eq!(output.stdout, "out\n");
        assert_eq!(output.stderr, "err\n");
        case.finish();
    }
}

#[test]
fn a_real_time_signal_is_told_as_any_other() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // Process 1 of a pid namespace would not be ended by a signal of its own.
        let namespaces = json!([{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]);
        let bundle = case
            .bundle()
            .shell("kill -40 $$")
            .edit(json!({"linux": {"namespaces": namespaces, "maskedPaths": null, "readonlyPaths": null}}));
        let _ = case.run(&bundle).exits(168);
        case.finish();
    }
}

#[test]
fn a_limit_of_pids_that_is_null_is_none() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo ran");
        let file = bundle.write().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
        config["linux"]["resources"]["pids"] = json!({"limit": null});
        fs::write(&file, config.to_string()).expect("write");
        let output = case.command(["run", "--bundle"]).args([bundle.path()]).args([case.id("run")]).output().ok();
        assert_eq!(output.stdout, "ran\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn takes_another_file_as_config() {
    let Some([runtime]) = under_test_only("--config, as crun has it") else { return };
    let case = Case::new(&runtime);
    let bundle = case.bundle().shell("echo of the bundle");
    let folder = bundle.write();
    let elsewhere = folder.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let other = elsewhere.join("other.json");
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    fs::write(&other, text.replace("of the bundle", "of another file")).unwrap();
    let run = |config: &[&str], at: &std::path::Path| {
        let command = case.command(["run", "--bundle"]).args([&folder]).args(config.iter().copied());
        command.args([case.id("run")]).dir(at).output()
    };
    let absolute = other.display().to_string();
    assert_eq!(run(&["--config", &absolute], "/".as_ref()).ok().stdout, "of another file\n");
    // A relative path starts at the caller's folder, but for the name that is in every bundle.
    assert_eq!(run(&["-f", "other.json"], &elsewhere).ok().stdout, "of another file\n");
    assert_eq!(run(&["--config", "config.json"], "/".as_ref()).ok().stdout, "of the bundle\n");
    let missing = run(&["--config", "none.json"], "/".as_ref());
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("JSON specification file /none.json not found"), "{}", missing.stderr);
    case.finish();
}

#[test]
fn passes_the_exit_code_of_a_signal() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // pid 1 cannot kill itself with an unhandled signal: its child dies, and sh tells so.
        let output = case.run(&case.bundle().shell("sh -c 'kill -KILL $$'; exit $?"));
        assert_eq!(output.code, 137);
        case.finish();
    }
}

#[test]
fn reads_its_input() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().args(&["/bin/wc", "-c"]);
        let input = vec![b'x'; 300_000];
        let id = case.id("a");
        let output = case.command(["run", "--bundle"]).args([bundle.write()]).args([&id]).input(input).output().ok();
        assert_eq!(output.stdout.trim(), "300000");
        case.finish();
    }
}

#[test]
fn uses_the_working_directory_as_bundle() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo here");
        let id = case.id("a");
        let output = case.command(["run", id.as_str()]).dir(&bundle.write()).output().ok();
        assert_eq!(output.stdout, "here\n");
        case.finish();
    }
}

/// The whole default container, section by section.
#[test]
fn sees_the_same_default_container() {
    let Some(peers) = peers() else { return };
    let views = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let view = case.view(&case.shell(&view_script()));
        case.finish();
        view
    });
    assert!(views[1]["status"].iter().any(|line| line == "NoNewPrivs: 1"), "the view works: {:?}", views[1]);
    assert!(views[1]["mountinfo"].len() > 10, "the view works: {:?}", views[1]);
    assert_same(&views[0], &views[1], DIFFERENCES);
}

const DIFFERENCES: &[Allowed] = &[Allowed {
    section: "status",
    line: "SigIgn:",
    reason: "runc passes on what its caller ignores (some test runners ignore signal 32); flint starts with none",
}];

/// The same with all capabilities, a writable root, no mask, a user and new cgroup namespace.
#[test]
fn sees_the_same_wide_open_container() {
    let Some(peers) = peers() else { return };
    let views = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let every = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SETUID"];
        let bundle = case
            .bundle()
            .shell(&view_script())
            .writable()
            .capabilities(&every)
            .push("/linux/namespaces", json!({"type": "cgroup"}))
            .edit(json!({
                "process": {"noNewPrivileges": false, "oomScoreAdj": 100, "user": {"umask": 63}},
                "hostname": "wide-open",
                "linux": {"maskedPaths": null, "readonlyPaths": null}
            }));
        let view = case.view(&case.run(&bundle).ok().stdout);
        case.finish();
        view
    });
    assert_same(&views[0], &views[1], DIFFERENCES);
}

/// A program of glibc: bash, coreutils and su of Debian, not busybox.
#[test]
fn runs_debian() {
    let Some(peers) = peers() else { return };
    let Some(rootfs) = debian_rootfs() else {
        return;
    };
    let outputs = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let script = "echo ok $BASH_VERSION; ls /; su -c 'id' daemon; cat /etc/debian_version; exit 3";
        let bundle = case
            .bundle()
            .args(&["/bin/bash", "-c", script])
            .capabilities(&["CAP_SETUID", "CAP_SETGID"])
            .push("/mounts", json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs"}))
            .edit(json!({"root": {"path": rootfs}, "process": {"noNewPrivileges": false}}));
        let output = case.run(&bundle).exits(3);
        case.finish();
        output.stdout
    });
    assert!(outputs[1].starts_with("ok 5."), "{}", outputs[1]);
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn keeps_only_the_asked_descriptors() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        // The shell opens fds 3, 4 and 7 for the runtime; --preserve-fds 1 passes 3 alone.
        let bundle = case.bundle().shell("cat <&3; ls /proc/self/fd | sort -n | tr '\\n' ' '");
        let words = case.path().join("words");
        fs::write(&words, "from three\n").expect("write");
        let script = "exec 3<\"$WORDS\" 4<\"$WORDS\" 7<\"$WORDS\"; exec \"$@\"";
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .args([&case.runtime.path])
            .args(["--root"])
            .args([case.state_root()])
            .args(["run", "--preserve-fds", "1", "--bundle"])
            .args([bundle.write()])
            .args([case.id("a")])
            .env("WORDS", &words)
            .output()
            .ok();
        // 4 is the folder that ls reads.
        assert_eq!(output.stdout, "from three\n0 1 2 3 4 ", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn passes_no_descriptor_by_itself() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("ls /proc/self/fd | sort -n | tr '\\n' ' '");
        let words = case.path().join("words");
        fs::write(&words, "").expect("write");
        let output = Command::new("sh")
            .args(["-c", "exec 5<\"$WORDS\" 9<\"$WORDS\"; exec \"$@\"", "sh"])
            .args([&case.runtime.path])
            .args(["--root"])
            .args([case.state_root()])
            .args(["run", "--bundle"])
            .args([bundle.write()])
            .args([case.id("a")])
            .env("WORDS", &words)
            .output()
            .ok();
        assert_eq!(output.stdout, "0 1 2 3 ", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn leaves_with_keep_only_the_state() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.id("kept");
        let bundle = case.bundle();
        let _ = case.command(["run", "--keep", "--bundle"]).args([bundle.write()]).args([&id]).output().ok();
        assert_eq!(case.status(&id), "stopped");
        let _ = case.call(["delete", id.as_str()]).ok();
        case.finish();
    }
}

#[test]
fn runs_without_pivot_root() {
    let Some(peers) = peers() else { return };
    let outputs = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let id = case.id("a");
        let bundle = case.bundle().shell("ls / | tr '\\n' ' '; cat /etc/passwd; pwd");
        let output = case.command(["run", "--no-pivot", "--bundle"]).args([bundle.write()]).args([&id]).output().ok();
        case.finish();
        output.stdout
    });
    assert!(outputs[1].contains("root:x:0:0"));
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn forwards_signals_in_the_foreground() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.id("a");
        let bundle = case.bundle().shell("trap 'echo hup; exit 9' HUP; echo ready; while :; do sleep 0.1; done");
        let running = case.spawn(&bundle, &id);
        integration_tests::wait_until("the container is ready", || running.stdout().contains("ready"));
        let pid = rustix::process::Pid::from_raw(i32::try_from(running.pid()).expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("kill the runtime");
        let output = running.finish("run").exits(9);
        assert_eq!(output.stdout, "ready\nhup\n");
        case.finish();
    }
}

#[test]
fn the_default_spec_is_that_of_runc() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        fs::create_dir(case.path().join("spec")).expect("mkdir");
        let _ = case.command(["spec"]).dir(&case.path().join("spec")).output().ok();
        let text = fs::read_to_string(case.path().join("spec/config.json")).expect("config.json");
        assert!(text.contains("\n\t\"ociVersion\""), "tabs indent it");
        let mut spec: Value = serde_json::from_str(&text).expect("JSON");
        let mut expected = default_spec();
        expected["process"]["args"] = json!(["sh"]);
        expected["process"]["terminal"] = json!(true);
        if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            let namespaces = expected["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.push(json!({"type": "cgroup"}));
        }
        // Each runtime has its own version and name.
        for value in [&mut spec, &mut expected] {
            value["ociVersion"] = Value::Null;
            value["hostname"] = Value::Null;
            // runc up to 1.1 lists some; without inheritable ones they have no effect.
            value["process"]["capabilities"].as_object_mut().expect("capabilities").remove("ambient");
        }
        assert_eq!(spec, expected, "{}", runtime.name);
        let again = case.command(["spec"]).dir(&case.path().join("spec")).output();
        assert_ne!(again.code, 0, "spec does not overwrite");
        case.finish();
    }
}

#[test]
fn a_plan_runs_nothing() {
    let Some(peers) = under_test_only("plan") else {
        return;
    };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().args(&["/bin/touch", "/tmp/ran"]).writable();
        let text = case.command(["plan", "--bundle"]).args([bundle.write()]).output().ok();
        assert!(text.stdout.lines().count() > 20, "a step a line: {}", text.stdout);
        assert!(text.stdout.contains("/proc"), "{}", text.stdout);
        let json = case.command(["plan", "--json", "--bundle"]).args([bundle.write()]).output().ok();
        let _: Value = serde_json::from_str(&json.stdout).expect("plan --json prints JSON");
        assert!(!bundle.rootfs().join("tmp/ran").exists());
        case.finish();
    }
}

#[test]
fn two_bundles_share_a_rootfs() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let rootfs = case.path().join("shared");
        fill_rootfs(&rootfs);
        let one = case.bundle().forever().edit(json!({"root": {"path": rootfs}}));
        let two = case.bundle().shell("hostname").edit(json!({"root": {"path": rootfs}, "hostname": "two"}));
        let id = case.detached(&one, "one");
        assert_eq!(case.run(&two).ok().stdout, "two\n");
        assert_eq!(case.status(&id), "running");
        case.delete(&id);
        case.finish();
    }
}
