//! Containers in user namespaces: joined by path with what belongs to them or not, entered by exec, and made by the
//! root of one.

use std::fs;

use integration_tests::{Bundle, Case, Command, Rootless, peers, under_test_only};
use serde_json::{Value, json};

const KINDS: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt"), ("user", "user")];

/// A container with a range of ids, whose files are of that range.
fn mapped(case: &Case) -> Bundle {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = case.bundle();
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown");
    bundle
        .push("/linux/namespaces", json!({"type": "user"}))
        .edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps}}))
}

fn links(script_of: &str) -> String {
    KINDS.iter().fold(String::new(), |links, (_, file)| links + &format!("readlink /proc/{script_of}/ns/{file}; "))
}

/// Namespaces by path: all of another container's, whose user namespace owns them.
/// A source of a mount that the host has read-only and without devices, programs or their rights: no root of a user namespace
/// may take that away (mount_namespaces(7)).
#[test]
fn what_the_hosts_mount_forbids_is_forbidden_for_good() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let source = case.path().join("source");
        fs::create_dir(&source).expect("make a source");
        let script = "mount -o remount,bind,rw,nosuid,nodev,noexec /data 2>/dev/null && echo writable; \
                      mount -o remount,bind,ro,suid,dev,exec /data 2>/dev/null && echo suid; \
                      grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6";
        let maps = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
        let bundle = case
            .bundle()
            .writable()
            .shell(script)
            .capabilities(&["CAP_SYS_ADMIN"])
            .push("/mounts", json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}))
            .push("/linux/namespaces", json!({"type": "user"}))
            .edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps, "seccomp": null}}));
        let words = [runtime.path.as_os_str(), source.as_os_str()];
        // In a mount namespace of its own, as the host's.
        let host = "mount -t tmpfs -o ro,nosuid,nodev,noexec tmpfs \"$1\"; exec \"$0\" --root \"$2\" run --bundle \"$3\" \"$4\"";
        let output = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-euc", host])
            .args(words)
            .args([case.state_root(), bundle.write()])
            .args([case.id("host")])
            .output()
            .ok();
        assert_eq!(output.stdout, "ro,nosuid,nodev,noexec,relatime\n", "{}", runtime.name);
        case.finish();
    }
}

#[test]
fn all_namespaces_of_a_container_are_joined() {
    let Some(peers) = under_test_only("runc 1.1 wants maps for a joined user namespace") else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let holder = case.detached(&mapped(&case).forever(), "holder");
        let pid = case.state(&holder)["pid"].as_i64().expect("a pid");
        let joined: Vec<Value> = KINDS
            .iter()
            .filter(|(kind, _)| *kind != "mount")
            .map(|(kind, file)| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))
            .chain([json!({"type": "mount"})])
            .collect();
        let bundle =
            mapped(&case).shell(&format!("{} id -u; touch /dev/mine && echo made", links("self"))).edit(json!({
                "hostname": null, "linux": {"namespaces": joined, "uidMappings": null, "gidMappings": null}
            }));
        let output = case.run(&bundle).ok();
        let lines: Vec<&str> = output.stdout.lines().collect();
        for ((kind, file), line) in KINDS.iter().zip(&lines) {
            let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("readlink").display().to_string();
            assert_eq!(*line == theirs, *kind != "mount", "{}: {kind}", runtime.name);
        }
        assert_eq!(lines[6..], ["0", "made"], "{}", runtime.name);
        case.delete(&holder);
        case.finish();
    }
}

/// A user namespace beside a network namespace that belongs to the host's: the one cannot be joined from inside the
/// other, so it is joined first.
#[test]
fn a_foreign_network_beside_a_joined_user_namespace() {
    let Some(flint) = under_test_only("runc 1.1 joins the user namespace first") else { return };
    for runtime in flint {
        let case = Case::new(&runtime);
        let holder = case.detached(&mapped(&case).forever(), "holder");
        let network = case.detached(&case.bundle().forever(), "network");
        let pid = |id: &str| case.state(id)["pid"].as_i64().expect("a pid");
        let (user, net) = (format!("/proc/{}/ns/user", pid(&holder)), format!("/proc/{}/ns/net", pid(&network)));
        let bundle =
            mapped(&case).shell("readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u").edit(json!({
                "hostname": null,
                "mounts": [
                    {"destination": "/proc", "type": "proc", "source": "proc"},
                    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}
                ],
                "linux": {"uidMappings": null, "gidMappings": null, "namespaces": [
                    {"type": "pid"}, {"type": "mount"}, {"type": "user", "path": user}, {"type": "network", "path": net}
                ]}
            }));
        let output = case.run(&bundle).ok();
        let theirs = |path: &str| std::fs::read_link(path).expect("readlink").display().to_string();
        assert_eq!(output.stdout, format!("{}\n{}\n0\n", theirs(&user), theirs(&net)));
        // And exec finds its way into both.
        let id = case.detached(&bundle.forever(), "both");
        let output = case.exec(&id, &["readlink", "/proc/self/ns/net"]).ok();
        assert_eq!(output.stdout.trim(), theirs(&net));
        for id in [&id, &network, &holder] {
            case.delete(id);
        }
        case.finish();
    }
}

#[test]
fn exec_as_another_user_and_with_a_capability() {
    let Some(peers) = peers() else { return };
    let mut seen = Vec::new();
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&mapped(&case).forever(), "a");
        let show = "id; cat /proc/self/uid_map; grep -E '^Cap(Inh|Prm|Eff|Bnd)' /proc/self/status; readlink /proc/self/ns/user";
        let inside = case.exec(&id, &["readlink", "/proc/1/ns/user"]).ok().stdout;
        let user = case.command(["exec", "-u", "1000:5", "-g", "2000", &id, "sh", "-c", show]).output().ok().stdout;
        assert!(user.starts_with("uid=1000(user) gid=5(tty) groups=2000(wheel)"), "{}: {user}", runtime.name);
        let root = case.command(["exec", "--cap", "CAP_SYS_PTRACE", &id, "sh", "-c", show]).output().ok().stdout;
        for text in [&user, &root] {
            assert!(text.ends_with(&inside), "{}: {text}", runtime.name);
        }
        seen.push((user.replace(&inside, ""), root.replace(&inside, "")));
        let failed = case.command(["exec", "-u", "70000", &id, "id"]).output();
        assert_ne!(failed.code, 0, "{}: 70000 is not mapped", runtime.name);
        case.delete(&id);
        case.finish();
    }
    assert_eq!(seen.first(), seen.last());
}

/// What rootless podman does: a user namespace first, and the runtime as its root, with or without one more.
#[test]
fn the_root_of_a_user_namespace_runs_containers() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let Some(rootless) = Rootless::new(&runtime) else { return };
        let unshared = |options: &[&str], arguments: &[&str]| {
            rootless
                .user
                .command("/usr/bin/unshare".as_ref())
                .args(options.iter().copied())
                .args([rootless.program.as_os_str(), "--root".as_ref(), rootless.case.state_root().as_os_str()])
                .args(arguments.iter().copied())
                .output()
        };
        let script = "id -u; cat /proc/self/uid_map; [ -c /dev/null ] && echo null; \
                      (echo 0 > /sys/fs/cgroup/cpu/cgroup.procs) 2>/dev/null || echo refused";
        let without = rootless.bundle().args(&["/bin/sh", "-c", script]).edit(json!({"linux": {
            "uidMappings": null, "gidMappings": null,
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]
        }}));
        let dir = without.write();
        let id = rootless.case.id("a");
        let run = ["run", "--bundle", &dir.to_string_lossy(), &id];
        let output = unshared(&["--user", "--map-root-user", "--mount"], &run).ok();
        assert!(output.stdout.starts_with("0\n") && output.stdout.ends_with("null\nrefused\n"), "{}", output.stdout);
        // And one more below it, of the one id there is.
        let with = rootless.bundle().args(&["/bin/sh", "-c", script]).edit(json!({"linux": {
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]
        }}));
        let dir = with.write();
        let run = ["run", "--bundle", &dir.to_string_lossy(), &id];
        let output = unshared(&["--user", "--map-root-user", "--mount"], &run).ok();
        assert!(output.stdout.contains(&format!("{:10} {:10}", 0, 0)), "{}: {}", runtime.name, output.stdout);
        if !runtime.is_runc() {
            // --rootless false: cgroups are a must then.
            let run = ["--rootless", "false", "run", "--bundle", &dir.to_string_lossy(), &id];
            let output = unshared(&["--user", "--map-root-user", "--mount"], &run);
            assert_eq!(output.code, 1);
            assert!(output.stderr.contains("cannot make the cgroup"), "{}", output.stderr);
        }
        rootless.case.finish();
    }
}

/// Joining the user namespace of another container of the same user, without any privilege.
#[test]
fn a_users_containers_share_a_user_namespace() {
    let Some(peers) = under_test_only("runc 1.1 wants maps for a joined user namespace") else { return };
    for runtime in peers {
        let Some(rootless) = Rootless::new(&runtime) else { return };
        let holder = rootless.detached(&rootless.bundle().forever(), "holder");
        let state: Value = serde_json::from_str(&rootless.call(&["state", &holder]).ok().stdout).expect("JSON");
        let path = |kind: &str| format!("/proc/{}/ns/{kind}", state["pid"]);
        let bundle = rootless
            .bundle()
            .args(&["/bin/sh", "-c", "readlink /proc/self/ns/user; readlink /proc/self/ns/ipc; id -u"])
            .edit(json!({
                "linux": {"uidMappings": null, "gidMappings": null, "namespaces": [
                    {"type": "pid"}, {"type": "uts"}, {"type": "mount"},
                    {"type": "user", "path": path("user")}, {"type": "ipc", "path": path("ipc")}
                ]}
            }));
        let output = rootless.run(&bundle).ok();
        let theirs = |kind: &str| std::fs::read_link(path(kind)).expect("readlink").display().to_string();
        assert_eq!(output.stdout, format!("{}\n{}\n0\n", theirs("user"), theirs("ipc")), "{}", runtime.name);
        rootless.delete(&holder);
        rootless.case.finish();
    }
}
