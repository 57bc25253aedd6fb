//! The paths of one container's cgroups, and making, joining and removing them.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use flint_sys::{Fd, file};

use super::Floor;

/// The paths of one container.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) cgroups: Vec<Paths>,
}

/// The paths in one hierarchy.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) folder: CString,
    tasks: CString,
    cpus: CString,
    mems: CString,
}

/// The open ends through which a container joins its cgroups; closed when dropped.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// v1: tasks, open for writing: a thread that moves itself takes no lock that the whole system shares.
    pub(super) tasks: Vec<Fd>,
    unified: Option<Fd>,
}

impl Joined {
    /// The v2 folder to be cloned into.
    pub(super) const fn unified(&self) -> Option<Fd> {
        self.unified
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        for &fd in self.tasks.iter().chain(&self.unified) {
            let _ = file::close(fd);
        }
    }
}

impl Names {
    pub(super) fn new(floor: &Floor, index: usize) -> Result<Self> {
        let name = format!("{}-{index}", floor.name);
        let paths = floor.hierarchies.iter().map(|hierarchy| {
            let folder = hierarchy.own.join(&name);
            Ok(Paths {
                tasks: c_string(&folder.join("tasks"))?,
                cpus: c_string(&folder.join("cpuset.cpus"))?,
                mems: c_string(&folder.join("cpuset.mems"))?,
                folder: c_string(&folder)?,
            })
        });
        Ok(Self { cgroups: paths.collect::<Result<_>>()? })
    }

    /// Makes the folders and opens what the container joins by. On failure what was made is removed.
    pub(super) fn make(&self, floor: &Floor) -> flint_sys::Result<Joined> {
        let joined = self.try_make(floor);
        if joined.is_err() {
            let _ = self.remove();
        }
        joined
    }

    fn try_make(&self, floor: &Floor) -> flint_sys::Result<Joined> {
        let mut joined = Joined { tasks: Vec::with_capacity(self.cgroups.len()), unified: None };
        for (paths, hierarchy) in self.cgroups.iter().zip(&floor.hierarchies) {
            file::mkdirat(Fd::CWD, &paths.folder, 0o755)?;
            if hierarchy.unified {
                joined.unified = Some(file::openat(Fd::CWD, &paths.folder, libc::O_PATH | libc::O_DIRECTORY, 0)?);
                continue;
            }
            if let Some((cpus, mems)) = &hierarchy.cpuset {
                write(&paths.cpus, cpus)?;
                write(&paths.mems, mems)?;
            }
            joined.tasks.push(file::openat(Fd::CWD, &paths.tasks, libc::O_WRONLY, 0)?);
        }
        Ok(joined)
    }

    /// Removes the folders; the last error counts, and what was never made is none.
    pub(super) fn remove(&self) -> flint_sys::Result<()> {
        let mut result = Ok(());
        for paths in &self.cgroups {
            match file::unlinkat(Fd::CWD, &paths.folder, true) {
                Err(errno) if errno.0 != libc::ENOENT => result = Err(errno),
                _ => {}
            }
        }
        result
    }
}

fn write(path: &CString, data: &[u8]) -> flint_sys::Result<()> {
    let fd = file::openat(Fd::CWD, path, libc::O_WRONLY, 0)?;
    let result = file::write(fd, data);
    let _ = file::close(fd);
    result.map(drop)
}

pub(super) fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{} holds a NUL", path.display()))
}
