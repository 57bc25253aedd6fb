//! Debian sid with its engines, made once by debootstrap and kept in a cache: newer podman, docker, containerd, buildah,
//! runc and crun than the machine has.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::debian::debootstrap;
use crate::skip;

/// Another list of packages is another rootfs.
const VERSION: &str = "sid-2";

/// Why it could not be made, so that not every test of a process tries it again.
static FAILED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

const PACKAGES: &[&str] = &[
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

/// The cached rootfs, made if it is missing (minutes); None after a skip.
///
/// It stands in `$XDG_CACHE_HOME/flint-tests` or `~/.cache/flint-tests`, is shared and must not be written to.
#[must_use]
pub fn sid_rootfs() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let cache = cache.join("flint-tests");
    let rootfs = cache.join(VERSION);
    if rootfs.exists() {
        return Some(rootfs);
    }
    std::fs::create_dir_all(&cache).expect("make the cache");
    // Two at once: the second waits, and finds it made.
    let lock = File::create(cache.join(format!("{VERSION}.lock"))).expect("make the cache's lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock the cache");
    if rootfs.exists() {
        return Some(rootfs);
    }
    let made = FAILED.get().map_or_else(|| make(&cache, &rootfs), |reason| Err(reason.clone()));
    if let Err(reason) = made {
        skip(&format!("Debian sid cannot be had, no mirror can be reached? {reason}"));
        let _ = FAILED.set(reason);
        return None;
    }
    Some(rootfs)
}

fn make(cache: &Path, rootfs: &Path) -> Result<(), String> {
    // Beside its place and then renamed: a half-made one is never used.
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(cache).map_err(|error| error.to_string())?;
    let target = work.path().join("rootfs");
    debootstrap("sid", PACKAGES, &target)?;
    // 240 MB that nobody reads again.
    for dir in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        let _ = std::fs::remove_dir_all(target.join(dir));
    }
    std::fs::rename(&target, rootfs).map_err(|error| format!("rename {}: {error}", target.display()))
}
