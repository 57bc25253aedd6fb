//! Hosts and configs that are made up: what the tests and the fuzz targets compile, and where.

use serde_json::{Value, json};

use super::{Caller, CompileOptions, Host};
use crate::cgroup::Layout;

const HYBRID: &str = "\
22 1 254:0 / / rw - ext4 /dev/vda rw
31 22 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
const UNIFIED: &str = "\
22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
";
const ALL: u64 = (1 << 41) - 1;
/// CAP_SYS_RESOURCE, as a bit.
pub(crate) const SYS_RESOURCE: u64 = 1 << 24;

/// A hybrid host whose runtime lacks CAP_SYS_RESOURCE.
pub(crate) fn hybrid() -> Host {
    let layout = Layout::parse(HYBRID, "3:name=systemd:/\n2:memory:/\n1:cpu,cpuacct:/\n0::/\n").expect("a layout");
    let systemd = crate::cgroup::systemd::Manager::System;
    Host {
        layout,
        capabilities: ALL & !SYS_RESOURCE,
        kcore: true,
        caller: Caller::default(),
        systemd,
        systemd_above: String::new(),
    }
}

#[cfg(test)]
pub(crate) fn unified() -> Host {
    unified_with(&[])
}

pub(crate) fn options() -> CompileOptions {
    CompileOptions {
        foreground: false,
        id: "c1".to_owned(),
        console_socket: false,
        no_pivot: false,
        new_keyring: true,
        preserve_fds: 0,
        listen_fds: 0,
        notify_folder: None,
        seccomp_receiver: None,
        wait_on_socket: true,
        cgroup_manager: crate::CgroupManager::Cgroupfs,
    }
}

/// A config with all that must be there, and all namespaces but user and cgroup.
pub(crate) fn config() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", "env": ["PATH=/bin", "HOME=/root"]},
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
        ]}
    })
}

/// With a new user namespace of 65,536 ids.
pub(crate) fn with_user(config: Value) -> Value {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mut mapped = config;
    mapped["linux"]["uidMappings"] = map.clone();
    mapped["linux"]["gidMappings"] = map;
    mapped["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({"type": "user"}));
    mapped
}

/// A host with cgroup v2 and these controllers.
pub(crate) fn unified_with(controllers: &[&str]) -> Host {
    let layout = Layout::parse(UNIFIED, "0::/\n").expect("a layout").with_unified_controllers(controllers);
    Host { layout, ..hybrid() }
}

/// A config with a value of nearly every kind.
pub(crate) fn wide() -> Value {
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
