//! Images to files: an OCI layout in a tar, which docker (20.10 and later), podman, skopeo and containerd load.

use std::io::{Read, Write};

use serde_json::json;

use crate::digest::Digest;
use crate::error::{Error, Result, Told};
use crate::image::{Image, MANIFEST_LIMIT};
use crate::store::{ImageRecord, Store};

/// Writes an image of the store as a tar.
///
/// # Errors
///
/// When a part of the image is missing or damaged, or `to` takes no more.
pub fn export(store: &Store, record: &ImageRecord, to: impl Write) -> Result<()> {
    let _lease = store.lease()?;
    let image = store.image(record)?;
    let manifest = store.read_blob(&record.manifest, MANIFEST_LIMIT)?;
    let mut tar = tar::Builder::new(to);
    file(&mut tar, "oci-layout", &json(&json!({"imageLayoutVersion": "1.0.0"})))?;
    file(&mut tar, "index.json", &index(record, &manifest)?)?;
    // What docker before 25 reads.
    file(&mut tar, "manifest.json", &legacy(record, &image))?;
    for folder in ["blobs", "blobs/sha256"] {
        let mut header = header(0);
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        tar.append_data(&mut header, folder, std::io::empty()).told(|| "writing the archive".to_owned())?;
    }
    let mut digests: Vec<&Digest> = vec![&record.manifest, &image.config_blob.digest];
    digests.extend(image.layers.iter().map(|layer| &layer.blob.digest));
    let mut written = std::collections::BTreeSet::new();
    for digest in digests.into_iter().filter(|digest| written.insert(digest.hex().to_owned())) {
        blob(store, &mut tar, digest)?;
    }
    let mut to = tar.into_inner().told(|| "writing the archive's end".to_owned())?;
    to.flush().told(|| "writing the archive's end".to_owned())
}

fn json(value: &serde_json::Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn index(record: &ImageRecord, manifest: &[u8]) -> Result<Vec<u8>> {
    let document: serde_json::Value = serde_json::from_slice(manifest)
        .map_err(|error| Error::refused(format!("the manifest {}: {error}", record.manifest)))?;
    let media_type = document.get("mediaType").and_then(serde_json::Value::as_str);
    Ok(json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": media_type.unwrap_or("application/vnd.oci.image.manifest.v1+json"),
            "digest": record.manifest.to_string(),
            "size": manifest.len(),
            "annotations": {
                "io.containerd.image.name": record.name,
                "org.opencontainers.image.ref.name": record.name,
            },
        }],
    })))
}

fn legacy(record: &ImageRecord, image: &Image) -> Vec<u8> {
    let place = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    // A tag with a digest behind it is none for docker.
    let tags = if record.name.contains('@') { json!([]) } else { json!([record.name]) };
    let layers: Vec<String> = image.layers.iter().map(|layer| place(&layer.blob.digest)).collect();
    json(&json!([{"Config": place(&image.config_blob.digest), "RepoTags": tags, "Layers": layers}]))
}

/// The same image gives the same archive: no times, no owners.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header
}

fn file(tar: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> Result<()> {
    tar.append_data(&mut header(content.len() as u64), name, content).told(|| format!("writing {name}"))
}

fn blob(store: &Store, tar: &mut tar::Builder<impl Write>, digest: &Digest) -> Result<()> {
    let told = || format!("writing the blob {digest}");
    let file = store.open_blob(digest)?;
    let size = file.metadata().told(told)?.len();
    let mut hashing = crate::digest::Hashing::new(file.take(size));
    tar.append_data(&mut header(size), format!("blobs/sha256/{}", digest.hex()), &mut hashing).told(told)?;
    let (read, _) = hashing.finish().told(told)?;
    if read != *digest {
        return Err(Error::refused(format!("the blob {digest} is damaged; pull the image again")));
    }
    Ok(())
}
