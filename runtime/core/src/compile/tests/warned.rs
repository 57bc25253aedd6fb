//! What the specification wants ignored or warned about.

use serde_json::json;

use super::*;

#[test]
fn unknown_properties_are_ignored() {
    let mut config = config();
    config["tomorrow"] = json!({"a": 1});
    config["linux"]["tomorrow"] = json!([1]);
    config["process"]["tomorrow"] = json!("x");
    config["process"]["user"]["tomorrow"] = json!(true);
    assert!(compiled(&config).warnings.is_empty());
}

#[test]
fn unknown_seccomp_architectures_are_left_out() {
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_TOMORROW"],
        "syscalls": [{"names": ["read", "call_of_tomorrow"], "action": "SCMP_ACT_ALLOW"}]
    });
    let plan = compiled(&set("/linux/seccomp", seccomp));
    assert_eq!(plan.warnings, ["linux.seccomp.architectures: \"SCMP_ARCH_TOMORROW\" is unknown and ignored"]);
    assert_eq!(lines_of(&plan, "install the seccomp filter").len(), 1);
}

#[test]
fn capabilities_that_are_not_there() {
    let sets = json!({"bounding": ["CAP_SYS_RESOURCE", "CAP_KILL", "CAP_OF_TOMORROW"]});
    let plan = compiled(&set("/process/capabilities", sets));
    assert_eq!(
        plan.warnings,
        [
            "process.capabilities: ignoring unknown or unavailable capabilities: [CAP_OF_TOMORROW]",
            "process.capabilities: ignoring unknown or unavailable capabilities: [CAP_SYS_RESOURCE]",
        ]
    );
    assert!(plan.init.contains(&Step::BoundingSet { keep: 1 << 5 }));
}

#[test]
fn a_user_namespace_has_what_the_maker_lacks() {
    let sets = json!({"bounding": ["CAP_SYS_RESOURCE"], "effective": ["CAP_SYS_RESOURCE"]});
    let plan = compiled(&with_user(set("/process/capabilities", sets)));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert!(plan.init.contains(&Step::BoundingSet { keep: SYS_RESOURCE }));
}

#[test]
fn relative_destinations_start_at_the_root() {
    let plan = compiled(&set("/mounts", json!([{"destination": "a/../b", "type": "tmpfs"}])));
    assert_eq!(lines_of(&plan, "mount"), ["mount #0 tmpfs -> /b (tmpfs)"]);
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].starts_with("mount destination a/../b is not absolute"));
}

#[test]
fn options_that_a_bind_mount_does_not_use() {
    let mounts = json!([{"destination": "/m", "source": "s", "options": ["rbind", "size=1k", "sync"]}]);
    let plan = compiled(&set("/mounts", mounts));
    assert_eq!(plan.warnings, ["mounts[0] /m: a bind mount has no use for the options size, sync"]);
}
