//! The processes of a container without cgroups (rootless): those in its pid namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::container::process::parse_parent;
use crate::procfs;

/// All processes of the pid namespace whose first process is `init`, and of those nested in it: its pid, what it and
/// its children started, and what `exec` put there. `None` when `init` is not the first process of a namespace of its
/// own: then nobody can tell what is the container's.
pub(super) fn processes(init: i32) -> Option<Vec<i32>> {
    if !is_first_of_its_own(&procfs::read(&format!("/proc/{init}/status")).ok()?) {
        return None;
    }
    let namespace = namespace_of(init)?;
    let mut parents = BTreeMap::new();
    let mut inside = BTreeSet::from([init]);
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if namespace_of(pid).is_some_and(|other| other == namespace) {
            inside.insert(pid);
        }
        let parent = procfs::read(&format!("/proc/{pid}/stat")).ok().and_then(|stat| parse_parent(&stat));
        parents.insert(pid, parent.unwrap_or(0));
    }
    Some(with_descendants(inside, &parents))
}

/// Nested namespaces: their first process is a child of one inside.
fn with_descendants(mut inside: BTreeSet<i32>, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    loop {
        let before = inside.len();
        inside.extend(
            parents.iter().filter(|(_, parent)| inside.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>(),
        );
        if inside.len() == before {
            return inside.into_iter().collect();
        }
    }
}

fn namespace_of(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// The pid of a process in its own pid namespace; `None` when it has ended.
pub(super) fn innermost_pid(pid: i32) -> Option<i32> {
    pids_of(&procfs::read(&format!("/proc/{pid}/status")).ok()?).last().copied()
}

fn is_first_of_its_own(status: &[u8]) -> bool {
    matches!(pids_of(status).as_slice(), [_, .., 1])
}

/// proc_pid_status(5): `NSpid` lists its pid in each namespace from the reader's own down.
fn pids_of(status: &[u8]) -> Vec<i32> {
    let status = String::from_utf8_lossy(status);
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or("").split_ascii_whitespace();
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{is_first_of_its_own, parse_parent, with_descendants};

    #[test]
    fn the_first_process_of_a_namespace_has_pid_1_there() {
        assert!(is_first_of_its_own(b"Name:\tsh\nNSpid:\t4711\t1\nVmPeak:\t1\n"));
        assert!(is_first_of_its_own(b"NSpid:\t4711\t30\t1\n"));
        for other in [&b"NSpid:\t1\n"[..], b"NSpid:\t4711\n", b"NSpid:\t4711\t2\n", b"Name:\tsh\n"] {
            assert!(!is_first_of_its_own(other));
        }
    }

    #[test]
    fn parents_and_their_descendants() {
        assert_eq!(parse_parent(b"12 (a) S (b) R 7 12 12 0"), Some(7));
        assert_eq!(parse_parent(b""), None);
        let parents = BTreeMap::from([(5, 1), (6, 5), (7, 9), (8, 6), (9, 1)]);
        assert_eq!(with_descendants(BTreeSet::from([5]), &parents), [5, 6, 8]);
    }
}
