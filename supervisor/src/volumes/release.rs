//! The end of a pod's volumes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::error::{Error, Result};
use super::{Volumes, check_name, mountinfo, parts, removal};

impl Volumes {
    /// Takes away the volumes of a pod whose containers have ended, all but its named ones and the host's. No error if there
    /// are none.
    ///
    /// # Errors
    ///
    /// Something cannot be unmounted or removed; it is tried again with the next call.
    pub fn release(&self, uid: &str) -> Result<()> {
        check_name(uid, "a pod's uid")?;
        let (beside, in_memory) = (self.data("pods").join(uid), self.run("pods").join(uid));
        let secrets = self.run("secrets").join(uid);
        // Logs and bundles are there, too, and stay as long as the pod is known.
        let (empty, files) = (beside.join("empty"), beside.join("files"));
        // A container may have mounted something in a volume that shows mounts to the host.
        for folder in [&in_memory, &empty, &files] {
            if folder.exists() {
                unmount_below(folder)?;
            }
        }
        parts::let_go_all(&in_memory.join("parts"))?;
        for folder in [&in_memory, &secrets, &empty, &files] {
            removal::remove_tree(folder)?;
        }
        match std::fs::remove_dir(&beside) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(Error::os(format!("remove folder {}", beside.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Releases the volumes of all pods but these: after a start of flintd. Says which were released, and what went wrong
    /// with others.
    ///
    /// # Errors
    ///
    /// The folders cannot be read.
    pub fn retain(&self, uids: &BTreeSet<String>) -> Result<(Vec<String>, Vec<Error>)> {
        let mut found = BTreeSet::new();
        for folder in [self.data("pods"), self.run("pods"), self.run("secrets")] {
            let doing = |error| Error::os(format!("read folder {}", folder.display()), error);
            for entry in std::fs::read_dir(&folder).map_err(doing)? {
                if let Ok(name) = entry.map_err(doing)?.file_name().into_string() {
                    found.insert(name);
                }
            }
        }
        let (mut released, mut failures) = (Vec::new(), Vec::new());
        for uid in found.difference(uids) {
            match self.release(uid) {
                Ok(()) => released.push(uid.clone()),
                Err(error) => failures.push(error.about(format!("volumes of pod {uid}"))),
            }
        }
        Ok((released, failures))
    }
}

/// Unmounts all that is mounted at or below a folder.
pub(super) fn unmount_below(folder: &Path) -> Result<()> {
    for point in mountinfo::below(folder)? {
        unmount_one(&point)?;
    }
    Ok(())
}

/// Unmounts the last that was mounted there. What a process still has open is detached: it goes with the process.
pub(super) fn unmount_one(point: &Path) -> Result<()> {
    match unmount(point, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        other => other,
    }
    .map_err(|error| Error::os(format!("unmount {}", point.display()), error))
}
