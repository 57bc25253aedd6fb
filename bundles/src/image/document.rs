//! What stands behind a name: an index of manifests, or a manifest.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;

use super::{Blob, Platform};
use crate::error::{Error, Result};

/// Bytes of a manifest or an index at most: what registries take, too (distribution-spec, "Pushing Manifests").
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// An index in an index in an index ends here.
const MANIFESTS_LIMIT: usize = 4096;

/// A manifest or an index.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Manifest(Box<ImageManifest>),
    /// Images for several platforms.
    Index(Box<ImageIndex>),
}

/// As much as it takes to say what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a document by what is in it; the media type that it or its sender names must not say otherwise.
    ///
    /// # Errors
    ///
    /// When it is neither, both (CVE-2021-41190), or Docker's schema 1.
    pub fn parse(json: &[u8], media_type: Option<&str>) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::refused(format!("the manifest is wrong: {error}"));
        let shape: Shape = serde_json::from_slice(json).map_err(wrong)?;
        if shape.schema_version == Some(1) || shape.fs_layers.is_some() {
            return Err(Error::refused(
                "it is an image of Docker's schema 1, which has no digests of its content; push it again with a newer docker",
            ));
        }
        let is_index = shape.manifests.is_some();
        if is_index && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(Error::refused(
                "the manifest is an index, too; nobody can say which is meant (CVE-2021-41190)",
            ));
        }
        for told in [shape.media_type.as_deref(), media_type].into_iter().flatten() {
            if let Some(says_index) = says_index(told)
                && says_index != is_index
            {
                return Err(Error::refused(format!("the manifest is said to be {told}, and is something else")));
            }
        }
        if is_index {
            let index: ImageIndex = serde_json::from_slice(json).map_err(wrong)?;
            if index.manifests().len() > MANIFESTS_LIMIT {
                return Err(Error::refused(format!("the index has {} manifests", index.manifests().len())));
            }
            return Ok(Self::Index(Box::new(index)));
        }
        serde_json::from_slice(json).map(|manifest| Self::Manifest(Box::new(manifest))).map_err(wrong)
    }
}

/// None: the type says nothing about it.
fn says_index(media_type: &str) -> Option<bool> {
    match media_type.split(';').next().unwrap_or_default().trim() {
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
            Some(true)
        }
        "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
            Some(false)
        }
        _ => None,
    }
}

/// The manifest of `index` that fits `platform` best.
///
/// # Errors
///
/// When none fits; says which there are.
pub(crate) fn choose(manifests: &[Descriptor], platform: &Platform) -> Result<Blob> {
    let fitting = |descriptor: &&Descriptor| {
        // An index with one manifest need not say for which platform it is.
        descriptor.platform().as_ref().map_or((manifests.len() == 1).then_some(u8::MAX), |theirs| {
            platform.fits(
                theirs.os().to_string().as_str(),
                &theirs.architecture().to_string(),
                theirs.variant().as_deref(),
            )
        })
    };
    // Of equals the first, as image-spec has it.
    let mut best: Option<(u8, &Descriptor)> = None;
    for descriptor in manifests {
        if let Some(distance) = fitting(&descriptor)
            && best.is_none_or(|(nearest, _)| distance < nearest)
        {
            best = Some((distance, descriptor));
        }
    }
    if let Some((_, descriptor)) = best {
        return Blob::of(descriptor);
    }
    let mut there: Vec<String> = manifests
        .iter()
        .filter_map(|descriptor| descriptor.platform().as_ref())
        .map(|theirs| {
            Platform {
                os: theirs.os().to_string(),
                architecture: theirs.architecture().to_string(),
                variant: theirs.variant().clone(),
            }
            .to_string()
        })
        // Where builders keep what they tell of a build.
        .filter(|name| !name.starts_with("unknown/"))
        .collect();
    there.dedup();
    there.truncate(20);
    Err(Error::not_found(format!("it has no image for {platform}; there are {}", there.join(", "))))
}
