//! Removes folders that containers wrote into.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, unlinkat};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::mountinfo;

/// Deeper than any path that a program can name, and a bound for our open descriptors.
const DEPTH: usize = 2048;

/// Removes a folder and all in it. It does not follow links, and never enters a mount: with something still mounted below
/// it, it removes nothing. No error if there is no such folder.
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
    remove_at(parent.as_fd(), name, 0).map_err(|error| Error::os(format!("remove {}", path.display()), error))
}

fn remove_at(parent: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy, depth: usize) -> rustix::io::Result<()> {
    // Most are files: a folder says so.
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    if depth > DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let folder = match open_within(parent, name) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    for (inner, file_type) in names {
        if file_type == FileType::Directory || file_type == FileType::Unknown {
            remove_at(folder.as_fd(), inner.as_c_str(), depth + 1)?;
        } else {
            match unlinkat(&folder, inner.as_c_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A folder right below another one, on the same mount, by no link.
fn open_within(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(parent, name, flags, Mode::empty(), resolve)
}
