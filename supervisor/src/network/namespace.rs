//! Work in a pod's network namespace.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use super::netlink::Netlink;
use super::{Error, Result};

/// The file system of namespaces (NSFS_MAGIC of linux/magic.h).
const NSFS: u64 = 0x6e73_6673;

/// Whether a path is that of a namespace. After a restart of the host, or once it was unmounted, it may be an ordinary file.
pub(super) fn is_there(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind == NSFS))
}

/// A pod's network namespace, and a conversation with its rtnetlink.
pub(super) struct Namespace {
    /// What devices are made in.
    pub(super) file: File,
    /// A socket in it.
    pub(super) netlink: Netlink,
}

impl Namespace {
    /// Opens the namespace. A socket belongs to the namespace of the thread that made it, so a thread of its own joins and
    /// ends; the caller's thread stays where it is.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::system(format!("join the network namespace {}", path.display()), source);
        let file = File::open(path).map_err(failed)?;
        let joined = || -> io::Result<Netlink> {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            Netlink::open()
        };
        let netlink = std::thread::scope(|scope| scope.spawn(joined).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread that joined it has panicked")))
            .map_err(failed)?;
        Ok(Self { file, netlink })
    }

    /// Whether it has a device of that name.
    pub(super) fn has(&mut self, device: &str) -> Result<bool> {
        let failed = |source| Error::system(format!("look for {device} in the pod's namespace"), source);
        self.netlink.device(device).map(|device| device.is_some()).map_err(failed)
    }

    /// Brings its loopback device up: 127.0.0.1 and ::1 are there with it.
    pub(super) fn loopback_up(&mut self) -> Result<()> {
        self.netlink.up(1).map_err(|source| Error::system("bring the pod's loopback device up", source))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_there;

    #[test]
    fn a_file_that_a_namespace_was_mounted_on_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_there(file.path()));
        assert!(!is_there(Path::new("/nowhere")));
        assert!(is_there(Path::new("/proc/self/ns/net")));
    }
}
