//! Collection: what no name and no bundle needs goes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Store;
use super::names::file_names;
use crate::error::{Result, Told};
use crate::rootfs;

/// The beginning of a blob is worth keeping for the next pull, for some time.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);

/// What was collected.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Blobs that were removed.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Unpacked layers that were removed.
    pub layers: u64,
    /// What dead processes left half done.
    pub leftovers: u64,
    /// Bundles that are no more.
    pub bundles: u64,
}

/// Removes what nothing needs. Waits until nobody works in the store; calls `waiting` before that.
///
/// # Errors
///
/// When a record is damaged (then nothing is removed, since it may name what is needed), or something cannot be removed.
pub fn collect(store: &Store, waiting: impl FnOnce()) -> Result<Collected> {
    let _alone = store.exclusive(waiting)?;
    let mut collected = Collected::default();
    let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
    for record in store.images()? {
        blobs.insert(record.manifest.hex().to_owned());
        let image = store.image(&record)?;
        blobs.insert(image.config_blob.digest.hex().to_owned());
        for layer in &image.layers {
            blobs.insert(layer.blob.digest.hex().to_owned());
            layers.insert(layer.diff_id.hex().to_owned());
            layers.insert(layer.chain_id.hex().to_owned());
        }
    }
    for record in store.bundles()? {
        if crate::bundle::is_bundle(&record.folder) {
            layers.extend(record.layers);
        } else {
            store.forget_bundle(&record.folder)?;
            collected.bundles += 1;
        }
    }
    let folder = store.root().join("blobs/sha256");
    for name in file_names(&folder)?.difference(&blobs) {
        let path = folder.join(name);
        collected.blob_bytes += fs::metadata(&path).map_or(0, |status| status.len());
        fs::remove_file(&path).told(|| format!("removing {}", path.display()))?;
        collected.blobs += 1;
    }
    let folder = store.root().join("layers");
    for name in file_names(&folder)?.difference(&layers) {
        // Renamed first: a kill in between must not leave half of a layer under its name.
        let dying = store.root().join("tmp").join(format!("dying-{name}"));
        fs::rename(folder.join(name), &dying).told(|| format!("removing the layer {name}"))?;
        collected.layers += 1;
    }
    leftovers(&store.root().join("tmp"), &mut collected)?;
    Ok(collected)
}

/// Nobody else works in the store: all in tmp/ is dead.
fn leftovers(folder: &Path, collected: &mut Collected) -> Result<()> {
    let opened = File::open(folder).told(|| format!("opening {}", folder.display()))?;
    for name in file_names(folder)? {
        let is_young = fs::metadata(folder.join(&name))
            .and_then(|status| status.modified())
            .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < PARTIAL_AGE));
        if name.starts_with("blob-") && is_young {
            continue;
        }
        rootfs::remove(&opened, OsStr::new(&name))?;
        if !name.starts_with("dying-") {
            collected.leftovers += 1;
        }
    }
    Ok(())
}
