//! Device nodes and links below the root.

use flint_sys::{Errno, Fd, file, mount};

use crate::executor::Init;
use crate::failure::{At, Failure, Operation, Outcome};
use crate::path::{PathBuffer, split};
use crate::plan::Text;

impl<'a> Init<'a> {
    pub(crate) fn device(&mut self, path: Text, mode: u32, device: (u32, u32), owner: (u32, u32)) -> Outcome {
        let path = self.text(path)?;
        let mut name = PathBuffer::new();
        let folder = self.folder_of_node(path.to_bytes(), &mut name)?;
        let node = file::mknodat(folder, name.as_c_str(), mode, device.0, device.1);
        match node {
            Ok(()) => own(folder, name.as_c_str(), owner),
            Err(Errno(libc::EEXIST)) => self.check_existing(folder, name.as_c_str(), mode, device),
            // A host that itself is a container: its node is all there is to have.
            Err(Errno(libc::EPERM)) => self.bind_device(path, path),
            Err(Errno(number)) => Err(Failure::new(Operation::MakeDevice, number)),
        }
    }

    /// Opens the folder of a device or a link, unless the one before it was there, too; `name` becomes the last part. Nothing is
    /// mounted between the two, and a folder that is renamed meanwhile stays the one that the path was resolved to.
    fn folder_of_node(&mut self, path: &'a [u8], name: &mut PathBuffer) -> Outcome<Fd> {
        let (above, last) = split(path);
        if let Some((known, folder)) = self.nodes_in
            && known == above
            && !last.is_empty()
        {
            name.push(last)?;
            return Ok(folder);
        }
        self.leave_folder_of_nodes();
        let folder = self.parent(path, false, name)?;
        self.nodes_in = Some((above, folder));
        Ok(folder)
    }

    pub(crate) fn leave_folder_of_nodes(&mut self) {
        if let Some((_, folder)) = self.nodes_in.take() {
            let _ = file::close(folder);
        }
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
        let folder = self.folder_of_node(self.text(path)?.to_bytes(), &mut name)?;
        match file::symlinkat(target, folder, name.as_c_str()) {
            Err(Errno(libc::EEXIST)) if replace => replace_by_link(target, folder, name.as_c_str()),
            Err(Errno(libc::EEXIST)) => Ok(()),
            result => result.at(Operation::MakeSymlink),
        }
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
