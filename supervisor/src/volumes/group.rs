//! The group of a pod's volumes (fsGroup).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, chownat, fstat, openat};

use super::error::{Error, Result};
use crate::desired::VolumeGroup;

/// Folders in each other, each by a descriptor; what is deeper stays as it is.
const DEPTH: usize = 256;

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
    give_below(top.as_fd(), group.gid, 0o660).map_err(|error| Error::os(doing(), error))
}

/// The same for files that containers only read: readable to the group.
pub(super) fn give_read(path: &Path, gid: u32) -> Result<()> {
    let doing = || format!("give {} to group {gid}", path.display());
    let top = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|error| Error::os(doing(), error))?;
    give_below(top.as_fd(), gid, 0o440).map_err(|error| Error::os(doing(), error))
}

fn give_below(top: BorrowedFd<'_>, gid: u32, rights: u32) -> rustix::io::Result<()> {
    let listed = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut open = Vec::new();
    if FileType::from_raw_mode(fstat(top)?.st_mode) == FileType::Directory {
        open.push(Dir::new(openat(top, ".", listed, Mode::empty())?)?);
    }
    while let Some(folder) = open.last_mut() {
        let Some(inner) = folder.next() else {
            open.pop();
            continue;
        };
        let inner = inner?;
        if matches!(inner.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let found = match openat(folder.fd()?, inner.file_name(), flags, Mode::empty()) {
            Ok(found) => found,
            // Its container removed it meanwhile.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error),
        };
        if give_one(found.as_fd(), gid, rights)? == FileType::Directory && open.len() < DEPTH {
            open.push(Dir::new(openat(&found, ".", listed, Mode::empty())?)?);
        }
    }
    give_one(top, gid, rights).map(drop)
}

/// Gives one file or folder; what it is.
fn give_one(entry: BorrowedFd<'_>, gid: u32, rights: u32) -> rustix::io::Result<FileType> {
    let status = fstat(entry)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    if kind == FileType::Symlink {
        return Ok(kind);
    }
    if status.st_gid != gid {
        chownat(entry, "", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    let added = if kind == FileType::Directory { 0o2110 | rights } else { rights };
    // chown has cleared set-id bits, so the mode is written also if it seems to be right.
    let mode = Mode::from_raw_mode((status.st_mode & 0o7777) | added);
    // fchmod(2) takes no O_PATH descriptor; its link in our own procfs leads to this very file.
    rustix::fs::chmod(format!("/proc/self/fd/{}", entry.as_raw_fd()), mode)?;
    Ok(kind)
}
