//! `docker save`: manifest.json, which names a config and layers by their files.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::files::Files;
use super::{Found, Import, measured, parse};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::{Blob, CONFIG_LIMIT, LAYERS_LIMIT, MANIFEST_LIMIT};
use crate::source::Source;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Files of an archive as blobs.
pub(super) struct Blobs<'a> {
    files: &'a Files,
    places: BTreeMap<Digest, String>,
}

impl Source for Blobs<'_> {
    fn open<'a>(&'a self, blob: &Blob, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        let place = self.places.get(&blob.digest);
        let place = place.ok_or_else(|| Error::not_found(format!("it has no blob {}", blob.digest)))?;
        self.files.reader(place, offset)
    }
}

/// Finds the wanted image, and makes a manifest for it: the archive's own has no digests.
pub(super) fn find<'a>(files: &'a Files, what: &Import) -> Result<(Found, Blobs<'a>)> {
    let mut entries: Vec<Entry> = parse("manifest.json", &files.read("manifest.json", MANIFEST_LIMIT)?)?;
    let names: Vec<String> = entries.iter().flat_map(|entry| entry.repo_tags.clone().unwrap_or_default()).collect();
    if let Some(wanted) = &what.wanted {
        entries.retain(|entry| entry.repo_tags.iter().flatten().any(|name| name == wanted));
    }
    let entry = match entries.as_slice() {
        [] => return Err(Error::not_found(format!("it has no such image; there are {}", names.join(", ")))),
        [one] => one,
        _ => {
            return Err(Error::refused(format!("it has several images; say which by --image: {}", names.join(", "))));
        }
    };
    let config = files.read(&entry.config, CONFIG_LIMIT)?;
    let mut places = BTreeMap::from([(Digest::of(&config), entry.config.clone())]);
    // Each is read to know its digest, however often it is named.
    let count = entry.layers.as_ref().map_or(0, Vec::len);
    if count > LAYERS_LIMIT {
        return Err(Error::refused(format!("it has {count} layers; overlayfs takes {LAYERS_LIMIT}")));
    }
    let mut layers = Vec::new();
    for file in entry.layers.iter().flatten() {
        let (digest, size) = measured(files.reader(file, 0)?, file)?;
        places.insert(digest.clone(), file.clone());
        layers.push((digest, size));
    }
    let manifest = super::rootfs::manifest(&config, &layers);
    let digest = Digest::of(&manifest);
    let name = what.wanted.clone().or_else(|| entry.repo_tags.as_ref()?.first().cloned());
    Ok((Found { manifest, digest, name }, Blobs { files, places }))
}
