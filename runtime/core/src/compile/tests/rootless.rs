//! Plans of callers without privileges.

use flint_init::plan::{Barrier, MountSource, Step};
use serde_json::{Value, json};

use super::{Caller, Host, bundle, config, hybrid, options, unified, with};
use crate::Result;
use crate::cgroup::Need;
use crate::compile::compile;
use crate::plan::Plan;

fn user(host: Host) -> Host {
    Host { caller: Caller { uid: 1001, gid: 1002, setgroups_denied: false, cgroups: Need::WherePermitted }, ..host }
}

/// The caller's own ids as the container's root.
fn mapped() -> Value {
    let mut config = config();
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1001, "size": 1}]);
    config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1002, "size": 1}]);
    config
}

fn plan_on(config: &Value, host: &Host) -> Result<Plan> {
    compile(&bundle(config)?, host, &options())
}

#[test]
fn the_maps_are_written_before_init_is_undumpable() {
    let position = |plan: &Plan, wanted: Step| plan.init.iter().position(|step| *step == wanted).unwrap();
    for (host, late) in [(hybrid(), false), (user(hybrid()), true)] {
        let plan = plan_on(&mapped(), &host).unwrap();
        let (dumpable, born) = (position(&plan, Step::NotDumpable), position(&plan, Step::Barrier(Barrier::Born)));
        assert_eq!(dumpable > born, late);
        assert!(dumpable < position(&plan, Step::BecomeRoot));
    }
}

#[test]
fn setgroups_is_denied_for_the_own_group_alone() {
    assert!(plan_on(&mapped(), &user(hybrid())).unwrap().deny_setgroups);
    assert!(!plan_on(&mapped(), &hybrid()).unwrap().deny_setgroups, "root needs no such thing");
    let ranges =
        json!([{"containerID": 0, "hostID": 1002, "size": 1}, {"containerID": 1, "hostID": 100_000, "size": 9}]);
    let config = with(mapped(), "/linux/gidMappings", ranges);
    assert!(!plan_on(&config, &user(hybrid())).unwrap().deny_setgroups);
    let config = with(config, "/process/user/additionalGids", json!([9]));
    plan_on(&config, &user(hybrid())).unwrap();
    let denied = Caller { setgroups_denied: true, ..user(hybrid()).caller };
    let error = plan_on(&config, &Host { caller: denied, ..hybrid() }).unwrap_err().to_string();
    assert!(error.contains("cannot set any additional groups"), "{error}");
}

#[test]
fn a_user_without_a_user_namespace_is_refused() {
    let error = plan_on(&config(), &user(hybrid())).unwrap_err().to_string();
    assert!(error.contains("rootless container requires user namespaces"), "{error}");
}

#[test]
fn binds_are_inits_own_business() {
    let mount = json!([{"destination": "/d", "source": "/srv", "options": ["rbind"]}]);
    let config = with(mapped(), "/mounts", mount);
    let source = |host: &Host| {
        let plan = plan_on(&config, host).unwrap();
        plan.init.iter().find_map(|step| if let Step::Mount(mount) = step { Some(mount.source) } else { None })
    };
    assert!(matches!(source(&hybrid()), Some(MountSource::Prepared { .. })));
    assert!(matches!(source(&user(hybrid())), Some(MountSource::Bind { .. })));
}

/// CVE-2023-25809
#[test]
fn a_cgroup_mount_without_a_namespace_is_the_containers_or_cannot_be_written() {
    let config =
        with(mapped(), "/mounts", json!([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]));
    let sources = |host: Host| -> Vec<(String, String)> {
        let plan = plan_on(&config, &user(host)).unwrap();
        let source = |step: &Step| match step {
            Step::Mount(mount) => match mount.source {
                MountSource::Cgroup { path, own } => Some((plan.string(path), plan.string(own))),
                _ => None,
            },
            _ => None,
        };
        plan.init.iter().filter_map(source).collect()
    };
    let id = options().id;
    assert_eq!(sources(unified()), [(format!("/sys/fs/cgroup/{id}"), String::new())], "else hidden");
    let memory = (format!("/sys/fs/cgroup/memory/{id}"), "/sys/fs/cgroup/memory/".to_owned());
    assert!(sources(hybrid()).contains(&memory), "{:?}", sources(hybrid()));
}

#[test]
fn cgroups_are_needed_by_those_who_name_them() {
    assert_eq!(plan_on(&mapped(), &user(hybrid())).unwrap().cgroup.need, Need::WherePermitted);
    let config = with(mapped(), "/linux/cgroupsPath", json!("/a/b"));
    assert_eq!(plan_on(&config, &user(hybrid())).unwrap().cgroup.need, Need::Required);
    let nowhere = Caller { cgroups: Need::Nowhere, ..Caller::default() };
    let config = with(mapped(), "/linux/resources", json!({"pids": {"limit": 5}}));
    let plan = plan_on(&config, &Host { caller: nowhere, ..hybrid() }).unwrap();
    assert_eq!(plan.cgroup.need, Need::Nowhere);
    assert_eq!(plan.warnings, ["linux.resources is ignored: cgroups are disabled"]);
}
