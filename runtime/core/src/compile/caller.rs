//! Who calls the runtime: what a plan depends on of them.

use crate::cgroup::Need;
use crate::procfs;

/// The calling process, as its own user namespace sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Whether setgroups(2) is denied for good in its user namespace (user_namespaces(7), `/proc/PID/setgroups`).
    pub setgroups_denied: bool,
    /// Whether containers must have cgroups of their own.
    pub cgroups: Need,
}

impl Caller {
    /// Looks at the calling process.
    #[must_use]
    pub fn detect(cgroups: Need) -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            setgroups_denied: setgroups_denied("/proc/self/setgroups"),
            cgroups,
        }
    }

    /// Whether it is no root: then it may neither prepare mounts for init nor look into an init that is not
    /// dumpable, and needs a new or joined user namespace for all that a container is.
    #[must_use]
    pub fn is_unprivileged(&self) -> bool {
        self.uid != 0
    }
}

/// Whether the file of a process says `deny`. Kernels without user namespaces do not have it.
pub(crate) fn setgroups_denied(path: &str) -> bool {
    procfs::read(path).is_ok_and(|text| text.trim_ascii() == b"deny")
}

/// Whether the calling process is in a user namespace that is not the host's first: then it does not see every id
/// mapped to itself (user_namespaces(7), `/proc/PID/uid_map`).
#[must_use]
pub fn in_user_namespace() -> bool {
    // A kernel without user namespaces has no such file.
    procfs::read("/proc/self/uid_map").is_ok_and(|map| !is_whole_map(&map))
}

fn is_whole_map(map: &[u8]) -> bool {
    let text = String::from_utf8_lossy(map);
    text.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::is_whole_map;

    #[test]
    fn only_the_first_user_namespace_maps_all_ids_to_themselves() {
        assert!(is_whole_map(b"         0          0 4294967295\n"));
        for map in [&b""[..], b"0 1001 1\n", b"0 0 65536\n", b"0 1001 1\n1 100000 65536\n"] {
            assert!(!is_whole_map(map), "{map:?}");
        }
    }
}
