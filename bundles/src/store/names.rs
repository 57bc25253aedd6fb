//! Names of images, and the bundles that use layers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Store, read_record, to_json};
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

    fn bundle_path(&self, folder: &Path) -> PathBuf {
        let name = Digest::of(folder.as_os_str().as_encoded_bytes());
        self.root.join("bundles").join(format!("{}.json", name.hex()))
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
        read_record(&self.bundle_path(folder))
    }

    /// Notes what a bundle uses, so that it is not collected.
    pub(crate) fn note_bundle(&self, record: &BundleRecord) -> Result<()> {
        self.write(&self.bundle_path(&record.folder), &to_json(record))
    }

    pub(crate) fn forget_bundle(&self, folder: &Path) -> Result<()> {
        match fs::remove_file(self.bundle_path(folder)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.told(|| format!("removing the record of the bundle {}", folder.display())),
        }
    }

    fn records<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>> {
        let mut records = Vec::new();
        for name in file_names(&self.root.join(kind))? {
            // None: it went meanwhile.
            records.extend(read_record(&self.root.join(kind).join(name))?);
        }
        Ok(records)
    }
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
