//! The container's root: opening it, finding and making paths inside it, and moving to it.
//!
//! The image's author may own every byte below the root, and may change it while this runs (a volume shared
//! with another container). So nothing here uses a path twice: a path is resolved once inside the root
//! (`RESOLVE_IN_ROOT`: CVE-2019-18837) to a descriptor, and that descriptor is worked on (CVE-2021-30465).

use flint_sys::mount::{self, Change};
use flint_sys::{Errno, Fd, file};

use crate::executor::{Inherited, Init};
use crate::failure::{At, Failure, Operation, Outcome};
use crate::path::{PathBuffer, split};
use crate::plan::{Range, RootBind, Slot, Text};

const FOLDER_PATH: i32 = libc::O_PATH | libc::O_DIRECTORY;
/// New folders on the way to a target.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// `PROC_SUPER_MAGIC`
const PROC_MAGIC: u64 = 0x9fa0;
/// `SYSFS_MAGIC`
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// Mounts on top of each other that are unmounted from one place of the host.
const MOST_STACKED: u32 = 64;
/// Dangling links that are followed on the way to one target; the kernel's own limit for links.
const MOST_LINKS: u32 = 40;

impl Init<'_> {
    /// The propagation of all mounts that the new namespace inherited. Not shared by default: nothing that is
    /// mounted here may reach the host.
    pub(crate) fn inherited_propagation(&mut self, flag: u64) -> Outcome {
        // Without MS_REC it is set on / alone.
        self.inherited = match (flag & libc::MS_SHARED, flag & libc::MS_REC) {
            (0, 0) => Inherited::SharedBelow { slave: flag & libc::MS_SLAVE != 0 },
            (0, _) => Inherited::Cut,
            _ => Inherited::Shared,
        };
        let root = file::openat(Fd::CWD, c"/", FOLDER_PATH, 0).at(Operation::Open)?;
        let result = mount::mount_setattr(root, propagation(flag)).at(Operation::MountSetattr);
        let _ = file::close(root);
        result
    }

    pub(crate) fn open_root(&mut self, path: Text, bind: RootBind) -> Outcome {
        let path = self.text(path)?;
        if bind == RootBind::None {
            self.root = Some(file::openat(Fd::CWD, path, FOLDER_PATH, 0).at(Operation::Open)?);
            return Ok(());
        }
        let target = file::openat(Fd::CWD, path, FOLDER_PATH, 0).at(Operation::Open)?;
        if self.inherited != Inherited::Cut {
            self.cut_mount_of(target)?;
        }
        let tree = mount::OPEN_TREE_CLONE | mount::AT_RECURSIVE;
        let root = mount::open_tree(target, c"", tree).at(Operation::OpenSource)?;
        mount::move_mount(root, target).at(Operation::MoveMount)?;
        if bind == RootBind::Host {
            // Only now: what is moved onto a shared mount becomes shared.
            mount::mount_setattr(root, propagation(libc::MS_PRIVATE | libc::MS_REC)).at(Operation::MountSetattr)?;
        }
        let _ = file::close(target);
        self.root = Some(root);
        Ok(())
    }

    /// pivot_root(2) wants neither the new root nor the mount that it lies on shared, and mounting the one on the other
    /// must not propagate to the host. Where `/` is a slave, so is that mount, and the root that is cloned of it.
    fn cut_mount_of(&self, folder: Fd) -> Outcome {
        let mut at = folder;
        loop {
            let stat = file::stat(at, c"").at(Operation::Stat)?;
            if stat.mount_root {
                let top = file::stat(Fd::CWD, c"/").at(Operation::Stat)?;
                // The mount of / is as it was asked for.
                let below = matches!(self.inherited, Inherited::SharedBelow { .. });
                if below && (stat.inode, stat.filesystem) == (top.inode, top.filesystem) {
                    return Ok(());
                }
                let slave = self.inherited == Inherited::SharedBelow { slave: true };
                let cut = if slave { libc::MS_SLAVE } else { libc::MS_PRIVATE };
                let change = Change { propagation: cut, ..Change::default() };
                return mount::mount_setattr(at, change).at(Operation::MountSetattr);
            }
            let above = file::openat(at, c"..", FOLDER_PATH, 0).at(Operation::Open)?;
            if at != folder {
                let _ = file::close(at);
            }
            at = above;
        }
    }

    /// The container's root; for exec, whose process is in it already, `/`.
    pub(crate) fn root(&mut self) -> Outcome<Fd> {
        if let Some(root) = self.root {
            return Ok(root);
        }
        let root = file::openat(Fd::CWD, c"/", FOLDER_PATH, 0).at(Operation::Open)?;
        self.root = Some(root);
        Ok(root)
    }

    /// Opens a path inside the root; absolute paths and links start at the root.
    pub(crate) fn open_inside(&mut self, path: &core::ffi::CStr, flags: i32, resolve: u64) -> flint_sys::Result<Fd> {
        let root = self.root().map_err(|failure| Errno(failure.number))?;
        file::openat2(root, path, flags, 0, resolve | file::RESOLVE_IN_ROOT | file::RESOLVE_NO_MAGICLINKS)
    }

    /// Opens the target of a mount, making it and the folders on the way when they are missing; tells whether it was
    /// there before.
    pub(crate) fn target(&mut self, path: &core::ffi::CStr, folder: bool, no_symlinks: bool) -> Outcome<(Fd, bool)> {
        let resolve = if no_symlinks { file::RESOLVE_NO_SYMLINKS } else { 0 };
        match self.open_inside(path, libc::O_PATH, resolve) {
            Err(Errno(libc::ENOENT)) => {}
            result => return result.at(Operation::OpenTarget).map(|target| (target, true)),
        }
        if let Some(target) = self.make_in_existing(path, folder, resolve)? {
            return Ok((target, false));
        }
        let mut followed = PathBuffer::new();
        followed.push(path.to_bytes())?;
        if !no_symlinks && self.follow_dangling(&mut followed)? {
            match self.open_inside(followed.as_c_str(), libc::O_PATH, resolve) {
                Err(Errno(libc::ENOENT)) => {}
                result => return result.at(Operation::OpenTarget).map(|target| (target, true)),
            }
        }
        let mut name = PathBuffer::new();
        let parent = self.parent(followed.as_c_str().to_bytes(), no_symlinks, &mut name)?;
        let made = allow_existing(make(parent, name.as_c_str(), folder));
        let opened = made.and_then(|()| open_made(parent, name.as_c_str()));
        let _ = file::close(parent);
        opened.map(|target| (target, false))
    }

    /// The usual case of a missing target: all but its last part is there. `None` when more is missing, or the last part is
    /// there after all: a link to nothing, or somebody else's.
    fn make_in_existing(&mut self, path: &core::ffi::CStr, folder: bool, resolve: u64) -> Outcome<Option<Fd>> {
        let (above, last) = split(path.to_bytes());
        let mut name = PathBuffer::new();
        name.push(last)?;
        let mut buffer = PathBuffer::new();
        buffer.push(b"/")?;
        buffer.push(above)?;
        if name.is_empty() {
            return Ok(None);
        }
        let Ok(parent) = self.open_inside(buffer.as_c_str(), FOLDER_PATH, resolve) else { return Ok(None) };
        let target = match make(parent, name.as_c_str(), folder) {
            Ok(()) => open_made(parent, name.as_c_str()).map(Some),
            Err(Failure { number: libc::EEXIST, .. }) => Ok(None),
            Err(failure) => Err(failure),
        };
        let _ = file::close(parent);
        target
    }

    /// Opens the folder of a path inside the root, making what is missing of it; `name` becomes the last part.
    pub(crate) fn parent(&mut self, path: &[u8], no_symlinks: bool, name: &mut PathBuffer) -> Outcome<Fd> {
        let (folder, last) = split(path);
        name.clear();
        name.push(last)?;
        if name.is_empty() {
            return Err(Failure::new(Operation::OpenTarget, libc::EEXIST));
        }
        self.folder(folder, no_symlinks)
    }

    /// Opens a folder inside the root, making what is missing. The longest part that exists is resolved by the
    /// kernel, links and all; below it every folder is made and opened by one name without following a link,
    /// so nothing can lead out of the root between the two (CVE-2024-45310).
    fn folder(&mut self, path: &[u8], no_symlinks: bool) -> Outcome<Fd> {
        let (mut folder, mut existing) = self.existing_folder(path, no_symlinks)?;
        let mut followed = PathBuffer::new();
        if existing < path.len() && !no_symlinks {
            followed.push(path)?;
            if self.follow_dangling(&mut followed)? {
                let _ = file::close(folder);
                (folder, existing) = self.existing_folder(followed.as_c_str().to_bytes(), no_symlinks)?;
            }
        }
        let path = if followed.is_empty() { path } else { followed.as_c_str().to_bytes() };
        let mut buffer = PathBuffer::new();
        for name in path.get(existing..).unwrap_or(&[]).split(|&byte| byte == b'/') {
            if name.is_empty() {
                continue;
            }
            buffer.clear();
            buffer.push(name)?;
            let next = enter(folder, buffer.as_c_str());
            let _ = file::close(folder);
            folder = next?;
        }
        Ok(folder)
    }

    /// Opens the longest part of a path inside the root that is there; the length of that part.
    fn existing_folder(&mut self, path: &[u8], no_symlinks: bool) -> Outcome<(Fd, usize)> {
        let resolve = if no_symlinks { file::RESOLVE_NO_SYMLINKS } else { 0 };
        let mut buffer = PathBuffer::new();
        let mut existing = path;
        loop {
            buffer.clear();
            buffer.push(b"/")?;
            buffer.push(existing)?;
            match self.open_inside(buffer.as_c_str(), FOLDER_PATH, resolve) {
                Err(Errno(libc::ENOENT)) if !existing.is_empty() => existing = split(existing).0,
                result => return result.at(Operation::OpenTarget).map(|folder| (folder, existing.len())),
            }
        }
    }

    /// Puts what a dangling link says in its place, as long as the first missing name of the path is one: its target
    /// is what is to be made. Only the text changes here; it is resolved inside the root again. Tells whether it did.
    fn follow_dangling(&mut self, path: &mut PathBuffer) -> Outcome<bool> {
        for followed in 0..MOST_LINKS {
            let whole = path.as_c_str().to_bytes();
            let (folder, existing) = self.existing_folder(whole, false)?;
            let (start, missing) = whole.split_at_checked(existing).unwrap_or((whole, &[]));
            let missing = missing.strip_prefix(b"/").unwrap_or(missing);
            let length = missing.iter().position(|&byte| byte == b'/').unwrap_or(missing.len());
            let (name, rest) = missing.split_at_checked(length).unwrap_or((missing, &[]));
            let mut link = PathBuffer::new();
            link.push(name)?;
            let mut target = [0u8; 4096];
            let read = if link.is_empty() {
                Err(Errno(libc::ENOENT))
            } else {
                file::readlinkat(folder, link.as_c_str(), &mut target)
            };
            let _ = file::close(folder);
            let Ok(read) = read else { return Ok(followed > 0) };
            let target = target.get(..read).unwrap_or(&[]);
            let mut next = PathBuffer::new();
            if target.first() != Some(&b'/') {
                next.push(start)?;
                next.push(b"/")?;
            }
            next.push(target.strip_suffix(b"/").unwrap_or(target))?;
            next.push(rest)?;
            *path = next;
        }
        Err(Failure::new(Operation::OpenTarget, libc::ELOOP))
    }

    pub(crate) fn make_folder(&mut self, path: Text) -> Outcome {
        let folder = self.folder(self.text(path)?.to_bytes(), false)?;
        let _ = file::close(folder);
        Ok(())
    }

    pub(crate) fn root_readonly(&mut self) -> Outcome {
        let root = self.root()?;
        mount::mount_setattr(root, Change { set: mount::ATTR_RDONLY, ..Change::default() }).at(Operation::MountSetattr)
    }

    pub(crate) fn remount_readonly(&mut self, slot: Slot) -> Outcome {
        let change = Change { set: mount::ATTR_RDONLY, ..Change::default() };
        mount::mount_setattr(self.slot(slot)?, change).at(Operation::MountSetattr)?;
        self.close_slot(slot)
    }

    /// The root becomes `/`, and the old one is detached. Both are stacked at `/` for a moment
    /// (pivot_root(2), "pivot_root(".", ".")"), so no folder for the old one is needed.
    pub(crate) fn pivot_root(&mut self) -> Outcome {
        let root = self.root()?;
        let old = if self.inherited == Inherited::Cut {
            None
        } else {
            Some(file::openat(Fd::CWD, c"/", FOLDER_PATH, 0).at(Operation::Open)?)
        };
        file::fchdir(root).at(Operation::Chdir)?;
        mount::pivot_root_here().at(Operation::PivotRoot)?;
        if let Some(old) = old {
            // The unmount below must not propagate to the host.
            let change = Change { propagation: libc::MS_SLAVE, recursive: true, ..Change::default() };
            mount::mount_setattr(old, change).at(Operation::MountSetattr)?;
            let _ = file::close(old);
        }
        mount::detach_here().at(Operation::Unmount)?;
        file::chdir(c"/").at(Operation::Chdir)
    }

    /// --no-pivot: the root is moved over `/`. What lay below `/` stays hidden underneath, not gone; that is
    /// why it is for roots on an initial ramfs alone.
    pub(crate) fn move_root(&mut self, bare: Range) -> Outcome {
        for &path in bare.of(self.plan.strings) {
            if let Some(path) = self.optional_text(path)? {
                self.part_from(path)?;
            }
        }
        let root = self.root()?;
        let top = file::openat(Fd::CWD, c"/", FOLDER_PATH, 0).at(Operation::Open)?;
        mount::move_mount(root, top).at(Operation::MoveMount)?;
        let _ = file::close(top);
        self.change_root()
    }

    /// Unmounts the host's procfs or sysfs, which nothing masks: as long as one is in the mount namespace, the kernel lets
    /// a user namespace inside the container mount another, bare of all masks. One that is locked is covered.
    fn part_from(&mut self, path: &core::ffi::CStr) -> Outcome {
        for _ in 0..MOST_STACKED {
            let there = match file::openat(Fd::CWD, path, FOLDER_PATH | libc::O_NOFOLLOW, 0) {
                Err(Errno(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => return Ok(()),
                result => result.at(Operation::Open)?,
            };
            let bare = matches!(file::filesystem_magic(there), Ok(PROC_MAGIC | SYSFS_MAGIC));
            if !bare || !file::stat(there, c"").at(Operation::Stat)?.mount_root {
                return file::close(there).at(Operation::Open);
            }
            // The unmount must not propagate to the host.
            let change = Change { propagation: libc::MS_SLAVE, recursive: true, ..Change::default() };
            mount::mount_setattr(there, change).at(Operation::MountSetattr)?;
            match mount::detach(path) {
                Ok(()) => {}
                Err(Errno(libc::EINVAL | libc::EPERM)) => {
                    let cover = self.empty_folder()?;
                    mount::move_mount(cover, there).at(Operation::MoveMount)?;
                    return file::close(there).at(Operation::Open);
                }
                Err(Errno(number)) => return Err(Failure::new(Operation::Unmount, number)),
            }
            let _ = file::close(there);
        }
        Err(Failure::new(Operation::Unmount, libc::ELOOP))
    }

    pub(crate) fn change_root(&mut self) -> Outcome {
        let root = self.root()?;
        file::fchdir(root).at(Operation::Chdir)?;
        mount::chroot_here().at(Operation::Chroot)?;
        file::chdir(c"/").at(Operation::Chdir)
    }

    pub(crate) fn root_propagation(flag: u64) -> Outcome {
        let root = file::openat(Fd::CWD, c"/", FOLDER_PATH, 0).at(Operation::Open)?;
        let result = mount::mount_setattr(root, propagation(flag)).at(Operation::MountSetattr);
        let _ = file::close(root);
        result
    }
}

/// A propagation flag as mount(2) has it, with `MS_REC` for the mounts below.
fn propagation(flag: u64) -> Change {
    Change { propagation: flag & !libc::MS_REC, recursive: flag & libc::MS_REC != 0, ..Change::default() }
}

/// Makes one folder, unless it is there, and opens it; a link in its place is refused.
fn enter(parent: Fd, name: &core::ffi::CStr) -> Outcome<Fd> {
    allow_existing(file::mkdirat(parent, name, FOLDER_MODE).at(Operation::MakeFolder))?;
    let resolve = file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS;
    file::openat2(parent, name, FOLDER_PATH | libc::O_NOFOLLOW, 0, resolve).at(Operation::OpenTarget)
}

/// Makes an empty folder or file for a mount to cover; never through a link.
fn make(parent: Fd, name: &core::ffi::CStr, folder: bool) -> Outcome {
    if folder {
        return file::mkdirat(parent, name, FOLDER_MODE).at(Operation::MakeFolder);
    }
    make_file(parent, name)
}

/// Opens what was just made, whatever has become of it, inside its folder.
fn open_made(parent: Fd, name: &core::ffi::CStr) -> Outcome<Fd> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    file::openat2(parent, name, flags, 0, file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS).at(Operation::OpenTarget)
}

fn make_file(parent: Fd, name: &core::ffi::CStr) -> Outcome {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    let fd = file::openat(parent, name, flags, FILE_MODE).at(Operation::MakeFile)?;
    file::close(fd).at(Operation::MakeFile)
}

/// Somebody else may have made it in the meantime; what it is shows when it is opened.
fn allow_existing(result: Outcome) -> Outcome {
    match result {
        Err(failure) if failure.number == libc::EEXIST => Ok(()),
        result => result,
    }
}
