//! Hard limits above the runtime's own: raising them takes CAP_SYS_RESOURCE, which root of the virtual machine has.

use std::fs;

use integration_tests::{Case, Command, peers, skip, wait_until};
use serde_json::json;

const SYS_RESOURCE: u64 = 1 << 24;

/// In a user namespace a process has no right to raise its own.
#[test]
fn a_hard_limit_is_raised_for_a_user_namespace() {
    let status = fs::read_to_string("/proc/self/status").expect("our status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("our capabilities");
    if u64::from_str_radix(effective, 16).expect("a mask") & SYS_RESOURCE == 0 {
        return skip("needs CAP_SYS_RESOURCE (cargo xtask vm --test vm_limits)");
    }
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        let rlimits = json!([{"type": "RLIMIT_NOFILE", "soft": 5000, "hard": 5000}]);
        let bundle = case
            .bundle()
            .shell("ulimit -Sn; ulimit -Hn; exec sleep 1000")
            .push("/linux/namespaces", json!({"type": "user"}))
            .edit(
                json!({"process": {"rlimits": rlimits}, "linux": {"uidMappings": maps.clone(), "gidMappings": maps}}),
            );
        std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown");
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"], "rlimits": rlimits,
                             "args": ["sh", "-c", "ulimit -Sn; ulimit -Hn"]});
        fs::write(case.path().join("process.json"), process.to_string()).expect("write");
        let (id, out) = (case.id("a"), case.path().join("out"));
        let script = "ulimit -Sn 1000; ulimit -Hn 1000; \"$0\" --root \"$1\" run --detach --bundle \"$2\" \"$3\" >\"$4/out\"; \
                      \"$0\" --root \"$1\" exec --process \"$4/process.json\" \"$3\"";
        let output = Command::new("sh")
            .args(["-euc", script])
            .args([&runtime.path, &case.state_root(), &bundle.write()])
            .args([&id])
            .args([case.path()])
            .output()
            .ok();
        assert_eq!(output.stdout, "5000\n5000\n", "exec, {}", runtime.name);
        let said = || fs::read_to_string(&out).expect("its output");
        wait_until("the program has said its limits", || said().lines().count() == 2);
        assert_eq!(said(), "5000\n5000\n", "run, {}", runtime.name);
        case.delete(&id);
        case.finish();
    }
}
