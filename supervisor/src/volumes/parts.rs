//! Parts of volumes (subPath), resolved once and bound to where only root can exchange them.
//!
//! A container that shares a volume can put a link in place of a folder at any moment. So the path is resolved inside the volume
//! by the kernel (openat2(2), RESOLVE_IN_ROOT: an absolute link leads to the volume's own root, `..` not out of it), and what
//! was found is bound by its descriptor to a file or folder below a 0700 folder of root's, which is what the runtime is given.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_bind_recursive, mount_change};

use super::error::{Error, Result};
use super::private_folder;
use super::release::unmount_below;

/// A rename somewhere in the tree makes openat2 give up with EAGAIN: so often it is tried again.
const TRIES: usize = 128;

/// Binds the part `path` of the volume at `root` to `target`, and gives the target's path.
pub(super) fn hold(root: &Path, path: &str, read_only: bool, target: &Path) -> Result<std::path::PathBuf> {
    let doing = |what: &str| format!("{what} part {path:?} of {}", root.display());
    if path.starts_with('/') || path.split('/').any(|name| name == "..") {
        return Err(Error::wrong(format!("{}: it has to be relative and without ..", doing("find"))));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
    let root =
        openat(CWD, root, flags, Mode::empty()).map_err(|error| Error::os(doing("open the volume of"), error))?;
    let found = match resolve(root.as_fd(), path) {
        Err(Errno::NOENT) if !read_only => make(root.as_fd(), path),
        other => other,
    };
    let found = found.map_err(|error| Error::os(doing("open"), error))?;
    bind(&found, target).map_err(|error| error.about(doing("bind")))?;
    Ok(target.to_path_buf())
}

fn resolve(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Makes the folders that are missing, one after the other, each inside the folder that was just opened. They get the
/// volume's owner and mode, so that whoever may write there may write here.
fn make(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    let model = fstat(root)?;
    let mut folder = resolve(root, ".")?;
    let mut so_far = String::new();
    for name in path.split('/').filter(|name| !matches!(*name, "" | ".")) {
        so_far = if so_far.is_empty() { name.to_owned() } else { format!("{so_far}/{name}") };
        folder = match resolve(root, &so_far) {
            Err(Errno::NOENT) => {
                // A link that leads nowhere exists, so this fails on it.
                mkdirat(&folder, name, Mode::from_raw_mode(0o700))?;
                let made = open_made(folder.as_fd(), name)?;
                rustix::fs::fchown(
                    &made,
                    Some(rustix::fs::Uid::from_raw(model.st_uid)),
                    Some(rustix::fs::Gid::from_raw(model.st_gid)),
                )?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(model.st_mode & 0o7777))?;
                made
            }
            other => other?,
        };
    }
    Ok(folder)
}

fn open_made(parent: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDONLY;
    openat2(parent, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn bind(found: &OwnedFd, target: &Path) -> Result<()> {
    private_folder(target.parent().unwrap_or(target))?;
    let doing = |what: &str| format!("{what} {}", target.display());
    let status = fstat(found).map_err(|error| Error::os(doing("look at the source of"), error))?;
    let made = match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => std::fs::create_dir(target),
        FileType::Symlink => return Err(Error::wrong("it is a link that leads nowhere inside the volume")),
        _ => std::fs::File::create_new(target).map(drop),
    };
    made.map_err(|error| Error::os(doing("make"), error))?;
    // Our own descriptor, by our own procfs: nobody else can put another file behind this path.
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    mount_bind_recursive(&source, target).map_err(|error| Error::os(doing("bind to"), error))?;
    // What is unmounted here must not be unmounted in the volume, and the other way round.
    mount_change(target, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| Error::os(doing("make private"), error))
}

/// Lets go what a container's earlier start held. No error if there is nothing.
pub(super) fn let_go(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    unmount_below(folder)?;
    let doing = |what: &str, path: &Path| format!("{what} {}", path.display());
    let entries = std::fs::read_dir(folder).map_err(|error| Error::os(doing("read", folder), error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::os(doing("read", folder), error))?;
        let path = entry.path();
        // Never more than one empty file or folder: were it still mounted, this fails, and nothing behind it is lost.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let gone = if is_folder { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) };
        gone.map_err(|error| Error::os(doing("remove", &path), error))?;
    }
    std::fs::remove_dir(folder).map_err(|error| Error::os(doing("remove", folder), error))
}

/// The same for all containers of a pod.
pub(super) fn let_go_all(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let doing = |error| Error::os(format!("read {}", folder.display()), error);
    for entry in std::fs::read_dir(folder).map_err(doing)? {
        let_go(&entry.map_err(doing)?.path())?;
    }
    Ok(())
}
