//! The program that init runs from must not be writable by the container (CVE-2019-5736).
//!
//! Between clone and exec init's /proc/PID/exe is the program that called this library. A container that gets hold
//! of it (as its entry point `#!/proc/self/exe`, say) could write to it as soon as nobody executes it any more,
//! and so own the host's next call of it. So the program runs from a sealed copy in memory, or from a file that
//! cannot change (fs-verity).

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use crate::{Error, Result};

/// Names the program that [`ensure`] executed.
const MARK: &str = "FLINT_SEALED";
/// Overlayfs without an upper layer wants two lower ones; nothing is looked for in this one.
const OTHER_LAYER: &str = "/run";

/// No writing, growing, shrinking, and no end to that.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);

/// Why nobody can write to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// It is a sealed copy in memory.
    Copy,
    /// The kernel checks it against a hash (fs-verity).
    Verity,
    /// It is seen through an overlay without an upper layer.
    View,
}

/// Makes sure that this process runs from a program that nobody can write to: executes a sealed copy of it, with
/// the same arguments and environment, unless it is one. Call it first thing in `main`, with one thread.
///
/// # Errors
///
/// No memory for the copy, or /proc missing. It does not return when the copy is executed.
pub fn ensure() -> Result<Sealed> {
    let program = open("/proc/self/exe", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os("open /proc/self/exe to protect flint from the container", errno))?;
    if let Some(sealed) = sealed(&program) {
        return Ok(sealed);
    }
    let sealed = match read_only_view(&program) {
        Some(view) => view,
        None => sealed_copy(&program)?,
    };
    let arguments: Vec<CString> = std::env::args_os().filter_map(|argument| c_string(&argument)).collect();
    let mark = identity(&sealed).map(|identity| (MARK.into(), identity.into()));
    let environment: Vec<CString> = std::env::vars_os()
        .filter(|(name, _)| name != MARK)
        .chain(mark)
        .filter_map(|(name, value)| {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            c_string(&entry)
        })
        .collect();
    match nix::unistd::fexecve(sealed.as_fd(), &arguments, &environment) {
        Ok(never) => match never {},
        Err(errno) => Err(Error::os("execute the sealed copy of flint", errno)),
    }
}

fn c_string(text: &std::ffi::OsStr) -> Option<CString> {
    CString::new(std::os::unix::ffi::OsStrExt::as_bytes(text)).ok()
}

/// Why nobody can write to the program, whatever their rights; `None` when somebody can.
fn sealed(program: &OwnedFd) -> Option<Sealed> {
    if is_sealed(program) {
        Some(Sealed::Copy)
    } else if has_verity(program) {
        Some(Sealed::Verity)
    } else {
        is_marked(program).then_some(Sealed::View)
    }
}

/// Whether it is the view that this process's own call of [`ensure`] executed: the variable names that very file, on a
/// file system that was made for it. Inherited by another program it names nothing that is there.
fn is_marked(program: &OwnedFd) -> bool {
    std::env::var(MARK).is_ok_and(|mark| identity(program) == Some(mark))
}

/// Device and inode of a file on an overlay file system.
fn identity(program: &OwnedFd) -> Option<String> {
    let overlay = fstatfs(program).is_ok_and(|filesystem| filesystem.filesystem_type() == OVERLAYFS_SUPER_MAGIC);
    let stat = fstat(program).ok().filter(|_| overlay)?;
    Some(format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The program's folder as the lower layer of an overlay file system without an upper one: read-only whatever the
/// rights, nothing copied, gone with its last user. `None` where the kernel or the folder does not allow it, and where the
/// folder has something else by that name: what the program was mounted on, or what has taken its place since.
fn read_only_view(program: &OwnedFd) -> Option<OwnedFd> {
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    if attributes(program) & STATX_ATTR_MOUNT_ROOT != 0 {
        return None;
    }
    let path = std::fs::read_link("/proc/self/exe").ok()?;
    let (folder, name) = (path.parent()?, path.file_name()?);
    // The layers must not nest, and their list has separators of its own.
    let nested = folder.starts_with(OTHER_LAYER) || Path::new(OTHER_LAYER).starts_with(folder);
    let folder = folder.to_str().filter(|folder| !nested && !folder.contains([':', '\\', ',']))?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_set_string(&context, "source", "flint").ok()?;
    fsconfig_set_string(&context, "lowerdir", format!("{folder}:{OTHER_LAYER}")).ok()?;
    fsconfig_create(&context).ok()?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let view = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).ok()?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    nix::fcntl::openat(&view, name, flags, Mode::empty()).ok().filter(|seen| is_same_file(program, seen))
}

/// Whether an overlay's file is the one below: its device is another, and its inode's number may be.
fn is_same_file(below: &OwnedFd, seen: &OwnedFd) -> bool {
    let of = |file: &OwnedFd| {
        let stat = fstat(file).ok()?;
        let (modified, changed) = ((stat.st_mtime, stat.st_mtime_nsec), (stat.st_ctime, stat.st_ctime_nsec));
        Some((stat.st_size, stat.st_mode, stat.st_uid, modified, changed))
    };
    of(below).is_some_and(|below| of(seen) == Some(below))
}

/// Whether the file is in memory and can never change.
fn is_sealed(program: &OwnedFd) -> bool {
    fcntl(program, FcntlArg::F_GET_SEALS).is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SEALS))
}

/// Whether the kernel checks every page of the file against a hash (fs-verity, Linux 5.4): it is read-only for good.
fn has_verity(program: &OwnedFd) -> bool {
    const STATX_ATTR_VERITY: u64 = 0x0010_0000;
    attributes(program) & STATX_ATTR_VERITY != 0
}

/// `stx_attributes` of statx(2); none where the kernel does not say.
fn attributes(program: &OwnedFd) -> u64 {
    rustix::fs::statx(program, "", rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::empty())
        .map_or(0, |stat| stat.stx_attributes.bits())
}

fn sealed_copy(program: &OwnedFd) -> Result<OwnedFd> {
    let failure = |doing: &str, errno: nix::Error| Error::os(format!("{doing} a sealed copy of flint"), errno);
    let copy = memfd_create("flint", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| Error::os("make a sealed copy of flint", errno))?;
    let size = fstat(program).map_err(|errno| failure("make", errno))?.st_size as usize;
    let mut copied = 0;
    while copied < size {
        match nix::sys::sendfile::sendfile(&copy, program, None, size - copied) {
            Ok(0) => break,
            Ok(count) => copied += count,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failure("write", errno)),
        }
    }
    fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS)).map_err(|errno| failure("seal", errno))?;
    Ok(copy)
}
