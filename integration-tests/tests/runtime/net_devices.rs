//! `linux.netDevices`: devices of the host's network namespace become the container's. The "host" is a network namespace
//! of the test's own, so that no device of the machine is touched; it is gone with the last process in it.

use std::path::Path;

use integration_tests::{Bundle, Case, Command, Output, Runtime, missing, skip, under_test_only};
use serde_json::{Value, json};

fn flint() -> Option<Runtime> {
    if missing(&["ip", "unshare"]) {
        return None;
    }
    let [flint] = under_test_only("linux.netDevices (runc 1.1)")?;
    let veth = Command::new(Path::new("/usr/bin/unshare"))
        .args(["-n", "ip", "link", "add", "flt0", "type", "veth", "peer", "name", "flt1"])
        .output();
    if veth.code != 0 {
        skip("the kernel has no veth devices");
        return None;
    }
    Some(flint)
}

/// Runs the bundle in a network namespace with the devices flt0 and flt1, after `setup` and before `after`.
fn run(case: &Case, bundle: &Bundle, setup: &str, after: &str) -> Output {
    let script = format!(
        "set -e; ip link set lo up; ip link add flt0 type veth peer name flt1; {setup}\n\
         set +e; \"$1\" --root \"$2\" run --bundle \"$3\" \"$4\"; code=$?; {after}\nexit $code"
    );
    Command::new(Path::new("/usr/bin/unshare"))
        .args(["-n", "/bin/sh", "-c", &script, "sh"])
        .args([case.runtime.path.as_os_str(), case.state_root().as_os_str(), bundle.write().as_os_str()])
        .args([case.id("run")])
        .output()
}

fn devices(bundle: Bundle, devices: &Value) -> Bundle {
    bundle.edit(json!({"linux": {"netDevices": devices}}))
}

const ADDRESSES: &str = "ip addr add 192.0.2.1/24 dev flt0; ip addr add 198.51.100.7/32 dev flt0 scope link
    ip -6 addr add 2001:db8::1/64 dev flt0 nodad; ip link set flt0 mtu 1400 address 02:00:00:00:00:07 up";

#[test]
fn a_device_moves_with_its_addresses_and_gets_a_name() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let bundle =
        devices(case.bundle().shell("ip addr show dev eth0; ip addr show dev lo"), &json!({"flt0": {"name": "eth0"}}));
    let output = run(&case, &bundle, ADDRESSES, "ip -o link show flt0 2>&1; ip -o link show flt1").ok();
    for words in [
        "inet 192.0.2.1/24",
        "inet6 2001:db8::1/64",
        "mtu 1400",
        "02:00:00:00:00:07",
        "eth0@",
        ",UP",
        "inet 127.0.0.1/8",
    ] {
        assert!(output.stdout.contains(words), "no {words}: {}", output.stdout);
    }
    assert!(!output.stdout.contains("198.51.100.7"), "of link scope: {}", output.stdout);
    assert!(output.stdout.contains("\"flt0\" does not exist"), "still on the host: {}", output.stdout);
    case.finish();
}

#[test]
fn several_devices_in_a_user_namespace() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let ids = json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    let bundle = case
        .bundle()
        .shell("ip -o link show flt0; ip -o link show other; ip -o addr show flt0")
        .push("/linux/namespaces", json!({"type": "user"}))
        .edit(json!({"linux": {"uidMappings": ids.clone(), "gidMappings": ids}}));
    let bundle = devices(bundle, &json!({"flt0": {}, "flt1": {"name": "other"}}));
    let output = run(&case, &bundle, ADDRESSES, "").ok();
    for words in ["flt0@other", "other@flt0", "inet 192.0.2.1/24"] {
        assert!(output.stdout.contains(words), "no {words}: {}", output.stdout);
    }
    case.finish();
}

#[test]
fn a_namespace_that_is_joined_keeps_the_device() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).to_vec();
    let file = case.path().join("netns");
    let bundle = case
        .bundle()
        .shell("ip -o addr show flt0")
        .edit(json!({"linux": {"namespaces": namespaces}}))
        .push("/linux/namespaces", json!({"type": "network", "path": file}));
    let bundle = devices(bundle, &json!({"flt0": {}}));
    let setup = format!(
        "{ADDRESSES}; touch {0}; unshare -n --mount-propagation private sh -c 'mount --bind /proc/self/ns/net {0}'",
        file.display()
    );
    let setup = setup.replace("unshare -n --mount-propagation private", "unshare -n");
    let after = format!("nsenter --net={0} ip -o link show flt0; umount {0}", file.display());
    let output = run(&case, &bundle, &setup, &after).ok();
    assert!(output.stdout.matches("flt0").count() >= 2, "{}", output.stdout);
    assert!(output.stdout.contains("inet 192.0.2.1/24"), "{}", output.stdout);
    case.finish();
}

#[test]
fn a_failure_names_the_device_and_leaves_it() {
    let Some(flint) = flint() else { return };
    for (list, words) in [
        (
            json!({"flt9": {}}),
            "linux.netDevices: flt9: find it on the host: no such device (the host has no device of this name)",
        ),
        (
            json!({"flt0": {"name": "lo"}}),
            "linux.netDevices: flt0 as lo: move it to the container's network namespace: file exists",
        ),
    ] {
        let case = Case::new(&flint);
        let bundle = devices(case.bundle(), &list);
        let output = run(&case, &bundle, ADDRESSES, "ip addr show dev flt0");
        assert!(output.code == 1 && output.stderr.contains(words), "{words}: {}", output.stderr);
        for words in [",UP", "inet 192.0.2.1/24", "inet6 2001:db8::1/64"] {
            assert!(output.stdout.contains(words), "no {words}: {output:?}");
        }
        case.finish();
    }
}

#[test]
fn not_with_the_hosts_network() {
    let Some(flint) = flint() else { return };
    let case = Case::new(&flint);
    let namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).to_vec();
    let host = case.bundle().edit(json!({"linux": {"namespaces": namespaces}}));
    let output = run(&case, &devices(host, &json!({"flt0": {}})), "", "");
    assert!(output.code == 1 && output.stderr.contains("that is not the host's"), "{}", output.stderr);
    let joined = case
        .bundle()
        .edit(json!({"linux": {"namespaces": namespaces}}))
        .push("/linux/namespaces", json!({"type": "network", "path": "/proc/self/ns/net"}));
    let output = run(&case, &devices(joined, &json!({"flt0": {}})), "", "");
    assert!(output.code == 1 && output.stderr.contains("that is not the host's"), "{}", output.stderr);
    case.finish();
}
