//! The usual places of the hierarchies, asked directly.
//!
//! mountinfo has a line for each mount of the host, and the kernel makes its text anew for each reader: with 1,000
//! containers that have an overlay each it is 764 KB and 9 ms, three times as long as a container takes to start. Where all is
//! where systemd puts it, one or two system calls for each hierarchy tell the same.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};

/// A cgroup file system, seen at its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// What is mounted at the usual places.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Usual<'a> {
    /// The v1 hierarchies' names (`cpu,cpuacct`) and mountpoints, in the order of `/proc/self/cgroup`.
    pub(super) hierarchies: Vec<(&'a str, PathBuf)>,
    /// Where the v2 tree is.
    pub(super) unified: Option<PathBuf>,
}

/// The places of all hierarchies that `names` (those of `/proc/self/cgroup`; the v2 tree has the empty one) tells of; None
/// if one of v1 is not where it usually is, or not from its root on. A v2 tree counts only beside them; it may have been mounted
/// somewhere else, or once. `look` tells what stands at a path, `entries` what is in the folder `root`.
pub(super) fn find<'a>(
    root: &Path,
    names: impl Iterator<Item = &'a str>,
    look: impl Fn(&Path) -> Option<Version>,
    entries: impl Fn() -> Option<Vec<PathBuf>>,
) -> Option<Usual<'a>> {
    if look(root) == Some(Version::V2) {
        return Some(Usual { hierarchies: Vec::new(), unified: Some(root.to_owned()) });
    }
    let mut usual = Usual { hierarchies: Vec::new(), unified: None };
    for name in names {
        if name.is_empty() {
            let is_it = |place: &PathBuf| look(place) == Some(Version::V2);
            usual.unified = Some(root.join("unified")).filter(is_it);
            if usual.unified.is_none() {
                usual.unified = entries()?.into_iter().find(is_it);
            }
            continue;
        }
        let place = root.join(name.trim_start_matches("name="));
        if look(&place) != Some(Version::V1) {
            return None;
        }
        usual.hierarchies.push((name, place));
    }
    (!usual.hierarchies.is_empty()).then_some(usual)
}

/// What is in the folder; None if it cannot be read.
pub(super) fn entries(folder: &Path) -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.map(|entry| Some(entry.ok()?.path())).collect()
}

/// Whether paths of `/proc/self/cgroup` begin at the hierarchies' roots: not in a cgroup namespace.
pub(super) fn is_first_namespace() -> bool {
    // The number of the first one is fixed (PROC_CGROUP_INIT_INO). Before Linux 4.6 there is no such file, and no other.
    match rustix::fs::readlink("/proc/self/ns/cgroup", Vec::new()) {
        Ok(name) => name.as_bytes() == b"cgroup:[4026531835]",
        Err(error) => error == rustix::io::Errno::NOENT,
    }
}

/// The cgroup file system whose root is at the path, which is no link.
pub(super) fn version_at(path: &Path) -> Option<Version> {
    const CGROUP: u64 = 0x0027_e0eb;
    const CGROUP2: u64 = 0x6367_7270;
    /// The root of a whole hierarchy has it (kernfs); what a container sees of one has not.
    const ROOT_INODE: u64 = 1;
    let flags = StatxFlags::TYPE | StatxFlags::INO;
    let seen = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, flags).ok()?;
    if FileType::from_raw_mode(seen.stx_mode.into()) != FileType::Directory || seen.stx_ino != ROOT_INODE {
        return None;
    }
    match rustix::fs::statfs(path).ok()?.f_type as u64 {
        CGROUP => Some(Version::V1),
        CGROUP2 => Some(Version::V2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/sys/fs/cgroup";

    fn seen<'a>(names: &[&'a str], there: &[(&str, Version)]) -> Option<Usual<'a>> {
        let look = |path: &Path| {
            let name = path.strip_prefix(ROOT).unwrap().to_str().unwrap();
            there.iter().find(|(place, _)| *place == name).map(|(_, version)| *version)
        };
        let entries = || Some(there.iter().map(|(place, _)| Path::new(ROOT).join(place)).collect());
        find(Path::new(ROOT), names.iter().copied(), look, entries)
    }

    #[test]
    fn one_tree_hides_the_rest() {
        let usual = seen(&["cpu", ""], &[("", Version::V2)]).unwrap();
        assert_eq!(usual, Usual { hierarchies: Vec::new(), unified: Some(ROOT.into()) });
    }

    #[test]
    fn hierarchies_have_folders_of_their_names() {
        let there = [("cpu,cpuacct", Version::V1), ("systemd", Version::V1), ("unified", Version::V2)];
        let usual = seen(&["name=systemd", "cpu,cpuacct", ""], &there).unwrap();
        let places = [("name=systemd", "/sys/fs/cgroup/systemd"), ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct")];
        assert_eq!(usual.hierarchies, places.map(|(name, place)| (name, PathBuf::from(place))));
        assert_eq!(usual.unified, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(seen(&["name=systemd", "cpu,cpuacct"], &there).unwrap().unified, None);
    }

    #[test]
    fn a_tree_beside_them_may_have_another_name_or_be_elsewhere() {
        let (v1, other) = (("cpu", Version::V1), ("v2", Version::V2));
        assert_eq!(seen(&["cpu", ""], &[v1, other]).unwrap().unified, Some("/sys/fs/cgroup/v2".into()));
        assert_eq!(seen(&["cpu", ""], &[v1]).unwrap().unified, None);
    }

    #[test]
    fn what_is_elsewhere_is_for_mountinfo() {
        // In a container, or mounted by hand; a tree of the other version; nothing at all.
        assert_eq!(seen(&["cpu", "memory"], &[("cpu", Version::V1)]), None);
        assert_eq!(seen(&["cpu"], &[("cpu", Version::V2)]), None);
        assert_eq!(seen(&[""], &[("unified", Version::V2)]), None);
        assert_eq!(seen(&[], &[]), None);
    }

    #[test]
    fn other_file_systems_are_none() {
        assert_eq!(version_at(Path::new("/proc")), None);
        assert_eq!(version_at(Path::new("/nonexistent")), None);
    }
}
