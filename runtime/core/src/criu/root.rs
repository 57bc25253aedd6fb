//! The root that CRIU restores onto, in a mount namespace of CRIU's own: nothing of it is seen on the host, and all of it
//! is gone with CRIU.
//!
//! CRIU wants a root that is a mount and whose parent is not covered; so the root filesystem is shown once more, on a
//! tmpfs over the container's state folder. Mountpoints that the root filesystem lacks are made first, as at `create`:
//! what is mounted comes from the images, but CRIU makes no folders for it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use flint_init::plan::{MountSource, Step};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::external::{self, External, NULL, resolve};
use super::rpc::Pair;
use super::{Criu, Stdio};
use crate::plan::{Plan, SlotSource};
use crate::{Error, Kind, Result};
use crate::{cgroup, container};

/// What CRIU is started with.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) program: &'a Path,
    /// Its standard descriptors, if they are not the caller's.
    pub(crate) stdio: Option<container::Stdio>,
    /// Descriptors from 4 on.
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) plan: &'a Plan,
    pub(crate) cgroup: &'a cgroup::Paths,
    /// The container's state folder.
    pub(crate) folder: &'a Path,
    /// Of the images.
    pub(crate) images: &'a Path,
    /// Of CRIU's work files, if it is another.
    pub(crate) work: Option<&'a Path>,
}

/// CRIU in its namespace, its root, and where it finds the host's mounts.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) criu: Criu,
    pub(crate) root: PathBuf,
    pub(crate) external: Vec<Pair>,
    /// Of the images, in CRIU's namespace: it mounts things in its folder.
    pub(crate) images: OwnedFd,
    pub(crate) work: Option<OwnedFd>,
}

impl Start<'_> {
    /// Starts CRIU from a thread of its own: a mount namespace is a thread's, and this one must not stay the caller's.
    ///
    /// # Errors
    ///
    /// A root filesystem that cannot be mounted, mountpoints that cannot be made, no CRIU.
    pub(crate) fn start(self) -> Result<Started> {
        std::thread::scope(|scope| scope.spawn(|| self.prepare()).join())
            .unwrap_or_else(|_| Err(Error::new(Kind::System, "the thread that prepares CRIU's root has died")))
    }

    fn prepare(self) -> Result<Started> {
        let rootfs = &self.plan.rootfs;
        let failure = |doing: &str, errno: Errno| Error::os(format!("{doing} for CRIU's root"), errno);
        unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| failure("make a mount namespace", errno))?;
        let none = None::<&Path>;
        // Slaves: an unmount on the host comes in and keeps nothing busy, and nothing goes out.
        mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)
            .map_err(|errno| failure("detach the mounts", errno))?;
        let images = open_folder(self.images)?;
        let work = self.work.map(open_folder).transpose()?;
        // Both before the tmpfs, which may cover the root filesystem.
        let trees = [clone_tree(rootfs)?, clone_tree(rootfs)?];
        mount(Some("tmpfs"), self.folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0711"))
            .map_err(|errno| failure(&format!("mount a tmpfs on {}", self.folder.display()), errno))?;
        let [scratch, root] = ["scratch", "root"].map(|name| self.folder.join(name));
        for (tree, place) in trees.into_iter().zip([&scratch, &root]) {
            std::fs::create_dir(place).map_err(|error| Error::os(format!("make {}", place.display()), error))?;
            attach(&tree, &open_folder(place)?).map_err(|errno| failure("mount the root filesystem", errno))?;
        }
        let external =
            Mountpoints { plan: self.plan, cgroup: self.cgroup, root: open_folder(&scratch)? }.make(&scratch)?;
        umount2(&scratch, MntFlags::MNT_DETACH).map_err(|errno| failure("unmount the scratch mounts", errno))?;
        let criu = Criu::start(self.program, self.stdio.map_or(Stdio::Callers, Stdio::Given), self.fds)?;
        Ok(Started { criu, root, external, images, work })
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os(format!("open {}", path.display()), errno))
}

fn clone_tree(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(rustix::fs::CWD, path, flags)
        .map_err(|errno| Error::os(format!("open the mount {}", path.display()), errno))
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> nix::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags).map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// The mountpoints of a container, made and resolved in the order of its plan.
struct Mountpoints<'a> {
    plan: &'a Plan,
    cgroup: &'a cgroup::Paths,
    root: OwnedFd,
}

impl Mountpoints<'_> {
    /// The external mounts by their places without links, and what is to be mounted there.
    fn make(&self, scratch: &Path) -> Result<Vec<Pair>> {
        let host = crate::procfs::mounts("self").map_err(|error| Error::os("read mountinfo", error))?;
        // runc's images name the null device so.
        let mut pairs = vec![pair(NULL, NULL)];
        for step in &self.plan.init {
            let external = external::of_step(step, self.plan, self.cgroup);
            let place = self.make_one(step, external.as_ref(), scratch)?;
            let Some(External { target, source, recursive }) = external else { continue };
            let place = place.unwrap_or(target);
            let (Some(place), Some(source)) = (place.to_str(), source.to_str()) else {
                return Err(Error::unsupported(format!("CRIU cannot mount {}: it is not UTF-8", source.display())));
            };
            pairs.push(pair(place, source));
            for mount in host.iter().filter(|_| recursive) {
                if let Some(rest) = mount.place.strip_prefix(source).filter(|rest| rest.starts_with('/')) {
                    pairs.push(pair(&format!("{place}{rest}"), &mount.place));
                }
            }
        }
        Ok(pairs)
    }

    /// Makes the mountpoint of a step; its place without links, where there is one by now.
    fn make_one(&self, step: &Step, external: Option<&External>, scratch: &Path) -> Result<Option<PathBuf>> {
        let (target, folder) = match step {
            Step::Mount(mount) => {
                let target = PathBuf::from(self.plan.string(mount.target));
                if self.is_cgroup(mount.source) || self.is_on_tmpfs(&target) {
                    // CRIU brings it with the tmpfs or the sysfs that it is on.
                    return Ok(None);
                }
                let folder = match (&external, mount.source) {
                    (Some(external), _) => is_folder(&external.source)?,
                    (None, MountSource::Inside { path, .. }) => {
                        let inside = resolve(&self.root, Path::new(&self.plan.string(path)));
                        inside.is_ok_and(|(fd, _)| fstat(&fd).is_ok_and(|stat| kind(stat.st_mode) == SFlag::S_IFDIR))
                    }
                    (None, _) => true,
                };
                (target, folder)
            }
            Step::DeviceBind { path, .. } => {
                let target = PathBuf::from(self.plan.string(*path));
                if self.is_on_tmpfs(&target) {
                    return Ok(None);
                }
                (target, false)
            }
            _ => return Ok(None),
        };
        let failure =
            |errno: Errno| Error::os(format!("make the mountpoint {} in the root filesystem", target.display()), errno);
        let fd = ensure(&self.root, &target, folder).map_err(failure)?;
        let (_, place) = resolve(&self.root, &target).map_err(failure)?;
        if let Some(external) = external {
            // A later mountpoint may be inside of it.
            let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            flags.set(OpenTreeFlags::AT_RECURSIVE, external.recursive);
            let tree = open_tree(rustix::fs::CWD, &external.source, flags)
                .map_err(|errno| Error::os(format!("open the mount source {}", external.source.display()), errno))?;
            attach(&tree, &fd).map_err(failure)?;
        }
        Ok(place.strip_prefix(scratch).ok().map(|place| Path::new("/").join(place)))
    }

    fn is_cgroup(&self, source: MountSource) -> bool {
        match source {
            MountSource::New { fstype, .. } => self.plan.string(fstype).starts_with("cgroup"),
            MountSource::Prepared { slot } => {
                matches!(self.plan.slots.get(usize::from(slot.0)), Some(SlotSource::CgroupMount { .. }))
            }
            _ => false,
        }
    }

    fn is_on_tmpfs(&self, target: &Path) -> bool {
        self.plan.init.iter().any(|step| match step {
            Step::Mount(mount) => {
                let folder = self.plan.string(mount.target);
                let tmpfs = matches!(mount.source, MountSource::New { fstype, .. }
                    if self.plan.string(fstype) == "tmpfs");
                tmpfs && target != Path::new(&folder) && target.starts_with(&folder)
            }
            _ => false,
        })
    }
}

fn pair(key: &str, value: &str) -> Pair {
    Pair { key: key.to_owned(), value: value.to_owned() }
}

fn kind(mode: libc::mode_t) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

fn is_folder(path: &Path) -> Result<bool> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| Error::os(format!("open the mount source {}", path.display()), error))?;
    Ok(metadata.is_dir())
}

/// Opens a path inside the root; what is missing of it is made, never through a link that dangles.
fn ensure(root: &OwnedFd, path: &Path, folder: bool) -> nix::Result<OwnedFd> {
    match resolve(root, path) {
        Err(Errno::ENOENT) => {}
        result => return result.map(|(fd, _)| fd),
    }
    let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back()) else {
        return Err(Errno::ENOENT);
    };
    let parent = ensure(root, parent, true)?;
    if folder {
        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
    } else {
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        openat(parent.as_fd(), name, flags, Mode::from_bits_truncate(0o755))?;
    }
    resolve(root, path).map(|(fd, _)| fd)
}
