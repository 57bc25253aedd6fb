//! What of a container belongs to the host: CRIU neither writes nor makes it, but is told where it is.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use flint_init::plan::{MountSource, Slot, Step};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::rpc::Pair;
use crate::cgroup;
use crate::plan::{Plan, SlotSource};
use crate::{Error, Result, procfs};

/// A mount of the host's in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    /// As in config.json: absolute, perhaps through links.
    pub(crate) target: PathBuf,
    /// On the host.
    pub(crate) source: PathBuf,
    /// With the mounts below the source.
    pub(crate) recursive: bool,
}

/// A namespace that a container has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) kind: i32,
    pub(crate) path: PathBuf,
}

/// The name of the null device that hides files, where it is the host's; runc's images have the same.
pub(crate) const NULL: &str = "/dev/null";

/// The mount that a step makes, if it is of something of the host's.
pub(crate) fn of_step(step: &Step, plan: &Plan, cgroup: &cgroup::Paths) -> Option<External> {
    let path = |text| PathBuf::from(plan.string(text));
    match step {
        Step::Mount(mount) => {
            let (source, recursive) = match mount.source {
                MountSource::Bind { path: source, recursive } => (path(source), recursive),
                MountSource::Prepared { slot } => of_slot(slot, plan, cgroup)?,
                _ => return None,
            };
            // CRIU refuses names like `/bundle/.`, and mountinfo, which it is compared with, has none.
            let source = source.components().collect();
            Some(External { target: path(mount.target), source, recursive })
        }
        Step::DeviceBind { source, path: target } => {
            Some(External { target: path(*target), source: path(*source), recursive: false })
        }
        _ => None,
    }
}

fn of_slot(slot: Slot, plan: &Plan, cgroup: &cgroup::Paths) -> Option<(PathBuf, bool)> {
    match plan.slots.get(usize::from(slot.0))? {
        SlotSource::CgroupMount { hierarchy, .. } if hierarchy.is_empty() => Some((cgroup.unified.clone()?, false)),
        SlotSource::CgroupMount { hierarchy, .. } => Some((cgroup.v1.get(hierarchy)?.clone(), false)),
        SlotSource::BindMount { path, recursive, .. } => Some((path.clone(), *recursive)),
        _ => None,
    }
}

/// The joined namespaces of a plan.
pub(crate) fn joined(plan: &Plan) -> impl Iterator<Item = Joined> + '_ {
    plan.slots.iter().filter_map(|slot| match slot {
        SlotSource::Namespace { kind, path } => Some(Joined { kind: *kind as i32, path: path.clone() }),
        _ => None,
    })
}

impl Joined {
    /// Its name in /proc/PID/ns and for CRIU.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            libc::CLONE_NEWNET => "net",
            libc::CLONE_NEWPID => "pid",
            libc::CLONE_NEWUTS => "uts",
            libc::CLONE_NEWIPC => "ipc",
            libc::CLONE_NEWUSER => "user",
            libc::CLONE_NEWTIME => "time",
            libc::CLONE_NEWCGROUP => "cgroup",
            _ => "mnt",
        }
    }

    /// By what it is found again among the images' namespaces, for the two kinds that CRIU leaves out of them; the same
    /// keys as in runc's and crun's.
    pub(crate) fn key(&self) -> Option<&'static str> {
        match self.kind {
            libc::CLONE_NEWNET => Some("extRootNetNS"),
            libc::CLONE_NEWPID => Some("extRootPidNS"),
            _ => None,
        }
    }
}

/// The external mounts of a running container: CRIU's names for them, which are their places.
///
/// # Errors
///
/// A container that has ended, or whose mounts cannot be read.
pub(crate) fn of_running(plan: &Plan, cgroup: &cgroup::Paths, pid: i32) -> Result<Vec<Pair>> {
    let failure = |doing: &str, errno| Error::os(format!("{doing} of the container's init {pid}"), errno);
    let root = open(format!("/proc/{pid}/root").as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| failure("open the root", errno.into()))?;
    let mounts = procfs::mounts(&pid.to_string()).map_err(|error| failure("read the mounts", error))?;
    let mut pairs: Vec<Pair> = Vec::new();
    let mut add = |place: &str, name: &str| {
        if !pairs.iter().any(|pair| pair.key == place) {
            pairs.push(Pair { key: place.to_owned(), value: name.to_owned() });
        }
    };
    for external in plan.init.iter().filter_map(|step| of_step(step, plan, cgroup)) {
        // Unmounted meanwhile: nothing to tell.
        let Ok((_, place)) = resolve(&root, &external.target) else { continue };
        let Some(place) = place.to_str() else { continue };
        add(place, place);
        let inner = mounts.iter().filter(|mount| external.recursive && is_below(&mount.place, place));
        inner.for_each(|mount| add(&mount.place, &mount.place));
    }
    for step in &plan.init {
        let Step::Mask { path } = step else { continue };
        let path = plan.string(*path);
        if mounts.iter().any(|mount| mount.place == path && mount.filesystem == "devtmpfs") {
            add(&path, NULL);
        }
    }
    Ok(pairs)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Opens a path as a process with this root would see it, and tells its name without links.
pub(crate) fn resolve(root: &OwnedFd, path: &Path) -> nix::Result<(OwnedFd, PathBuf)> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let fd = openat2(root, path, how)?;
    let name = nix::fcntl::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str())?;
    Ok((fd, name.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{is_below, of_step};
    use crate::Bundle;
    use crate::compile::{compile, samples};

    #[test]
    fn sources_are_named_without_dots() {
        let mut config = samples::config();
        let binds = [".", "./a/./b/", "/x/."]
            .map(|source| json!({"destination": "/data", "type": "bind", "source": source, "options": ["bind"]}));
        config["mounts"] = json!(binds);
        let bundle = Bundle::from_parts("/bundle".into(), config.to_string().into_bytes()).unwrap();
        let plan = compile(&bundle, &samples::hybrid(), &samples::options()).unwrap();
        let external = plan.init.iter().filter_map(|step| of_step(step, &plan, &crate::cgroup::Paths::default()));
        // As text: paths that differ in a `.` alone are equal.
        let sources: Vec<_> = external.map(|external| external.source.display().to_string()).collect();
        for source in ["/bundle", "/bundle/a/b", "/x"] {
            assert!(sources.iter().any(|found| found == source), "{source}: {sources:?}");
        }
    }

    #[test]
    fn below_is_not_beside() {
        assert!(is_below("/a/b", "/a"));
        assert!(!is_below("/ab", "/a") && !is_below("/a", "/a"));
    }
}
