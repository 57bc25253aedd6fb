//! Mounts by descriptor: open_tree, fsopen, move_mount and friends (Linux 5.2; mount_setattr 5.12).

use core::ffi::CStr;

use crate::raw::call;
use crate::{Fd, Result};

/// Clone the tree, detached.
pub const OPEN_TREE_CLONE: u32 = 1;
/// With the mounts below (an `AT_*` flag).
pub const AT_RECURSIVE: u32 = 0x8000;

/// `MOUNT_ATTR_RDONLY`
pub const ATTR_RDONLY: u64 = 0x0000_0001;
/// `MOUNT_ATTR_NOSUID`
pub const ATTR_NOSUID: u64 = 0x0000_0002;
/// `MOUNT_ATTR_NODEV`
pub const ATTR_NODEV: u64 = 0x0000_0004;
/// `MOUNT_ATTR_NOEXEC`
pub const ATTR_NOEXEC: u64 = 0x0000_0008;
/// `MOUNT_ATTR__ATIME`: the mask of the atime modes.
pub const ATTR_ATIME: u64 = 0x0000_0070;
/// `MOUNT_ATTR_NOATIME`
pub const ATTR_NOATIME: u64 = 0x0000_0010;
/// `MOUNT_ATTR_STRICTATIME`
pub const ATTR_STRICTATIME: u64 = 0x0000_0020;
/// `MOUNT_ATTR_NODIRATIME`
pub const ATTR_NODIRATIME: u64 = 0x0000_0080;
/// `MOUNT_ATTR_IDMAP`
const ATTR_IDMAP: u64 = 0x0010_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW` (Linux 5.14)
pub const ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// open_tree(2) at a path, or at `directory` itself when the path is empty; CLOEXEC.
///
/// # Errors
///
/// EINVAL for a mount that is not in the caller's namespace, EPERM, ENOENT.
pub fn open_tree(directory: Fd, path: &CStr, flags: u32) -> Result<Fd> {
    let flags = flags as usize | libc::O_CLOEXEC as usize | libc::AT_EMPTY_PATH as usize;
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_open_tree, directory.argument(), path.as_ptr() as usize, flags) }.map(|fd| Fd(fd as i32))
}

/// Attaches the mount `from` at the file or folder that `to` is open on. No path is followed on either side.
///
/// # Errors
///
/// EINVAL (a detached target, a folder on a file), EBUSY, EPERM.
pub fn move_mount(from: Fd, to: Fd) -> Result<()> {
    const F_EMPTY_PATH: usize = 0x4;
    const T_EMPTY_PATH: usize = 0x40;
    let empty = c"".as_ptr() as usize;
    // SAFETY: both paths are the live empty string.
    unsafe { call!(SYS_move_mount, from.argument(), empty, to.argument(), empty, F_EMPTY_PATH | T_EMPTY_PATH) }
        .map(drop)
}

/// fsopen(2); CLOEXEC.
///
/// # Errors
///
/// ENODEV for an unknown file system, EPERM.
pub fn fsopen(fstype: &CStr) -> Result<Fd> {
    const FSOPEN_CLOEXEC: usize = 1;
    // SAFETY: the name is live and NUL-terminated.
    unsafe { call!(SYS_fsopen, fstype.as_ptr() as usize, FSOPEN_CLOEXEC) }.map(|fd| Fd(fd as i32))
}

/// Sets a parameter of a file system to be made: a string, or a flag when `value` is `None`.
///
/// # Errors
///
/// EINVAL for a parameter that the file system does not know.
pub fn fsconfig_set(context: Fd, key: &CStr, value: Option<&CStr>) -> Result<()> {
    const SET_FLAG: usize = 0;
    const SET_STRING: usize = 1;
    let (command, value) = match value {
        Some(value) => (SET_STRING, value.as_ptr() as usize),
        None => (SET_FLAG, 0),
    };
    // SAFETY: key and value are live and NUL-terminated; a flag has no value.
    unsafe { call!(SYS_fsconfig, context.argument(), command, key.as_ptr() as usize, value, 0) }.map(drop)
}

/// Makes the file system (`FSCONFIG_CMD_CREATE`).
///
/// # Errors
///
/// What mount(2) would say for the file system.
pub fn fsconfig_create(context: Fd) -> Result<()> {
    const CREATE: usize = 6;
    // SAFETY: takes no key and no value.
    unsafe { call!(SYS_fsconfig, context.argument(), CREATE, 0, 0, 0) }.map(drop)
}

/// The file system of the mount that `mount` is open on, to be changed; CLOEXEC.
///
/// # Errors
///
/// EINVAL when the descriptor is not at a mount's root; EPERM for a file system of another user namespace.
pub fn fspick(mount: Fd) -> Result<Fd> {
    const FSPICK_CLOEXEC: usize = 1;
    const FSPICK_EMPTY_PATH: usize = 8;
    // SAFETY: the path is the live empty string.
    unsafe { call!(SYS_fspick, mount.argument(), c"".as_ptr() as usize, FSPICK_CLOEXEC | FSPICK_EMPTY_PATH) }
        .map(|fd| Fd(fd as i32))
}

/// Gives a picked file system the parameters that were set (`FSCONFIG_CMD_RECONFIGURE`).
///
/// # Errors
///
/// What mount(2) with `MS_REMOUNT` would say.
pub fn fsconfig_reconfigure(context: Fd) -> Result<()> {
    const RECONFIGURE: usize = 7;
    // SAFETY: takes no key and no value.
    unsafe { call!(SYS_fsconfig, context.argument(), RECONFIGURE, 0, 0, 0) }.map(drop)
}

/// A detached mount of a made file system; CLOEXEC.
///
/// # Errors
///
/// EPERM where the file system would reveal more than the caller sees (user namespaces: trap 5).
pub fn fsmount(context: Fd, attributes: u64) -> Result<Fd> {
    const FSMOUNT_CLOEXEC: usize = 1;
    // SAFETY: takes no memory.
    unsafe { call!(SYS_fsmount, context.argument(), FSMOUNT_CLOEXEC, attributes as usize) }.map(|fd| Fd(fd as i32))
}

/// What mount_setattr(2) changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Attributes to set (`MOUNT_ATTR_*`).
    pub set: u64,
    /// Attributes to clear; the whole atime mask when a mode of it is set.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// Also on the mounts below.
    pub recursive: bool,
    /// A user namespace whose maps the mount's owners are shown through (`MOUNT_ATTR_IDMAP`).
    pub idmap: Option<Fd>,
}

/// Changes attributes and propagation of the mount that `mount` is open on (Linux 5.12).
///
/// # Errors
///
/// EINVAL when the descriptor is not at a mount's root, or for a file system that knows no maps; EPERM for a flag
/// that an outer user namespace locked.
pub fn mount_setattr(mount: Fd, change: Change) -> Result<()> {
    let Change { set, clear, propagation, recursive, idmap } = change;
    let (idmap, userns) = idmap.map_or((0, 0), |fd| (ATTR_IDMAP, fd.0 as u64));
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attributes = [set | idmap, clear, propagation, userns];
    let flags = libc::AT_EMPTY_PATH as usize | if recursive { AT_RECURSIVE as usize } else { 0 };
    // SAFETY: the path is the live empty string, the structure is live and its size given.
    unsafe {
        call!(
            SYS_mount_setattr,
            mount.argument(),
            c"".as_ptr() as usize,
            flags,
            attributes.as_ptr() as usize,
            size_of_val(&attributes)
        )
    }
    .map(drop)
}

/// pivot_root(".", "."): the current folder becomes the root, the old root is stacked below it.
///
/// # Errors
///
/// EINVAL when the current folder is no mount, or a mount concerned is shared or on the initial ramfs.
pub fn pivot_root_here() -> Result<()> {
    let here = c".".as_ptr() as usize;
    // SAFETY: both paths are live strings.
    unsafe { call!(SYS_pivot_root, here, here) }.map(drop)
}

/// Detaches the mount at the current folder (umount2 with `MNT_DETACH`).
///
/// # Errors
///
/// EINVAL when it is no mount.
pub fn detach_here() -> Result<()> {
    // SAFETY: the path is a live string.
    unsafe { call!(SYS_umount2, c".".as_ptr() as usize, libc::MNT_DETACH as usize) }.map(drop)
}

/// Detaches the mount at a path (umount2 with `MNT_DETACH`).
///
/// # Errors
///
/// EINVAL when it is no mount, or one that belongs to a more privileged mount namespace.
pub fn detach(path: &CStr) -> Result<()> {
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_umount2, path.as_ptr() as usize, libc::MNT_DETACH as usize) }.map(drop)
}

/// chroot(2) to the current folder.
///
/// # Errors
///
/// EPERM.
pub fn chroot_here() -> Result<()> {
    // SAFETY: the path is a live string.
    unsafe { call!(SYS_chroot, c".".as_ptr() as usize) }.map(drop)
}
