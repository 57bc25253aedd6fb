//! The harness itself: it sees each kind of leak, and a test that panics leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration_tests::{Case, Command, Leaks, merge, peers, processes_with};
use serde_json::json;

/// Some cgroup hierarchy.
fn hierarchy() -> PathBuf {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let line = table.lines().find(|line| line.contains(" - cgroup")).expect("a cgroup hierarchy");
    PathBuf::from(line.split(' ').nth(4).expect("a mount point"))
}

/// Makes one leak of each kind in `case`; the cgroup's folder.
fn leak(case: &Case) -> PathBuf {
    let mount = case.path().join("mount");
    fs::create_dir_all(&mount).expect("mkdir");
    let _ = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).args([&mount]).output().ok();
    let cgroup = hierarchy().join(case.id("leak"));
    fs::create_dir(&cgroup).expect("make a cgroup");
    fs::create_dir(case.state_root()).expect("mkdir");
    fs::write(case.state_root().join("file"), "").expect("write");
    // A grandchild that nobody waits for.
    let _ = Command::new("sh").args(["-c", "sleep 1000 & true"]).env("LEAK", case.id("leak")).output().ok();
    cgroup
}

#[test]
fn every_kind_of_leak_is_seen_and_swept_after_a_panic() {
    let Some(peers) = peers() else { return };
    let [runtime, _] = peers;
    let mut case = Case::new(&runtime);
    case.settle_in(Duration::ZERO);
    let (prefix, path) = (case.prefix.clone(), case.path().to_owned());
    let mut watch = Leaks::watch(&prefix, &case.state_root());
    watch.settle_in(Duration::ZERO);
    let cgroup = leak(&case);
    let open = fs::File::open(case.state_root().join("file")).expect("open");
    let seen = watch.remaining().join("\n");
    for kind in ["mount /", "cgroup /", "process ", "state file ", "fd of the test "] {
        assert!(seen.contains(kind), "no {kind:?} in {seen}");
    }
    drop(open);
    // The case's own check fails, which panics, and its Drop sweeps.
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || case.finish()));
    let text = failed.expect_err("the leaks are a failure");
    assert!(text.downcast_ref::<String>().is_some_and(|text| text.contains("left behind")));
    assert_eq!(processes_with(&prefix), Vec::<i32>::new());
    assert!(!cgroup.exists());
    assert!(!path.exists());
    assert!(!fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains(&prefix));
}

#[test]
fn a_running_container_is_swept_after_a_panic() {
    let Some(peers) = peers() else { return };
    for runtime in peers {
        let case = Case::new(&runtime);
        let prefix = case.prefix.clone();
        let id = case.detached(&case.bundle().forever(), "a");
        let pid = case.state(&id)["pid"].as_i64().expect("a pid");
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _open = case;
            panic!("a test that fails");
        }));
        assert!(failed.is_err());
        assert_eq!(processes_with(&prefix), Vec::<i32>::new());
        assert!(!Path::new(&format!("/proc/{pid}/root")).exists());
    }
}

#[test]
fn edits_merge_replace_and_remove() {
    let mut value = json!({"a": {"b": 1, "c": [1, 2]}, "d": 3});
    merge(&mut value, json!({"a": {"b": null, "c": [9]}, "e": {"f": {"g": 1}}}));
    assert_eq!(value, json!({"a": {"c": [9]}, "d": 3, "e": {"f": {"g": 1}}}));
}
