//! Where the host's hierarchies are mounted, and where flint itself is in them.
//!
//! Sources: `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`) and `/proc/self/cgroup` (cgroups(7)). A mount that another
//! one covers is not reachable by its path and does not count: that is how a cgroup2 mount over the tmpfs at
//! `/sys/fs/cgroup` hides the v1 mounts below it, which stay in mountinfo all the same. mountinfo is asked only where the
//! hierarchies are not at their usual places (usual.rs).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::usual::{self, Usual};
use crate::{Error, Result};

/// The place where systemd, and every runtime's manual, wants the hierarchies.
const USUAL_ROOT: &str = "/sys/fs/cgroup";

/// Controllers whose hierarchies a container joins, the same that runc joins (its cgroup/fs subsystem list; seen
/// with `runc run` and `/proc/PID/cgroup`). Other named hierarchies and `debug` are left alone.
const JOINED: [&str; 15] = [
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "name=systemd",
    "misc",
];

/// Which version of cgroups the host uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies for the controllers and a v2 tree beside them.
    Hybrid,
    /// One v2 tree.
    V2,
}

/// A mounted cgroup v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its controllers as `/proc/self/cgroup` writes them: `cpu,cpuacct`, `name=systemd`.
    pub name: String,
    /// The same, one by one: the flags for `fsopen("cgroup")`. A named hierarchy has the one entry `name=N`; it wants
    /// the flag `none` and the key `name`.
    pub controllers: Vec<String>,
    /// Where it is mounted, absolute.
    pub mountpoint: PathBuf,
    /// flint's own cgroup, relative to the mountpoint; empty for its root.
    pub own: String,
}

impl Hierarchy {
    fn new(name: &str, mountpoint: PathBuf, own: String) -> Self {
        Self { name: name.to_owned(), controllers: name.split(',').map(str::to_owned).collect(), mountpoint, own }
    }

    /// Whether containers get a cgroup in it.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.controllers.iter().any(|controller| JOINED.contains(&controller.as_str()))
    }

    /// Whether it has `controller`.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// The mounted cgroup v2 tree.
#[derive(Clone, Debug)]
pub(super) struct Unified {
    pub(super) mountpoint: PathBuf,
    pub(super) own: String,
    controllers: OnceLock<Vec<String>>,
}

/// Where the host's hierarchies are.
#[derive(Clone, Debug)]
pub struct Layout {
    mode: Mode,
    hierarchies: Vec<Hierarchy>,
    unified: Option<Unified>,
}

impl Layout {
    /// Looks for the layout of the calling process's mount namespace.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read, or no cgroup file system is mounted.
    pub fn detect() -> Result<Self> {
        let read = |path: &str| {
            crate::procfs::read(path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|error| Error::os(format!("cannot read {path} to find the cgroups"), error))
        };
        let own = read("/proc/self/cgroup")?;
        let names = own_cgroups(&own).map(|(name, _)| name);
        let root = Path::new(USUAL_ROOT);
        let find = || usual::find(root, names, usual::version_at, || usual::entries(root));
        let usual = usual::is_first_namespace().then(find);
        match usual.flatten() {
            Some(usual) => Ok(Self::of_usual(usual, &own)),
            None => Self::parse(&read("/proc/self/mountinfo")?, &own),
        }
    }

    fn of_usual(usual: Usual<'_>, own: &str) -> Self {
        let own = parse_own_cgroups(own);
        let path = |name: &str| below_mount_root("/", own.get(name).copied().unwrap_or("/"));
        let hierarchy = |(name, mountpoint): (&str, PathBuf)| Hierarchy::new(name, mountpoint, path(name));
        let mut hierarchies: Vec<Hierarchy> = usual.hierarchies.into_iter().map(hierarchy).collect();
        hierarchies.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let unified =
            usual.unified.map(|mountpoint| Unified { mountpoint, own: path(""), controllers: OnceLock::new() });
        let mode = match (&unified, hierarchies.is_empty()) {
            (_, true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
            (None, false) => Mode::V1,
        };
        Self { mode, hierarchies, unified }
    }

    /// The layout that the texts of `/proc/self/mountinfo` and `/proc/self/cgroup` describe.
    ///
    /// # Errors
    ///
    /// No reachable cgroup mount is among them.
    pub fn parse(mountinfo: &str, own_cgroups: &str) -> Result<Self> {
        let mounts = reachable_cgroup_mounts(mountinfo);
        let own = parse_own_cgroups(own_cgroups);
        let v2 = |wanted: &dyn Fn(&Mount<'_>) -> bool| {
            mounts.iter().find(|mount| mount.file_system == "cgroup2" && wanted(mount)).map(|mount| Unified {
                mountpoint: mount.point.clone(),
                own: below_mount_root(mount.root, own.get("").copied().unwrap_or("/")),
                controllers: OnceLock::new(),
            })
        };

        if let Some(unified) = v2(&|mount| mount.point == Path::new(USUAL_ROOT)) {
            return Ok(Self { mode: Mode::V2, hierarchies: Vec::new(), unified: Some(unified) });
        }
        let hierarchies = mounted_hierarchies(&mounts, &own);
        if hierarchies.is_empty() {
            let unified = v2(&|_| true).ok_or_else(|| {
                Error::unsupported(
                    "no cgroup file system is mounted: mount one (mount -t cgroup2 none /sys/fs/cgroup) and try again",
                )
            })?;
            return Ok(Self { mode: Mode::V2, hierarchies, unified: Some(unified) });
        }
        // A cgroup2 mount somewhere else is a container's or a test's, not part of the host's set-up.
        let beside = |mount: &Mount<'_>| hierarchies.iter().any(|h| h.mountpoint.parent() == mount.point.parent());
        let unified = v2(&beside);
        let mode = if unified.is_some() { Mode::Hybrid } else { Mode::V1 };
        Ok(Self { mode, hierarchies, unified })
    }

    /// The layout of a host without cgroups.
    #[must_use]
    pub fn none() -> Self {
        Self { mode: Mode::V2, hierarchies: Vec::new(), unified: None }
    }

    /// Which version of cgroups the host uses.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The mounted v1 hierarchies, in the order of their names; none in [`Mode::V2`].
    #[must_use]
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// Where the v2 tree is mounted, alone or beside the v1 hierarchies.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_ref().map(|unified| unified.mountpoint.as_path())
    }

    pub(super) fn unified_tree(&self) -> Option<&Unified> {
        self.unified.as_ref()
    }

    /// The v1 hierarchy that has `controller`.
    #[must_use]
    pub fn hierarchy_of(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// The controllers that the v2 tree offers, from `cgroup.controllers` of its root, read once.
    #[must_use]
    pub fn unified_controllers(&self) -> &[String] {
        let Some(unified) = &self.unified else {
            return &[];
        };
        unified.controllers.get_or_init(|| {
            let text = fs::read_to_string(unified.mountpoint.join("cgroup.controllers")).unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_owned).collect()
        })
    }

    /// The same layout with these controllers in its v2 tree, whatever the host has: to compile for another host.
    #[must_use]
    pub fn with_unified_controllers(mut self, controllers: &[&str]) -> Self {
        if let Some(unified) = &mut self.unified {
            unified.controllers = OnceLock::from(controllers.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        }
        self
    }
}

struct Mount<'a> {
    id: u32,
    parent: u32,
    root: &'a str,
    point: PathBuf,
    file_system: &'a str,
    options: &'a str,
}

/// One line: `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ');
    let id = front.next()?.parse().ok()?;
    let parent = front.next()?.parse().ok()?;
    let root = front.nth(1)?;
    let point = PathBuf::from(unescape(front.next()?));
    let mut back = back.split(' ');
    Some(Mount { id, parent, root, point, file_system: back.next()?, options: back.nth(1)? })
}

/// Undoes mountinfo's `\040` for blanks, tabs, newlines and backslashes.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            plain.push(char::from(code));
            rest = &rest[at + 4..];
        } else {
            plain.push('\\');
            rest = &rest[at + 1..];
        }
    }
    plain.push_str(rest);
    plain
}

fn reachable_cgroup_mounts(mountinfo: &str) -> Vec<Mount<'_>> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(parse_mount).collect();
    let by_id: BTreeMap<u32, usize> = mounts.iter().enumerate().map(|(index, mount)| (mount.id, index)).collect();
    let reachable: Vec<bool> = mounts
        .iter()
        .map(|mount| matches!(mount.file_system, "cgroup" | "cgroup2") && !is_covered(mount, &mounts, &by_id))
        .collect();
    mounts.into_iter().zip(reachable).filter_map(|(mount, reachable)| reachable.then_some(mount)).collect()
}

/// Whether a mount that is no ancestor of `mount` sits on it, or on a folder that leads to it.
fn is_covered(mount: &Mount<'_>, mounts: &[Mount<'_>], by_id: &BTreeMap<u32, usize>) -> bool {
    let mut line = vec![mount.id];
    let mut parent = mount.parent;
    // The root's parent is not in the list, or is the root itself.
    while let Some(&index) = by_id.get(&parent) {
        if line.contains(&parent) {
            break;
        }
        line.push(parent);
        parent = mounts[index].parent;
    }
    mounts
        .iter()
        .any(|other| line.contains(&other.parent) && !line.contains(&other.id) && mount.point.starts_with(&other.point))
}

/// `/proc/self/cgroup` as controller list to path; the v2 entry has the empty list.
fn parse_own_cgroups(text: &str) -> BTreeMap<&str, &str> {
    own_cgroups(text).collect()
}

fn own_cgroups(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

fn mounted_hierarchies(mounts: &[Mount<'_>], own: &BTreeMap<&str, &str>) -> Vec<Hierarchy> {
    let mut hierarchies = Vec::new();
    for (&name, &path) in own {
        let Some(first) = name.split(',').next().filter(|first| !first.is_empty()) else {
            continue;
        };
        let mount = mounts
            .iter()
            .find(|mount| mount.file_system == "cgroup" && mount.options.split(',').any(|option| option == first));
        if let Some(mount) = mount {
            hierarchies.push(Hierarchy::new(name, mount.point.clone(), below_mount_root(mount.root, path)));
        }
    }
    hierarchies
}

/// The cgroup `path` as seen from a mount of the hierarchy's folder `root`: in a container without a cgroup namespace
/// both name the container's cgroup on the host. What lies outside of the mount is out of reach: then the mount's root.
fn below_mount_root(root: &str, path: &str) -> String {
    let root = root.trim_end_matches('/');
    let below = path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or("");
    if below.split('/').any(|part| part == "..") {
        return String::new();
    }
    below.trim_matches('/').to_owned()
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
