//! What an image is: a manifest, which names a config and layers by digest.
//!
//! ```text
//!  index ──(platform)──> manifest ──> config (program, environment, diff ids of the layers)
//!                                └──> layers (compressed tars)
//! ```
//!
//! OCI and Docker's schema 2 differ in media types alone. All of it is a stranger's: sizes and counts are bounded.

mod document;
mod platform;

pub(crate) use document::choose;
pub use document::{Document, MANIFEST_LIMIT};
pub use oci_spec::image::ImageConfiguration;
pub use platform::Platform;

use oci_spec::image::{Descriptor, ImageManifest, MediaType};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Bytes of an image's config at most.
pub const CONFIG_LIMIT: u64 = 8 << 20;
/// overlayfs stacks 500 lower folders at most.
pub(crate) const LAYERS_LIMIT: usize = 500;

/// A piece of content by its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it says it is.
    pub media_type: String,
}

impl Blob {
    /// Reads a descriptor.
    ///
    /// # Errors
    ///
    /// When its digest is none of sha256.
    pub fn of(descriptor: &Descriptor) -> Result<Self> {
        Ok(Self {
            digest: descriptor.digest().to_string().parse()?,
            size: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
        })
    }
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The tar, perhaps compressed.
    pub blob: Blob,
    /// The digest of the decompressed tar.
    pub diff_id: Digest,
    /// The digest of this layer on its lower ones (image-spec, config.md, "Layer ChainID").
    pub chain_id: Digest,
}

/// The manifest's part that is known before the config is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The image's config.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
}

impl Parts {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// When it is no image's (an artifact: a chart, a signature, ...), or has layers that cannot be unpacked.
    pub fn of(manifest: &ImageManifest) -> Result<Self> {
        let config = Blob::of(manifest.config())?;
        if let Some(artifact) = manifest.artifact_type()
            && !is_config(&config.media_type)
        {
            return Err(Error::refused(format!("it is no image but an artifact of the type {artifact}")));
        }
        if !is_config(&config.media_type) {
            return Err(Error::refused(format!(
                "it is no image but an artifact: its config is of the type {}",
                config.media_type
            )));
        }
        if config.size > CONFIG_LIMIT {
            return Err(Error::refused(format!("its config has {} bytes; {CONFIG_LIMIT} are taken", config.size)));
        }
        if manifest.layers().len() > LAYERS_LIMIT {
            return Err(Error::refused(format!(
                "it has {} layers; overlayfs takes {LAYERS_LIMIT}",
                manifest.layers().len()
            )));
        }
        for descriptor in manifest.layers() {
            takes_layer(descriptor.media_type())?;
        }
        Ok(Self { config, layers: manifest.layers().iter().map(Blob::of).collect::<Result<_>>()? })
    }
}

fn is_config(media_type: &str) -> bool {
    matches!(media_type, "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json")
}

fn takes_layer(media_type: &MediaType) -> Result<()> {
    match media_type {
        MediaType::ImageLayer
        | MediaType::ImageLayerGzip
        | MediaType::ImageLayerZstd
        | MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Ok(()),
        other => {
            let name = other.to_string();
            let docker = name.strip_prefix("application/vnd.docker.image.rootfs.");
            match docker {
                Some("diff.tar" | "diff.tar.gzip" | "diff.tar.zstd") => Ok(()),
                Some(_) => Err(Error::refused(format!("its layer of the type {name} is not in the registry"))),
                None if name.ends_with("+encrypted") => Err(Error::refused("its layers are encrypted")),
                None => Err(Error::refused(format!("its layer of the type {name} is no tar of a root filesystem"))),
            }
        }
    }
}

/// An image: what its manifest and config say together.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's digest.
    pub manifest: Digest,
    /// The config's place.
    pub config_blob: Blob,
    /// The config.
    pub config: ImageConfiguration,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Puts manifest and config together.
    ///
    /// # Errors
    ///
    /// When the config is no JSON of an image's config, or counts other layers than the manifest.
    pub fn new(manifest: Digest, parts: Parts, config: &[u8]) -> Result<Self> {
        let config: ImageConfiguration = serde_json::from_slice(config)
            .map_err(|error| Error::refused(format!("its config {} is wrong: {error}", parts.config.digest)))?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != parts.layers.len() {
            return Err(Error::refused(format!(
                "its manifest has {} layers and its config {}",
                parts.layers.len(),
                diff_ids.len()
            )));
        }
        let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
        for (blob, diff_id) in parts.layers.into_iter().zip(diff_ids) {
            let diff_id: Digest = diff_id.parse()?;
            let chain_id = match layers.last() {
                Some(below) => Digest::of(format!("{} {diff_id}", below.chain_id).as_bytes()),
                None => diff_id.clone(),
            };
            layers.push(Layer { blob, diff_id, chain_id });
        }
        Ok(Self { manifest, config_blob: parts.config, config, layers })
    }

    /// Bytes of its layers as they are stored and sent.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.blob.size))
    }

    /// What it was built for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.config.os().to_string(),
            architecture: self.config.architecture().to_string(),
            variant: self.config.variant().clone(),
        }
    }
}

#[cfg(test)]
mod tests;
