//! What this runtime can do: the features document of the runtime-spec (features.md, features-linux.md).
//!
//! The command prints it, and the shim hands it to containerd, whose CRI plugin derives from it what pods may ask for.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// The newest version of the runtime-spec that is read and written.
pub const SPEC_VERSION: &str = "1.3.0";

/// Of features-linux.md: options that are no file system's own.
const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

const HOOKS: &[&str] = &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

const NAMESPACES: &[&str] = &["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// Annotations that change what the runtime does on the host; one that ends in a dot is a prefix. An engine that takes
/// annotations from strangers leaves these out.
const UNSAFE_ANNOTATIONS: &[&str] = &["org.criu.config", "org.systemd.property.", "run.oci."];

/// The document; its JSON is what matters.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: &'static [&'static str],
    mount_options: &'static [&'static str],
    linux: Linux,
    annotations: BTreeMap<&'static str, &'static str>,
    potentially_unsafe_config_annotations: &'static [&'static str],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: &'static [&'static str],
    capabilities: Vec<String>,
    cgroup: Value,
    seccomp: Value,
    apparmor: Value,
    selinux: Value,
    intel_rdt: Value,
    memory_policy: Value,
    mount_extensions: Value,
    net_devices: Value,
}

/// What this runtime can do under the running kernel.
#[must_use]
pub fn features() -> Features {
    Features {
        oci_version_min: "1.0.0",
        oci_version_max: SPEC_VERSION,
        hooks: HOOKS,
        mount_options: MOUNT_OPTIONS,
        linux: Linux {
            namespaces: NAMESPACES,
            capabilities: capabilities(),
            cgroup: json!({
                "v1": true,
                "v2": true,
                "systemd": true,
                "systemdUser": true,
                "rdma": true,
            }),
            seccomp: seccomp(),
            apparmor: json!({ "enabled": true }),
            selinux: json!({ "enabled": true }),
            intel_rdt: json!({ "enabled": true, "schemata": true, "monitoring": true }),
            memory_policy: json!({
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE",
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            }),
            // containerd hands out idmapped mounts only where this says so.
            mount_extensions: json!({ "idmap": { "enabled": true } }),
            net_devices: json!({ "enabled": true }),
        },
        annotations: BTreeMap::from([
            ("org.flint.version", env!("CARGO_PKG_VERSION")),
            ("org.opencontainers.runc.checkpoint.enabled", "true"),
        ]),
        potentially_unsafe_config_annotations: UNSAFE_ANNOTATIONS,
    }
}

/// Those that both we and the running kernel know, by number.
fn capabilities() -> Vec<String> {
    let mut known: Vec<caps::Capability> = caps::runtime::thread_all_supported().into_iter().collect();
    known.sort_by_key(caps::Capability::index);
    known.iter().map(ToString::to_string).collect()
}

/// What the compiler of filters knows.
fn seccomp() -> Value {
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        "archs": [
            "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64",
            "SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64",
        ],
        "knownFlags": [
            "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ],
        "supportedFlags": [
            "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_one_of_the_spec() {
        let json = serde_json::to_value(features()).expect("JSON");
        let features: oci_spec::runtime::Features = serde_json::from_value(json.clone()).expect("a features document");
        assert_eq!(features.oci_version_min(), "1.0.0");
        assert_eq!(json["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert_eq!(json["linux"]["intelRdt"]["schemata"], true);
        let unsafe_annotations = json["potentiallyUnsafeConfigAnnotations"].as_array().expect("a list");
        assert!(unsafe_annotations.contains(&"run.oci.".into()), "{unsafe_annotations:?}");
    }

    #[test]
    fn capabilities_are_those_of_the_kernel() {
        let last: usize = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
            .expect("a procfs")
            .trim()
            .parse()
            .expect("a number");
        let capabilities = capabilities();
        assert_eq!(capabilities.first().map(String::as_str), Some("CAP_CHOWN"));
        // The crate knows up to CAP_CHECKPOINT_RESTORE (40).
        assert_eq!(capabilities.len(), last.min(40) + 1);
    }

    #[test]
    fn lists_are_sorted_and_without_doubles() {
        assert!(MOUNT_OPTIONS.is_sorted_by(|a, b| a < b));
        assert!(NAMESPACES.is_sorted_by(|a, b| a < b));
    }
}
