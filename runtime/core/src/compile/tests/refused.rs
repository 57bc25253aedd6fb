//! What compile refuses, and that the sentence names the field.

use serde_json::{Value, json};

use super::*;
use crate::Kind;

pub(super) fn check(kind: Kind, cases: &[(Value, &str)]) {
    for (config, words) in cases {
        let error = refused(config);
        assert_eq!(error.kind(), kind, "{config}: {error}");
        assert!(error.to_string().contains(words), "{error} does not say {words:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn known_and_not_supported() {
    check(
        Kind::Unsupported,
        &[
            (set("/linux/intelRdt", json!({"closID": "a"})), "linux.intelRdt"),
            (set("/linux/resources/rdma", json!({"mlx5_1": {"hcaHandles": 3}})), "rdma"),
            (set("/vm", json!({"kernel": {"path": "/k"}})), "vm"),
            (set("/solaris", json!({})), "solaris"),
            (set("/zos", json!({})), "zos"),
            (set("/freebsd", json!({})), "freebsd"),
        ],
    );
}

#[test]
fn network_devices() {
    check(
        Kind::Invalid,
        &[
            (set("/linux/netDevices", json!({"a/b": {}})), "no name of a network device"),
            (set("/linux/netDevices", json!({"": {}})), "no name of a network device"),
            (set("/linux/netDevices", json!({"eth0": {"name": "eth%d"}})), "no name of a network device"),
            (set("/linux/netDevices", json!({"eth0": {"name": "a23456789012345x"}})), "no name of a network device"),
            (set("/linux/netDevices", json!({"eth0": {"name": ".."}})), "no name of a network device"),
            (
                set("/linux/netDevices", json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}})),
                "eth0 and eth1 would both be x",
            ),
            (
                without_namespace(set("/linux/netDevices", json!({"eth0": {}})), "network"),
                "need a network namespace in linux.namespaces that is not the host's",
            ),
        ],
    );
}

#[test]
fn empty_fields_of_what_is_not_supported_are_nothing() {
    for (path, value) in [
        ("/process/apparmorProfile", json!("")),
        ("/process/selinuxLabel", json!("")),
        ("/linux/mountLabel", json!("")),
        ("/linux/netDevices", json!({})),
        ("/mounts", json!([{"destination": "/m", "type": "tmpfs", "uidMappings": [], "gidMappings": []}])),
    ] {
        compiled(&set(path, value));
    }
}

#[test]
fn the_process() {
    check(
        Kind::Invalid,
        &[
            (set("/process", json!(null)), "no process"),
            (set("/process/args", json!([])), "process.args is empty"),
            (set("/process/args", json!(null)), "process.args is empty"),
            (set("/process/args", json!([""])), "process.args[0] is empty"),
            (set("/process/args", json!(["a\0b"])), "process.args[0]: \"a\\0b\" has a NUL byte"),
            (set("/process/args", json!(["a", "b\0"])), "process.args[1]"),
            (set("/process/env", json!(["A=1", "B=\0"])), "process.env[1]"),
            (set("/process/cwd", json!("rel")), "process.cwd rel must be an absolute path"),
            (set("/process/cwd", json!("")), "process.cwd"),
            (set("/process/cwd", json!("/a\0")), "process.cwd"),
            (set("/process/cwd", json!(format!("/{}", "x".repeat(4095)))), "process.cwd: the path has 4096 bytes"),
            (set("/process/terminal", json!(true)), "without a console socket"),
            (set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])), "RLIMIT_CORE"),
            (
                set(
                    "/process/rlimits",
                    json!([{"type": "RLIMIT_AS", "soft": 1, "hard": 1}, {"type": "RLIMIT_AS", "soft": 1, "hard": 1}]),
                ),
                "RLIMIT_AS is listed twice",
            ),
            (set("/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}])), "RLIMIT_X"),
            (set("/process/user/uid", json!("root")), "line 1"),
            (set("/process/user/uid", json!(-1)), "-1"),
            (set("/process/user/uid", json!(u32::MAX)), "process.user.uid: 4294967295 is no id"),
            (
                with_namespace(
                    without_namespace(config(), "mount"),
                    json!({"type": "mount", "path": "/proc/self/ns/mnt"}),
                ),
                "is the runtime's own",
            ),
        ],
    );
}

#[test]
fn console_sockets_without_a_terminal() {
    let options = CompileOptions { console_socket: true, ..options() };
    let error = compile(&bundle(&config()).unwrap(), &hybrid(), &options).unwrap_err();
    assert!(error.to_string().contains("process.terminal is false"), "{error}");
}

#[test]
fn the_root() {
    check(
        Kind::Invalid,
        &[
            (set("/root", json!(null)), "no root"),
            (set("/root/path", json!("")), "root.path is empty"),
            (set("/root/path", json!("/")), "host's /"),
            (set("/root/path", json!("/a/..")), "host's /"),
            (set("/root/path", json!("a\0")), "root.path"),
            (set("/linux/rootfsPropagation", json!("zzz")), "linux.rootfsPropagation: \"zzz\""),
            (
                with_user(without_namespace(set("/root/readonly", json!(true)), "mount")),
                "root.readonly need a mount namespace",
            ),
        ],
    );
}

#[test]
fn namespaces() {
    let with_map = |map: Value| {
        with_user(config()).as_object().map(|_| with(with_user(config()), "/linux/uidMappings", map)).unwrap()
    };
    check(
        Kind::Invalid,
        &[
            (with_namespace(config(), json!({"type": "pid"})), "pid is listed twice"),
            (with_namespace(config(), json!({"type": "pid", "path": "/proc/1/ns/pid"})), "pid is listed twice"),
            (with_namespace(config(), json!({"type": "user"})), "linux.uidMappings: a new user namespace needs"),
            (
                with_namespace(without_namespace(config(), "network"), json!({"type": "network", "path": "rel"})),
                "rel must be absolute",
            ),
            (with_namespace(config(), json!({"type": "vlan"})), "vlan"),
            (set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}])), "need a user namespace"),
            (with_map(json!([{"containerID": 0, "hostID": 1, "size": 0}])), "linux.uidMappings[0]"),
            (with_map(json!([{"containerID": 0, "hostID": 4_294_967_295u32, "size": 2}])), "linux.uidMappings[0]"),
            (with_map(json!([{"containerID": 5, "hostID": 1, "size": 1}])), "the container's 0 is not mapped"),
            (
                with_map(
                    json!([{"containerID": 0, "hostID": 1, "size": 10}, {"containerID": 9, "hostID": 50, "size": 1}]),
                ),
                "linux.uidMappings[1] overlaps with linux.uidMappings[0]",
            ),
            (
                with_map(
                    json!([{"containerID": 0, "hostID": 1, "size": 10}, {"containerID": 20, "hostID": 10, "size": 1}]),
                ),
                "linux.uidMappings[1] overlaps",
            ),
            (without_namespace(set("/hostname", json!("h")), "uts"), "hostname: it needs a uts namespace"),
            (without_namespace(set("/domainname", json!("d")), "uts"), "domainname: it needs a uts namespace"),
            (set("/hostname", json!("h".repeat(65))), "hostname"),
            (set("/hostname", json!("a\0b")), "hostname"),
            (
                with_user(without_namespace(set("/mounts", json!([{"destination": "/m", "type": "tmpfs"}])), "mount")),
                "mounts and root.readonly need a mount namespace",
            ),
            (
                without_namespace(set("/linux/maskedPaths", json!(["/proc/kcore"])), "mount"),
                "linux.maskedPaths needs a mount namespace",
            ),
            (
                without_namespace(set("/linux/readonlyPaths", json!(["/proc/sys"])), "mount"),
                "linux.readonlyPaths needs a mount namespace",
            ),
        ],
    );
}

#[test]
fn mounts() {
    let mount = |mount: Value| set("/mounts", json!([mount]));
    let proc = |destination: &str| {
        mount(json!({"destination": destination, "type": "bind", "source": "/x", "options": ["bind"]}))
    };
    check(
        Kind::Invalid,
        &[
            (mount(json!({"destination": "/", "type": "tmpfs"})), "mounts[0] /: the destination must not be the root"),
            (mount(json!({"destination": "/a/../..", "type": "tmpfs"})), "must not be the root"),
            (mount(json!({"destination": "", "type": "tmpfs"})), "must not be the root"),
            (mount(json!({"destination": "/m"})), "mounts[0]: neither a type nor"),
            (mount(json!({"destination": "/m", "options": ["bind"]})), "mounts[0] /m: a bind mount needs a source"),
            (
                mount(json!({"destination": "/m", "type": "proc", "options": ["tmpcopyup"]})),
                "tmpcopyup is for tmpfs only",
            ),
            (mount(json!({"destination": "/m\0", "type": "tmpfs"})), "NUL"),
            (mount(json!({"destination": "/m", "type": "tm\0pfs"})), "NUL"),
            (mount(json!({"destination": "/m", "type": "tmpfs", "source": "a\0"})), "NUL"),
            (mount(json!({"destination": "/m", "type": "tmpfs", "options": ["size=\0"]})), "NUL"),
            (mount(json!({"destination": format!("/{}", "m".repeat(4096)), "type": "tmpfs"})), "4097 bytes"),
            (mount(json!({"destination": "/proc", "type": "tmpfs"})), "only a proc file system"),
            (proc("/proc"), "mounts[0] /proc: only the host's /proc may be bound there"),
            (proc("/proc/sys"), "inside /proc"),
            (proc("/proc/self/attr"), "inside /proc"),
            (proc("/a/../proc/./1/../sysrq-trigger"), "inside /proc"),
        ],
    );
    for allowed in ["/proc/cpuinfo", "/proc/uptime", "/proc/sys/kernel/ns_last_pid", "/proc/net/dev", "/process"] {
        compiled(&proc(allowed));
    }
}

#[test]
fn values_that_fsconfig_does_not_take() {
    let long = "x".repeat(256);
    let option =
        set("/mounts", json!([{"destination": "/m", "type": "tmpfs", "options": [format!("context={long}")]}]));
    let source = set("/mounts", json!([{"destination": "/m", "type": "nfs", "source": long}]));
    check(Kind::Unsupported, &[(option, "256 bytes"), (source, "mounts[0] /m: the source")]);
}

#[test]
fn sysctls() {
    let sysctl = |name: &str| set("/linux/sysctl", json!({name: "1"}));
    let cases = [
        (sysctl("vm.swappiness"), "belongs to no namespace"),
        (sysctl("kernel.core_pattern"), "belongs to no namespace"),
        (sysctl("kernel.hostname"), "hostname"),
        (sysctl("net/../kernel/core_pattern"), "is no name of a parameter"),
        (sysctl("net./.kernel.core_pattern"), "is no name of a parameter"),
        (sysctl("net.//.kernel.core_pattern"), "is no name of a parameter"),
        (sysctl("net..x"), "is no name of a parameter"),
        (sysctl("user.max_user_namespaces"), "user namespace"),
        (without_namespace(sysctl("net.ipv4.ip_forward"), "network"), "network namespace"),
        (without_namespace(sysctl("kernel.shmmax"), "ipc"), "ipc namespace"),
        (without_namespace(sysctl("fs.mqueue.msg_max"), "ipc"), "ipc namespace"),
        (without_namespace(sysctl("kernel.domainname"), "uts"), "uts namespace"),
        (set("/linux/sysctl", json!({"net.a\0b": "1"})), "linux.sysctl"),
        (set("/linux/sysctl", json!({"net.a": "\0"})), "linux.sysctl"),
    ];
    check(Kind::Invalid, &cases);
    for (kind, file, name) in [
        ("network", "net", "net.ipv4.ip_forward"),
        ("ipc", "ipc", "kernel.shmmax"),
        ("uts", "uts", "kernel.domainname"),
    ] {
        let joined =
            |path: &str| with_namespace(without_namespace(sysctl(name), kind), json!({"type": kind, "path": path}));
        let words = format!("needs a {kind} namespace");
        check(Kind::Invalid, &[(joined(&format!("/proc/self/ns/{file}")), &words)]);
        compiled(&joined("/run/netns/of-another"));
    }
    for good in [
        "net.ipv4.ip_forward",
        "kernel.shm_rmid_forced",
        "kernel.msgmax",
        "kernel.sem",
        "fs.mqueue.msg_max",
        "kernel.domainname",
    ] {
        compiled(&sysctl(good));
    }
}

#[test]
fn devices() {
    let device = |device: Value| set("/linux/devices", json!([device]));
    check(
        Kind::Invalid,
        &[
            (
                device(json!({"path": "dev/x", "type": "c", "major": 1, "minor": 1})),
                "linux.devices[0] dev/x: the path must be absolute",
            ),
            (device(json!({"path": "/dev/x", "type": "a", "major": 1, "minor": 1})), "type a"),
            (device(json!({"path": "/dev/x", "type": "z"})), "z"),
            (device(json!({"path": "/dev/x", "type": "c", "major": -1, "minor": 1})), "major -1"),
            (device(json!({"path": "/dev/\0", "type": "p"})), "NUL"),
            (without_namespace(device(json!({"path": "/dev/x", "type": "p"})), "mount"), "mount namespace"),
        ],
    );
}

#[test]
fn hooks() {
    for stage in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let hook = |hook: Value| set(&format!("/hooks/{stage}"), json!([{"path": "/good"}, hook]));
        let field = format!("hooks.{stage}[1]");
        check(
            Kind::Invalid,
            &[
                (hook(json!({"path": "rel"})), &format!("{field}: the path rel must be absolute")),
                (hook(json!({"path": "/h", "timeout": 0})), &format!("{field}: the timeout 0")),
                (hook(json!({"path": "/h", "timeout": -5})), &format!("{field}: the timeout -5")),
                (hook(json!({"path": "/h\0"})), &field),
                (hook(json!({"path": "/h", "args": ["a", "b\0"]})), &field),
                (hook(json!({"path": "/h", "env": ["A=\0"]})), &field),
            ],
        );
    }
}

#[test]
fn exec_where_nothing_leads_to_the_root() {
    let process = json!({"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/"});
    let error = exec_plan(&without_namespace(config(), "mount"), &process).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("mount namespace"), "{error}");
}

#[test]
fn exec_checks_its_process() {
    for (field, value, words) in [
        ("cwd", json!("rel"), "process.cwd"),
        ("args", json!([]), "process.args is empty"),
        ("apparmorProfile", json!("p"), "process.apparmorProfile"),
        ("terminal", json!(true), "console socket"),
    ] {
        let mut process = json!({"user": {"uid": 0, "gid": 0}, "args": ["a"], "cwd": "/"});
        process[field] = value;
        let error = exec_plan(&config(), &process).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
