//! The cgroup hierarchies that are mounted here, and the caller's own folder in each.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The caller's own cgroup in it: containers go below, as runc puts them without a cgroupsPath.
    pub own: PathBuf,
    /// Whether it is the v2 hierarchy.
    pub unified: bool,
    /// Whether the v1 cpuset controller is on it: a new folder takes no process before its cpus and mems are set.
    pub cpuset: bool,
}

/// The hierarchies of the calling process's mount namespace, in the order of its mounts.
///
/// # Errors
///
/// When /proc/self/mountinfo or /proc/self/cgroup cannot be read.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let memberships = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    Ok(parse(&mounts, &memberships))
}

/// proc_pid_mountinfo(5): id, parent, device, root, mount point, options, tags, `-`, type, source, super options.
fn parse(mounts: &str, memberships: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let mut fields = filesystem.split(' ');
        let unified = match fields.next() {
            Some("cgroup2") => true,
            Some("cgroup") => false,
            _ => continue,
        };
        let options: Vec<&str> = fields.nth(1).unwrap_or("").split(',').collect();
        let Some(path) = membership(memberships, unified, &options) else { continue };
        let own = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
        let own = if own.is_empty() { PathBuf::from(point) } else { Path::new(point).join(own) };
        if !found.iter().any(|hierarchy| hierarchy.own == own) {
            found.push(Hierarchy { mount: point.into(), own, unified, cpuset: options.contains(&"cpuset") });
        }
    }
    found
}

/// The caller's path in one hierarchy (cgroups(7): number, controllers, path).
fn membership<'a>(memberships: &'a str, unified: bool, options: &[&str]) -> Option<&'a str> {
    memberships.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let first = controllers.split(',').next()?;
        let this = if unified { number == "0" } else { number != "0" && options.contains(&first) };
        this.then_some(path)
    })
}

/// Into a mount namespace of its own: nothing that a failed run leaves mounted outlives it, and a hybrid's v2
/// hierarchy can be taken away for all contestants, which `bench` says then. Before any thread is started: unshare(2) is the
/// thread's.
///
/// # Errors
///
/// When the kernel refuses.
pub fn enter_private_mounts(bench: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("cannot make the mounts private")?;
    if let Some(path) = unmount_hybrid()? {
        eprintln!("{bench}: {} is unmounted for all: crun refuses a hybrid with controllers on v2", path.display());
    }
    Ok(())
}

/// Unmounts the v2 hierarchy of a hybrid layout when it has controllers: crun refuses to work there, and all
/// contestants shall work in one place. Only to be called in a private mount namespace. What was unmounted.
///
/// # Errors
///
/// When the mounts cannot be read or it cannot be unmounted.
fn unmount_hybrid() -> Result<Option<PathBuf>> {
    let all = hierarchies()?;
    if all.iter().all(|hierarchy| hierarchy.unified) {
        return Ok(None);
    }
    let Some(unified) = all.into_iter().find(|hierarchy| hierarchy.unified) else { return Ok(None) };
    let controllers = fs::read_to_string(unified.mount.join("cgroup.controllers")).unwrap_or_default();
    if controllers.trim().is_empty() {
        return Ok(None);
    }
    umount2(&unified.mount, MntFlags::MNT_DETACH)
        .with_context(|| format!("cannot unmount {} in a private mount namespace", unified.mount.display()))?;
    Ok(Some(unified.mount))
}

/// Removes the empty cgroups whose name begins with `prefix`, below the caller's own in every hierarchy (and,
/// for runtimes that count from the top, at the top). Returns how many were removed: clean runs leave none.
///
/// # Errors
///
/// When the mounts cannot be read, or a cgroup still holds processes.
pub fn sweep(prefix: &str) -> Result<usize> {
    let mut removed = 0;
    for hierarchy in hierarchies()? {
        let mut parents = vec![hierarchy.own];
        if !parents.contains(&hierarchy.mount) {
            parents.push(hierarchy.mount);
        }
        for parent in parents {
            let Ok(entries) = fs::read_dir(&parent) else { continue };
            for entry in entries.flatten() {
                if !entry.file_name().to_string_lossy().starts_with(prefix) {
                    continue;
                }
                match fs::remove_dir(entry.path()) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(error).with_context(|| format!("cannot remove {}", entry.path().display()));
                    }
                }
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::{Hierarchy, parse};

    fn hierarchy(mount: &str, own: &str, unified: bool, cpuset: bool) -> Hierarchy {
        Hierarchy { mount: mount.into(), own: own.into(), unified, cpuset }
    }

    #[test]
    fn hybrid() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let memberships = "9:name=systemd:/\n4:memory:/a/b\n3:cpuset:/\n0::/c\n";
        let expected = [
            hierarchy("/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/cpuset", false, true),
            hierarchy("/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/a/b", false, false),
            hierarchy("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd", false, false),
            hierarchy("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/c", true, false),
        ];
        assert_eq!(parse(mounts, memberships), expected);
    }

    #[test]
    fn unified_seen_from_inside_a_container() {
        let mounts = "30 23 0:28 /pod /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let expected = [hierarchy("/sys/fs/cgroup", "/sys/fs/cgroup/box", true, false)];
        assert_eq!(parse(mounts, "0::/pod/box\n"), expected);
    }

    #[test]
    fn controllers_that_share_a_hierarchy() {
        let mounts = "30 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let expected = [hierarchy("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", false, false)];
        assert_eq!(parse(mounts, "4:cpu,cpuacct:/\n"), expected);
    }
}
