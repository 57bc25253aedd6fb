//! The systems that other tests start: Debian's of several kinds, made once by debootstrap from a mirror.
//!
//! Whoever needs one makes it if it is missing. `cargo xtask test` runs these while programs are still being built, so that
//! on a new machine nobody waits for a mirror afterwards.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use systems::{Server, ServerImage, criu_folder, debian_rootfs, debian_system_rootfs, missing, sid_rootfs, skip};

fn is_there(make: fn() -> Option<PathBuf>, program: &str) {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root");
    }
    if missing(&["debootstrap", "mmdebstrap"]) {
        return;
    }
    let Some(rootfs) = make() else { return };
    assert!(rootfs.join(program).exists(), "{} has no {program}", rootfs.display());
}

#[test]
fn bookworm() {
    is_there(debian_rootfs, "bin/bash");
}

#[test]
fn bookworm_with_systemd() {
    is_there(debian_system_rootfs, "lib/systemd/systemd");
}

#[test]
fn bookworm_with_servers() {
    is_there(|| ServerImage::of(Server::Nginx).map(|image| image.rootfs), "usr/sbin/nginx");
    is_there(|| ServerImage::of(Server::Redis).map(|image| image.rootfs), "usr/bin/redis-server");
    is_there(|| ServerImage::of(Server::Postgresql).map(|image| image.rootfs), "usr/bin/psql");
}

#[test]
fn sid_with_engines() {
    is_there(sid_rootfs, "usr/sbin/dockerd");
}

#[test]
fn sids_criu() {
    is_there(criu_folder, "criu");
}
