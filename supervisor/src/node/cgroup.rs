//! The cgroup that those of all containers are in: `/NAMESPACE/ID`, in every hierarchy.

use std::io::ErrorKind;
use std::path::Path;

use super::Node;

/// Where hierarchies are: the only one (v2), or one in each folder.
const ROOT: &str = "/sys/fs/cgroup";

/// The path of a container's cgroup.
pub(crate) fn path(node: &Node, id: &str) -> String {
    format!("/{}/{id}", node.config.namespace)
}

/// Removes the cgroup above once no pod is left. While that is looked at, no container is made.
pub(crate) async fn remove_cgroups(node: &Node) {
    if !node.entries().is_empty() {
        return;
    }
    let _alone = node.adopting.write().await;
    if node.entries().is_empty() {
        remove(Path::new(ROOT), &node.config.namespace);
    }
}

/// One that holds something is not ours alone, and stays.
fn remove(root: &Path, name: &str) {
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let folder = hierarchy.join(name);
        match std::fs::remove_dir(&folder) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                tracing::debug!("remove the cgroup {}: {error}", folder.display());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::remove;

    #[test]
    fn empty_ones_go_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["cpu/flint", "memory/flint/other", "flint"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        remove(root.path(), "flint");
        let is_there = |folder: &str| root.path().join(folder).exists();
        assert!(!is_there("cpu/flint") && !is_there("flint"));
        assert!(is_there("memory/flint/other"));
    }
}
