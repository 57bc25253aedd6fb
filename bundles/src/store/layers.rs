//! Unpacked layers: one folder each, made once, shared by all images and bundles that have them.
//!
//! A layer's folder does not depend on the layers below it, so it goes by its diff id. The exception is a layer that
//! writes into folders for which it has no entries: they must look as in the layers below, and so it goes by its chain id. So does
//! one whose root is opaque: overlayfs believes no such mark of a root, and so what is below is whited out by its names.
//! Of an image's lowest layer both ids are the same: what is noted of it says whether it is good above others, too.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use serde::{Deserialize, Serialize};

use super::{Store, sync, to_json};
use crate::error::{Error, Result, Told};
use crate::image::{Image, Layer};
use crate::layer::Limits;
use crate::rootfs;
use crate::unpack::{Form, Options, Ownership, unpack};

/// As much as Linux has in one xattr, or in the list of their names, in bytes.
const XATTRS: usize = 64 << 10;

/// What layer.json says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    diff_id: String,
    entries: u64,
    /// Bytes of its files.
    #[serde(default)]
    bytes: u64,
    /// Whether the layer says how the root folder looks.
    has_root: bool,
    /// Whether what is in it depends on the layers below; None in what was unpacked before this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    depends_on_below: Option<bool>,
}

/// Where an unpacked layer is.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlace {
    /// The name of its folder: a diff id or a chain id, without algorithm.
    pub(crate) key: String,
    /// The folder for overlayfs.
    pub(crate) folder: PathBuf,
    /// Whether the layer says how the root folder looks.
    has_root: bool,
}

/// A layer that is unpacked and not in its place yet.
pub(crate) struct Draft {
    scratch: tempfile::TempDir,
    record: Record,
    implied: BTreeSet<Vec<u8>>,
    hides_below: bool,
}

impl Draft {
    /// Whether what is in it depends on the layers below, so that it goes by its chain id.
    fn depends_on_below(&self) -> bool {
        self.hides_below || !self.implied.is_empty()
    }
}

impl Store {
    fn layer_folder(&self, key: &str) -> PathBuf {
        self.root.join("layers").join(key)
    }

    /// Where a layer of an image is unpacked; None when it is not.
    pub(crate) fn layer(&self, layer: &Layer) -> Result<Option<LayerPlace>> {
        for digest in [&layer.diff_id, &layer.chain_id] {
            let key = digest.hex();
            if let Some(record) = self.layer_record(key)?
                && (*digest == layer.chain_id || record.depends_on_below == Some(false))
            {
                return Ok(Some(self.place(key, &record)));
            }
        }
        Ok(None)
    }

    fn place(&self, key: &str, record: &Record) -> LayerPlace {
        let folder = self.layer_folder(key).join("fs");
        LayerPlace { key: key.to_owned(), folder, has_root: record.has_root }
    }

    /// The unpacked layers that a bundle was made of, by their names.
    ///
    /// # Errors
    ///
    /// When one is gone.
    pub(crate) fn noted_stack(&self, keys: &[String]) -> Result<Vec<LayerPlace>> {
        let place = |key: &String| {
            let record = self.layer_record(key)?;
            let record = record.ok_or_else(|| Error::not_found(format!("the unpacked layer {key} is gone")))?;
            Ok(self.place(key, &record))
        };
        keys.iter().map(place).collect()
    }

    /// What is noted of an unpacked layer; None for one that is gone.
    fn layer_record(&self, key: &str) -> Result<Option<Record>> {
        super::read_record(&self.layer_folder(key).join("layer.json"))
    }

    /// Bytes of the files of an unpacked layer; 0 for one that is gone.
    pub(super) fn layer_size(&self, key: &str) -> Result<u64> {
        Ok(self.layer_record(key)?.map_or(0, |record| record.bytes))
    }

    /// The same; None when one is not unpacked.
    pub(crate) fn whole_stack(&self, image: &Image) -> Result<Option<Vec<LayerPlace>>> {
        image.layers.iter().map(|layer| self.layer(layer)).collect()
    }

    /// The unpacked layers of an image, lowest first.
    ///
    /// # Errors
    ///
    /// When one is not unpacked.
    pub(crate) fn stack(&self, image: &Image) -> Result<Vec<LayerPlace>> {
        let place = |layer: &Layer| {
            self.layer(layer)?.ok_or_else(|| Error::not_found(format!("the layer {} is not unpacked", layer.diff_id)))
        };
        image.layers.iter().map(place).collect()
    }

    /// Unpacks a layer beside its place.
    pub(crate) fn unpack_layer(&self, blob: impl Read, layer: &Layer, limits: Limits) -> Result<Draft> {
        let scratch = self.scratch()?;
        let told = || format!("making {}", scratch.path().display());
        let folder = scratch.path().join("fs");
        fs::create_dir(&folder).told(told)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).told(told)?;
        let options = Options { form: Form::Overlay, ownership: Ownership::Kept, limits };
        let unpacked = unpack(blob, &folder, &options)?;
        if unpacked.diff_id != layer.diff_id {
            return Err(Error::refused(format!(
                "the layer {} unpacks to other content than the image's config says: {} and not {}",
                layer.blob.digest, unpacked.diff_id, layer.diff_id
            )));
        }
        let record = Record {
            diff_id: layer.diff_id.to_string(),
            entries: unpacked.entries,
            bytes: unpacked.bytes,
            has_root: !unpacked.implied.contains(&b""[..]),
            depends_on_below: None,
        };
        let implied = unpacked.implied.into_iter().filter(|path| !path.is_empty()).collect();
        let mut draft = Draft { scratch, record, implied, hides_below: unpacked.hides_below };
        draft.record.depends_on_below = Some(draft.depends_on_below());
        Ok(draft)
    }

    /// Puts drafts of an image's layers into their places; `drafts` has one for each layer that was unpacked. A draft stays that has
    /// to look like layers below which are not there yet.
    ///
    /// All of their content is written to the disk first: a layer's name must not outlive its files in a power cut.
    pub(crate) fn settle(&self, image: &Image, drafts: &mut [Option<Draft>]) -> Result<()> {
        let layers = self.root.join("layers");
        // None from the first layer on that is missing.
        let mut below: Option<Vec<PathBuf>> = Some(Vec::new());
        let mut settled: Vec<(&Layer, Draft)> = Vec::new();
        for (layer, draft) in image.layers.iter().zip(drafts) {
            let waits = below.is_none() && draft.as_ref().is_some_and(Draft::depends_on_below);
            let Some(draft) = draft.take_if(|_| !waits) else {
                // The same layer twice in an image has one draft, unless it looks as those below.
                let place = self.layer(layer)?.map(|place| place.folder);
                let is_twin =
                    |(one, draft): &&(&Layer, Draft)| one.diff_id == layer.diff_id && !draft.depends_on_below();
                let twin = settled.iter().find(is_twin);
                let place = place.or_else(|| twin.map(|(_, draft)| draft.scratch.path().join("fs")));
                below = below.zip(place).map(|(mut below, place)| {
                    below.push(place);
                    below
                });
                continue;
            };
            let folder = draft.scratch.path().join("fs");
            let lower = below.as_deref().unwrap_or_default();
            for path in &draft.implied {
                imitate(&folder, path, lower)?;
            }
            if draft.hides_below {
                hide(&folder, lower)?;
            }
            fs::write(draft.scratch.path().join("layer.json"), to_json(&draft.record))
                .told(|| format!("writing the record of the layer {}", layer.diff_id))?;
            if let Some(below) = &mut below {
                below.push(folder);
            }
            settled.push((layer, draft));
        }
        if settled.is_empty() {
            return Ok(());
        }
        let told = || format!("writing {} to the disk", layers.display());
        rustix::fs::syncfs(File::open(&layers).told(told)?).told(told)?;
        for (layer, draft) in settled {
            let key = if draft.depends_on_below() { &layer.chain_id } else { &layer.diff_id };
            let place = self.layer_folder(key.hex());
            match fs::rename(draft.scratch.path(), &place) {
                // Another process was faster; ours goes. Or it was there from before it was noted what it depends on: now it is.
                Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                    let noted = self.layer_record(key.hex())?.and_then(|record| record.depends_on_below);
                    if noted != draft.record.depends_on_below {
                        self.write(&place.join("layer.json"), &to_json(&draft.record))?;
                    }
                }
                result => {
                    result.told(|| format!("putting the layer {} into its place", layer.diff_id))?;
                    let _ = draft.scratch.keep();
                }
            }
        }
        sync(&layers)
    }
}

/// Gives the folder `path` of a layer the looks that it has in the topmost layer below.
fn imitate(layer: &Path, path: &[u8], below: &[PathBuf]) -> Result<()> {
    let told = || format!("copying the attributes of the folder {}", String::from_utf8_lossy(path));
    let open = |root: &Path| -> rustix::io::Result<OwnedFd> {
        let root = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(root, path, flags, Mode::empty(), inside)
    };
    // What is no folder there, or hidden by a whiteout, has no looks to give.
    let Ok(own) = open(layer) else { return Ok(()) };
    for lower in below.iter().rev() {
        let Ok(model) = open(lower) else { continue };
        let model = File::from(model);
        let status = model.metadata().told(told)?;
        rustix::fs::fchown(&own, Some(Uid::from_raw(status.uid())), Some(Gid::from_raw(status.gid()))).told(told)?;
        rustix::fs::fchmod(&own, Mode::from_raw_mode(status.mode() & 0o7777)).told(told)?;
        xattrs(&model, &own).told(told)?;
        let times = Timestamps {
            last_access: Timespec { tv_sec: status.atime(), tv_nsec: status.atime_nsec() },
            last_modification: Timespec { tv_sec: status.mtime(), tv_nsec: status.mtime_nsec() },
        };
        return rustix::fs::futimens(&own, &times).told(told);
    }
    Ok(())
}

/// Hides all that is in the roots of the layers below.
fn hide(layer: &Path, below: &[PathBuf]) -> Result<()> {
    let told = || format!("hiding what is below {}", layer.display());
    let own = File::open(layer).told(told)?;
    let mut hidden = BTreeSet::new();
    for lower in below {
        hidden.extend(rootfs::names(File::open(lower).told(told)?)?);
    }
    for name in hidden {
        let name = OsStr::from_bytes(&name);
        match rootfs::kind(&own, name)? {
            None => rustix::fs::mknodat(&own, name, FileType::CharacterDevice, Mode::empty(), 0).told(told)?,
            Some(FileType::Directory) => {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(layer.join(name), "trusted.overlay.opaque", b"y", flags).told(told)?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Copies xattrs, but for overlayfs's own: whether a folder is opaque is each layer's matter.
fn xattrs(from: &File, to: &OwnedFd) -> rustix::io::Result<()> {
    let mut names = Vec::with_capacity(XATTRS);
    match rustix::fs::flistxattr(from, rustix::buffer::spare_capacity(&mut names)) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        result => result?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"security.selinux") {
            continue;
        }
        let mut value = Vec::with_capacity(XATTRS);
        rustix::fs::fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value))?;
        rustix::fs::fsetxattr(to, name, &value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

/// Gives the new folder `upper` the looks of the root that the topmost layer shows which has any.
pub(crate) fn imitate_root(upper: &Path, stack: &[LayerPlace]) -> Result<()> {
    let Some(model) = stack.iter().rev().find(|place| place.has_root) else { return Ok(()) };
    let told = || format!("copying the attributes of the root to {}", upper.display());
    let status = fs::metadata(&model.folder).told(told)?;
    std::os::unix::fs::chown(upper, Some(status.uid()), Some(status.gid())).told(told)?;
    fs::set_permissions(upper, fs::Permissions::from_mode(status.mode() & 0o7777)).told(told)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: status.atime(), tv_nsec: status.atime_nsec() },
        last_modification: Timespec { tv_sec: status.mtime(), tv_nsec: status.mtime_nsec() },
    };
    rustix::fs::utimensat(CWD, upper, &times, AtFlags::empty()).told(told)
}
