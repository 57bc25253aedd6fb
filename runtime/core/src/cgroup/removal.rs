//! Listing and removing a cgroup with all that is below it.
//!
//! How deep that is, is up to the container where its cgroups are writable: no path of it need fit into PATH_MAX, nor a
//! descriptor for each level into the limit of them. So one folder is open at a time, and it is left as it was entered.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::{CWD, Dir, FileType};

use super::branch::{is_gone, listed_processes, wait_for_event};
use crate::{Error, Result};

/// How long a killed process may take to leave its cgroup. A big address space takes long to free.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries where the kernel sends no event (v1): from this, doubled up to that.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// All processes of a cgroup and its sub-cgroups. A cgroup that is gone has none.
pub(super) fn processes_below(path: &Path) -> io::Result<Vec<i32>> {
    let Some(top) = open_folder(CWD, path)? else { return Ok(Vec::new()) };
    let mut processes = listed_processes(&top)?;
    walk(
        top,
        |folder| {
            processes.extend(listed_processes(folder)?);
            Ok(())
        },
        |_, _| Ok(()),
    )?;
    Ok(processes)
}

/// Each folder below a cgroup. One that is gone has none.
pub(super) fn each_below(path: &Path, enter: impl FnMut(&OwnedFd) -> io::Result<()>) -> io::Result<()> {
    open_folder(CWD, path)?.map_or(Ok(()), |top| walk(top, enter, |_, _| Ok(())))
}

/// Goes through all folders below `top`: `enter` gets each, then all below it, then `leave` its parent and its name.
fn walk(
    top: OwnedFd,
    mut enter: impl FnMut(&OwnedFd) -> io::Result<()>,
    mut leave: impl FnMut(BorrowedFd<'_>, &OsString) -> io::Result<()>,
) -> io::Result<()> {
    let mut folder = top;
    // Names of the folders that are entered, each with its siblings that are still to come.
    let mut levels = vec![(OsString::new(), sub_cgroups(&folder)?)];
    loop {
        let next = levels.last_mut().and_then(|(_, siblings)| siblings.pop());
        if let Some(name) = next {
            // Gone in the meantime.
            let Some(inner) = open_folder(folder.as_fd(), Path::new(&name))? else { continue };
            enter(&inner)?;
            levels.push((name, sub_cgroups(&inner)?));
            folder = inner;
            continue;
        }
        let Some((name, _)) = levels.pop().filter(|_| !levels.is_empty()) else { return Ok(()) };
        let Some(parent) = open_folder(folder.as_fd(), Path::new(".."))? else { return Ok(()) };
        leave(parent.as_fd(), &name)?;
        folder = parent;
    }
}

/// None when it is gone.
fn open_folder(base: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match fcntl::openat(base, path, FOLDER, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn sub_cgroups(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt as _;
    let found = || -> io::Result<Vec<OsString>> {
        // kernfs counts `.`, the parent's entry and one `..` for each sub-cgroup: the usual one has none.
        if fstat(folder)?.st_nlink == 2 {
            return Ok(Vec::new());
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    };
    found().or_else(|error| if is_gone(&error) { Ok(Vec::new()) } else { Err(error) })
}

/// Removes a cgroup, its sub-cgroups first; waits for processes that are on their way out. Missing is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::os(format!("cannot remove the cgroup {}", path.display()), error);
    // The usual case takes one system call.
    if try_remove(CWD, path).map_err(failed)? {
        return Ok(());
    }
    let busy = |folder: Option<OwnedFd>| {
        let processes = folder.as_ref().map_or(Ok(Vec::new()), listed_processes).map_err(failed)?;
        let busy = failed(Errno::EBUSY.into());
        Err(Error::new(
            busy.kind(),
            format!("{busy} after {} seconds: still in it are {processes:?}; kill them first", PATIENCE.as_secs()),
        ))
    };
    let mut kept = None;
    if let Some(top) = open_folder(CWD, path).map_err(failed)? {
        let leave = |parent: BorrowedFd<'_>, name: &OsString| {
            if !remove_emptied(parent, Path::new(name))? {
                kept = Some(open_folder(parent, Path::new(name))?);
                return Err(Errno::EBUSY.into());
            }
            Ok(())
        };
        let walked = walk(top, |_| Ok(()), leave);
        match kept {
            Some(folder) => return busy(folder),
            None => walked.map_err(failed)?,
        }
    }
    if remove_emptied(CWD, path).map_err(failed)? { Ok(()) } else { busy(open_folder(CWD, path).map_err(failed)?) }
}

/// Removes one cgroup without sub-cgroups, whose processes are on their way out: whether they were in time.
fn remove_emptied(base: BorrowedFd<'_>, path: &Path) -> io::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let events =
        fcntl::openat(base, &path.join("cgroup.events"), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok();
    let mut pause = FIRST_PAUSE;
    while !try_remove(base, path)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        // Only v2 has this file.
        if let Some(events) = &events {
            // Reading arms the next event; a change before it is seen by the next try.
            let _ = super::branch::read_all(events);
            if try_remove(base, path)? {
                return Ok(true);
            }
            let milliseconds = u16::try_from(LONGEST_PAUSE.as_millis()).unwrap_or(u16::MAX);
            let _ = wait_for_event(events, milliseconds);
        } else {
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(true)
}

/// Removes one folder that nothing was in.
pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if !is_gone(&error) => Err(Error::os(format!("cannot remove the cgroup {}", path.display()), error)),
        _ => Ok(()),
    }
}

/// Whether it is gone; not when it is in use.
fn try_remove(base: BorrowedFd<'_>, path: &Path) -> io::Result<bool> {
    match unlinkat(base, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
        Err(Errno::EBUSY) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
