//! Detached mounts: what init cannot open or change itself is opened here, with the runtime's rights.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use flint_init::Fd;
use flint_init::plan::Attributes;
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::container::bind::open_proc;
use crate::container::user_namespace;
use crate::{Error, Kind, Result};

/// A clone of the tree at `path`, with its attributes.
pub(super) fn bind(path: &Path, recursive: bool, attributes: Attributes, below: Attributes) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let mount = rustix::mount::open_tree(rustix::fs::CWD, path, flags)
        .map_err(|errno| Error::os(format!("open the mount source {}", path.display()), errno))?;
    // A clone of a shared mount is its peer, and this one is not made in init's namespace, where all is a slave: what
    // the container mounts below it would come up on the host.
    flint_init::make_mounts_slave(number(&mount)).map_err(|errno| {
        let text = crate::error::errno_text(errno.0);
        Error::new(Kind::System, format!("make the mount source {} a slave: {text}", path.display()))
    })?;
    for (attributes, recursive) in [(attributes, false), (below, true)] {
        if attributes.is_empty() {
            continue;
        }
        flint_init::set_mount_attributes(number(&mount), attributes, recursive).map_err(|errno| {
            let hint = if errno.0 == libc::EPERM {
                " (the source is on a mount locked by the host's user namespace)"
            } else {
                ""
            };
            let text = crate::error::errno_text(errno.0);
            Error::new(Kind::System, format!("set the attributes of {}: {text}{hint}", path.display()))
        })?;
    }
    Ok(mount)
}

/// Does `work` where a process finds its files: in its mount namespace, from its root on, with the rights of the caller. A clone
/// that is made there has locked what the mounts of a more privileged user namespace forbid (mount_namespaces(7)).
///
/// By a thread of its own, which ends: no other one of the program is moved.
pub(super) fn in_mounts_of<T: Send>(pid: i32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let failure = |doing: &'static str| move |errno| Error::os(format!("{doing} of process {pid}"), errno);
    let open = |name: &str, flags: OFlags| {
        rustix::fs::openat(open_proc()?, format!("{pid}/{name}"), flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::os(format!("open the {name} of process {pid} (it takes CAP_SYS_PTRACE)"), errno))
    };
    let (root, namespace) = (open("root", OFlags::PATH | OFlags::DIRECTORY)?, open("ns/mnt", OFlags::RDONLY)?);
    let inside = || {
        nix::sched::unshare(CloneFlags::CLONE_FS).map_err(failure("get a root apart from that"))?;
        nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNS).map_err(failure("join the mount namespace"))?;
        nix::unistd::fchdir(&root).map_err(failure("change to the root"))?;
        nix::unistd::chroot(".").map_err(failure("change root to that"))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("flint-mounts".to_owned()).spawn_scoped(scope, inside);
        let thread = thread.map_err(|error| Error::os("make a thread to open mounts", error))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// As [`in_mounts_of`], for a container that has left the host's mounts: those of a process that has them from there, in a user
/// namespace of its own.
pub(super) fn locked<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    user_namespace::with_mounts(|pid| in_mounts_of(pid, work))
}

/// A new file system of the runtime's own user namespace.
pub(super) fn filesystem(
    fstype: &str,
    source: &[u8],
    options: &[(String, Option<String>)],
    attributes: Attributes,
) -> Result<OwnedFd> {
    let failure = |doing: String| move |errno: rustix::io::Errno| Error::os(format!("make a {fstype}: {doing}"), errno);
    let context = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failure("fsopen".to_owned()))?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", source).map_err(failure("source".to_owned()))?;
    for (key, value) in options {
        let result = match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value),
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), key),
        };
        result.map_err(failure(format!("the option {key}")))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(failure("create".to_owned()))?;
    let flags = MountAttrFlags::from_bits_retain(attributes.set as u32);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(failure("fsmount".to_owned()))
}

/// Shows the owners of the mount's files through the maps of a user namespace; `what` is asked for on failure.
pub(super) fn map_ids(mount: &OwnedFd, maps: &OwnedFd, recursive: bool, what: impl FnOnce() -> String) -> Result<()> {
    let Err(errno) = flint_init::map_mount_ids(number(mount), number(maps), recursive) else { return Ok(()) };
    let hint = match errno.0 {
        libc::EINVAL => return Err(no_idmap(&what())),
        libc::EPERM => " (it or a mount below it is idmapped already, or belongs to another user namespace)",
        _ => "",
    };
    Err(Error::new(Kind::System, format!("idmap {}: {}{hint}", what(), crate::error::errno_text(errno.0))))
}

/// Detached clones of the mounts at folders, whose files are shown with other owners (idmapped mounts): what a root
/// filesystem for a user namespace is made of. A line of a map is the id on disk, the id it is shown as, and how many.
///
/// # Errors
///
/// A folder that cannot be opened; a file system or kernel without idmapped mounts; no more user namespaces.
pub fn idmapped_clones(folders: &[&Path], uid: &[(u32, u32, u32)], gid: &[(u32, u32, u32)]) -> Result<Vec<OwnedFd>> {
    let maps = user_namespace::with_maps(uid, gid)?;
    let clone = |folder: &&Path| {
        let mount = bind(folder, false, Attributes::default(), Attributes::default())?;
        map_ids(&mount, &maps, false, || filesystem_of(folder))?;
        Ok(mount)
    };
    folders.iter().map(clone).collect()
}

/// The error for a file system without idmapped mounts.
pub(super) fn no_idmap(what: &str) -> Error {
    let kernel = nix::sys::utsname::uname().map(|names| names.release().to_string_lossy().into_owned());
    Error::unsupported(format!(
        "idmap {what}: invalid argument: Linux {} has no idmapped mounts of this file system",
        kernel.unwrap_or_default()
    ))
}

/// A path with the kind of its file system, from mountinfo.
pub(super) fn filesystem_of(path: &Path) -> String {
    let device = rustix::fs::stat(path).map(|stat| stat.st_dev).unwrap_or_default();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let wanted = format!("{major}:{minor}");
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&wanted));
    let fstype = line.and_then(|line| line.split_once(" - ")).and_then(|(_, rest)| rest.split(' ').next());
    match fstype {
        Some(fstype) => format!("{} (on {fstype})", path.display()),
        None => path.display().to_string(),
    }
}

fn number(fd: &OwnedFd) -> Fd {
    Fd(fd.as_raw_fd())
}
