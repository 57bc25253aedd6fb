//! Time namespaces: offsets, joining by path, exec. Debian's runc and crun do not have them.

use integration_tests::{Case, under_test_only};
use serde_json::{Value, json};

const OFFSETS: &str = "cat /proc/self/timens_offsets";
const EXPECTED: &str = "monotonic        7881   2718281\nboottime         1337   3141519\n";

fn offsets() -> Value {
    json!({"linux": {"timeOffsets": {
        "monotonic": {"secs": 7881, "nanosecs": 2_718_281}, "boottime": {"secs": 1337, "nanosecs": 3_141_519}
    }}})
}

/// The whole seconds of the host's /proc/uptime.
fn uptime(text: &str) -> i64 {
    text.split('.').next().and_then(|seconds| seconds.trim().parse().ok()).expect("an uptime")
}

#[test]
fn offsets_are_those_of_the_config_and_clocks_show_them() {
    let Some([flint]) = under_test_only("it has no time namespaces") else { return };
    let case = Case::new(&flint);
    let bundle = case.bundle().push("/linux/namespaces", json!({"type": "time"})).edit(offsets());
    let script = format!("{OFFSETS}; cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time; readlink /proc/1/ns/time");
    let output = case.run(&bundle.shell(&script)).ok();
    let rest = output.stdout.strip_prefix(EXPECTED).unwrap_or_else(|| panic!("{}", output.stdout));
    let lines: Vec<_> = rest.lines().collect();
    let host = uptime(&std::fs::read_to_string("/proc/uptime").expect("a procfs"));
    let shift = uptime(lines[0]) - host;
    assert!((1330..=1338).contains(&shift), "the container's uptime is {shift} s ahead");
    let own = std::fs::read_link("/proc/self/ns/time").expect("a time namespace").display().to_string();
    assert!(lines[1] == lines[2] && lines[1] != own, "{rest}");
    case.finish();
}

#[test]
fn without_offsets_it_is_new_all_the_same() {
    let Some([flint]) = under_test_only("it has no time namespaces") else { return };
    let case = Case::new(&flint);
    let bundle = case.bundle().push("/linux/namespaces", json!({"type": "time"}));
    let text = case.run(&bundle.shell("cat /proc/self/timens_offsets; readlink /proc/self/ns/time")).ok().stdout;
    let own = std::fs::read_link("/proc/self/ns/time").expect("a time namespace").display().to_string();
    assert!(text.contains("monotonic           0         0\nboottime            0         0\n"), "{text}");
    assert!(!text.contains(&own), "{text}");
    case.finish();
}

#[test]
fn with_a_user_namespace() {
    let Some([flint]) = under_test_only("it has no time namespaces") else { return };
    let case = Case::new(&flint);
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = case
        .bundle()
        .push("/linux/namespaces", json!({"type": "time"}))
        .push("/linux/namespaces", json!({"type": "user"}))
        .edit(offsets())
        .edit(json!({"linux": {"uidMappings": map, "gidMappings": map}}));
    assert_eq!(case.run(&bundle.shell(OFFSETS)).ok().stdout, EXPECTED);
    case.finish();
}

#[test]
fn exec_and_other_containers_join_it() {
    let Some([flint]) = under_test_only("it has no time namespaces") else { return };
    let case = Case::new(&flint);
    let bundle = case.bundle().push("/linux/namespaces", json!({"type": "time"})).edit(offsets());
    // Created is enough: init is in it from the beginning.
    let id = case.created(&bundle.forever(), "a");
    assert_eq!(case.exec(&id, &["sh", "-c", OFFSETS]).ok().stdout, EXPECTED);
    let _ = case.call(["start", &id]).ok();
    assert_eq!(case.exec(&id, &["sh", "-c", OFFSETS]).ok().stdout, EXPECTED);

    let pid = case.state(&id)["pid"].as_i64().expect("a pid");
    let path = format!("/proc/{pid}/ns/time");
    let joined = case.bundle().push("/linux/namespaces", json!({"type": "time", "path": path}));
    assert_eq!(case.run(&joined.shell(OFFSETS)).ok().stdout, EXPECTED);
    case.delete(&id);
    case.finish();
}

#[test]
fn what_the_kernel_or_the_config_refuses() {
    let Some([flint]) = under_test_only("it has no time namespaces") else { return };
    let case = Case::new(&flint);
    let output = case.run(&case.bundle().args(&["true"]).edit(offsets())).exits(1);
    assert!(output.stderr.contains("linux.timeOffsets: they need a time namespace"), "{}", output.stderr);
    // Before the machine was started.
    let bundle = case
        .bundle()
        .push("/linux/namespaces", json!({"type": "time"}))
        .edit(json!({"linux": {"timeOffsets": {"boottime": {"secs": -1_000_000_000_000_i64}}}}));
    let output = case.run(&bundle.args(&["true"])).exits(1);
    assert!(output.stderr.contains("timens_offsets"), "{}", output.stderr);
    case.finish();
}
