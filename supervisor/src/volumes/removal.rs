//! Removes folders that containers wrote into.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::mountinfo;

/// Removes a folder and all in it, however deep that is. It does not follow links, and never enters a mount: with something still
/// mounted below it, it removes nothing. No error if there is no such folder.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    // Most pods have not all of them, and the mounts of the host are many.
    if matches!(rustix::fs::lstat(path), Err(Errno::NOENT)) {
        return Ok(());
    }
    if let Some(mounted) = mountinfo::below(path)?.first() {
        return Err(Error::wrong(format!(
            "remove {}: {} is still mounted, and what is behind it is not ours to remove",
            path.display(),
            mounted.display()
        )));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::wrong(format!("{} is no folder of a volume", path.display())));
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(Error::os(format!("open folder {}", parent.display()), error)),
    };
    flint_bundle::remove_tree(parent, name)
        .map_err(|error| Error::os(format!("remove {}", path.display()), std::io::Error::other(error)))
}
