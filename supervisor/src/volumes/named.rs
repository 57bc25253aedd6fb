//! Volumes that outlive their pods.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{Error, Result};
use super::{Volumes, check_name, group, make_folder, removal};
use crate::desired::{Pod, VolumeGroup, VolumeSource};

/// A named volume of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVolume {
    /// Its name.
    pub name: String,
    /// Its folder on the host.
    pub path: PathBuf,
    /// When it was made, if the file system knows.
    pub made: Option<SystemTime>,
}

/// Makes it at its first use: 0755, root's.
pub(super) fn make(folder: &Path, name: &str, group: Option<VolumeGroup>) -> Result<()> {
    check_name(name, "a volume's name")?;
    let path = folder.join(name);
    let is_new = !path.is_dir();
    if is_new {
        make_folder(&path, 0o755)?;
        // The folder's name must be as durable as what a database is going to write into it.
        let parent = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        parent.map_err(|error| Error::os(format!("sync folder {}", folder.display()), error))?;
    }
    match group {
        Some(wanted) => group::give(&path, wanted, wanted.only_on_mismatch && !is_new),
        None => Ok(()),
    }
}

impl Volumes {
    /// All named volumes, by name.
    ///
    /// # Errors
    ///
    /// Their folder cannot be read.
    pub fn named(&self) -> Result<Vec<NamedVolume>> {
        let folder = self.data("volumes");
        let doing = |error| Error::os(format!("read folder {}", folder.display()), error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(doing)? {
            let entry = entry.map_err(doing)?;
            let (Ok(name), Ok(status)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
            if status.is_dir() && check_name(&name, "a volume's name").is_ok() {
                found.push(NamedVolume { name, path: entry.path(), made: status.created().ok() });
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes a named volume with all that is in it, because somebody said so. `pods` are all that are desired or not gone
    /// yet.
    ///
    /// # Errors
    ///
    /// One of the pods has it; there is none; something of it cannot be removed.
    pub fn remove_named(&self, name: &str, pods: &[Pod]) -> Result<()> {
        check_name(name, "a volume's name")?;
        let has_it =
            |pod: &&Pod| pod.volumes.iter().any(|volume| volume.source == VolumeSource::Named(name.to_owned()));
        if let Some(pod) = pods.iter().find(has_it) {
            return Err(Error::wrong(format!("volume {name} is pod {}'s: remove the pod first", pod.key)));
        }
        let path = self.data("volumes").join(name);
        if !path.is_dir() {
            return Err(Error::wrong(format!("there is no volume {name}")));
        }
        removal::remove_tree(&path)
    }
}
