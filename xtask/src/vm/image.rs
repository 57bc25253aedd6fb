//! The machine's root filesystem: a Debian with what the tests need, as one read-only disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::{cache, program};

/// What is in the image, and what for.
const PACKAGES: &[(&str, &str)] = &[
    ("apparmor", "apparmor_parser, which loads profiles"),
    ("apparmor-utils", "aa-status and its like"),
    ("busybox-static", "the root filesystem of most tests"),
    ("ca-certificates", "podman"),
    ("criu", "checkpoint and restore"),
    ("crun", "a peer to compare with"),
    ("dbus", "how systemd is asked for scopes"),
    ("dbus-user-session", "the same for users"),
    ("e2fsprogs", "file systems on the scratch disk"),
    ("fuse-overlayfs", "podman without root"),
    ("iproute2", "network namespaces and devices"),
    ("iptables", "podman's networks"),
    ("jq", "tests in shell"),
    ("kmod", "loading the kernel's modules"),
    ("libpam-systemd", "sessions of users"),
    ("libseccomp2", "tests that compare filters"),
    ("nftables", "networks"),
    ("podman", "a caller of the runtime"),
    ("procps", "looking at processes"),
    ("runc", "a peer to compare with"),
    ("slirp4netns", "podman's network without root"),
    ("strace", "which system calls init makes"),
    ("systemd", "the systemd cgroup driver"),
    ("systemd-sysv", "systemd as process 1"),
    ("uidmap", "newuidmap and newgidmap"),
    ("util-linux", "unshare, nsenter, prlimit"),
];

/// Services that no test needs and that would be waited for.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "podman-auto-update.service",
    "podman-auto-update.timer",
    "podman-restart.service",
    "podman.service",
    "podman.socket",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-random-seed.service",
    "systemd-timesyncd.service",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "tmp.mount",
];

/// A user with subordinate ids and, under systemd, a manager that runs without a session.
pub(super) const USER: &str = "tester";

/// The script that finishes the image from within: users, accounts, services.
const FINISH: &str = include_str!("guest/finish-image");

/// The disk of a suite, built where it is missing.
///
/// # Errors
///
/// When it has to be built and this is not root, mmdebstrap or mkfs.erofs is missing, or the mirror cannot be reached.
pub(super) fn disk(suite: &str) -> anyhow::Result<PathBuf> {
    let packages: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
    let packages = packages.join(",");
    let masked = MASKED.join(" ");
    let folder = cache::entry(&format!("image-{suite}"), &[&packages, &masked, USER, FINISH], |folder| {
        build(suite, &packages, &masked, folder)
    })?;
    Ok(folder.join("image.erofs"))
}

fn build(suite: &str, packages: &str, masked: &str, folder: &Path) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the image has files of many owners: only root can build it");
    let root = folder.join("root");
    let finish = folder.join("finish");
    fs::write(&finish, FINISH).context("writing the script that finishes the image")?;
    let hook = format!("sh {} \"$1\" {USER} \"{masked}\"", finish.display());
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--variant=minbase", "--mode=root", "--quiet", "--aptopt=APT::Install-Recommends \"0\""]);
    mmdebstrap.arg(format!("--aptopt={}", super::kernel::LATE.replace('=', " \"") + "\""));
    for place in ["man", "doc", "locale", "info", "lintian"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{place}/*"));
    }
    mmdebstrap.arg(format!("--include={packages}")).arg(format!("--customize-hook={hook}"));
    mmdebstrap.arg(suite).arg(&root).arg(super::kernel::mirror());
    // The host's settings for services and languages are not the image's.
    mmdebstrap.env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    program::run(&mut mmdebstrap, "mmdebstrap")?;
    program::make_disk(&folder.join("image.erofs"), &root)?;
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))
}
