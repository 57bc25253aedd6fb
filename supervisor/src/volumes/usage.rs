//! How much is in a pod's volumes.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use super::{Error, Result, Volumes};
use crate::desired::{Pod, VolumeSource};

/// So many files are looked at; more count as one that is too big.
const FILES: u64 = 1_000_000;
/// And so many folders in each other, each by a descriptor; what has deeper ones counts as too big, too.
const DEPTH: usize = 256;

/// A volume that is bigger than its limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooBig {
    /// Its name in the pod.
    pub volume: String,
    /// Its limit in bytes.
    pub limit: u64,
    /// What was found in bytes; counting ends soon beyond the limit.
    pub found: u64,
}

struct Count {
    bytes: u64,
    files: u64,
    enough: u64,
    /// The file system that is counted: what is mounted below it is another's.
    device: u64,
}

impl Volumes {
    /// The first emptyDir on disk with more in it than its limit: a reason to evict the pod. (One in memory is held by the
    /// kernel.) Its cost is that of du(1) on what the pod wrote, up to the limit.
    ///
    /// # Errors
    ///
    /// A folder cannot be read.
    pub fn too_big(&self, pod: &Pod) -> Result<Option<TooBig>> {
        for volume in &pod.volumes {
            if let VolumeSource::EmptyDir { size_limit: Some(limit) } = volume.source {
                let found = disk_usage(&self.place(pod, volume).path, limit.saturating_add(1))?;
                if found > limit {
                    return Ok(Some(TooBig { volume: volume.name.clone(), limit, found }));
                }
            }
        }
        Ok(None)
    }

    /// Bytes on disk of a pod's emptyDir volumes, for its limit of storage; counting ends at `enough`.
    ///
    /// # Errors
    ///
    /// A folder cannot be read.
    pub fn disk_usage(&self, pod: &Pod, enough: u64) -> Result<u64> {
        disk_usage(&self.data("pods").join(&pod.uid).join("empty"), enough)
    }
}

/// Bytes on disk of a folder and what is below it on the same file system; none of one that is not there. Counting ends at
/// `enough`, and so much it is with more than a million files or 256 folders in each other; with [`u64::MAX`] those behind are not counted.
///
/// # Errors
///
/// A folder cannot be read.
pub(crate) fn disk_usage(path: &Path, enough: u64) -> Result<u64> {
    let count = count(path, enough)?;
    Ok(if count.files > FILES && enough < u64::MAX { count.bytes.max(enough) } else { count.bytes })
}

/// Files and folders below a folder, on the same file system; at most a million and one.
///
/// # Errors
///
/// A folder cannot be read.
pub(crate) fn inodes(path: &Path) -> Result<u64> {
    Ok(count(path, u64::MAX)?.files)
}

fn count(path: &Path, enough: u64) -> Result<Count> {
    let doing = |error| Error::os(format!("count what is in {}", path.display()), error);
    let mut count = Count { bytes: 0, files: 0, enough, device: 0 };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let folder = match openat(CWD, path, flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(count),
        Err(error) => return Err(doing(error)),
    };
    count.device = fstat(&folder).map_err(doing)?.st_dev;
    count.add(folder).map_err(doing)?;
    Ok(count)
}

impl Count {
    /// Linked files count once for each link, which errs on the side of what a container can do to count less.
    fn add(&mut self, top: OwnedFd) -> rustix::io::Result<()> {
        let mut open = vec![Dir::new(top)?];
        while let Some(folder) = open.last_mut() {
            if self.bytes >= self.enough || self.files > FILES {
                return Ok(());
            }
            let Some(entry) = folder.next() else {
                open.pop();
                continue;
            };
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let status = match statat(folder.fd()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => status,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if status.st_dev != self.device {
                continue;
            }
            self.files += 1;
            self.bytes = self.bytes.saturating_add(status.st_blocks as u64 * 512);
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                match openat(folder.fd()?, entry.file_name(), flags, Mode::empty()) {
                    Ok(_) if open.len() == DEPTH => self.files = FILES + 1,
                    Ok(inner) => open.push(Dir::new(inner)?),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
