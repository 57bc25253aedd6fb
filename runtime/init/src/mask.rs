//! Hidden and read-only paths.

use flint_sys::mount::{self, Change};
use flint_sys::{Errno, Fd, file};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::plan::Text;

/// Major and minor number of the null device.
const NULL_DEVICE: (u32, u32) = (1, 3);

impl Init<'_> {
    pub(crate) fn mask(&mut self, path: Text) -> Outcome {
        let Some(target) = self.existing(path)? else { return Ok(()) };
        let cover = if file::stat(target, c"").at(Operation::Stat)?.is_folder() {
            self.empty_folder()?
        } else {
            self.null_cover()?
        };
        mount::move_mount(cover, target).at(Operation::MoveMount)?;
        let _ = file::close(target);
        if self.empty != Some(cover) {
            let _ = file::close(cover);
        }
        Ok(())
    }

    pub(crate) fn readonly(&mut self, path: Text) -> Outcome {
        let Some(target) = self.existing(path)? else { return Ok(()) };
        let cover =
            mount::open_tree(target, c"", mount::OPEN_TREE_CLONE | mount::AT_RECURSIVE).at(Operation::OpenSource)?;
        let change = Change { set: mount::ATTR_RDONLY, ..Change::default() };
        mount::mount_setattr(cover, change).at(Operation::MountSetattr)?;
        mount::move_mount(cover, target).at(Operation::MoveMount)?;
        let _ = file::close(target);
        let _ = file::close(cover);
        Ok(())
    }

    /// Opens the path; `None` when there is nothing to hide.
    fn existing(&mut self, path: Text) -> Outcome<Option<Fd>> {
        match self.open_inside(self.text(path)?, libc::O_PATH, 0) {
            Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            result => result.map(Some).at(Operation::OpenTarget),
        }
    }

    /// An empty read-only tmpfs, detached: one file system for all masked folders of the container. The first
    /// mount stays open, and later ones are clones of it.
    pub(crate) fn empty_folder(&mut self) -> Outcome<Fd> {
        if let Some(first) = self.empty {
            return mount::open_tree(first, c"", mount::OPEN_TREE_CLONE).at(Operation::OpenSource);
        }
        let context = mount::fsopen(c"tmpfs").at(Operation::Fsopen)?;
        mount::fsconfig_set(context, c"source", Some(c"tmpfs")).at(Operation::Fsconfig)?;
        mount::fsconfig_set(context, c"ro", None).at(Operation::Fsconfig)?;
        mount::fsconfig_create(context).at(Operation::FsconfigCreate)?;
        let mount = mount::fsmount(context, mount::ATTR_RDONLY).at(Operation::Fsmount)?;
        let _ = file::close(context);
        self.empty = Some(mount);
        Ok(mount)
    }

    /// A null device to cover a file with: the container's own, proven to be one (CVE-2025-31133). Where it has none,
    /// the host's on a read-only mount: through a writable one the container could change its mode and owner.
    fn null_cover(&mut self) -> Outcome<Fd> {
        let (null, own) = self.null_device()?;
        let cover = mount::open_tree(null, c"", mount::OPEN_TREE_CLONE).at(Operation::OpenSource)?;
        if !own {
            let change = Change { set: mount::ATTR_RDONLY, ..Change::default() };
            mount::mount_setattr(cover, change).at(Operation::MountSetattr)?;
        }
        Ok(cover)
    }

    /// The null device, and whether it is the container's.
    fn null_device(&mut self) -> Outcome<(Fd, bool)> {
        if let Some(found) = self.null {
            return Ok(found);
        }
        let own = self.open_inside(c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW, file::RESOLVE_NO_SYMLINKS);
        let found = match own {
            Ok(null) if is_null_device(null)? => (null, true),
            _ => (file::openat(Fd::CWD, c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW, 0).at(Operation::Open)?, false),
        };
        if !is_null_device(found.0)? {
            return Err(Failure::new(Operation::NullDevice, libc::ENODEV));
        }
        self.null = Some(found);
        Ok(found)
    }
}

/// Whether `fd` is open on the null device.
pub(crate) fn is_null_device(fd: Fd) -> Outcome<bool> {
    let stat = file::stat(fd, c"").at(Operation::Stat)?;
    Ok(stat.kind() == libc::S_IFCHR && stat.device == NULL_DEVICE)
}
