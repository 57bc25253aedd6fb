//! The config.json that docker really generates, run by flint and by runc directly.

use std::fs;

use integration_tests::{Allowed, Case, Dockerd, assert_same, merge, missing, peers, view_script};
use serde_json::{Value, json};

/// What docker's own surroundings made: hooks into its network, its cgroups, its layers. The rest stays as generated.
fn adopt(mut spec: Value, case: &Case) -> Value {
    merge(
        &mut spec,
        json!({"hooks": null, "root": {"path": "rootfs"}, "linux": {"cgroupsPath": format!("/{}cg", case.prefix)}}),
    );
    // docker binds files of the container's folder (resolv.conf, hosts); stand-ins of the same kind do here.
    let stand_in = case.path().join("stand-in");
    fs::write(&stand_in, "stand-in\n").expect("write");
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        let source = mount["source"].as_str().unwrap_or_default().to_owned();
        if source.contains("/containers/") {
            let is_shm = mount["destination"] == "/dev/shm";
            let folder = case.path().join("stand-in-shm");
            fs::create_dir_all(&folder).expect("mkdir");
            mount["source"] = json!(if is_shm { folder } else { stand_in.clone() });
        }
    }
    spec["process"]["args"] = json!(["/bin/sh", "-c", view_script()]);
    spec["process"]["terminal"] = json!(false);
    spec
}

#[test]
fn dockers_own_config() {
    let Some(peers) = peers() else { return };
    if missing(&["dockerd", "docker", "containerd", "unshare"]) {
        return;
    }
    let variants: &[&[&str]] = &[
        &[],
        &[
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--user",
            "1000:5",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
        ],
        &[
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "30",
            "--cap-add",
            "NET_ADMIN",
            "-w",
            "/var",
            "-e",
            "A=b",
            "--init",
        ],
        &[
            "--ipc",
            "private",
            "--ulimit",
            "nofile=60:60",
            "--sysctl",
            "net.core.somaxconn=99",
            "--device",
            "/dev/null:/dev/mine",
        ],
    ];
    let docker = Dockerd::shared();
    for options in variants {
        // A container that was only started once: the capturing runtime kept its config.
        let reply = docker.run("capture", options, &["true"]);
        let _ = reply.output.clone().ok();
        let text = fs::read(docker.captured(&reply.id)).expect("the captured config");
        let generated: Value = serde_json::from_slice(&text).expect("JSON");
        let views = peers.clone().map(|runtime| {
            let case = Case::new(&runtime);
            let bundle = case.bundle().spec(adopt(generated.clone(), &case));
            let view = case.view(&case.run(&bundle).ok().stdout);
            case.finish();
            view
        });
        assert!(
            views[1]["status"].iter().any(|line| line == "Seccomp: 2"),
            "docker's own filter: {:?}",
            views[1]["status"]
        );
        let ignored = Allowed {
            section: "status",
            line: "SigIgn:",
            reason: "runc passes on what its caller ignores (some test runners ignore signal 32); flint starts with none",
        };
        assert_same(&views[0], &views[1], &[ignored]);
        docker.remove(&reply.id);
    }
}
