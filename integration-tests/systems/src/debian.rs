//! Debian's root filesystems: one with glibc and bash, one with systemd as its init, and sid with its engines.

use std::path::{Path, PathBuf};

use crate::cache::{Tool, added, debian, kept, made};

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

const MINIMAL: &str = "bookworm";

/// The cached rootfs (bookworm, minbase), made if it is missing; None after a skip. It is shared and must be mounted
/// read-only.
#[must_use]
pub fn debian_rootfs() -> Option<PathBuf> {
    kept(MINIMAL, minimal)
}

fn minimal(rootfs: &Path) -> Result<(), String> {
    debian(Tool::Debootstrap, "bookworm", &[], rootfs)
}

/// Makes the same with `packages`. The minimal system is made once for all of them.
pub(crate) fn bookworm_with(packages: &[&str], rootfs: &Path) -> Result<(), String> {
    let base = made(MINIMAL, minimal).map_err(|reason| format!("{MINIMAL} is missing: {reason}"))?;
    added(&base, "bookworm", packages, rootfs)
}

/// The same with systemd as /sbin/init, and D-Bus.
#[must_use]
pub fn debian_system_rootfs() -> Option<PathBuf> {
    kept("bookworm-systemd-3", |rootfs| bookworm_with(&["systemd", "systemd-sysv", "dbus"], rootfs))
}

/// Debian sid with its engines, made if it is missing (half a minute); None after a skip. It is shared and must not be
/// written to.
#[must_use]
pub fn sid_rootfs() -> Option<PathBuf> {
    // Another list of packages is another rootfs.
    kept("sid-3", |rootfs| debian(Tool::Mmdebstrap, "sid", ENGINES, rootfs))
}
