//! Damaged configs: refused with a sentence, or compiled to the same plan each time.

use super::*;
use crate::describe::describe_plan;
use crate::mutation::{Random, runs, seed};

/// A config with a value of nearly every kind.
fn wide() -> Value {
    let mut config = serde_json::to_value(oci_spec::runtime::Spec::default()).expect("the default config is JSON");
    let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]);
    config["hooks"] = json!({"prestart": hook, "createRuntime": hook, "createContainer": hook,
        "startContainer": hook, "poststart": hook, "poststop": hook});
    config["annotations"] = json!({"run.oci.keep_original_groups": "1", "a": "b"});
    config["domainname"] = json!("example.org");
    config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]);
    config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 4});
    config["process"]["oomScoreAdj"] = json!(100);
    config["process"]["execCPUAffinity"] = json!({"initial": "0-1", "final": "0"});
    config["linux"]["cgroupsPath"] = json!("/a/b");
    config["linux"]["sysctl"] = json!({"kernel.msgmax": "65536", "net.ipv4.ip_forward": "1"});
    config["linux"]["rootfsPropagation"] = json!("rslave");
    config["linux"]["personality"] = json!({"domain": "LINUX32"});
    config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    config["linux"]["netDevices"] = json!({"eth7": {"name": "eth0"}});
    config["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229,
        "fileMode": 438, "uid": 0, "gid": 0}]);
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [{"index": 1, "value": 2,
            "op": "SCMP_CMP_EQ"}]}]});
    config["linux"]["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3,
            "access": "rw"}],
        "memory": {"limit": 1 << 26, "swap": 1 << 27, "reservation": 1 << 25},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 50},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "unified": {"memory.high": "1000000"}
    });
    config["mounts"].as_array_mut().expect("mounts").extend([
        json!({"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rro", "nosuid"]}),
        json!({"destination": "/copy", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=64k"]}),
        json!({"destination": "/map", "type": "bind", "source": "/srv", "options": ["bind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}]}),
    ]);
    config
}

#[test]
fn damaged_configs_are_refused_or_give_one_plan() {
    let seeds = [config(), with_user(config()), wide(), with_user(wide())];
    let offered = ["cpu", "cpuset", "hugetlb", "memory", "pids"];
    let all = Layout::parse(UNIFIED, "0::/\n").expect("a layout").with_unified_controllers(&offered);
    let hosts = [hybrid(), Host { layout: all, ..hybrid() }];
    for seed in &seeds {
        let plans = hosts.each_ref().map(|host| compiled_on(host, seed).map(drop));
        assert!(plans.iter().any(Result::is_ok), "no host takes the undamaged config: {plans:?}");
    }
    let (mut random, runs) = (Random(seed()), runs());
    let (mut planned, mut refused) = (0, 0);
    for _ in 0..runs {
        let json = random.document(&seeds);
        let host = random.pick(&hosts);
        let plan = || compile(&Bundle::from_parts("/bundle".into(), json.clone())?, host, &options());
        match plan() {
            Ok(first) => {
                let again = plan().expect("compiles again");
                assert_eq!(format!("{first:?}"), format!("{again:?}"), "{}", String::from_utf8_lossy(&json));
                assert_eq!(describe_plan(&first).len(), first.host.len() + first.init.len());
                planned += 1;
            }
            Err(error) => {
                assert!(!error.to_string().trim().is_empty(), "{}", String::from_utf8_lossy(&json));
                refused += 1;
            }
        }
    }
    println!("{runs} configs: {planned} planned, {refused} refused");
    assert!(
        planned > runs / 20 && refused > runs / 20,
        "the inputs show nothing: {planned} planned, {refused} refused"
    );
}
