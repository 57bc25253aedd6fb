//! The distribution's packages that the tests need.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Debian's and Ubuntu's names, and what each is for.
const NEEDED: &[(&str, &str)] = &[
    ("buildah", "builds images by flint"),
    ("busybox-static", "the root filesystem of most tests"),
    ("catatonit", "podman's --init"),
    ("chromium", "draws the node's page"),
    ("containerd", "ctr and containerd run containers by flint"),
    ("containernetworking-plugins", "networks of CRI's pods"),
    ("crun", "a peer to compare with"),
    ("debootstrap", "a root filesystem of a real distribution"),
    ("docker-registry", "images are pulled from it"),
    ("docker.io", "dockerd runs containers by flint"),
    ("erofs-utils", "the virtual machine's disks"),
    ("iproute2", "hosts and neighbours in tests of pods' networks"),
    ("iptables", "dockerd's networks"),
    ("kmod", "the virtual machine's kernel modules"),
    ("libseccomp-dev", "what seccomp filters are compared with"),
    ("mmdebstrap", "the virtual machine's root filesystem"),
    ("nftables", "NAT and host ports of pods' networks"),
    ("podman", "podman runs containers by flint"),
    ("openssl", "a registry with TLS"),
    ("qemu-system-x86", "the virtual machine"),
    ("netavark", "podman's networks"),
    ("runc", "a peer to compare with"),
    ("slirp4netns", "networks of rootless podman"),
    ("skopeo", "images are pushed and copied by it"),
    ("strace", "which system calls init makes"),
    ("umoci", "its unpacked images are compared with flint-bundle's"),
    ("uidmap", "newuidmap and newgidmap, for rootless containers"),
];

/// Where a package's script asks whether it may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing.
///
/// Says what it does and asks nothing. Where it cannot install (not root, no apt), it says what is missing: the
/// tests that need it skip themselves with a reason.
///
/// # Errors
///
/// When apt-get fails.
pub(crate) fn install() -> anyhow::Result<()> {
    let missing: Vec<_> = NEEDED.iter().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        println!("all {} packages that the tests need are installed", NEEDED.len());
        return Ok(());
    }
    println!("packages that the tests need and that are missing:");
    for (name, purpose) in &missing {
        println!("  {name:<16} {purpose}");
    }
    if !nix::unistd::geteuid().is_root() {
        println!("not installed, since this is not root; tests that need them will be skipped");
        return Ok(());
    }
    if crate::workspace::find_program("apt-get").is_none() {
        println!("not installed, since there is no apt-get; tests that need them will be skipped");
        return Ok(());
    }
    let _no_services = NoServices::new(Path::new(POLICY))?;
    apt_get(&["update"])?;
    let names = missing.iter().map(|(name, _)| *name);
    apt_get(&["install", "--yes", "--no-install-recommends"].into_iter().chain(names).collect::<Vec<_>>())
}

fn is_installed(package: &str) -> bool {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Abbrev}", package])
        .stderr(Stdio::null())
        .output();
    // No dpkg: not installed, as far as anybody knows.
    output.is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"ii"))
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    println!("apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get")
        .args(["--quiet", "--quiet", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .stdin(Stdio::null())
        .status()
        .context("starting apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed ({status}); its messages stand above", arguments.join(" "));
    }
    Ok(())
}

/// Keeps the packages' scripts from starting docker and containerd, as long as it lives.
///
/// A policy that is there already is the machine's own and stays.
struct NoServices {
    made: Option<PathBuf>,
}

impl NoServices {
    fn new(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(path);
        match file {
            Ok(mut file) => {
                let made = Self { made: Some(path.to_path_buf()) };
                // 101: "action forbidden by policy".
                file.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("writing {}", path.display()))?;
                Ok(made)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self { made: None }),
            Err(error) => Err(error).with_context(|| format!("making {} (so that no service starts)", path.display())),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.made
            && let Err(error) = fs::remove_file(path)
        {
            eprintln!("xtask: removing {}: {error}; remove it, else no package starts its service", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_of_our_own_is_removed_and_one_of_the_machine_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy-rc.d");
        {
            let _ours = NoServices::new(&path).unwrap();
            assert!(path.exists());
        }
        assert!(!path.exists());
        fs::write(&path, "theirs").unwrap();
        drop(NoServices::new(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }
}
