//! Cgroup v2 alone: the host's v2 tree in a mount namespace of the test's own. Which controllers it has is the
//! host's matter; birth in the cgroup, the cgroup namespace, the device filter, kill and removal need none.

use integration_tests::{Case, on_v2, under_test_only};
use serde_json::json;

#[test]
fn a_container_lives_and_ends_in_its_own_cgroup() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let bundle = case
        .bundle()
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .shell("tail -n 1 /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; cat < /dev/zero | head -c 3 | wc -c; exec sleep 1000")
        .write();
    let id = case.id("a");
    let script = format!(
        "$FLINT --root $ROOT run --detach --bundle {bundle} {id} > {out}; \
         while ! grep -q '^3$' {out}; do sleep 0.02; done; cat {out}; \
         $FLINT --root $ROOT exec {id} tail -n 1 /proc/self/cgroup; \
         $FLINT --root $ROOT ps --format json {id}; \
         $FLINT --root $ROOT delete --force {id}; \
         find /sys/fs/cgroup -name '{id}*'; echo end",
        bundle = bundle.display(),
        out = case.path().join("out").display(),
    );
    let output = on_v2(&case, &script).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"0::/"), "{}", output.stdout);
    assert_eq!(lines.iter().filter(|line| **line == "0::/").count(), 2, "exec is in it too: {}", output.stdout);
    assert!(lines.iter().any(|line| line.starts_with('[') && *line != "[]"), "ps: {}", output.stdout);
    assert_eq!(lines.last(), Some(&"end"));
    assert!(!output.stdout.contains("/sys/fs/cgroup/"), "a cgroup is left: {}", output.stdout);
    case.finish();
}

/// runtime-spec, config-linux.md, "Cgroup ownership": whoever runs a system in a user namespace makes cgroups.
#[test]
fn a_writable_cgroup_is_the_containers_own() {
    let Some([runtime]) = under_test_only("runc gives it away only with systemd") else { return };
    for (namespace, options, seen) in [
        (true, json!(["rw", "nosuid"]), "0\n0\nmade\n"),
        (true, json!(["ro", "nosuid"]), "65534\n65534\n"),
        (false, json!(["rw", "nosuid"]), "65534\n65534\n"),
    ] {
        let case = Case::new(&runtime);
        // The files that set limits stay the host's.
        let script = "cd /sys/fs/cgroup/$(sed -n 's/^0:://p' /proc/self/cgroup); stat -c %u . cgroup.procs; \
                      mkdir below 2>/dev/null && echo made; [ ! -e cgroup.freeze ] || [ $(stat -c %u cgroup.freeze) = 65534 ] || echo all; \
                      rmdir below 2>/dev/null; true";
        let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
        let mut bundle = case.bundle().writable().shell(script).push("/linux/namespaces", json!({"type": "user"}));
        if namespace {
            bundle = bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
        }
        let bundle =
            bundle.push("/mounts", mount).edit(json!({"linux": {"uidMappings": maps.clone(), "gidMappings": maps}}));
        std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown");
        let id = case.id("a");
        let output = on_v2(&case, &format!("$FLINT --root $ROOT run --bundle {} {id}", bundle.write().display())).ok();
        assert_eq!(output.stdout, seen, "cgroup namespace {namespace}, {options}: {}", output.stderr);
        case.finish();
    }
}

#[test]
fn devices_are_filtered_by_bpf() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let bundle = case
        .bundle()
        .capabilities(&["CAP_MKNOD"])
        .edit(json!({"linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}]}}}))
        .shell("head -c 1 /dev/zero | wc -c; mknod /dev/mem c 1 1 && head -c 1 /dev/mem || echo refused")
        .write();
    let id = case.id("a");
    let output = on_v2(&case, &format!("$FLINT --root $ROOT run --bundle {} {id}", bundle.display())).ok();
    assert_eq!(output.stdout, "1\nrefused\n", "{}", output.stderr);
    case.finish();
}

#[test]
fn namespaces_are_joined_by_a_container_of_its_own_cgroup() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let target = case.bundle().forever().write();
    let joining = case.bundle().shell("ps | grep -c sleep; tail -n 1 /proc/self/cgroup").write();
    let (first, second) = (case.id("a"), case.id("b"));
    let script = format!(
        "f() {{ $FLINT --root $ROOT \"$@\"; }}; f run --detach --bundle {target} {first} > /dev/null; \
         pid=$(f state {first} | sed -n 's/.*\"pid\": \\([0-9]*\\),/\\1/p'); \
         sed -i \"s|\\\"type\\\": \\\"pid\\\"|\\\"type\\\": \\\"pid\\\", \\\"path\\\": \\\"/proc/$pid/ns/pid\\\"|\" {joining}/config.json; \
         f run --bundle {joining} {second}; f delete --force {first}; echo end",
        target = target.display(),
        joining = joining.display(),
    );
    let output = on_v2(&case, &script).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines.first().is_some_and(|count| *count != "0"), "it sees the other's processes: {}", output.stdout);
    assert!(lines.get(1).is_some_and(|line| line.ends_with(&second)), "{}", output.stdout);
    assert_eq!(lines.last(), Some(&"end"), "{}", output.stderr);
    case.finish();
}

/// A container that manages its own cgroups has no processes in the top one, and exec cannot put one there.
#[test]
fn exec_follows_an_init_that_moved() {
    let Some([runtime]) = under_test_only("cgroup v2 in a mount namespace") else { return };
    let case = Case::new(&runtime);
    let bundle = case
        .bundle()
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .edit(json!({"mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
        ]}))
        .capabilities(&["CAP_DAC_OVERRIDE"])
        .shell(
            "cd /sys/fs/cgroup; mkdir inner; echo 0 > inner/cgroup.procs; \
             for name in $(cat cgroup.controllers); do echo +$name > cgroup.subtree_control; done; \
             cat cgroup.subtree_control | wc -w; exec sleep 1000",
        )
        .write();
    let id = case.id("a");
    let script = format!(
        "f() {{ $FLINT --root $ROOT \"$@\"; }}; f run --detach --bundle {bundle} {id} > {out}; \
         while ! grep -q '^[0-9]' {out}; do sleep 0.02; done; cat {out}; \
         f exec {id} tail -n 1 /proc/self/cgroup; f delete --force {id}; echo end",
        bundle = bundle.display(),
        out = case.path().join("out").display(),
    );
    let output = on_v2(&case, &script).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    if lines.first() == Some(&"0") {
        integration_tests::skip("the v2 tree of this host has no controller to enable");
    } else {
        assert_eq!(lines.get(1), Some(&"0::/inner"), "{}{}", output.stdout, output.stderr);
    }
    assert_eq!(lines.last(), Some(&"end"), "{}", output.stderr);
    case.finish();
}
