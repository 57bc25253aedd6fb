//! The root, hidden and read-only paths, kernel parameters.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use flint_init::plan::{RootBind, Step};
use oci_spec::runtime::Root;

use super::{Compiler, mount_options};
use crate::plan::SlotSource;
use crate::{Error, Result, procfs};

/// Kernel parameters of the ipc namespace.
const IPC_SYSCTLS: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// An absolute path without `.`, `..` and double slashes. `..` at the top stays at the top, as in the kernel.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

impl Compiler<'_> {
    pub(super) fn rootfs(&self, path: &Path) -> Result<PathBuf> {
        if path.as_os_str().is_empty() {
            return Err(Error::invalid("root.path is empty"));
        }
        let rootfs = self.bundle.path().join(path);
        if clean(&rootfs) == Path::new("/") {
            return Err(Error::invalid("root.path must not be the host's /"));
        }
        Ok(rootfs)
    }

    pub(super) fn root(&mut self, rootfs: &Path) -> Result<()> {
        let path = self.tables.path("root.path", bytes(rootfs))?;
        if self.namespaces.is_new(libc::CLONE_NEWNS) {
            // Mounts of the host come in, none of the container's go out, unless config.json says otherwise.
            let flag = self.root_propagation()?.unwrap_or(libc::MS_SLAVE | libc::MS_REC);
            // What is unbindable cannot be cloned, and the root has to be: private keeps as much to itself until then.
            let unbindable = flag & libc::MS_UNBINDABLE != 0;
            let flag = if unbindable { libc::MS_PRIVATE | flag & libc::MS_REC } else { flag };
            self.tables.push(Step::InheritedPropagation { flag });
        }
        self.tables.push(Step::Root { path, bind: self.root_bind() });
        Ok(())
    }

    /// Where the container's mounts, and its devices, are made, and its root is read-only.
    pub(super) fn root_bind(&self) -> RootBind {
        let readonly = self.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false));
        if self.namespaces.has(libc::CLONE_NEWNS) {
            RootBind::Own
        } else if readonly || self.spec.mounts().iter().flatten().next().is_some() {
            RootBind::Host
        } else {
            RootBind::None
        }
    }

    /// `linux.rootfsPropagation`.
    fn root_propagation(&self) -> Result<Option<u64>> {
        let Some(name) =
            self.linux.and_then(|linux| linux.rootfs_propagation().as_deref()).filter(|name| !name.is_empty())
        else {
            return Ok(None);
        };
        match mount_options::propagation(name) {
            Some((flag, recursive)) => Ok(Some(if recursive { flag | libc::MS_REC } else { flag })),
            None => Err(Error::invalid(format!(
                "linux.rootfsPropagation: {name:?} is none of shared, slave, private, unbindable"
            ))),
        }
    }

    /// By pivot_root where there is a mount namespace, else by chroot.
    pub(super) fn enter_root(&mut self, rootfs: &Path, no_pivot: bool) -> Result<()> {
        let step = match (self.namespaces.has(libc::CLONE_NEWNS), no_pivot) {
            (true, false) => Step::PivotRoot,
            (true, true) => {
                let mounts = procfs::mounts("self").map_err(|error| Error::os("read the host's mounts", error))?;
                Step::MoveRoot { bare: self.tables.list("--no-pivot", &bare_mounts(&mounts, rootfs), false)? }
            }
            (false, _) => Step::ChangeRoot,
        };
        self.tables.push(step);
        // The others were inherited; to set them again would undo what a mount of config.json asked for.
        if let Some(flag) = self.root_propagation()?.filter(|flag| flag & (libc::MS_SHARED | libc::MS_UNBINDABLE) != 0)
            && self.namespaces.is_new(libc::CLONE_NEWNS)
        {
            self.tables.push(Step::RootPropagation { flag });
        }
        Ok(())
    }

    /// `root.readonly`.
    pub(super) fn root_readonly(&mut self, root: &Root) {
        if root.readonly().unwrap_or(false) {
            self.tables.push(Step::RootReadonly);
        }
    }

    pub(super) fn hidden_paths(&mut self) -> Result<()> {
        let linux = self.linux;
        let readonly = linux.and_then(|linux| linux.readonly_paths().as_ref()).into_iter().flatten();
        let masked = linux.and_then(|linux| linux.masked_paths().as_ref()).into_iter().flatten();
        let mut known = HashSet::new();
        for (field, path) in
            readonly.map(|path| ("linux.readonlyPaths", path)).chain(masked.map(|path| ("linux.maskedPaths", path)))
        {
            if !self.namespaces.has(libc::CLONE_NEWNS) {
                return Err(Error::invalid(format!(
                    "{field} needs a mount namespace in linux.namespaces; without one it would hide the host's"
                )));
            }
            // A relative one would be read-only from the root on, for runc, too: it is where that is by then. What is
            // masked in a wrong place would be noticed too late.
            if field == "linux.maskedPaths" && !path.starts_with('/') {
                return Err(Error::invalid(format!("{field}: {path:?} must be absolute")));
            }
            let cleaned = clean(Path::new(path));
            let text = self.tables.path(field, bytes(&cleaned))?;
            // Engines join lists: what is listed twice would be covered twice.
            if !known.insert((field, cleaned)) {
                continue;
            }
            self.tables.push(if field == "linux.readonlyPaths" {
                Step::Readonly { path: text }
            } else {
                Step::Mask { path: text }
            });
        }
        Ok(())
    }

    pub(super) fn sysctls(&mut self) -> Result<()> {
        let Some(sysctls) = self.linux.and_then(|linux| linux.sysctl().as_ref()) else { return Ok(()) };
        let mut sorted: Vec<_> = sysctls.iter().collect();
        sorted.sort();
        for (name, value) in sorted {
            self.check_sysctl(name)?;
            let proc = self.tables.slot(SlotSource::Proc);
            let path = self.tables.path("linux.sysctl", format!("sys/{}", sysctl_path(name)))?;
            let value = self.tables.text("linux.sysctl", value)?;
            self.tables.push(Step::Sysctl { proc, path, value });
        }
        Ok(())
    }

    /// Whether the container joins, by its path, the namespace that the runtime itself is in: the host's. A path that
    /// is not there (any more) fails when it is opened.
    pub(super) fn joins_our_own(&self, kind: i32) -> bool {
        let file = match kind {
            libc::CLONE_NEWNET => "/proc/self/ns/net",
            libc::CLONE_NEWIPC => "/proc/self/ns/ipc",
            libc::CLONE_NEWUTS => "/proc/self/ns/uts",
            libc::CLONE_NEWNS => "/proc/self/ns/mnt",
            _ => "/proc/self/ns/user",
        };
        let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        self.tables.slots.iter().any(|slot| match slot {
            SlotSource::Namespace { kind: joined, path } if *joined == kind as u32 => {
                identity(path).is_some_and(|found| identity(Path::new(file)) == Some(found))
            }
            _ => false,
        })
    }

    /// Only parameters of a namespace that the container has for itself.
    fn check_sysctl(&self, name: &str) -> Result<()> {
        let dotted = sysctl_path(name).replace('/', ".");
        let needs = if IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            (libc::CLONE_NEWIPC, "ipc")
        } else if dotted.starts_with("net.") {
            (libc::CLONE_NEWNET, "network")
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            (libc::CLONE_NEWUTS, "uts")
        } else if dotted.starts_with("user.") {
            (libc::CLONE_NEWUSER, "user")
        } else {
            return Err(Error::invalid(format!(
                "linux.sysctl: {name:?} belongs to no namespace: it would change the host"
            )));
        };
        if dotted == "kernel.hostname" {
            return Err(Error::invalid(
                "linux.sysctl: \"kernel.hostname\" conflicts with the field hostname: use that",
            ));
        }
        if dotted.split('.').any(str::is_empty) || name.contains("..") {
            return Err(Error::invalid(format!("linux.sysctl: {name:?} is no name of a parameter")));
        }
        if self.namespaces.has(needs.0) && !self.joins_our_own(needs.0) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "linux.sysctl: {name:?} needs a {} namespace in linux.namespaces: it would change the host",
            needs.1
        )))
    }
}

/// Where the host's whole procfs and sysfs are mounted, outside the container's root. As long as a mount namespace has one,
/// the kernel lets a user namespace inside the container mount another, bare of all masks.
fn bare_mounts(mounts: &[procfs::Mount], rootfs: &Path) -> Vec<String> {
    let is_bare = |mount: &&procfs::Mount| mount.root == "/" && matches!(mount.filesystem.as_str(), "proc" | "sysfs");
    let outside = |mount: &&procfs::Mount| !Path::new(&mount.place).starts_with(rootfs);
    mounts.iter().filter(is_bare).filter(outside).map(|mount| mount.place.clone()).collect()
}

/// sysctl(8): whichever of `.` and `/` comes first separates; the other is part of a name (`net.ipv4.conf.eth0/1`).
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|character| match character {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{bare_mounts, clean, sysctl_path};
    use crate::procfs::mounts_in;

    #[test]
    fn whole_kernel_file_systems_outside_the_root() {
        let text = "20 1 0:5 / /proc rw - proc proc rw\n21 1 0:6 / /srv/a\\040b/sys rw - sysfs sysfs rw\n\
                    22 1 0:5 /sys /srv/part rw - proc proc rw\n23 1 0:7 / /tmp rw - tmpfs tmpfs rw\n\
                    24 1 0:5 / /c/rootfs/proc rw - proc proc rw\n25 1 0:5 / /c/rootfs2 rw - proc proc rw\n";
        let found = bare_mounts(&mounts_in(text), Path::new("/c/rootfs"));
        assert_eq!(found, ["/proc", "/srv/a b/sys", "/c/rootfs2"]);
    }

    #[test]
    fn paths_stay_inside() {
        for (path, cleaned) in [("/a/../..//b/./c", "/b/c"), ("a", "/a"), ("../../etc", "/etc"), ("/", "/")] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned));
        }
    }

    #[test]
    fn both_spellings_of_sysctls() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net/ipv4/ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
