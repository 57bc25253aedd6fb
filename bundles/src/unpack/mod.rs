//! Unpacks one layer: every entry of its tar, in order, into a folder.
//!
//! ```text
//!  name ──> LayerPath (no `..`) ──> what it means ──┬─ entry ──> folder by fd ──> make ──> owner, mode, xattrs, times
//!                                                   └─ whiteout ──> Form::Overlay: a 0:0 device, an opaque mark
//!                                                                   Form::Merged: removed, if of a lower layer
//! ```
//!
//! What stands in the layer is the work of a stranger, perhaps of an attacker: names, links, sizes, devices and xattrs
//! are believed only as far as `rootfs`, `layer::Limits` and this module check them.

mod attributes;
mod content;
mod removal;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use crate::digest::{Digest, Hashing};
use crate::error::{Error, Result, Told};
use crate::layer::{self, Limits, Metered};
use crate::rootfs::{self, LayerPath, Rootfs};
use crate::whiteout::{self, Meaning};
use attributes::{Attributes, Times};

/// How whiteouts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One layer for itself, as a lower folder of overlayfs: removals are 0:0 devices and `trusted.overlay.opaque`.
    Overlay,
    /// The same for a mount with `userxattr`, in a user namespace (Linux 5.11): `user.overlay.opaque`.
    OverlayUser,
    /// Over what lower layers left in the folder: removals remove.
    Merged,
}

/// To whom files belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// To the users of the layer. It takes root, be it of a user namespace.
    Kept,
    /// To the caller: devices and the xattrs that it may not write are left out, and no folder is closed to it.
    Mine,
}

/// How a layer is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How whiteouts are kept.
    pub form: Form,
    /// To whom files belong.
    pub ownership: Ownership,
    /// What the layer may cost.
    pub limits: Limits,
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the decompressed tar, which the image config names (`rootfs.diff_ids`).
    pub diff_id: Digest,
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of its files, holes included.
    pub bytes: u64,
    /// Devices that were left out, see [`Ownership::Mine`].
    pub devices_left_out: u64,
    /// Whether nothing of the layers below is to be seen in the root. overlayfs has no mark for it: in [`Form::Overlay`] and
    /// [`Form::OverlayUser`] it is left to the caller.
    pub hides_below: bool,
    /// Folders that something of the layer is in and that have no entry of their own, so that how they look is left to
    /// the layers below; the root among them as the empty path.
    pub implied: BTreeSet<Vec<u8>>,
}

/// Unpacks the layer `blob`, of any known compression, into the existing folder `target`.
///
/// The caller compares `diff_id` with the image config's, and throws the folder away if it differs or this fails: until
/// then nobody else may see it.
///
/// # Errors
///
/// When the layer is no tar, is over a limit, tries to leave the folder, or a system call fails.
pub fn unpack(blob: impl Read, target: &Path, options: &Options) -> Result<Unpacked> {
    let tar = layer::decompress(blob).told(|| "reading the layer".to_owned())?;
    let (metered, budget) = Metered::new(Hashing::new(tar), &options.limits);
    let mut archive = tar::Archive::new(metered);
    let mut unpacking = Unpacking {
        root: Rootfs::open(target, options.limits.names)?,
        options: *options,
        folders: Vec::new(),
        made: HashSet::new(),
        above: BTreeMap::new(),
        hides_below: false,
        devices_left_out: 0,
    };
    unpacking.root.implied.insert(Vec::new());
    let (mut count, mut content) = (0, options.limits.bytes);
    budget.headers(options.limits.header);
    for entry in archive.entries().told(|| "reading the layer".to_owned())? {
        let mut entry = entry.told(|| format!("reading the layer behind its entry {count}"))?;
        budget.content();
        count += 1;
        // One name may make many folders. The root is there anyway.
        let implied = &unpacking.root.implied;
        let folders = implied.len() - usize::from(implied.first().is_some_and(Vec::is_empty));
        if count + folders as u64 > options.limits.entries {
            return Err(Error::refused(format!("the layer has more than {} entries", options.limits.entries)));
        }
        // A sparse file of GNU's old format has content that is nowhere in the tar: zeros, without end.
        content = content.checked_sub(entry.size()).ok_or_else(|| {
            Error::refused(format!("the layer's files are larger than the limit of {} bytes", options.limits.bytes))
        })?;
        let name = entry.path_bytes().into_owned();
        unpacking
            .entry(&mut entry, &name)
            .map_err(|error| error.during(&format!("layer entry #{count} {:?}", String::from_utf8_lossy(&name))))?;
        std::io::copy(&mut entry, &mut std::io::sink()).told(|| "reading the layer".to_owned())?;
        if budget.was_padded() {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(Error::refused(format!("the layer ends in the middle of {name:?}")));
        }
        budget.headers(options.limits.header + 1024);
    }
    budget.content();
    unpacking.finish()?;
    let implied = std::mem::take(&mut unpacking.root.implied);
    let (diff_id, _) = archive.into_inner().into_inner().finish().told(|| "reading the layer's end".to_owned())?;
    let bytes = options.limits.bytes - content;
    let Unpacking { devices_left_out, hides_below, .. } = unpacking;
    Ok(Unpacked { diff_id, entries: count, bytes, devices_left_out, hides_below, implied })
}

struct Unpacking {
    root: Rootfs,
    options: Options,
    /// Folders and their times, which are set last.
    folders: Vec<(Vec<u8>, Times)>,
    /// Inodes that this layer made or changed: its whiteouts do not remove them. Merged only.
    made: HashSet<u64>,
    /// The times of folders before something in them was changed: they stay where the layer has no entry for the folder. Merged
    /// only; of other forms the layers below are not here, and the caller knows these folders by [`Unpacked::implied`].
    above: BTreeMap<Vec<u8>, Times>,
    hides_below: bool,
    devices_left_out: u64,
}

impl Unpacking {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, full: &[u8]) -> Result<()> {
        if entry.header().entry_type().is_pax_global_extensions() {
            return Ok(());
        }
        let attributes = Attributes::read(entry)?;
        let renamed = content::sparse_name(entry)?;
        let full = renamed.as_deref().unwrap_or(full);
        let path = LayerPath::parse(full, self.options.limits.depth)?;
        let Some((name, above)) = path.split() else { return self.top(entry, &attributes) };
        match whiteout::meaning(name)? {
            Meaning::Ignored => Ok(()),
            Meaning::Whiteout(removed) => self.whiteout(&above, OsStr::from_bytes(removed)),
            Meaning::Opaque => self.opaque(&above),
            Meaning::Entry => {
                let folder = self.root.folder_made(&above)?;
                self.changes(&above, &folder)?;
                self.make(entry, &folder, OsStr::from_bytes(name), full, &attributes)
            }
        }
    }

    /// The entry `./`: the attributes of the root itself.
    fn top<R: Read>(&mut self, entry: &tar::Entry<'_, R>, attributes: &Attributes) -> Result<()> {
        if !entry.header().entry_type().is_dir() {
            return Err(Error::refused("the root of an image can only be a folder"));
        }
        attributes.apply(self.root.fd(), OsStr::new("."), FileType::Directory, self.options.ownership)?;
        self.root.implied.remove(&b""[..]);
        self.folders.push((Vec::new(), attributes.times));
        Ok(())
    }

    fn make<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        folder: &Rc<OwnedFd>,
        name: &OsStr,
        full: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        let told = |what: &str| format!("making the {what}");
        let kind = entry.header().entry_type();
        let replaced = self.clear(folder, name, kind.is_dir())?;
        let mode = Mode::from_raw_mode(0o600);
        let file_type = match kind {
            tar::EntryType::Directory => {
                if replaced != Replaced::KeptFolder {
                    rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(0o700)).told(|| told("folder"))?;
                }
                if replaced == Replaced::Other {
                    // The layer removed or hid what was there and made a folder: lower layers' content must not show in it.
                    self.mark_opaque(folder, name)?;
                }
                FileType::Directory
            }
            tar::EntryType::Symlink => {
                let target = link_target(entry)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), folder, name).told(|| told("symbolic link"))?;
                FileType::Symlink
            }
            // A hard link has the attributes of the file that it names.
            tar::EntryType::Link => {
                self.hard_link(&link_target(entry)?, folder, name)?;
                return self.remember(folder, name);
            }
            tar::EntryType::Fifo => {
                rustix::fs::mknodat(folder, name, FileType::Fifo, mode, 0).told(|| told("fifo"))?;
                FileType::Fifo
            }
            tar::EntryType::Char | tar::EntryType::Block => {
                let kind = if kind == tar::EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                if !self.device(entry, folder, name, kind)? {
                    return Ok(());
                }
                kind
            }
            kind if content::is_file(kind) => {
                content::write(entry, folder, name, self.options.limits.bytes)?;
                FileType::RegularFile
            }
            kind => {
                let kind = char::from(kind.as_byte());
                return Err(Error::refused(format!("entries of the type {kind:?} have no meaning in a layer")));
            }
        };
        attributes.apply(folder, name, file_type, self.options.ownership)?;
        if file_type == FileType::Directory {
            self.root.implied.remove(&LayerPath::parse(full, self.options.limits.depth)?.text());
            self.root.keeps(full)?;
            self.folders.push((full.to_vec(), attributes.times));
        }
        self.remember(folder, name)
    }

    fn hard_link(&mut self, target: &[u8], folder: impl AsFd, name: &OsStr) -> Result<()> {
        let told = || format!("linking to {:?}", String::from_utf8_lossy(target));
        let path = LayerPath::parse(target, self.options.limits.depth)?;
        let missing = || Error::refused(format!("{}: the layer has no such entry in front of this one", told()));
        let (last, above) = path.split().ok_or_else(missing)?;
        let above = self.root.folder(&above)?.ok_or_else(missing)?;
        // What the layer removed is no target either.
        if self.is_whiteout(&above, OsStr::from_bytes(last))? {
            return Err(missing());
        }
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is a second name of that link.
        match rustix::fs::linkat(above, last, folder, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(missing()),
            result => result.told(told),
        }
    }

    /// Makes a device; false where the caller may not.
    fn device<R: Read>(
        &mut self,
        entry: &tar::Entry<'_, R>,
        folder: impl AsFd,
        name: &OsStr,
        kind: FileType,
    ) -> Result<bool> {
        let number =
            |value: std::io::Result<Option<u32>>| Ok(value.told(|| "reading a device number".to_owned())?.unwrap_or(0));
        let major = number(entry.header().device_major())?;
        let minor = number(entry.header().device_minor())?;
        if (major, minor) == (0, 0) && kind == FileType::CharacterDevice {
            return Err(Error::refused("the character device 0:0 is overlayfs's whiteout, and none of a layer's"));
        }
        let made =
            rustix::fs::mknodat(folder, name, kind, Mode::from_raw_mode(0o600), rustix::fs::makedev(major, minor));
        match made {
            // In a user namespace nobody may make devices; the runtime binds those that a container needs.
            Err(Errno::PERM) => {
                self.devices_left_out += 1;
                Ok(false)
            }
            result => result.told(|| format!("making the device {major}:{minor}")).map(|()| true),
        }
    }

    /// Remembers the times of a folder in which something is going to be made or removed.
    fn changes(&mut self, path: &LayerPath<'_>, folder: &Rc<OwnedFd>) -> Result<()> {
        if self.options.form != Form::Merged {
            return Ok(());
        }
        let path = path.text();
        if !self.above.contains_key(&path) {
            self.root.keeps(&path)?;
            let stat = rustix::fs::fstat(folder).told(|| format!("looking at {}", String::from_utf8_lossy(&path)))?;
            self.above.insert(path, Times::of(&stat));
        }
        Ok(())
    }

    /// Sets the folders' times, in the layer's order: of two entries for a folder the last one counts.
    fn finish(&mut self) -> Result<()> {
        for (full, times) in std::mem::take(&mut self.above) {
            let path = LayerPath::parse(&full, self.options.limits.depth)?;
            // The layer may have removed it since, or put something else there.
            if let Ok(Some(folder)) = self.root.folder(&path) {
                let told = || format!("setting the times of {}", String::from_utf8_lossy(&full));
                times.touch(folder, OsStr::new(".")).told(told)?;
            }
        }
        for (full, times) in &std::mem::take(&mut self.folders) {
            let path = LayerPath::parse(full, self.options.limits.depth)?;
            let told = || format!("setting the times of {}", String::from_utf8_lossy(full));
            let Some((name, above)) = path.split() else {
                times.touch(self.root.fd(), OsStr::new(".")).told(told)?;
                continue;
            };
            // A later entry of the layer may have replaced it.
            let Some(folder) = self.root.folder(&above)? else { continue };
            let name = OsStr::from_bytes(name);
            if rootfs::kind(&folder, name)? == Some(FileType::Directory) {
                times.touch(folder, name).told(told)?;
            }
        }
        Ok(())
    }
}

/// What stood in an entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    Nothing,
    /// A folder, which a folder keeps.
    KeptFolder,
    /// A whiteout of the same layer, a file, or a folder in the place of something else.
    Other,
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Vec<u8>> {
    let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    if target.is_empty() || target.contains(&0) {
        return Err(Error::refused("a link without a target"));
    }
    Ok(target)
}
