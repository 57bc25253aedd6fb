//! Listing and removing a cgroup with all that is below it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;

use super::branch::{is_gone, listed_processes, wait_for_event};
use crate::{Error, Result};

/// How long a killed process may take to leave its cgroup. A big address space takes long to free.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries where the kernel sends no event (v1): from this, doubled up to that.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// All processes of a cgroup and its sub-cgroups. A cgroup that is gone has none.
pub(super) fn processes_below(path: &Path) -> io::Result<Vec<i32>> {
    let mut processes = listed_processes(path)?;
    for folder in sub_cgroups(path)? {
        processes.extend(processes_below(&folder)?);
    }
    Ok(processes)
}

fn sub_cgroups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let found = || -> io::Result<Vec<PathBuf>> {
        // kernfs counts `.`, the parent's entry and one `..` for each sub-cgroup: the usual one has none.
        if fs::symlink_metadata(path)?.nlink() == 2 {
            return Ok(Vec::new());
        }
        let mut folders = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        Ok(folders)
    };
    found().or_else(|error| if is_gone(&error) { Ok(Vec::new()) } else { Err(error) })
}

/// Removes a cgroup, its sub-cgroups first; waits for processes that are on their way out. Missing is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::os(format!("cannot remove the cgroup {}", path.display()), error);
    // The usual case takes one system call.
    if try_remove(path).map_err(failed)? {
        return Ok(());
    }
    for folder in sub_cgroups(path).map_err(failed)? {
        remove(&folder)?;
    }
    let deadline = Instant::now() + PATIENCE;
    let events = fcntl::open(&path.join("cgroup.events"), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok();
    let mut pause = FIRST_PAUSE;
    while !try_remove(path).map_err(failed)? {
        if Instant::now() >= deadline {
            let processes = processes_below(path).map_err(failed)?;
            let busy = failed(Errno::EBUSY.into());
            return Err(Error::new(
                busy.kind(),
                format!("{busy} after {} seconds: still in it are {processes:?}; kill them first", PATIENCE.as_secs()),
            ));
        }
        // Only v2 has this file.
        if let Some(events) = &events {
            // Reading arms the next event; a change before it is seen by the next try.
            let _ = super::branch::read_all(events);
            if try_remove(path).map_err(failed)? {
                return Ok(());
            }
            let milliseconds = u16::try_from(LONGEST_PAUSE.as_millis()).unwrap_or(u16::MAX);
            let _ = wait_for_event(events, milliseconds);
        } else {
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(())
}

/// Removes one folder that nothing was in.
pub(super) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if !is_gone(&error) => Err(Error::os(format!("cannot remove the cgroup {}", path.display()), error)),
        _ => Ok(()),
    }
}

/// Whether it is gone; not when it is in use.
fn try_remove(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => Ok(false),
        Err(error) => Err(error),
    }
}
