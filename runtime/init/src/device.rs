//! Device nodes and links below the root.

use flint_sys::{Errno, Fd, file, mount};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::path::PathBuffer;
use crate::plan::Text;

impl Init<'_> {
    pub(crate) fn device(&mut self, path: Text, mode: u32, device: (u32, u32), owner: (u32, u32)) -> Outcome {
        let path = self.text(path)?;
        let mut name = PathBuffer::new();
        let folder = self.parent(path, false, &mut name)?;
        let node = file::mknodat(folder, name.as_c_str(), mode, device.0, device.1);
        let result = match node {
            Ok(()) => own(folder, name.as_c_str(), owner),
            Err(Errno(libc::EEXIST)) => self.check_existing(folder, name.as_c_str(), mode, device),
            // A host that itself is a container: its node is all there is to have.
            Err(Errno(libc::EPERM)) => self.bind_device(path, path),
            Err(Errno(number)) => Err(Failure::new(Operation::MakeDevice, number)),
        };
        let _ = file::close(folder);
        result
    }

    pub(crate) fn device_bind(&mut self, source: Text, path: Text) -> Outcome {
        let source = self.text(source)?;
        let path = self.text(path)?;
        self.bind_device(source, path)
    }

    fn bind_device(&mut self, source: &core::ffi::CStr, path: &core::ffi::CStr) -> Outcome {
        let node = mount::open_tree(Fd::CWD, source, mount::OPEN_TREE_CLONE).at(Operation::OpenSource)?;
        let (target, _) = self.target(path, false, false)?;
        mount::move_mount(node, target).at(Operation::MoveMount)?;
        let _ = file::close(target);
        let _ = file::close(node);
        Ok(())
    }

    /// A rootfs with its own /dev: the same device is fine; anything else is kept, as runc does, and told.
    fn check_existing(&self, folder: Fd, name: &core::ffi::CStr, mode: u32, device: (u32, u32)) -> Outcome {
        let there = file::stat(folder, name).at(Operation::Stat)?;
        if there.kind() == mode & libc::S_IFMT && there.device == device {
            return Ok(());
        }
        self.warn(Failure::new(Operation::DeviceExists, libc::EEXIST))
    }

    pub(crate) fn symlink(&mut self, target: Text, path: Text, replace: bool) -> Outcome {
        let target = self.text(target)?;
        let mut name = PathBuffer::new();
        let folder = self.parent(self.text(path)?, false, &mut name)?;
        let result = match file::symlinkat(target, folder, name.as_c_str()) {
            Err(Errno(libc::EEXIST)) if replace => replace_by_link(target, folder, name.as_c_str()),
            Err(Errno(libc::EEXIST)) => Ok(()),
            result => result.at(Operation::MakeSymlink),
        };
        let _ = file::close(folder);
        result
    }
}

/// What was just made is opened by name once more; a swapped file would change owner inside the root alone.
fn own(folder: Fd, name: &core::ffi::CStr, (uid, gid): (u32, u32)) -> Outcome {
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    let resolve = file::RESOLVE_BENEATH | file::RESOLVE_NO_SYMLINKS;
    let node = file::openat2(folder, name, libc::O_PATH | libc::O_NOFOLLOW, 0, resolve).at(Operation::Open)?;
    let result = file::chown(node, uid, gid).at(Operation::Chown);
    let _ = file::close(node);
    result
}

fn replace_by_link(target: &core::ffi::CStr, folder: Fd, name: &core::ffi::CStr) -> Outcome {
    let mut there = [0u8; 64];
    if let Ok(length) = file::readlinkat(folder, name, &mut there)
        && there.get(..length) == Some(target.to_bytes())
    {
        return Ok(());
    }
    file::unlinkat(folder, name, false).at(Operation::MakeSymlink)?;
    file::symlinkat(target, folder, name).at(Operation::MakeSymlink)
}
