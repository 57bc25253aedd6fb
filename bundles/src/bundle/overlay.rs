//! Overlay mounts.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags};

use crate::error::{Error, Result, Told};

/// Why there is no overlay.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel has none, or not on this file system.
    Missing(Error),
    /// Something else.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Missing(error) | Self::Other(error) => error,
        }
    }
}

/// Whether a copy may do instead.
pub(super) fn is_missing(failure: &Failure) -> bool {
    matches!(failure, Failure::Missing(_))
}

/// Mounts an overlay of `lower`, the lowest first, at `target`.
pub(super) fn mount(lower: &[&Path], upper: &Path, work: &Path, target: &Path) -> std::result::Result<(), Failure> {
    if lower.is_empty() {
        // An image without layers is an empty folder; overlayfs wants a lower one.
        return Err(Failure::Missing(Error::refused("the image has no layers to stack")));
    }
    match by_descriptor(lower, upper, work, target) {
        // Before Linux 6.5 there is no `lowerdir+`; before 5.2 no fsopen.
        Err(Errno::INVAL | Errno::NOSYS) => {}
        result => return result.map_err(|error| told(error, target)),
    }
    // The options of mount(2) have one page: the folders go by their descriptors, which are short.
    let open = |path: &Path| File::open(path).told(|| format!("opening {}", path.display()));
    let opened = lower.iter().rev().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    let name = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());
    let (upper, work) = (open(upper)?, open(work)?);
    let lower = opened.iter().map(name).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={lower},upperdir={},workdir={}", name(&upper), name(&work));
    let options = std::ffi::CString::new(options).map_err(|_| Error::refused("a NUL in a path"))?;
    rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(|error| told(error, target))
}

fn by_descriptor(lower: &[&Path], upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "overlay")?;
    for folder in lower.iter().rev() {
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", *folder)?;
    }
    rustix::mount::fsconfig_set_string(&context, "upperdir", upper)?;
    rustix::mount::fsconfig_set_string(&context, "workdir", work)?;
    rustix::mount::fsconfig_create(&context)?;
    let made = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    rustix::mount::move_mount(made, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn told(error: Errno, target: &Path) -> Failure {
    let result: Result<()> = Err(error).told(|| format!("mounting the overlay at {}", target.display()));
    let told = result.expect_err("it is an error");
    match error {
        // No overlayfs; no right to mount; an upper folder on a file system that cannot be one (an overlay, NFS).
        Errno::NODEV | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => Failure::Missing(told),
        _ => Failure::Other(told),
    }
}

/// Whether something is mounted at the folder.
pub(super) fn is_mounted(folder: &Path) -> Result<bool> {
    match rustix::fs::statx(CWD, folder, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Err(Errno::NOENT) => Ok(false),
        // Linux 5.8
        Ok(status) => Ok(status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(error) => Err(error).told(|| format!("looking at {}", folder.display())),
    }
}

/// Unmounts what is mounted at the folder, if something is.
pub(super) fn unmount(folder: &Path) -> Result<()> {
    // Twice at most: `create` mounts one.
    for _ in 0..2 {
        if !is_mounted(folder)? {
            return Ok(());
        }
        match rustix::mount::unmount(folder, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::BUSY) => {
                return Err(Error::system(format!(
                    "its root filesystem {} is in use: delete the containers that run from it first",
                    folder.display()
                )));
            }
            Err(error) => return Err(error).told(|| format!("unmounting {}", folder.display())),
        }
    }
    Ok(())
}
