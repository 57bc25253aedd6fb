//! Images from files: an OCI layout, docker's archive, an App Container image, a root filesystem.

pub(crate) mod aci;
mod archive;
mod docker;
mod files;
mod layout;
mod rootfs;

use std::path::Path;

use crate::digest::Digest;
use crate::error::{Error, Result, Told};
use crate::fetch::{self, Fetch};
use crate::image::{Image, Platform};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};
use files::Files;

/// What to import.
#[derive(Debug, Clone)]
pub struct Import {
    /// The name that the image gets; None: the name that the archive has for it.
    pub name: Option<Reference>,
    /// Which image of an archive with several: its name there.
    pub wanted: Option<String>,
    /// Which of the platforms.
    pub platform: Platform,
    /// How layers are taken.
    pub fetch: Fetch,
}

/// An image as one of the forms holds it.
struct Found {
    /// Its manifest's bytes; made up where the form has none.
    manifest: Vec<u8>,
    /// The digest of the index that names it, where there is one.
    digest: Digest,
    /// Its name in the archive.
    name: Option<String>,
}

/// Imports the image in `path`: a folder with an OCI layout, a tar of one, a tar of `docker save`, an App Container image (a
/// tar), or a root filesystem as folder or tar. A tar may be compressed.
///
/// # Errors
///
/// When the path holds none of them, the image wants a name, or content is not what its digest says.
pub fn import(store: &Store, path: &Path, what: &Import, progress: &dyn Progress) -> Result<(ImageRecord, Image)> {
    let _lease = store.lease()?;
    let told = |error: Error| error.during(&format!("importing {}", path.display()));
    // Holds what has to be decompressed or made before it can be read.
    let scratch = store.scratch()?;
    let files = Files::open(path, scratch.path(), &what.fetch.limits).map_err(told)?;
    if files.has("oci-layout") {
        let found = layout::find(&files, what).map_err(told)?;
        return finish(store, &layout::Blobs(&files), &found, what, progress).map_err(told);
    }
    if files.has("manifest.json") && files.is_archive() {
        let (found, source) = docker::find(&files, what).map_err(told)?;
        return finish(store, &source, &found, what, progress).map_err(told);
    }
    if aci::is_one(&files) {
        let (found, source) = aci::find(&files, what, scratch.path()).map_err(told)?;
        return finish(store, &source, &found, what, progress).map_err(told);
    }
    let (found, source) = rootfs::find(&files, path, what, scratch.path()).map_err(told)?;
    finish(store, &source, &found, what, progress).map_err(told)
}

fn finish(
    store: &Store,
    source: &dyn crate::source::Source,
    found: &Found,
    what: &Import,
    progress: &dyn Progress,
) -> Result<(ImageRecord, Image)> {
    let name = match (&what.name, &found.name) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => {
            name.parse().map_err(|error: Error| error.during("the archive's own name for it; give it another one"))?
        }
        (None, None) => return Err(Error::refused("it has no name in there: say under which name it is to be kept")),
    };
    // Who names a digest later is to get what it says, also from here.
    if let Some(digest) = name.digest().filter(|one| **one != found.digest && **one != Digest::of(&found.manifest)) {
        return Err(Error::refused(format!("its digest is {}, not {digest}, as the name says", found.digest)));
    }
    let text = name.to_string();
    let image = fetch::take_image(store, source, &found.manifest, &text, &what.fetch, progress)?;
    let record = ImageRecord { name: text, digest: found.digest.clone(), manifest: image.manifest.clone() };
    store.name_image(&record)?;
    Ok((record, image))
}

/// JSON of an archive, told by its file's name when it is wrong.
fn parse<T: serde::de::DeserializeOwned>(name: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| Error::refused(format!("{name} is wrong: {error}")))
}

/// The digest and the size of what a reader has.
fn measured(mut content: impl std::io::Read, what: &str) -> Result<(Digest, u64)> {
    let mut hashing = crate::digest::Hashing::new(&mut content);
    let size = std::io::copy(&mut hashing, &mut std::io::sink()).told(|| format!("reading {what}"))?;
    let (digest, _) = hashing.finish().told(|| format!("reading {what}"))?;
    Ok((digest, size))
}
