//! Limits as properties: the figures are runc's.

use oci_spec::runtime::{Linux, LinuxResources};
use serde_json::json;

use super::super::super::devices;
use super::{Mode, bits, leave_out, of_devices, of_resources, rounded_quota, with_rounded_quota};

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn shown(mode: Mode, json: serde_json::Value) -> Vec<String> {
    let mut resources = resources(json);
    let _ = leave_out(mode, &mut resources);
    let mut all: Vec<String> = of_resources(mode, &resources).unwrap().iter().map(ToString::to_string).collect();
    all.sort();
    all
}

fn limits() -> serde_json::Value {
    json!({
        "memory": {"limit": 1_048_576, "reservation": 4096, "swap": 2_097_152},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0-2,4", "mems": "0"},
        "pids": {"limit": 10},
        "blockIO": {"weight": 100},
    })
}

#[test]
fn each_version_has_its_own() {
    let v1 = [
        "AllowedCPUs=[0x17]",
        "AllowedMemoryNodes=[0x01]",
        "BlockIOWeight=100",
        "CPUQuotaPerSecUSec=500000",
        "CPUQuotaPeriodUSec=100000",
        "CPUShares=1024",
        "MemoryLimit=1048576",
        "TasksMax=10",
    ];
    assert_eq!(shown(Mode::Hybrid, limits()), v1);
    let v2 = [
        "AllowedCPUs=[0x17]",
        "AllowedMemoryNodes=[0x01]",
        "CPUQuotaPerSecUSec=500000",
        "CPUQuotaPeriodUSec=100000",
        "CPUWeight=100",
        "MemoryLow=4096",
        "MemoryMax=1048576",
        "MemorySwapMax=1048576",
        "TasksMax=10",
    ];
    assert_eq!(shown(Mode::V2, limits()), v2);
    assert_eq!(shown(Mode::V2, json!({})), [""; 0]);
}

#[test]
fn no_limit_is_infinity() {
    let unlimited = json!({"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}});
    let expected = ["CPUQuotaPerSecUSec=infinity", "MemoryMax=infinity", "MemorySwapMax=infinity", "TasksMax=infinity"];
    assert_eq!(shown(Mode::V2, unlimited), expected);
}

#[test]
fn files_of_unified_become_properties_where_there_are_such() {
    let unified = json!({"unified": {
        "memory.high": "1000", "memory.max": "max", "pids.max": "0", "cpu.max": "20000 100000", "cpu.weight": "50",
        "cpu.idle": "1", "cpuset.cpus": "1", "hugetlb.2MB.max": "0", "memory.oom.group": "1",
    }});
    let expected = [
        "AllowedCPUs=[0x02]",
        "CPUQuotaPerSecUSec=200000",
        "CPUQuotaPeriodUSec=100000",
        "CPUWeight=0",
        "MemoryHigh=1000",
        "MemoryMax=infinity",
        "TasksMax=1",
    ];
    assert_eq!(shown(Mode::V2, unified), expected);
    let wrong = resources(json!({"unified": {"memory.max": "much"}}));
    assert!(of_resources(Mode::V2, &wrong).unwrap_err().to_string().contains("memory.max"));
}

#[test]
fn what_is_idle_has_no_weight() {
    for (json, word) in [
        (json!({"cpu": {"idle": 1, "shares": 200}}), "CPUWeight"),
        (json!({"unified": {"cpu.idle": "1", "cpu.weight": "50"}}), "cpu.weight"),
    ] {
        let mut resources = resources(json);
        assert!(leave_out(Mode::Hybrid, &mut resources).is_empty());
        let warnings = leave_out(Mode::V2, &mut resources);
        assert!(warnings.len() == 1 && warnings[0].ends_with(&format!("ignoring {word}")), "{warnings:?}");
        let properties = of_resources(Mode::V2, &resources).unwrap();
        assert_eq!(properties.iter().map(ToString::to_string).collect::<Vec<_>>(), ["CPUWeight=0"]);
        assert!(leave_out(Mode::V2, &mut resources).is_empty());
    }
    let mut both = resources(json!({"cpu": {"idle": 0, "shares": 200}}));
    assert!(leave_out(Mode::V2, &mut both).is_empty() && both.cpu().as_ref().unwrap().shares().is_some());
}

#[test]
fn quotas_are_rounded_up_to_a_hundredth_and_the_files_get_the_same() {
    for (quota, period, expected) in [
        (50_000, Some(100_000), 50_000),
        (33_333, Some(100_000), 34_000),
        (1_000, None, 1_000),
        (1, Some(100_000), 1_000),
        (5_001, Some(10_000), 5_100),
        (-1, Some(100_000), -1),
        (i64::MAX, Some(1), 18_446_744_073_709),
    ] {
        assert_eq!(rounded_quota(quota, period), expected, "{quota} {period:?}");
    }
    let linux: Linux =
        serde_json::from_value(json!({"resources": {"cpu": {"quota": 33_333, "period": 100_000}}})).unwrap();
    let rounded = with_rounded_quota(&linux);
    let cpu = rounded.resources().as_ref().and_then(|resources| resources.cpu().as_ref());
    assert_eq!(cpu.map(oci_spec::runtime::LinuxCpu::quota), Some(Some(34_000)));
}

#[test]
fn lists_of_processors() {
    assert_eq!(bits("0-8").unwrap().to_string(), "[0xff, 0x01]");
    assert_eq!(bits(" 1 , 9 ,").unwrap().to_string(), "[0x02, 0x02]");
    for wrong in ["", ",", "3-1", "a", "-1", "99999999999", "8192", "0-18446744073709551615"] {
        assert!(bits(wrong).is_err(), "{wrong}");
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it reads well")]
fn rules(json: serde_json::Value) -> Vec<devices::DeviceRule> {
    let linux: Linux = serde_json::from_value(json!({"resources": {"devices": json}})).unwrap();
    devices::rules(Some(&linux)).unwrap()
}

#[test]
fn devices_are_allowed_by_their_paths() {
    let rules = rules(
        json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"}]),
    );
    let all: Vec<String> = of_devices(Mode::V2, &rules).iter().map(ToString::to_string).collect();
    assert_eq!(all[..2], ["DeviceAllow=[]", "DevicePolicy=\"strict\""]);
    for part in [
        "(\"/dev/block/8:0\", \"r\")",
        "(\"char-*\", \"m\")",
        "(\"/dev/char/1:3\", \"rwm\")",
        "(\"char-136\", \"rwm\")",
    ] {
        assert!(all[2].contains(part), "{part}: {}", all[2]);
    }
}

#[test]
fn what_systemd_cannot_say_never_widens_v1_and_never_narrows_v2() {
    let everything = rules(json!([{"allow": true, "access": "rwm"}]));
    let policy = |mode, rules: &[devices::DeviceRule]| of_devices(mode, rules)[1].value.to_string();
    assert_eq!(policy(Mode::V1, &everything), "\"auto\"");
    let all_but_one = rules(json!([
        {"allow": true, "access": "rwm"},
        {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "rwm"},
    ]));
    assert_eq!(
        (policy(Mode::V1, &all_but_one), policy(Mode::V2, &all_but_one)),
        ("\"strict\"".into(), "\"auto\"".into())
    );
    // A rule that takes away what nobody has, and one that takes back a part of an earlier one.
    let denied = rules(json!([
        {"allow": false, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "minor": 0, "access": "rwm"},
        {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"},
    ]));
    for mode in [Mode::V1, Mode::V2] {
        let allowed = of_devices(mode, &denied).last().unwrap().to_string();
        assert!(allowed.contains("(\"/dev/block/8:0\", \"rm\")") && allowed.contains("/dev/char/1:3"), "{allowed}");
        assert!(!allowed.contains("1:11"), "{allowed}");
    }
    let any_major = rules(json!([{"allow": true, "type": "c", "minor": 7, "access": "r"}]));
    let said = |mode| of_devices(mode, &any_major).last().unwrap().to_string().contains("(\"char-*\", \"r\")");
    assert!(!said(Mode::V1) && said(Mode::V2));
}
