//! Configs without a mount namespace: their mounts are the host's, flint beside runc.

use std::fs;

use integration_tests::{Bundle, Case, Command, Output, peers, under_test_only};
use serde_json::json;

/// `then` in a shell of a mount namespace of its own, whose mounts are shared as a host's are, but not with the host: what is
/// left is seen and goes with it. `$0` is the runtime, `$1` its state root, `$2` the bundle and `$3` an id.
fn on_a_host(case: &Case, bundle: &Bundle, then: &str) -> Output {
    let (bundle, state) = (bundle.write(), case.state_root());
    let words = [case.runtime.path.as_os_str(), state.as_os_str(), bundle.as_os_str()];
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", &format!("mount --make-rshared /; {then}")])
        .args(words)
        .args([case.id("host")])
        .output()
}

/// A config without a mount namespace, whose mounts are then the host's.
fn of_the_host(case: &Case) -> Bundle {
    let volume = case.path().join("data");
    fs::create_dir_all(&volume).expect("make a volume");
    fs::write(volume.join("file"), "in data\n").expect("write into the volume");
    let kinds = ["pid", "network", "ipc", "uts", "cgroup"].map(|kind| json!({"type": kind}));
    case.bundle()
        .edit(json!({"linux": {"maskedPaths": null, "readonlyPaths": null, "namespaces": kinds}}))
        .push("/mounts", json!({"destination": "/data", "source": volume, "options": ["rbind", "ro"]}))
        .shell("cat /data/file; echo x > /dev/null; ls /proc/self >/dev/null")
}

#[test]
fn mounts_are_made_on_the_host() {
    let Some(peers) = peers() else { return };
    let mountpoints = "cut -d' ' -f5 /proc/self/mountinfo | grep -F \"$2/rootfs\" | sort";
    let seen = peers.map(|runtime| {
        let case = Case::new(&runtime);
        let script = format!(
            "\"$0\" --root \"$1\" run --bundle \"$2\" \"$3\"; {mountpoints}; \
             grep -F \"$2/rootfs\" /proc/self/mountinfo | grep -c shared: >&2 || true; umount -R \"$2/rootfs\""
        );
        let output = on_a_host(&case, &of_the_host(&case), &script).ok();
        // What is mounted below the root is seen in no other namespace.
        assert_eq!(output.error_lines().last(), Some(&"0"), "{}", output.stderr);
        let seen = case.neutral(&output.stdout);
        assert!(seen.contains("in data\n") && seen.contains("rootfs/data"), "{seen}");
        case.finish();
        seen
    });
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a_failed_create_leaves_no_mount() {
    let Some(flint) = under_test_only("runc leaves them") else { return };
    let case = Case::new(&flint[0]);
    let bundle = of_the_host(&case).push("/hooks/createRuntime", json!({"path": "/bin/false"}));
    let script =
        "! \"$0\" --root \"$1\" run --bundle \"$2\" \"$3\" || exit 9; ! grep -F \"$2/rootfs\" /proc/self/mountinfo";
    let output = on_a_host(&case, &bundle, script).ok();
    assert!(output.stderr.contains("createRuntime"), "{}", output.stderr);
    case.finish();
}
