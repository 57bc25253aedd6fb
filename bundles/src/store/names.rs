//! Names of images, and the bundles that use layers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Store, read_record, sync, to_json};
use crate::digest::Digest;
use crate::error::{Error, Result, Told};
use crate::reference::Reference;

/// What a name stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// The full name.
    pub name: String,
    /// The digest that the registry has for the name: of the manifest or of an index with it.
    pub digest: Digest,
    /// The manifest.
    pub manifest: Digest,
}

/// What a bundle uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleRecord {
    /// The bundle's folder.
    pub folder: PathBuf,
    /// The image it was made of.
    pub image: String,
    /// The image's manifest.
    pub manifest: Digest,
    /// The layers its root file system is stacked on, lowest first; none for a copy.
    pub layers: Vec<String>,
}

impl Store {
    fn image_path(&self, name: &str) -> PathBuf {
        // By hash: names are longer than file names may be, and full of slashes.
        self.root.join("images").join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    fn bundle_path(&self, folder: &Path, lasting: bool) -> PathBuf {
        let name = Digest::of(folder.as_os_str().as_encoded_bytes());
        let boot = if lasting { String::new() } else { format!(".{}", boot()) };
        self.bundles_folder().join(format!("{}{boot}.json", name.hex()))
    }

    /// Gives a name to an image whose blobs are here.
    ///
    /// # Errors
    ///
    /// When the record cannot be written.
    pub fn name_image(&self, record: &ImageRecord) -> Result<()> {
        self.write(&self.image_path(&record.name), &to_json(record))
    }

    /// What a name stands for; None for a name that is not here.
    ///
    /// # Errors
    ///
    /// When the record is damaged.
    pub fn named(&self, name: &Reference) -> Result<Option<ImageRecord>> {
        read_record(&self.image_path(&name.to_string()))
    }

    /// Takes a name away; its image stays until it is collected.
    ///
    /// # Errors
    ///
    /// When there is no such name.
    pub fn forget_image(&self, name: &Reference) -> Result<()> {
        match fs::remove_file(self.image_path(&name.to_string())) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::not_found(format!("there is no image {name}; see `flint-bundle list`")))
            }
            result => result.told(|| format!("removing the name {name}")),
        }
    }

    /// All names, sorted.
    ///
    /// # Errors
    ///
    /// When a record is damaged.
    pub fn images(&self) -> Result<Vec<ImageRecord>> {
        let mut records: Vec<ImageRecord> = self.records("images")?;
        records.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(records)
    }

    /// All bundles, sorted by folder.
    ///
    /// # Errors
    ///
    /// When a record is damaged.
    pub fn bundles(&self) -> Result<Vec<BundleRecord>> {
        let mut records: Vec<BundleRecord> = self.records("bundles")?;
        records.sort_by(|one, other| one.folder.cmp(&other.folder));
        Ok(records)
    }

    pub(crate) fn bundle(&self, folder: &Path) -> Result<Option<BundleRecord>> {
        match read_record(&self.bundle_path(folder, true))? {
            None => read_record(&self.bundle_path(folder, false)),
            found => Ok(found),
        }
    }

    fn bundles_folder(&self) -> PathBuf {
        self.root.join("bundles")
    }

    /// Notes what a bundle uses, so that it is not collected: in this boot.
    ///
    /// The record goes to the disk when the kernel likes. Whatever a power cut makes of it, it is not read in the next boot.
    pub(crate) fn note_bundle(&self, record: &BundleRecord) -> Result<()> {
        self.write_for_now(&self.bundle_path(&record.folder, false), &to_json(record))
    }

    /// Makes the record of a bundle one of every boot. It gets the name that is read then once its content is on the disk: a
    /// power cut leaves it whole or without that name.
    pub(crate) fn keep_bundle(&self, folder: &Path) -> Result<()> {
        let (noted, kept) = (self.bundle_path(folder, false), self.bundle_path(folder, true));
        sync(&noted)?;
        fs::rename(&noted, &kept).told(|| format!("writing {}", kept.display()))?;
        sync(&self.bundles_folder())
    }

    pub(crate) fn forget_bundle(&self, folder: &Path) -> Result<()> {
        for lasting in [true, false] {
            match fs::remove_file(self.bundle_path(folder, lasting)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => result.told(|| format!("removing the record of the bundle {}", folder.display()))?,
            }
        }
        Ok(())
    }

    /// Removes the records of bundles that were to last until a restart of the host that has been.
    pub(super) fn forget_other_boots(&self) -> Result<u64> {
        let (mut count, folder) = (0, self.bundles_folder());
        for name in file_names(&folder)? {
            if is_of_another_boot(&name) {
                fs::remove_file(folder.join(&name)).told(|| format!("removing the record {name}"))?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Notes that an image is used now. Only the order of a collection depends on it: a failure is none.
    pub fn used(&self, record: &ImageRecord) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let _ = rustix::fs::utimensat(CWD, self.image_path(&record.name), &times, AtFlags::empty());
    }

    /// When an image was pulled, imported or made into a bundle last; None for a name that is gone.
    pub(super) fn last_used(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.image_path(name)).and_then(|status| status.modified()).ok()
    }

    fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
        let mut records = Vec::new();
        for name in file_names(&self.root.join(kind))?.iter().filter(|name| !is_of_another_boot(name)) {
            // None: it went meanwhile.
            records.extend(read_record(&self.root.join(kind).join(name))?);
        }
        Ok(records)
    }
}

/// The kernel's name for the time since the host was started.
fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
        // Without /proc all boots are one, and records last as the disk keeps them.
        if id.is_empty() { "boot".to_owned() } else { id }
    })
}

/// HASH.BOOT.json
fn is_of_another_boot(name: &str) -> bool {
    let mut parts = name.split('.').skip(1);
    parts.next().is_some_and(|part| part != "json" && part != boot())
}

/// The names in a folder of the store.
pub(super) fn file_names(folder: &Path) -> Result<BTreeSet<String>> {
    let told = || format!("listing {}", folder.display());
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).told(told)? {
        names.extend(entry.told(told)?.file_name().into_string());
    }
    Ok(names)
}
