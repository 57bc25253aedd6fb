//! Collection: what no name and no bundle needs goes, and when there is too much, names that were not used for long.
//!
//! ```text
//!  alone in the store:  images/, bundles/ ──> what is needed ──> all else is renamed into tmp/dying-*
//!  beside others:       tmp/dying-* is removed, which may take long
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::names::file_names;
use super::{ImageUsage, Store};
use crate::error::{Result, Told};
use crate::rootfs;

/// The beginning of a blob is worth keeping for the next pull, for some time.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);
/// What begins so in tmp/ is on its way out.
const DYING: &str = "dying-";

/// What was collected.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Names of images that were removed, the longest unused first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Blobs that were removed.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Unpacked layers that were removed.
    pub layers: u64,
    /// Bytes of their files.
    pub layer_bytes: u64,
    /// What dead processes left half done.
    pub leftovers: u64,
    /// Bundles that are no more.
    pub bundles: u64,
}

/// When images go, and which: as kubelet has it, by the disk; or by the store's own size.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Percent of the file system's bytes in use from which on images are removed.
    pub high: u8,
    /// Percent down to which they are removed.
    pub low: u8,
    /// Bytes that the store may have beside that; None for any number.
    pub bytes: Option<u64>,
    /// Images that were used so short a time ago stay.
    pub min_age: Duration,
    /// Names of images that stay.
    pub keep: BTreeSet<String>,
    /// How long others who work in the store (pulls) are waited for.
    pub patience: Duration,
}

impl Default for Policy {
    /// kubelet's: from 85 % down to 80 %, images of at least two minutes; 10 s.
    fn default() -> Self {
        let (min_age, patience) = (Duration::from_secs(120), Duration::from_secs(10));
        Self { high: 85, low: 80, bytes: None, min_age, keep: BTreeSet::new(), patience }
    }
}

/// Removes what nothing needs. Waits until nobody works in the store; calls `waiting` before that.
///
/// # Errors
///
/// When a record is damaged (then nothing is removed, since it may name what is needed), or something cannot be removed.
pub fn collect(store: &Store, waiting: impl FnOnce()) -> Result<Collected> {
    let alone = store.exclusive(waiting)?;
    let mut collected = Collected::default();
    sweep(store, &mut collected)?;
    leftovers(store, &mut collected)?;
    drop(alone);
    bury(store)?;
    Ok(collected)
}

/// Removes what nothing needs, and where that is not enough for the policy, names of images, the longest unused first, with
/// what only they need. What bundles use stays.
///
/// # Errors
///
/// As [`collect`]; of the kind [`crate::Kind::Unavailable`] when others work in the store for longer than the policy's patience.
pub fn trim(store: &Store, policy: &Policy) -> Result<Collected> {
    let alone = store.exclusive_within(policy.patience)?;
    let mut collected = Collected::default();
    let mut excess = excess(store, policy)?;
    if excess > 0 {
        sweep(store, &mut collected)?;
        leftovers(store, &mut collected)?;
        excess = excess.saturating_sub(collected.blob_bytes + collected.layer_bytes);
        let images = store.usage()?.images;
        for image in images.iter().filter(|image| may_go(image, policy)) {
            if excess == 0 {
                break;
            }
            let before = collected.blob_bytes + collected.layer_bytes;
            store.forget_image(&image.record.name.parse()?)?;
            collected.images.push(image.record.name.clone());
            sweep(store, &mut collected)?;
            excess = excess.saturating_sub(collected.blob_bytes + collected.layer_bytes - before);
        }
    }
    drop(alone);
    bury(store)?;
    Ok(collected)
}

fn may_go(image: &ImageUsage, policy: &Policy) -> bool {
    // A clock that was set back makes no image old.
    let age = SystemTime::now().duration_since(image.last_used).unwrap_or_default();
    image.bundles == 0 && age >= policy.min_age && !policy.keep.contains(&image.record.name)
}

/// Bytes that are to go.
fn excess(store: &Store, policy: &Policy) -> Result<u64> {
    let told = || format!("asking for the space at {}", store.root().display());
    let disk = rustix::fs::statvfs(store.root()).told(told)?;
    // What only root may use counts as used, as df has it.
    let total = (disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize;
    let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
    let share = |percent: u8| total / 100 * u64::from(percent.min(100));
    let of_disk = if used >= share(policy.high) { used.saturating_sub(share(policy.low)) } else { 0 };
    let Some(bytes) = policy.bytes else { return Ok(of_disk) };
    let usage = store.usage()?;
    Ok(of_disk.max((usage.blob_bytes + usage.layer_bytes).saturating_sub(bytes)))
}

/// Takes what nothing needs out of its place. The caller is alone in the store.
fn sweep(store: &Store, collected: &mut Collected) -> Result<()> {
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
    collected.bundles += store.forget_other_boots()?;
    for record in store.bundles()? {
        if crate::bundle::is_gone(&record.folder) {
            store.forget_bundle(&record.folder)?;
            collected.bundles += 1;
        } else {
            layers.extend(record.layers);
        }
    }
    let folder = store.root().join("blobs/sha256");
    for name in file_names(&folder)?.difference(&blobs) {
        collected.blob_bytes += fs::metadata(folder.join(name)).map_or(0, |status| status.len());
        dies(store, &folder, name)?;
        collected.blobs += 1;
    }
    let folder = store.root().join("layers");
    for name in file_names(&folder)?.difference(&layers) {
        collected.layer_bytes += store.layer_size(name)?;
        dies(store, &folder, name)?;
        collected.layers += 1;
    }
    Ok(())
}

/// Renamed, not removed: a kill in between must not leave half of a layer under its name, and others wait meanwhile.
fn dies(store: &Store, folder: &Path, name: &str) -> Result<()> {
    let dying = store.tmp().join(format!("{DYING}{name}"));
    // Of a collection that was killed.
    let opened = File::open(store.tmp()).told(|| "opening tmp/".to_owned())?;
    rootfs::remove(&opened, dying.file_name().unwrap_or_default())?;
    fs::rename(folder.join(name), &dying).told(|| format!("removing {name}"))
}

/// Takes away what dead processes left. Nobody else works in the store: all in tmp/ is dead.
fn leftovers(store: &Store, collected: &mut Collected) -> Result<()> {
    let folder = store.tmp();
    let opened = File::open(&folder).told(|| format!("opening {}", folder.display()))?;
    for name in file_names(&folder)? {
        let is_young = fs::metadata(folder.join(&name))
            .and_then(|status| status.modified())
            .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < PARTIAL_AGE));
        if name.starts_with(DYING) || (name.starts_with("blob-") && is_young) {
            continue;
        }
        rootfs::remove(&opened, OsStr::new(&name))?;
        collected.leftovers += 1;
    }
    Ok(())
}

/// Removes what is on its way out. Others may work in the store and collect, too.
fn bury(store: &Store) -> Result<()> {
    let folder = store.tmp();
    let opened = File::open(&folder).told(|| format!("opening {}", folder.display()))?;
    for name in file_names(&folder)?.iter().filter(|name| name.starts_with(DYING)) {
        rootfs::remove(&opened, OsStr::new(name))?;
    }
    Ok(())
}
