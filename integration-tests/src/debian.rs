//! Debian rootfs, made once by debootstrap and kept in a cache: one with glibc and bash, one with systemd as its init.

use std::path::{Path, PathBuf};

use crate::{find_program, skip};

/// The cached rootfs (bookworm, minbase), made if it is missing; None after a skip.
///
/// It stands in `$XDG_CACHE_HOME/flint-tests` or /var/cache/flint-tests, is shared and must be mounted read-only.
#[must_use]
pub fn debian_rootfs() -> Option<PathBuf> {
    cached("bookworm", &[], "bin/bash")
}

/// The same with systemd as /sbin/init, and D-Bus.
#[must_use]
pub fn debian_system_rootfs() -> Option<PathBuf> {
    cached("bookworm-systemd", &["systemd", "systemd-sysv", "dbus"], "lib/systemd/systemd")
}

fn cached(name: &str, packages: &[&str], program: &str) -> Option<PathBuf> {
    kept(name, |rootfs| debootstrap("bookworm", packages, rootfs)).filter(|rootfs| rootfs.join(program).exists())
}

/// A folder of the cache, made if it is missing; None after a skip.
pub(crate) fn kept(name: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| "/var/cache".into(), PathBuf::from);
    let cache = cache.join("flint-tests");
    let folder = cache.join(name);
    if folder.exists() {
        return Some(folder);
    }
    std::fs::create_dir_all(&cache).expect("make the cache");
    // Two at once: the second waits, and finds it made.
    let lock = std::fs::File::create(cache.join(format!("{name}.lock"))).expect("make the cache's lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock the cache");
    if folder.exists() {
        return Some(folder);
    }
    // Beside its place and then renamed: a half-made one is never used.
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(&cache).expect("make a folder in the cache");
    if let Err(reason) = make(&work.path().join("made")) {
        skip(&format!("{name} cannot be made, no mirror can be reached? {reason}"));
        return None;
    }
    std::fs::rename(work.path().join("made"), &folder).expect("put what was made in its place");
    Some(folder)
}

/// Makes a minimal Debian of `suite` with `packages` in the folder `target`; the last line that debootstrap printed
/// when it fails.
pub(crate) fn debootstrap(suite: &str, packages: &[&str], target: &Path) -> Result<(), String> {
    let program = find_program("debootstrap").ok_or("debootstrap is not installed")?;
    let mut command = std::process::Command::new("timeout");
    command.arg("900").arg(program).arg("--variant=minbase");
    if !packages.is_empty() {
        command.arg(format!("--include={}", packages.join(",")));
    }
    let output = command.arg(suite).arg(target).args(mirror()).output().map_err(|error| error.to_string())?;
    if output.status.success() && target.join("bin/bash").exists() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Err(text.lines().last().unwrap_or("it printed nothing").to_owned())
}

/// The machine's own mirror, if its sources name one: a default mirror may be out of reach there.
pub(crate) fn mirror() -> Option<String> {
    let sources = std::fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()
        + &std::fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    sources
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .find(|word| word.starts_with("http") && !word.contains("security"))
        .map(str::to_owned)
}
