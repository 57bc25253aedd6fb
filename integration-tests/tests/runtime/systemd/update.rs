//! `update` with the systemd driver: what systemd makes of new limits, and what it must leave alone.

use integration_tests::Case;
use serde_json::json;

use super::{both, call, detached, file, finish, flint_on_v2, is_v2, limits, systemctl};

/// systemd has its own idea of a period without a quota, and takes one alone for the end of the quota.
#[test]
fn a_period_alone_changes_nothing_else() {
    let Some(([flint, _], _one)) = both() else { return };
    let case = Case::new(&flint);
    let id = detached(&case, &case.bundle().forever().edit(limits()), "a");
    let max = || {
        if is_v2() {
            return file(&case, &id, ("", ""), "cpu.max");
        }
        let [quota, period] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|name| file(&case, &id, ("cpu", name), ""));
        format!("{quota} {period}")
    };
    let update = |option: &str, value: &str| call(&case, &["update", option, value, &id]).ok();
    let _ = update("--cpu-period", "50000");
    assert_eq!(max(), "50000 50000");
    let _ = update("--cpu-quota", "-1");
    let none = if is_v2() { "max" } else { "-1" };
    assert_eq!(max(), format!("{none} 50000"));
    let _ = update("--cpu-period", "90000");
    assert_eq!(max(), format!("{none} 90000"));
    case.delete(&id);
    finish(case);
}

/// On v1 systemd writes its own list of devices with every change.
#[test]
fn an_update_leaves_the_devices_alone() {
    let Some(([flint, _], _one)) = both() else { return };
    for rules in [
        json!([{"allow": false, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]),
        json!([{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"}]),
    ] {
        let case = Case::new(&flint);
        let edit = json!({"linux": {"resources": {"devices": rules}}});
        let id = detached(&case, &case.bundle().forever().edit(limits()).edit(edit), "a");
        let list = || if is_v2() { String::new() } else { file(&case, &id, ("devices", "devices.list"), "") };
        let before = list();
        let _ = call(&case, &["update", "--pids-limit", "30", &id]).ok();
        assert_eq!(list(), before);
        let _ = case.exec(&id, &["dd", "if=/dev/zero", "of=/dev/null", "count=1"]).ok();
        assert_eq!(case.status(&id), "running", "it stood still for the change alone");
        // One that stands still stays so.
        let _ = call(&case, &["pause", &id]).ok();
        let _ = call(&case, &["update", "--pids-limit", "40", &id]).ok();
        assert_eq!(case.status(&id), "paused");
        let _ = call(&case, &["resume", &id]).ok();
        case.delete(&id);
        finish(case);
    }
}

/// A weight ends the time of being idle, as systemd has it.
#[test]
fn an_idle_scope_takes_a_weight() {
    let Some((flint, _one)) = flint_on_v2() else { return };
    let case = Case::new(&flint);
    let id = detached(&case, &case.bundle().forever(), "a");
    let idle = || (file(&case, &id, ("cpu", "cpu.idle"), "cpu.idle"), file(&case, &id, ("", ""), "cpu.weight"));
    let _ = call(&case, &["update", "--cpu-share", "200", "--cpu-idle", "1", &id]).ok();
    assert_eq!(idle().0, "1");
    for when in ["updated", "reloaded"] {
        let _ = call(&case, &["update", "--cpu-share", "200", &id]).ok();
        let (idle, weight) = idle();
        assert!(idle == "0" && !["0", "100"].contains(&weight.as_str()), "{when}: {idle}, {weight}");
        let _ = systemctl(&["daemon-reload"]);
    }
    let _ = call(&case, &["update", "--cpu-idle", "1", &id]).ok();
    let unified = json!({"unified": {"cpu.weight": "8"}}).to_string();
    let update = case.command(["--systemd-cgroup", "update", "--resources", "-", &id]).input(unified);
    let _ = update.output().ok();
    assert_eq!(idle(), ("0".to_owned(), "8".to_owned()));
    // systemd learns of it, too, and does not make it idle again.
    let _ = call(&case, &["update", "--cpu-idle", "1", &id]).ok();
    let _ = call(&case, &["update", "--cpu-idle", "0", &id]).ok();
    let _ = call(&case, &["update", "--pids-limit", "40", &id]).ok();
    let _ = systemctl(&["daemon-reload"]);
    assert_eq!(idle(), ("0".to_owned(), "100".to_owned()));
    case.delete(&id);
    finish(case);
}
