//! Debian's root filesystems: one with glibc and bash, one with systemd as its init, and sid with its engines.

use std::path::PathBuf;

use crate::cache::{Tool, debian, kept};

/// Debian sid's engines: newer podman, docker, containerd, buildah, runc and crun than the machine has.
const ENGINES: &[&str] = &[
    "aardvark-dns",
    "buildah",
    "busybox-static",
    "catatonit",
    "conmon",
    "containerd",
    "criu",
    "crun",
    "dbus",
    "docker-buildx",
    "docker-cli",
    "docker.io",
    "fuse-overlayfs",
    "golang-github-containers-common",
    "iproute2",
    "iptables",
    "netavark",
    "nftables",
    "passt",
    "podman",
    "procps",
    "runc",
    "slirp4netns",
    "tini",
    "uidmap",
];

/// The cached rootfs (bookworm, minbase), made if it is missing; None after a skip. It is shared and must be mounted
/// read-only.
#[must_use]
pub fn debian_rootfs() -> Option<PathBuf> {
    kept("bookworm", |rootfs| debian(Tool::Debootstrap, "bookworm", &[], rootfs))
}

/// The same with systemd as /sbin/init, and D-Bus.
#[must_use]
pub fn debian_system_rootfs() -> Option<PathBuf> {
    let packages = ["systemd", "systemd-sysv", "dbus"];
    kept("bookworm-systemd-2", |rootfs| debian(Tool::Mmdebstrap, "bookworm", &packages, rootfs))
}

/// Debian sid with its engines, made if it is missing (half a minute); None after a skip. It is shared and must not be
/// written to.
#[must_use]
pub fn sid_rootfs() -> Option<PathBuf> {
    // Another list of packages is another rootfs.
    kept("sid-3", |rootfs| debian(Tool::Mmdebstrap, "sid", ENGINES, rootfs))
}
