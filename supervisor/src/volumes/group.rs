//! The group of a pod's volumes (fsGroup).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, chownat, fstat, openat};

use super::error::{Error, Result};
use crate::desired::VolumeGroup;

const DEPTH: usize = 2048;

/// Gives a folder and all in it to the group: readable and writable to it, and what is made in folders later is the group's, too.
/// A container may be writing there already: nothing is reached by a path that it could exchange, and links stay as they are.
/// `top_decides`: nothing is done if the folder itself is the group's with these rights.
pub(super) fn give(path: &Path, group: VolumeGroup, top_decides: bool) -> Result<()> {
    let doing = || format!("give {} to group {}", path.display(), group.gid);
    let top = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|error| Error::os(doing(), error))?;
    let status = fstat(&top).map_err(|error| Error::os(doing(), error))?;
    if top_decides && status.st_gid == group.gid && status.st_mode & 0o2770 == 0o2770 {
        return Ok(());
    }
    // The top comes last: were this interrupted, it would not say that all below is done.
    give_below(top.as_fd(), group.gid, 0o660, 0).map_err(|error| Error::os(doing(), error))
}

/// The same for files that containers only read: readable to the group.
pub(super) fn give_read(path: &Path, gid: u32) -> Result<()> {
    let doing = || format!("give {} to group {gid}", path.display());
    let top = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|error| Error::os(doing(), error))?;
    give_below(top.as_fd(), gid, 0o440, 0).map_err(|error| Error::os(doing(), error))
}

fn give_below(entry: BorrowedFd<'_>, gid: u32, rights: u32, depth: usize) -> rustix::io::Result<()> {
    let status = fstat(entry)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    if kind == FileType::Symlink || depth > DEPTH {
        return Ok(());
    }
    if kind == FileType::Directory {
        let folder = openat(entry, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for inner in Dir::read_from(&folder)? {
            let inner = inner?;
            if matches!(inner.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            match openat(&folder, inner.file_name(), flags, Mode::empty()) {
                Ok(found) => give_below(found.as_fd(), gid, rights, depth + 1)?,
                // Its container removed it meanwhile.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    if status.st_gid != gid {
        chownat(entry, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    let added = if kind == FileType::Directory { 0o2110 | rights } else { rights };
    // chown has cleared set-id bits, so the mode is written also if it seems to be right.
    let mode = Mode::from_raw_mode((status.st_mode & 0o7777) | added);
    // fchmod(2) takes no O_PATH descriptor; its link in our own procfs leads to this very file.
    rustix::fs::chmod(format!("/proc/self/fd/{}", entry.as_raw_fd()), mode)
}
