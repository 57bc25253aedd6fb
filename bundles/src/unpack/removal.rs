//! What a layer takes away: whiteouts, opaque folders, and what an entry replaces.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode};

use super::{Form, Replaced, Unpacking, attributes};
use crate::error::{Result, Told};
use crate::rootfs::{self, LayerPath};

impl Unpacking {
    /// Takes away what stands in an entry's place; a folder stays for a folder.
    pub(super) fn clear(&mut self, folder: &Rc<OwnedFd>, name: &OsStr, for_folder: bool) -> Result<Replaced> {
        let Some(stat) = rootfs::stat(folder, name)? else { return Ok(Replaced::Nothing) };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory && for_folder {
            return Ok(Replaced::KeptFolder);
        }
        self.root.forget();
        // Inode numbers come back for other files.
        self.made.remove(&stat.st_ino);
        rootfs::remove(folder, name)?;
        Ok(Replaced::Other)
    }

    /// Whether this layer has a whiteout there.
    pub(super) fn is_whiteout(&self, folder: &Rc<OwnedFd>, name: &OsStr) -> Result<bool> {
        if self.options.form == Form::Merged {
            return Ok(false);
        }
        let stat = rootfs::stat(folder, name)?;
        let is_device = |mode| FileType::from_raw_mode(mode) == FileType::CharacterDevice;
        Ok(stat.is_some_and(|stat| is_device(stat.st_mode) && stat.st_rdev == 0))
    }

    /// `.wh.NAME`: lower layers' NAME is gone. What this layer itself has there stays.
    pub(super) fn whiteout(&mut self, above: &LayerPath<'_>, name: &OsStr) -> Result<()> {
        if self.options.form == Form::Merged {
            let Some(folder) = self.root.folder(above)? else { return Ok(()) };
            self.changes(above, &folder)?;
            self.prune(&folder, name)?;
            self.root.forget();
            return Ok(());
        }
        let folder = self.root.folder_made(above)?;
        match rootfs::kind(&folder, name)? {
            None => rustix::fs::mknodat(&folder, name, FileType::CharacterDevice, Mode::empty(), 0)
                .told(|| format!("making the whiteout of {}", name.display())),
            Some(FileType::Directory) => self.mark_opaque(&folder, name),
            Some(_) => Ok(()),
        }
    }

    /// `.wh..wh..opq`: what lower layers have in the folder is gone.
    pub(super) fn opaque(&mut self, path: &LayerPath<'_>) -> Result<()> {
        if self.options.form == Form::Merged {
            let Some(folder) = self.root.folder(path)? else { return Ok(()) };
            self.changes(path, &folder)?;
            for name in rootfs::names(&folder)? {
                self.prune(&folder, OsStr::from_bytes(&name))?;
            }
            self.root.forget();
            return Ok(());
        }
        if path.text().is_empty() {
            self.hides_below = true;
            return Ok(());
        }
        let folder = self.root.folder_made(path)?;
        self.mark_opaque(&folder, OsStr::new("."))
    }

    pub(super) fn mark_opaque(&self, folder: impl AsFd, name: &OsStr) -> Result<()> {
        let key = match self.options.form {
            Form::Overlay => "trusted.overlay.opaque",
            Form::OverlayUser => "user.overlay.opaque",
            Form::Merged => return Ok(()),
        };
        attributes::set_xattr(folder, name, OsStr::new(key), b"y")
            .told(|| format!("marking the folder {} as opaque ({key})", name.display()))
    }

    /// Removes an entry as far as it is of lower layers: a folder stays if this layer made it or something in it.
    fn prune(&self, folder: impl AsFd, name: &OsStr) -> Result<()> {
        let Some(stat) = rootfs::stat(&folder, name)? else { return Ok(()) };
        let ours = self.made.contains(&stat.st_ino);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return if ours { Ok(()) } else { rootfs::remove(folder, name) };
        }
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::CLOEXEC;
        let told = || format!("opening the folder {}", name.display());
        let inside = rustix::fs::openat(&folder, name, flags, Mode::empty()).told(told)?;
        for below in rootfs::names(&inside)? {
            self.prune(&inside, OsStr::from_bytes(&below))?;
        }
        if ours || !rootfs::names(&inside)?.is_empty() {
            return Ok(());
        }
        rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)
            .told(|| format!("removing the folder {}", name.display()))
    }

    /// Notes that the entry is this layer's.
    pub(super) fn remember(&mut self, folder: impl AsFd, name: &OsStr) -> Result<()> {
        if self.options.form == Form::Merged
            && let Some(stat) = rootfs::stat(folder, name)?
        {
            self.made.insert(stat.st_ino);
        }
        Ok(())
    }
}
