//! What the images of a store take up, and when they were used last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::SystemTime;

use super::names::file_names;
use super::{ImageRecord, Store};
use crate::error::Result;

/// One image.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    /// Its name and digests.
    pub record: ImageRecord,
    /// Bytes of its layers as they were sent.
    pub blob_bytes: u64,
    /// Bytes of the files of its unpacked layers. Other images may share them.
    pub layer_bytes: u64,
    /// Bytes that go if this image goes alone.
    pub own_bytes: u64,
    /// When it was pulled, imported or made into a bundle last.
    pub last_used: SystemTime,
    /// Bundles that were made of it and are there.
    pub bundles: usize,
}

/// A store.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Its images, the longest unused first.
    pub images: Vec<ImageUsage>,
    /// Bytes of all blobs, also of those that no image needs.
    pub blob_bytes: u64,
    /// Bytes of the files of all unpacked layers.
    pub layer_bytes: u64,
}

impl Store {
    /// What is in the store, and how large it is. The caller holds a lease.
    ///
    /// # Errors
    ///
    /// When a record is damaged.
    pub fn usage(&self) -> Result<Usage> {
        let bundles = self.bundles()?;
        let mut images = Vec::new();
        // Content that several images have is nobody's own.
        let mut owners: BTreeMap<String, (BTreeSet<String>, u64)> = BTreeMap::new();
        for record in self.images()? {
            let image = self.image(&record)?;
            let mut of_image = ImageUsage {
                blob_bytes: image.size(),
                layer_bytes: 0,
                own_bytes: 0,
                last_used: self.last_used(&record.name).unwrap_or(SystemTime::UNIX_EPOCH),
                bundles: bundles.iter().filter(|bundle| bundle.manifest == record.manifest).count(),
                record,
            };
            let manifest = of_image.record.manifest.hex();
            for layer in &image.layers {
                let mut own = |key: String, bytes: u64| {
                    owners.entry(key).or_insert_with(|| (BTreeSet::new(), bytes)).0.insert(manifest.to_owned());
                };
                own(format!("blob {}", layer.blob.digest), layer.blob.size);
                if let Some(place) = self.layer(layer)? {
                    let bytes = self.layer_size(&place.key)?;
                    of_image.layer_bytes += bytes;
                    own(format!("layer {}", place.key), bytes);
                }
            }
            images.push(of_image);
        }
        for image in &mut images {
            let manifest = image.record.manifest.hex();
            let own = owners.values().filter(|(owners, _)| owners.len() == 1 && owners.contains(manifest));
            image.own_bytes = own.map(|(_, bytes)| bytes).sum();
        }
        images.sort_by_key(|image| image.last_used);
        let (mut blob_bytes, mut layer_bytes) = (0, 0);
        for name in file_names(&self.root.join("blobs/sha256"))? {
            blob_bytes += fs::metadata(self.root.join("blobs/sha256").join(name)).map_or(0, |status| status.len());
        }
        for key in file_names(&self.root.join("layers"))? {
            layer_bytes += self.layer_size(&key)?;
        }
        Ok(Usage { images, blob_bytes, layer_bytes })
    }
}
