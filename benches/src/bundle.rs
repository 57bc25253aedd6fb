//! The bundle that all contestants run: the config of `runc spec` and a rootfs with nothing but the payload.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The programs of the rootfs, all of them the payload under another name.
const PROGRAMS: [&str; 3] = ["true", "pause", "echo"];
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Makes the bundle in `folder`: `rootfs/` and a config.json that runs `/bin/<program>`. Returns the rootfs.
///
/// # Errors
///
/// When the payload is missing or not static, or the folder cannot be written.
pub fn make(folder: &Path, payload: &Path, program: &str, pure_unified: bool) -> Result<PathBuf> {
    let bytes = fs::read(payload).with_context(|| format!("cannot read the payload {}", payload.display()))?;
    let linked = is_static(&bytes).with_context(|| format!("{} is no 64-bit ELF program", payload.display()))?;
    ensure!(linked, "{} is not static: build it for the musl target", payload.display());
    let rootfs = folder.join("rootfs");
    for name in ["bin", "proc", "dev", "sys"] {
        let path = rootfs.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    for name in PROGRAMS {
        let path = rootfs.join("bin").join(name);
        fs::write(&path, &bytes)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let path = folder.join("config.json");
    fs::write(&path, config(program, pure_unified).to_string())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(rootfs)
}

/// The default of `runc spec`, with another program and without a terminal. As runc, it asks for a cgroup
/// namespace only where v2 stands alone.
fn config(program: &str, pure_unified: bool) -> Value {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if pure_unified {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [format!("/bin/{program}")],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
                "ambient": CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc",
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {
            "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        },
    ])
}

/// Whether an ELF program has no interpreter (`PT_INTERP`); `None` for anything but 64-bit little-endian ELF.
fn is_static(bytes: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // Elf64_Ehdr: e_phoff at 32, e_phentsize at 54, e_phnum at 56; Elf64_Phdr begins with p_type.
    let (headers, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        if number(headers.checked_add(index * size)? as usize, 4)? == u64::from(PT_INTERP) {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::{config, is_static, make};

    /// An ELF header with one program header of this type.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        for (at, value) in [(0, 0x7f), (1, b'E'), (2, b'L'), (3, b'F'), (4, 2), (5, 1), (32, 64), (54, 56), (56, 1)] {
            bytes[at] = value;
        }
        bytes[64] = kind;
        bytes
    }

    #[test]
    fn an_interpreter_is_seen() {
        assert_eq!(is_static(&elf(1)), Some(true));
        assert_eq!(is_static(&elf(3)), Some(false));
        assert_eq!(is_static(b"#!/bin/sh"), None);
        assert_eq!(is_static(&elf(1)[..70]), Some(true));
        assert_eq!(is_static(&elf(1)[..60]), None);
    }

    #[test]
    fn a_dynamic_payload_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let payload = folder.path().join("payload");
        std::fs::write(&payload, elf(3)).unwrap();
        let error = make(&folder.path().join("bundle"), &payload, "true", false).unwrap_err();
        assert!(error.to_string().contains("not static"), "{error}");
    }

    #[test]
    fn a_cgroup_namespace_only_on_pure_v2() {
        let namespaces = |pure| config("true", pure)["linux"]["namespaces"].as_array().map(Vec::len);
        assert_eq!(namespaces(false), Some(5));
        assert_eq!(namespaces(true), Some(6));
    }
}
