//! Plans of small configs, on hosts that are made up.

mod labels;
mod mounts;
mod mutated;
mod refused;
mod rootless;
mod schedule;
mod steps;
mod warned;

use flint_init::plan::Step;
use serde_json::{Value, json};

use super::{Caller, CompileOptions, ExecCompileOptions, Host, compile, compile_exec};
use crate::bundle::Bundle;
use crate::cgroup::Layout;
use crate::describe::describe;
use crate::plan::Plan;
use crate::{Error, Result};

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
const SYS_RESOURCE: u64 = 1 << 24;

/// A hybrid host whose runtime lacks CAP_SYS_RESOURCE.
fn hybrid() -> Host {
    let layout = Layout::parse(HYBRID, "3:name=systemd:/\n2:memory:/\n1:cpu,cpuacct:/\n0::/\n").unwrap();
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

fn unified() -> Host {
    Host { layout: Layout::parse(UNIFIED, "0::/\n").unwrap().with_unified_controllers(&[]), ..hybrid() }
}

/// A config with all that must be there, and all namespaces but user and cgroup.
fn config() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/", "env": ["PATH=/bin", "HOME=/root"]},
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
        ]}
    })
}

/// The config with one field replaced: `path` is a JSON pointer, missing objects on the way are made.
fn with(mut config: Value, path: &str, value: Value) -> Value {
    let mut place = &mut config;
    for key in path.split('/').skip(1) {
        place = match place {
            Value::Array(array) => &mut array[key.parse::<usize>().unwrap()],
            other => &mut other[key],
        };
    }
    *place = value;
    config
}

fn set(path: &str, value: Value) -> Value {
    with(config(), path, value)
}

fn with_namespace(mut config: Value, namespace: Value) -> Value {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
    config
}

fn without_namespace(mut config: Value, kind: &str) -> Value {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
    config
}

/// With a new user namespace of 65,536 ids.
fn with_user(config: Value) -> Value {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let mapped = with(with(config, "/linux/uidMappings", map.clone()), "/linux/gidMappings", map);
    with_namespace(mapped, json!({"type": "user"}))
}

fn bundle(config: &Value) -> Result<Bundle> {
    Bundle::from_parts("/bundle".into(), config.to_string().into_bytes())
}

fn options() -> CompileOptions {
    CompileOptions {
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

fn compiled_on(host: &Host, config: &Value) -> Result<Plan> {
    compile(&bundle(config)?, host, &options())
}

fn compiled(config: &Value) -> Plan {
    compiled_on(&hybrid(), config).unwrap_or_else(|error| panic!("{config}: {error}"))
}

fn refused(config: &Value) -> Error {
    match compiled_on(&hybrid(), config) {
        Ok(_) => panic!("{config} was accepted"),
        Err(error) => error,
    }
}

fn exec_plan(config: &Value, process: &Value) -> Result<Plan> {
    let options = ExecCompileOptions {
        id: "c1".to_owned(),
        console_socket: false,
        preserve_fds: 0,
        listen_fds: 0,
        keyring: true,
        seccomp_receiver: None,
    };
    compile_exec(&bundle(config)?, &serde_json::from_value(process.clone()).unwrap(), &hybrid(), &options)
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.init.iter().map(|step| describe(plan, step)).collect()
}

/// The lines that start with `word`.
fn lines_of(plan: &Plan, word: &str) -> Vec<String> {
    lines(plan).into_iter().filter(|line| line.starts_with(word)).collect()
}

/// Where the first step is that `wanted` accepts.
fn position(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> usize {
    plan.init.iter().position(wanted).unwrap_or_else(|| panic!("no such step in {:#?}", lines(plan)))
}
