//! A whole system in a container: Debian with systemd as its init reaches its default target and shuts down when it is asked to
//! (SIGRTMIN+3, systemd(1) "Signals"), on the host's hierarchies and on cgroup v2 alone.

use std::path::Path;

use integration_tests::{Bundle, Case, Runtime, debian_system_rootfs, on_v2, peers, under_test_only, wait_until};
use serde_json::json;

/// What systemd wants of whoever makes its container (systemd's CONTAINER_INTERFACE): its own cgroups, writable, folders in memory,
/// and a name for the container's manager. No CAP_SYS_ADMIN. The root is shared by the tests and stays as it is.
fn system(case: &Case, rootfs: &Path) -> Bundle {
    let capabilities = [
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ];
    let mut bundle = case
        .bundle()
        .args(&["/sbin/init"])
        .edit(json!({
            "root": {"path": rootfs},
            "process": {
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=oci"],
                "noNewPrivileges": false,
                "rlimits": null,
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities, "ambient": null},
            },
            "linux": {"maskedPaths": null, "readonlyPaths": ["/proc/sys"]},
        }))
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .push("/mounts", json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "rw"],
        }));
    for folder in ["/run", "/run/lock", "/tmp", "/var/log", "/var/tmp", "/var/lib/systemd"] {
        let options = ["nosuid", "nodev", "mode=755"];
        bundle = bundle
            .push("/mounts", json!({"destination": folder, "type": "tmpfs", "source": "tmpfs", "options": options}));
    }
    bundle
}

/// SIGRTMIN+3; Debian's runc takes numbers of real-time signals alone.
fn stop(runtime: &Runtime) -> &'static str {
    if runtime.is_runc() { "37" } else { "SIGRTMIN+3" }
}

#[test]
fn debian_starts_and_shuts_down_on_the_hosts_cgroups() {
    let Some(peers) = peers() else { return };
    let Some(rootfs) = debian_system_rootfs() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let id = case.detached(&system(&case, &rootfs), "a");
        let told = || case.exec(&id, &["systemctl", "is-system-running"]).stdout.trim().to_owned();
        let mut last = String::new();
        wait_until("systemd is up", || {
            last = told();
            last == "running" || last == "degraded"
        });
        let failed = case.exec(&id, &["systemctl", "list-units", "--failed", "--no-pager", "--plain"]).stdout;
        assert_eq!(last, "running", "{}: {failed}", runtime.name);
        let target = case.exec(&id, &["systemctl", "is-active", "default.target"]);
        assert_eq!(target.stdout.trim(), "active", "{}", runtime.name);
        let _ = case.call(["kill", &id, stop(&runtime)]).ok();
        case.wait_for(&id, "stopped");
        let _ = case.call(["delete", &id]).ok();
        case.finish();
    }
}

#[test]
fn debian_starts_and_shuts_down_on_v2() {
    let Some([flint]) = under_test_only("a cgroup v2 tree beside the host's") else { return };
    let Some(rootfs) = debian_system_rootfs() else { return };
    let case = Case::new(&flint);
    let folder = system(&case, &rootfs).write();
    let script = format!(
        "flint() {{ \"$FLINT\" --root \"$ROOT\" \"$@\"; }}
         flint run --detach --bundle {} {id}
         trap 'flint delete --force {id}' EXIT
         for try in $(seq 300); do
             state=$(flint exec {id} systemctl is-system-running || true)
             case $state in running|degraded) break;; esac
             sleep 0.2
         done
         flint exec {id} systemctl list-units --failed --no-pager --plain
         flint exec {id} cat /proc/1/cgroup
         flint kill {id} SIGRTMIN+3
         for try in $(seq 300); do
             flint state {id} | grep -q stopped && break
             sleep 0.2
         done
         flint state {id} | grep -q stopped
         flint delete {id}
         echo \"it was $state\"",
        folder.display(),
        id = case.id("a"),
    );
    let output = on_v2(&case, &script).ok();
    assert!(output.stdout.contains("it was running"), "{}{}", output.stdout, output.stderr);
    // systemd has made its own cgroups below the container's.
    assert!(output.stdout.contains("0::/init.scope"), "{}", output.stdout);
    case.finish();
}
