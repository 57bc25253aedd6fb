//! Files and folders, by directory descriptor.

use core::ffi::CStr;

use crate::raw::call;
use crate::{Errno, Fd, Result};

/// Paths are resolved inside the directory descriptor, as if it were `/` (openat2(2), Linux 5.6).
pub const RESOLVE_IN_ROOT: u64 = 0x10;
/// Absolute paths and escaping `..` are refused.
pub const RESOLVE_BENEATH: u64 = 0x08;
/// Links such as /proc/self/exe are refused.
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
/// Symbolic links are refused.
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
/// Mount points are not crossed.
pub const RESOLVE_NO_XDEV: u64 = 0x01;

/// openat2(2). CLOEXEC is always added.
///
/// # Errors
///
/// EXDEV or ELOOP for what the resolve flags forbid; EAGAIN when a rename raced with `..` (retried 16 times).
pub fn openat2(directory: Fd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<Fd> {
    let how = [u64::from((flags | libc::O_CLOEXEC) as u32), u64::from(mode), resolve];
    let mut result = Err(Errno(libc::EAGAIN));
    for _ in 0..16 {
        // SAFETY: the path is live and NUL-terminated; struct open_how is three u64 with its size given.
        result = unsafe {
            call!(SYS_openat2, directory.argument(), path.as_ptr() as usize, how.as_ptr() as usize, size_of_val(&how))
        };
        if result != Err(Errno(libc::EAGAIN)) {
            break;
        }
    }
    result.map(|fd| Fd(fd as i32))
}

/// openat(2). CLOEXEC is always added.
///
/// # Errors
///
/// What open(2) says.
pub fn openat(directory: Fd, path: &CStr, flags: i32, mode: u32) -> Result<Fd> {
    // SAFETY: the path is live and NUL-terminated.
    unsafe {
        call!(
            SYS_openat,
            directory.argument(),
            path.as_ptr() as usize,
            (flags | libc::O_CLOEXEC) as usize,
            mode as usize
        )
    }
    .map(|fd| Fd(fd as i32))
}

/// close(2).
///
/// # Errors
///
/// EBADF.
pub fn close(fd: Fd) -> Result<()> {
    // SAFETY: takes no memory; who owns the number is the caller's matter (see the crate's text).
    unsafe { call!(SYS_close, fd.argument()) }.map(drop)
}

/// Closes every descriptor from `first` to `last` (close_range(2), Linux 5.9).
///
/// # Errors
///
/// EINVAL for `first` above `last`.
pub fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_close_range, first as usize, last as usize, 0) }.map(drop)
}

/// dup3(2) without CLOEXEC: `to` is open after exec.
///
/// # Errors
///
/// EINVAL when both are the same.
pub fn duplicate_to(from: Fd, to: Fd) -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_dup3, from.argument(), to.argument(), 0) }.map(drop)
}

/// read(2).
///
/// # Errors
///
/// What read(2) says; EINTR is retried.
pub fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: the buffer is live and its length given.
        let result = unsafe { call!(SYS_read, fd.argument(), buffer.as_mut_ptr() as usize, buffer.len()) };
        if result != Err(Errno(libc::EINTR)) {
            return result;
        }
    }
}

/// write(2).
///
/// # Errors
///
/// What write(2) says; EINTR is retried.
pub fn write(fd: Fd, data: &[u8]) -> Result<usize> {
    loop {
        // SAFETY: the data is live and its length given.
        let result = unsafe { call!(SYS_write, fd.argument(), data.as_ptr() as usize, data.len()) };
        if result != Err(Errno(libc::EINTR)) {
            return result;
        }
    }
}

/// lseek(2) to the start.
///
/// # Errors
///
/// ESPIPE.
pub fn rewind(fd: Fd) -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_lseek, fd.argument(), 0, libc::SEEK_SET as usize) }.map(drop)
}

/// Makes a file in memory that has no path (memfd_create(2)); CLOEXEC.
///
/// # Errors
///
/// EMFILE, ENFILE, ENOMEM.
pub fn memory_file(name: &CStr) -> Result<Fd> {
    // SAFETY: the name is live and NUL-terminated.
    unsafe { call!(SYS_memfd_create, name.as_ptr() as usize, libc::MFD_CLOEXEC as usize) }.map(|fd| Fd(fd as i32))
}

/// mkdirat(2).
///
/// # Errors
///
/// EEXIST also for a dangling symbolic link.
pub fn mkdirat(directory: Fd, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_mkdirat, directory.argument(), path.as_ptr() as usize, mode as usize) }.map(drop)
}

/// mknodat(2); the device number in the kernel's encoding for user space.
///
/// # Errors
///
/// EPERM in a user namespace or without CAP_MKNOD, EEXIST.
pub fn mknodat(directory: Fd, path: &CStr, mode: u32, major: u32, minor: u32) -> Result<()> {
    let device = (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12);
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_mknodat, directory.argument(), path.as_ptr() as usize, mode as usize, device as usize) }
        .map(drop)
}

/// symlinkat(2).
///
/// # Errors
///
/// EEXIST.
pub fn symlinkat(target: &CStr, directory: Fd, path: &CStr) -> Result<()> {
    // SAFETY: both paths are live and NUL-terminated.
    unsafe { call!(SYS_symlinkat, target.as_ptr() as usize, directory.argument(), path.as_ptr() as usize) }.map(drop)
}

/// readlinkat(2) into `buffer`; the length that was written.
///
/// # Errors
///
/// EINVAL for no symbolic link.
pub fn readlinkat(directory: Fd, path: &CStr, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the path is live and NUL-terminated, the buffer live and its length given.
    unsafe {
        call!(SYS_readlinkat, directory.argument(), path.as_ptr() as usize, buffer.as_mut_ptr() as usize, buffer.len())
    }
}

/// unlinkat(2); `folder` removes an empty folder.
///
/// # Errors
///
/// ENOENT, ENOTEMPTY, EBUSY.
pub fn unlinkat(directory: Fd, path: &CStr, folder: bool) -> Result<()> {
    let flags = if folder { libc::AT_REMOVEDIR as usize } else { 0 };
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_unlinkat, directory.argument(), path.as_ptr() as usize, flags) }.map(drop)
}

/// Changes the owner of what `fd` is open on (fchownat with an empty path; works for `O_PATH`). `u32::MAX` keeps.
///
/// # Errors
///
/// EPERM, EINVAL for an id that is not mapped, EROFS.
pub fn chown(fd: Fd, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: the path is the live empty string.
    unsafe {
        call!(
            SYS_fchownat,
            fd.argument(),
            c"".as_ptr() as usize,
            uid as usize,
            gid as usize,
            libc::AT_EMPTY_PATH as usize
        )
    }
    .map(drop)
}

/// fchmodat(2) of a name in a folder that the caller has just made there (it follows links).
///
/// # Errors
///
/// What chmod(2) says.
pub fn chmodat(directory: Fd, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_fchmodat, directory.argument(), path.as_ptr() as usize, mode as usize) }.map(drop)
}

/// faccessat(2) with `X_OK`, with the caller's real ids: also refuses what lies on a noexec mount.
///
/// # Errors
///
/// EACCES, ENOENT.
pub fn may_execute(path: &CStr) -> Result<()> {
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_faccessat, Fd::CWD.argument(), path.as_ptr() as usize, libc::X_OK as usize) }.map(drop)
}

/// fchdir(2).
///
/// # Errors
///
/// EACCES, ENOTDIR.
pub fn fchdir(fd: Fd) -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_fchdir, fd.argument()) }.map(drop)
}

/// chdir(2).
///
/// # Errors
///
/// ENOENT, EACCES, ENOTDIR.
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the path is live and NUL-terminated.
    unsafe { call!(SYS_chdir, path.as_ptr() as usize) }.map(drop)
}

/// The first byte of the current directory's path: `/` when it is reachable from the root, else the kernel
/// says `(unreachable)` (getcwd(2)).
///
/// # Errors
///
/// ENOENT when it was removed.
pub fn current_directory_is_reachable() -> Result<bool> {
    let mut buffer = [0u8; 4096];
    // SAFETY: the buffer is live and its length given.
    unsafe { call!(SYS_getcwd, buffer.as_mut_ptr() as usize, buffer.len()) }?;
    Ok(buffer.first() == Some(&b'/'))
}

/// What statx(2) tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// Major and minor number of the device that it is.
    pub device: (u32, u32),
    /// Major and minor number of the file system that it is on.
    pub filesystem: (u32, u32),
    /// Whether it is the root of a mount (`STATX_ATTR_MOUNT_ROOT`, Linux 5.8).
    pub mount_root: bool,
}

impl Stat {
    /// `S_IFDIR`, `S_IFREG`...
    #[must_use]
    pub const fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a folder.
    #[must_use]
    pub const fn is_folder(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }
}

/// statx(2) of what `directory`/`path` names, links not followed; an empty path is `directory` itself.
///
/// # Errors
///
/// ENOENT, EACCES, ENOTDIR.
pub fn stat(directory: Fd, path: &CStr) -> Result<Stat> {
    const BASIC_STATS: usize = 0x7ff;
    const ATTR_MOUNT_ROOT: u64 = 0x2000;
    let flags = (libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) as usize;
    // struct statx is 256 bytes: u32 mask, blksize, u64 attributes, u32 nlink, uid, gid, u16 mode, u16, u64 ino,
    // size, blocks, attributes_mask, four timestamps of 16 bytes from 64 on, then u32 rdev and dev from 128 on.
    let mut raw = [0u32; 64];
    // SAFETY: the path is live, the buffer has the 256 bytes that the kernel writes.
    unsafe {
        call!(SYS_statx, directory.argument(), path.as_ptr() as usize, flags, BASIC_STATS, raw.as_mut_ptr() as usize)
    }?;
    let word = |index: usize| raw.get(index).copied().unwrap_or(0);
    let long = |index: usize| u64::from(word(index)) | (u64::from(word(index + 1)) << 32);
    Ok(Stat {
        mode: word(7) & 0xffff,
        uid: word(5),
        gid: word(6),
        inode: long(8),
        size: long(10),
        device: (word(32), word(33)),
        filesystem: (word(34), word(35)),
        mount_root: long(2) & ATTR_MOUNT_ROOT != 0,
    })
}

/// The magic number of the file system that `fd` is on (fstatfs(2)).
///
/// # Errors
///
/// EBADF, EIO.
pub fn filesystem_magic(fd: Fd) -> Result<u64> {
    // struct statfs is at most 120 bytes; f_type is its first word.
    let mut raw = [0u64; 16];
    // SAFETY: the buffer is larger than what the kernel writes.
    unsafe { call!(SYS_fstatfs, fd.argument(), raw.as_mut_ptr() as usize) }?;
    Ok(raw.first().copied().unwrap_or(0))
}

/// Reads folder entries (getdents64) into `buffer`; the length that was written, 0 at the end.
///
/// # Errors
///
/// ENOTDIR.
pub fn read_folder(folder: Fd, buffer: &mut [u64]) -> Result<usize> {
    // SAFETY: the buffer is live, aligned for the records, and its length in bytes given.
    unsafe { call!(SYS_getdents64, folder.argument(), buffer.as_mut_ptr() as usize, size_of_val(buffer)) }
}
