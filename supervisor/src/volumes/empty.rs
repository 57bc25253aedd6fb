//! Empty folders that live as long as their pod.

use std::ffi::CString;
use std::path::Path;

use rustix::fs::{Mode, chmod, statfs};
use rustix::mount::{MountFlags, mount};

use super::error::{Error, Result};
use super::{group, make_folder, private_folder};
use crate::desired::VolumeGroup;

/// Anybody may write: the containers' users are not known to the node. (As in kubelet; nobody but root gets here by a path.)
const MODE: u32 = 0o777;

/// What statfs(2) calls a tmpfs.
pub(super) const TMPFS_MAGIC: i64 = 0x0102_1994;

pub(super) fn on_disk(path: &Path, group: Option<VolumeGroup>) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parents = path.parent().unwrap_or(path);
    private_folder(parents)?;
    // Whole or not at all: a folder that is there was finished.
    let unfinished = path.with_extension("unfinished");
    make_folder(&unfinished, MODE)?;
    if let Some(wanted) = group {
        group::give(&unfinished, wanted, false)?;
    }
    std::fs::rename(&unfinished, path).map_err(|error| Error::os(format!("finish folder {}", path.display()), error))
}

pub(super) fn in_memory(path: &Path, size_limit: Option<u64>, group: Option<VolumeGroup>) -> Result<()> {
    private_folder(path.parent().unwrap_or(path))?;
    make_folder(path, 0o700)?;
    if is_mount_point(path)? {
        return Ok(());
    }
    let gid = group.map(|group| format!(",gid={}", group.gid)).unwrap_or_default();
    let mode = if group.is_some() { 0o2777 } else { MODE };
    // Without a size the kernel takes half of the memory, which is what Kubernetes promises, too. A tmpfs of 0 is one
    // without a limit to the kernel.
    let size = size_limit.map(|bytes| format!(",size={}", bytes.max(1))).unwrap_or_default();
    mount_tmpfs(path, &format!("mode={mode:o}{gid}{size}"))
}

/// Mounts a tmpfs without devices and set-id programs; never swapped out if the kernel can promise that (6.4).
pub(super) fn mount_tmpfs(path: &Path, options: &str) -> Result<()> {
    let doing = || format!("mount a tmpfs ({options}) at {}", path.display());
    let data = CString::new(options).map_err(|error| Error::wrong(format!("{}: {error}", doing())))?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount("tmpfs", path, "tmpfs", flags, data.as_c_str()).map_err(|error| Error::os(doing(), error))
}

/// Whether a tmpfs of ours is on this folder: a folder on another file system than the one it is in.
pub(super) fn is_mount_point(path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let look = |path: &Path| {
        std::fs::symlink_metadata(path).map_err(|error| Error::os(format!("look at {}", path.display()), error))
    };
    let above = path.parent().unwrap_or(path);
    Ok(look(path)?.dev() != look(above)?.dev())
}

/// Whether what is written here stays in memory.
pub(super) fn is_in_memory(path: &Path) -> Result<bool> {
    let found = statfs(path).map_err(|error| Error::os(format!("statfs {}", path.display()), error))?;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between architectures")]
    Ok(found.f_type as i64 == TMPFS_MAGIC)
}

/// Sets a mode whatever the umask.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    chmod(path, Mode::from_raw_mode(mode))
        .map_err(|error| Error::os(format!("set the mode of {}", path.display()), error))
}
