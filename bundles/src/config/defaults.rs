//! What docker gives a container that nobody asked anything special for.

use serde_json::{Value, json};

use super::set;

/// docker's 14.
pub(super) const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Paths that tell of the host, or through which it can be harmed.
pub(super) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that may be read.
pub(super) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The mounts below the root.
pub(super) fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
    ])
}

/// The namespaces: all but the user's and the time's; the network's own is empty until somebody fills it.
pub(super) fn namespaces(host_network: bool) -> Value {
    let names = ["pid", "ipc", "uts", "mount", "cgroup", "network"];
    names
        .iter()
        // A sysfs of one's own shows the network; the host's name belongs to its network.
        .filter(|name| !(host_network && **name == "network"))
        .map(|name| json!({"type": name}))
        .collect()
}

/// What a user without privileges has to have otherwise: one id, no devpts group, no limits.
pub(super) fn for_a_user(spec: &mut Value) {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if let Some(namespaces) = spec.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
        namespaces.push(json!({"type": "user"}));
    }
    set(spec, "/linux/uidMappings", json!([{"containerID": 0, "hostID": uid, "size": 1}]));
    set(spec, "/linux/gidMappings", json!([{"containerID": 0, "hostID": gid, "size": 1}]));
    set(spec, "/process/user", json!({"uid": 0, "gid": 0}));
    for mount in spec.pointer_mut("/mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            options.retain(|option| option != "gid=5");
        }
    }
}
