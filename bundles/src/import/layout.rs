//! OCI image layouts (image-spec, image-layout.md): index.json, and blobs by digest.

use std::io::Read;

use oci_spec::image::{Descriptor, ImageIndex};

use super::files::Files;
use super::{Found, Import, parse};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::choose;
use crate::image::{Blob, Document, MANIFEST_LIMIT};
use crate::source::Source;

/// An index in an index, and no deeper.
const DEPTH: usize = 3;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What containerd and docker write, which is a whole name.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The blobs of a layout.
pub(super) struct Blobs<'a>(pub(super) &'a Files);

impl Source for Blobs<'_> {
    fn open<'a>(&'a self, blob: &Blob, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        self.0.reader(&place(&blob.digest), offset)
    }
}

fn place(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Finds the wanted image.
pub(super) fn find(files: &Files, what: &Import) -> Result<Found> {
    let index: ImageIndex = parse("index.json", &files.read("index.json", MANIFEST_LIMIT)?)?;
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let annotations = descriptor.annotations().iter().flatten();
        let names = annotations.filter(|(key, _)| matches!(key.as_str(), IMAGE_NAME | REF_NAME));
        let mut names: Vec<_> = names.collect();
        // The whole name first.
        names.sort();
        names.into_iter().map(|(_, name)| name.clone()).collect()
    };
    let fitting: Vec<Descriptor> = match &what.wanted {
        None => index.manifests().clone(),
        Some(wanted) => {
            let is_wanted = |descriptor: &&Descriptor| names(descriptor).contains(wanted);
            index.manifests().iter().filter(is_wanted).cloned().collect()
        }
    };
    let mut there: Vec<String> = index.manifests().iter().flat_map(names).collect();
    there.sort();
    there.dedup();
    if fitting.is_empty() {
        return Err(Error::not_found(match &what.wanted {
            None => "its index.json names no image".to_owned(),
            Some(wanted) => format!("it has no image {wanted:?}; there are {}", there.join(", ")),
        }));
    }
    // Several are platforms of one image, or several images.
    let sets: Vec<Vec<String>> = fitting.iter().map(names).collect();
    if sets.windows(2).any(|pair| pair.first() != pair.last()) {
        return Err(Error::refused(format!("it has several images; say which by --image: {}", there.join(", "))));
    }
    let name = sets.into_iter().next().unwrap_or_default().into_iter().next();
    let chosen = match fitting.as_slice() {
        [one] => Blob::of(one)?,
        several => choose(several, &what.platform)?,
    };
    let (digest, mut blob) = (chosen.digest.clone(), chosen);
    for _ in 0..DEPTH {
        let content = files.read(&place(&blob.digest), MANIFEST_LIMIT)?;
        if Digest::of(&content) != blob.digest {
            return Err(Error::refused(format!(
                "the file {} has other content than its name says",
                place(&blob.digest)
            )));
        }
        match Document::parse(&content, Some(&blob.media_type))? {
            Document::Manifest(_) => {
                return Ok(Found { manifest: content, digest, name: name.filter(|name| is_whole(name)) });
            }
            Document::Index(index) => blob = choose(index.manifests(), &what.platform)?,
        }
    }
    Err(Error::refused("its index leads to an index of an index of an index"))
}

/// Many tools write the tag alone (`latest`), which is no name.
fn is_whole(name: &str) -> bool {
    name.contains(['/', ':'])
}
