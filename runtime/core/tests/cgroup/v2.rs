//! cgroup v2, in a mount namespace of the test's own: this program runs again there.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use flint_runtime::cgroup::{Cgroup, Layout, Mode};

use crate::container::{Container, RootControl, may_run};

/// Set in the re-run of this program that has a v2 tree at /sys/fs/cgroup.
const IN_V2: &str = "FLINT_TEST_CGROUP_V2";

#[test]
fn the_same_on_cgroup_v2() {
    if !may_run("the_same_on_cgroup_v2") || std::env::var_os(IN_V2).is_some() {
        return;
    }
    let _control = RootControl::remember();
    let run = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "/bin/sh", "-c"])
        .arg("mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" --skip the_same_on_cgroup_v2 --nocapture --test-threads 2")
        .arg(std::env::current_exe().unwrap())
        .env(IN_V2, "1")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{text}");
    assert!(text.contains("test v2::device_filter ... ") && !text.contains("skipped v2::"), "{text}");
}

fn in_v2(test: &str) -> bool {
    may_run(test)
        && (Layout::detect().unwrap().mode() == Mode::V2 || {
            println!("skipped {test} here: it runs again with a v2 tree, from the_same_on_cgroup_v2");
            false
        })
}

#[test]
fn device_filter() {
    if !in_v2("v2::device_filter") {
        return;
    }
    let open = |container: &mut Container, device: &str| -> bool {
        let result = std::env::temp_dir().join(format!("flint-test-{}-opened", std::process::id()));
        let _ = fs::remove_file(&result);
        container.start(&format!("if (exec 3<{device}); then echo yes; else echo no; fi >{}", result.display()));
        container.reap();
        let answer = fs::read_to_string(&result).unwrap();
        fs::remove_file(&result).unwrap();
        answer.trim() == "yes"
    };
    let layout = Layout::detect().unwrap();
    let mut container = Container::new("devices", "{}");
    assert!(open(&mut container, "/dev/null") && open(&mut container, "/dev/urandom"));
    assert!(!open(&mut container, "/dev/kmsg"), "1:11 is not in the default list");

    // Another program takes the place of the first one.
    let more =
        r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
    Cgroup::create(&layout, &Container::plan(&layout, "devices", more)).unwrap();
    assert!(open(&mut container, "/dev/kmsg") && open(&mut container, "/dev/null"));
    let all =
        r#"{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":3,"access":"r"}]}"#;
    Cgroup::create(&layout, &Container::plan(&layout, "devices", all)).unwrap();
    assert!(open(&mut container, "/dev/kmsg"));
}

#[test]
fn clone_into_and_hugetlb() {
    if !in_v2("v2::clone_into_and_hugetlb") {
        return;
    }
    let layout = Layout::detect().unwrap();
    if !layout.unified_controllers().iter().any(|name| name == "hugetlb") {
        println!("skipped the limit: no hugetlb controller on v2");
        return;
    }
    let container = Container::new("hugetlb", r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#);
    let file = container.folder("").join("hugetlb.2MB.max");
    assert_eq!(fs::read_to_string(file).unwrap().trim(), "4194304");
    let folder = container.cgroup.clone_into().unwrap();
    let shown = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap();
    assert_eq!(Path::new(&shown), container.folder(""));
}
