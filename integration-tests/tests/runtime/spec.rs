//! What config.json asks for, as the container sees it: flint beside runc, property by property.

use integration_tests::{Bundle, Case, peers, under_test_only};
use serde_json::{Value, json};

/// Runs `build`'s bundle under each peer; the outputs must agree and satisfy `check`.
#[track_caller]
fn same(build: impl Fn(&Case) -> Bundle, check: impl Fn(&str) -> bool) {
    let Some(peers) = peers() else { return };
    let outputs = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let output = case.run(&build(&case)).ok();
        let text = case.neutral(&output.stdout);
        case.finish();
        text
    });
    assert!(check(&outputs[1]), "runc does not show what the test expects: {}", outputs[1]);
    assert_eq!(outputs[0], outputs[1], "flint (left) against runc");
}

/// Makes the bundle's `linux.namespaces` those of `kinds`.
fn namespaces(bundle: Bundle, kinds: &[&str]) -> Bundle {
    let list: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    bundle.edit(json!({"linux": {"namespaces": list}}))
}

#[test]
fn namespaces_are_new_where_asked() {
    let Some(peers) = peers() else { return };
    let kinds = ["pid", "net", "mnt", "uts", "ipc", "cgroup", "user"];
    for runtime in peers {
        let case = Case::new(&runtime);
        let script = "for n in pid net mnt uts ipc cgroup user; do readlink /proc/self/ns/$n; done";
        let wanted = |bundle: Bundle| namespaces(bundle, &["pid", "network", "mount", "uts", "ipc", "cgroup"]);
        let output = case.run(&wanted(case.bundle().shell(script))).ok();
        for (kind, inside) in kinds.iter().zip(output.stdout.lines()) {
            let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("readlink").display().to_string();
            assert_eq!(*kind == "user", inside == host, "{}: {kind} is {inside}, the host's {host}", runtime.name);
        }
        case.finish();
    }
}

#[test]
fn namespaces_are_the_hosts_where_not_asked() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let script = "for n in net uts ipc; do readlink /proc/self/ns/$n; done";
        // Without its own ipc namespace it may not mount mqueue, without net no sysfs: leave these away.
        let bundle = namespaces(case.bundle().shell(script), &["pid", "mount"]).edit(json!({
            "hostname": null,
            "linux": {"maskedPaths": null, "readonlyPaths": null},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}]
        }));
        let output = case.run(&bundle).ok();
        for (kind, inside) in ["net", "uts", "ipc"].iter().zip(output.stdout.lines()) {
            let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("readlink").display().to_string();
            assert_eq!(inside, host, "{}", runtime.name);
        }
        case.finish();
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let holder = case.detached(&case.bundle().forever().edit(json!({"hostname": "holder"})), "holder");
        let pid = case.state(&holder)["pid"].as_i64().expect("a pid");
        let path = |kind: &str| format!("/proc/{pid}/ns/{kind}");
        let bundle = case
            .bundle()
            .shell(
                "hostname; readlink /proc/self/ns/net; ps | grep -c 'sleep 1000'; ls /proc/1/root >/dev/null; echo $$",
            )
            .edit(json!({"hostname": null, "linux": {"namespaces": [
                {"type": "uts", "path": path("uts")}, {"type": "network", "path": path("net")},
                {"type": "ipc", "path": path("ipc")}, {"type": "pid", "path": path("pid")}, {"type": "mount"}
            ]}}));
        let output = case.run(&bundle).ok();
        let net = std::fs::read_link(path("net")).expect("readlink").display().to_string();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines[..2], ["holder", net.as_str()], "{}", runtime.name);
        // The holder's sleep is seen, and the joiner is not pid 1.
        assert_ne!(lines[2], "0", "{}", runtime.name);
        assert_ne!(lines[3], "1", "{}", runtime.name);
        case.delete(&holder);
        case.finish();
    }
}

// Without mqueue: runc 1.1 mounts it with a group that the namespace does not map, flint with root.
#[test]
fn user_namespace() {
    same(
        |case| {
            let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
            let bundle = case.bundle().shell(
                "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id; ls -ln /proc/1/status | cut -d' ' -f1-3; \
                 ls -lan /dev | grep -v mqueue | sed 's/ [A-Z][a-z][a-z] .* / /' | sort; cat /proc/self/setgroups; grep Cap /proc/self/status",
            );
            for (path, id) in [("bin", 100_000), ("", 100_000)] {
                std::os::unix::fs::chown(bundle.rootfs().join(path), Some(id), Some(id)).expect("chown");
            }
            bundle
                .push("/linux/namespaces", json!({"type": "user"}))
                .edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps}}))
        },
        |text| text.contains("0 100000 65536") && text.contains("null"),
    );
}

#[test]
fn user_and_groups() {
    same(
        |case| {
            case.bundle()
                .shell("id; grep -E '^(Uid|Gid|Groups|Cap|Umask)' /proc/self/status; echo $HOME; umask; touch /tmp/x; ls -ln /tmp/x | cut -c1-30")
                .push("/mounts", json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}))
                .edit(json!({"process": {
                    "user": {"uid": 1000, "gid": 1000, "umask": 0o027, "additionalGids": [2000, 5, 3000]}
                }}))
        },
        |text| text.contains("2000(wheel)") && text.contains("/home/user") && text.contains("0027"),
    );
}

#[test]
fn a_group_that_is_listed_twice_is_one() {
    same(
        |case| {
            let bundle = case.bundle().args(&["/bin/grep", "Groups", "/proc/self/status"]);
            bundle.edit(json!({"process": {"user": {"uid": 0, "gid": 5, "additionalGids": [5, 3000, 5, 3000]}}}))
        },
        |text| text.trim() == "Groups:\t5 3000",
    );
}

#[test]
fn variables_without_a_name_or_a_value_are_refused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        for entry in ["NO_EQUALS", "=nameless", ""] {
            let case = Case::new(&runtime);
            let output = case.run(&case.bundle().edit(json!({"process": {"env": ["PATH=/bin", entry]}}))).exits(1);
            assert!(
                output.stderr.contains("env") && output.stderr.contains(entry),
                "{}: {}",
                runtime.name,
                output.stderr
            );
            case.finish();
        }
    }
}

#[test]
fn an_unknown_user_has_a_home_too() {
    same(
        |case| {
            case.bundle().shell("id; echo \"home=$HOME\"").edit(json!({"process": {"user": {"uid": 4321, "gid": 77}}}))
        },
        |text| text.contains("home=/\n"),
    );
}

#[test]
fn environment_and_cwd() {
    same(
        |case| {
            case.bundle().shell("env | sort; pwd").edit(json!({"process": {
                "env": ["PATH=/bin", "A=1", "A=2", "EMPTY=", "SPACE=a b\tc", "HOME=/elsewhere"], "cwd": "/var"
            }}))
        },
        |text| text.contains("HOME=/elsewhere") && text.ends_with("/var\n"),
    );
}

#[test]
fn a_missing_cwd_is_made() {
    same(
        |case| {
            case.bundle()
                .shell("pwd; ls -ld /new/deep | cut -c1-10")
                .writable()
                .edit(json!({"process": {"cwd": "/new/deep"}}))
        },
        |text| text.starts_with("/new/deep\n"),
    );
}

#[test]
fn programs_are_looked_up_in_the_containers_path() {
    same(
        |case| {
            case.bundle()
                .file("/opt/x/tool", "#!/bin/sh\necho \"$0 $*\"\n", 0o755)
                .args(&["tool", "a", "b"])
                .edit(json!({"process": {"env": ["PATH=/nowhere:/opt/x:/bin"]}}))
        },
        |text| text == "/opt/x/tool a b\n",
    );
}

#[test]
fn capability_sets() {
    same(
        |case| {
            case.bundle().args(&["/bin/grep", "Cap", "/proc/self/status"]).edit(json!({"process": {"capabilities": {
                "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SYS_CHROOT"],
                "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
                "effective": ["CAP_CHOWN", "CAP_SETUID"],
                "inheritable": ["CAP_CHOWN", "CAP_KILL"],
                "ambient": ["CAP_CHOWN"]
            }}}))
        },
        |text| text.contains("CapInh:\t0000000000000021"),
    );
}

#[test]
fn ambient_capabilities_survive_a_user() {
    same(
        |case| {
            case.bundle().args(&["/bin/grep", "Cap", "/proc/self/status"]).edit(json!({"process": {
                "user": {"uid": 1000, "gid": 1000},
                "capabilities": {
                    "bounding": ["CAP_KILL", "CAP_NET_BIND_SERVICE"], "permitted": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
                    "effective": ["CAP_KILL"], "inheritable": ["CAP_NET_BIND_SERVICE"], "ambient": ["CAP_NET_BIND_SERVICE"]
                }
            }}))
        },
        |text| text.contains("CapAmb:\t0000000000000400"),
    );
}

#[test]
fn no_capabilities_at_all() {
    same(
        |case| {
            case.bundle()
                .args(&["/bin/grep", "Cap", "/proc/self/status"])
                .edit(json!({"process": {"capabilities": null}}))
        },
        |text| text.contains("CapBnd:\t0000000000000000"),
    );
}

#[test]
fn an_unknown_capability_is_only_a_warning() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo ran").capabilities(&["CAP_OF_TOMORROW"]);
        let output = case.run(&bundle).ok();
        assert_eq!(output.stdout, "ran\n", "{}", runtime.name);
        let said = output.stderr.matches("ignoring unknown or unavailable capabilities: [CAP_OF_TOMORROW]").count();
        assert_eq!(said, 1, "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}

/// The kernel would refuse it: that is told by `create`.
#[test]
fn an_inheritable_capability_outside_the_bounding_set_is_refused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let sets = json!({"inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]});
        let mut bundle = case.bundle().args(&["/bin/true"]).edit(json!({"process": {"capabilities": null}}));
        bundle = bundle.edit(json!({"process": {"capabilities": sets}}));
        let output =
            case.command(["create", "--bundle"]).args([bundle.write()]).args([case.id("caps")]).output().exits(1);
        assert!(output.stderr.contains("operation not permitted"), "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}

/// For runc it is relative to where init is by then: the root.
#[test]
fn a_relative_readonly_path_starts_at_the_root() {
    same(
        |case| {
            case.bundle()
                .writable()
                .file("/kept/file", "", 0o644)
                .shell("touch /kept/file 2>/dev/null || echo kept")
                .edit(json!({"linux": {"readonlyPaths": ["kept", "never/there"]}}))
        },
        |text| text == "kept\n",
    );
}

// Open files with one value for both: the Go runtime of runc raises its own soft limit and races with itself.
#[test]
fn rlimits() {
    same(
        |case| {
            case.bundle().args(&["/bin/cat", "/proc/self/limits"]).edit(json!({"process": {"rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 512, "soft": 512}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
                {"type": "RLIMIT_STACK", "hard": 16_777_216, "soft": 4_194_304},
                {"type": "RLIMIT_CPU", "hard": 1000, "soft": 999}, {"type": "RLIMIT_MSGQUEUE", "hard": 4096, "soft": 4096}
            ]}}))
        },
        |text| text.contains("512                  512"),
    );
}

#[test]
fn sysctls_and_hostname() {
    same(
        |case| {
            case.bundle()
                .shell("hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax")
                .edit(json!({"hostname": "a-name.example", "linux": {"sysctl": {
                    "net.ipv4.ip_unprivileged_port_start": "81", "kernel.msgmax": "9000"
                }}}))
        },
        |text| text.starts_with("a-name.example\n") && text.ends_with("81\n9000\n"),
    );
}

#[test]
fn a_sysctl_of_the_host_is_refused() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().edit(json!({"linux": {"sysctl": {"vm.swappiness": "60"}}}));
        let output = case.run(&bundle);
        assert_ne!(output.code, 0, "{}", runtime.name);
        assert!(output.stderr.contains("vm.swappiness"), "{}: {}", runtime.name, output.stderr);
        case.finish();
    }
}

#[test]
fn oom_score() {
    same(
        |case| {
            case.bundle().args(&["/bin/cat", "/proc/self/oom_score_adj"]).edit(json!({"process": {"oomScoreAdj": 321}}))
        },
        |text| text == "321\n",
    );
}

#[test]
fn no_new_privileges() {
    for (value, line) in [(true, "NoNewPrivs:\t1"), (false, "NoNewPrivs:\t0")] {
        same(
            |case| {
                let bundle = case.bundle().args(&["/bin/grep", "NoNewPrivs", "/proc/self/status"]);
                bundle.edit(json!({"process": {"noNewPrivileges": value}}))
            },
            |text| text.trim() == line,
        );
    }
}

#[test]
fn the_domain_name_is_set() {
    let Some(peers) = under_test_only("domainname") else {
        return;
    };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().args(&["/bin/cat", "/proc/sys/kernel/domainname"]);
        assert_eq!(case.run(&bundle.edit(json!({"domainname": "d.example"}))).ok().stdout, "d.example\n");
        case.finish();
    }
}

#[test]
fn unknown_properties_and_newer_versions_are_accepted() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let bundle = case.bundle().shell("echo ran").edit(json!({
            "ociVersion": "1.9.0", "annotations": {"a.b": "c"}, "x-unknown": {"deep": [1, {"er": null}]},
            "process": {"x-unknown": 1}, "linux": {"x-unknown": ["y"]}
        }));
        assert_eq!(case.run(&bundle).ok().stdout, "ran\n", "{}", runtime.name);
        case.finish();
    }
}
