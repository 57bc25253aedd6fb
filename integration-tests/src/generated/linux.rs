//! The kernel's side of a generated config: namespaces, limits, devices, filters, hidden paths.

use serde_json::{Value, json};

use super::Random;

pub(super) fn vary(random: &mut Random, spec: &mut Value) {
    namespaces(random, spec);
    hidden(random, spec);
    if random.percent(40) {
        spec["linux"]["devices"] = devices(random);
    }
    if random.percent(60) {
        let rules = spec["linux"]["resources"]["devices"].take();
        spec["linux"]["resources"] = resources(random);
        spec["linux"]["resources"]["devices"] = device_rules(random, &rules);
    }
    if random.percent(40) {
        spec["linux"]["sysctl"] = sysctls(random);
    }
    if random.percent(30) {
        spec["linux"]["seccomp"] = seccomp(random);
    }
    if random.percent(30) {
        let all =
            ["private", "rprivate", "slave", "rslave", "private", "rprivate", "slave", "rslave", "shared", "rshared"];
        spec["linux"]["rootfsPropagation"] = json!(random.pick(&all));
    }
    if random.percent(1) {
        spec["linux"]["rootfsPropagation"] = json!(random.pick(&["unbindable", "runbindable"]));
    }
    if random.percent(2) {
        spec["linux"]["rootfsPropagation"] = json!("sideways");
    }
}

fn namespaces(random: &mut Random, spec: &mut Value) {
    let mut list = Vec::new();
    for (kind, chance) in [("pid", 94), ("network", 92), ("ipc", 94), ("uts", 94), ("mount", 100), ("cgroup", 35)] {
        if random.percent(chance) {
            list.push(json!({"type": kind}));
        }
    }
    if random.percent(12) {
        list.push(json!({"type": "user"}));
        let map = if random.percent(70) {
            json!([{"containerID": 0, "hostID": 0, "size": 65_536}])
        } else {
            json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}])
        };
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    }
    if random.percent(2) {
        let twice = random.pick(&list);
        list.push(twice);
    }
    let uts = list.iter().any(|namespace| namespace["type"] == "uts");
    spec["linux"]["namespaces"] = json!(list);
    if !uts && random.percent(80) {
        spec.as_object_mut().expect("an object").remove("hostname");
    } else if random.percent(50) {
        let names = ["h".to_owned(), "a-name.example".to_owned(), "x".repeat(64), String::new()];
        spec["hostname"] = json!(random.pick(&names));
    }
    if random.percent(1) {
        spec["hostname"] = json!("x".repeat(65));
    }
}

/// Masked and read-only paths: files, folders, links, and what is not there.
fn hidden(random: &mut Random, spec: &mut Value) {
    let paths = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/sys/firmware",
        "/proc/sys",
        "/proc/sysrq-trigger",
        "/etc/passwd",
        "/home",
        "/home/user",
        "/var",
        "/root",
        "/does/not/exist",
        "/bin/ls",
        "/proc/self/environ",
    ];
    for field in ["maskedPaths", "readonlyPaths"] {
        match random.below(4) {
            0 => spec["linux"][field] = json!(random.some(&paths, 25)),
            1 if random.percent(30) => drop(spec["linux"].as_object_mut().expect("an object").remove(field)),
            _ => {}
        }
    }
    if random.percent(2) {
        spec["linux"]["maskedPaths"] = json!([random.pick(&["relative/path", "/", ""])]);
    }
}

fn devices(random: &mut Random) -> Value {
    let mut all = vec![
        json!({"path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 5}),
        json!({"path": "/dev/my-loop", "type": "b", "major": 7, "minor": 0, "fileMode": 0o660, "uid": 0, "gid": 0}),
        json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 1000, "gid": 1000}),
        json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 1000, "gid": 1000}),
        json!({"path": "/dev/plain", "type": "c", "major": 1, "minor": 3}),
        json!({"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 7, "fileMode": 0o600, "uid": 0, "gid": 0}),
        json!({"path": "/elsewhere/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}),
        json!({"path": "/dev/sticky", "type": "c", "major": 1, "minor": 3, "fileMode": 0o1777, "uid": 5, "gid": 5}),
    ];
    if random.percent(6) {
        all.push(random.pick(&[
            json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 0, "gid": 0}),
            json!({"path": "/dev/odd", "type": "x", "major": 1, "minor": 3}),
            json!({"path": "relative", "type": "c", "major": 1, "minor": 3}),
        ]));
    }
    json!(random.some(&all, 30))
}

fn device_rules(random: &mut Random, default: &Value) -> Value {
    let mut rules = default.as_array().cloned().unwrap_or_default();
    if random.percent(15) {
        rules = vec![json!({"allow": true, "access": "rwm"})];
    }
    rules.extend(random.some(
        &[
            json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"}),
            json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}),
            json!({"allow": true, "type": "b", "major": 7, "access": "r"}),
            json!({"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"}),
            json!({"allow": true, "type": "c", "access": "m"}),
            json!({"allow": false, "type": "b", "major": 8, "minor": 0, "access": "rwm"}),
        ],
        30,
    ));
    json!(rules)
}

/// Limits of the controllers that this project's machines have; a value is one that any of them takes, or one that none does.
fn resources(random: &mut Random) -> Value {
    let mut resources = json!({});
    if random.percent(50) {
        let limit = random.pick(&[64_i64 << 20, 128 << 20, -1]);
        resources["memory"] = json!({"limit": limit});
        if random.percent(40) {
            resources["memory"]["reservation"] = json!(32 << 20);
        }
        if random.percent(40) {
            resources["memory"]["swap"] = json!(random.pick(&[256_i64 << 20, limit, -1]));
        }
        if random.percent(20) {
            resources["memory"]["swappiness"] = json!(random.pick(&[0, 60, 100]));
        }
        if random.percent(10) {
            resources["memory"]["disableOOMKiller"] = json!(random.percent(50));
        }
    }
    if random.percent(50) {
        let mut cpu = json!({});
        for (field, values) in [
            // Fewer would starve the container on a busy machine.
            ("shares", [json!(128), json!(512), json!(1024)]),
            ("quota", [json!(50_000), json!(100_000), json!(-1)]),
            ("period", [json!(100_000), json!(50_000), json!(1_000_000)]),
            ("cpus", [json!("0"), json!("0-1"), json!("1")]),
            ("mems", [json!("0"), json!("0"), json!("0")]),
        ] {
            if random.percent(35) {
                cpu[field] = random.pick(&values);
            }
        }
        if random.percent(5) {
            cpu["cpus"] = json!(random.pick(&["99", "x", "0,0"]));
        }
        resources["cpu"] = cpu;
    }
    if random.percent(40) {
        resources["pids"] = json!({"limit": random.pick(&[100, 1000, -1])});
    }
    if random.percent(20) {
        resources["blockIO"] = json!({"weight": random.pick(&[10, 100, 500, 1000])});
    }
    if random.percent(5) {
        resources["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": random.pick(&[0, 4 << 20, 1 << 30])}]);
    }
    resources
}

fn sysctls(random: &mut Random) -> Value {
    let all = [
        ("kernel.msgmax", "9000"),
        ("kernel.shmmni", "100"),
        ("kernel.sem", "100 200 300 40"),
        ("fs.mqueue.msg_max", "20"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "0 100"),
        ("net.ipv4.ip_unprivileged_port_start", "81"),
        ("net.core.somaxconn", "77"),
        ("kernel.domainname", "a.domain"),
    ];
    let mut chosen: Vec<_> = random.some(&all, 25);
    if random.percent(8) {
        chosen.push(random.pick(&[
            ("vm.swappiness", "60"),
            ("net.no_such.value", "1"),
            ("kernel.hostname", "x"),
            ("net/ipv4/ip_forward", "1"),
            ("net.ipv4.ip_forward", "not a number"),
            ("kernel.msgmax", ""),
        ]));
    }
    json!(chosen.into_iter().collect::<std::collections::BTreeMap<_, _>>())
}

/// What the script tries is denied in one way or another; what it needs is left alone.
fn seccomp(random: &mut Random) -> Value {
    let calls = ["mkdir", "mkdirat", "chmod", "fchmodat", "sync", "mknod", "mknodat", "umask", "link", "linkat"];
    let mut rules = Vec::new();
    for _ in 0..=random.below(3) {
        let mut rule = json!({"names": random.some(&calls, 40), "action": random.pick(&["SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])});
        if rule["names"] == json!([]) {
            rule["names"] = json!(["mkdir"]);
        }
        if rule["action"] == "SCMP_ACT_ERRNO" && random.percent(60) {
            rule["errnoRet"] = json!(random.pick(&[1, 13, 38, 95]));
        }
        if random.percent(30) {
            rule["args"] = json!([{"index": 1, "value": random.pick(&[0o777, 0o700, 0o644]), "op": random.pick(&["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_GT"])}]);
        }
        rules.push(rule);
    }
    let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    if random.percent(50) {
        profile["architectures"] = json!(random.some(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], 60));
    }
    if random.percent(5) {
        profile["flags"] = json!(random.some(&["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"], 50));
    }
    if random.percent(5) {
        profile["syscalls"] = json!([{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]);
    }
    profile
}
