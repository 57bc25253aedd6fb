//! Layers that were put into their places before the disk had all of their files.
//!
//! ```text
//!  settle:     unsynced/BOOT-HEX (on the disk) ──> layers/HEX       the next power cut may damage it
//!  sync:       syncfs ──> unsynced/BOOT-HEX is removed               nothing may
//!  next boot:  unsynced/ANOTHER-HEX ──> layers/HEX is thrown away    it is unpacked again, from its blob
//! ```
//!
//! Waiting for the disk takes longer than all else of a pull, and an unpacked layer can be made again: its blob is on the disk.
//! A process's death damages nothing, since the kernel has what it wrote.

use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::FlockOperation;

use super::names::{boot, file_names};
use super::{Store, flock, sync_folder};
use crate::error::{Result, Told};
use crate::rootfs;

impl Store {
    pub(super) fn unsynced(&self) -> PathBuf {
        self.root.join("unsynced")
    }

    /// Notes layers that will be put into their places now. It is on the disk when this returns.
    pub(super) fn note_unsynced<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<()> {
        let folder = self.unsynced();
        for key in keys {
            let path = folder.join(format!("{}-{key}", boot()));
            File::create(&path).told(|| format!("writing {}", path.display()))?;
        }
        sync_folder(&folder)
    }

    /// Waits until all unpacked layers are on the disk, so that they outlive a power cut. Without it they are unpacked again after a
    /// restart of the host. The caller holds a lease.
    ///
    /// # Errors
    ///
    /// When the disk cannot be written.
    pub fn sync(&self) -> Result<()> {
        let folder = self.unsynced();
        // What is noted from here on may not be on the disk.
        let noted = file_names(&folder)?;
        if noted.is_empty() {
            return Ok(());
        }
        let told = || format!("writing {} to the disk", self.root.display());
        rustix::fs::syncfs(File::open(&folder).told(told)?).told(told)?;
        for name in noted {
            match fs::remove_file(folder.join(&name)) {
                // Another one did the same.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => result.told(told)?,
            }
        }
        Ok(())
    }

    /// Throws away what the host's last end may have damaged. Whoever opens the store first in a boot does it.
    pub(super) fn recover(&self) -> Result<()> {
        let folder = self.unsynced();
        let told = || format!("reading {}", folder.display());
        let is_old = |name: &String| name.split('-').next() != Some(boot());
        if !file_names(&folder)?.iter().any(is_old) {
            return Ok(());
        }
        let lock = File::open(&folder).told(told)?;
        flock(&lock, FlockOperation::LockExclusive).told(told)?;
        let tmp = File::open(self.tmp()).told(told)?;
        for name in file_names(&folder)?.iter().filter(|name| is_old(name)) {
            if let Some((_, key)) = name.split_once('-') {
                let layers = File::open(self.root.join("layers")).told(told)?;
                let dying = format!("dying-{key}");
                rootfs::remove(&tmp, dying.as_ref())?;
                match rustix::fs::renameat(&layers, key, &tmp, &dying) {
                    Err(rustix::io::Errno::NOENT) => {}
                    result => result.told(|| format!("taking the layer {key} away"))?,
                }
                sync_folder(&self.root.join("layers"))?;
                rootfs::remove(&tmp, dying.as_ref())?;
            }
            fs::remove_file(folder.join(name)).told(|| format!("removing {name}"))?;
        }
        Ok(())
    }
}
