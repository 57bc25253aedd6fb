//! Images for tests, small enough to be made each time.

use std::collections::BTreeMap;

use serde_json::json;

use crate::digest::Digest;

/// An image: its manifest, and all that it names.
pub(crate) struct Sample {
    pub(crate) manifest: Vec<u8>,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
}

/// A layer with these entries, as a tar: a name that ends in a slash is a folder, a file contains its name.
pub(crate) fn layer(names: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mode(0o750);
        header.set_mtime(1_000_000_000);
        let is_folder = name.ends_with('/');
        let content: &[u8] = if is_folder { b"" } else { name.as_bytes() };
        header.set_entry_type(if is_folder { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// An image of uncompressed layers that runs `x`.
pub(crate) fn image(layers: &[Vec<u8>]) -> Sample {
    let mut blobs = BTreeMap::new();
    let mut add = |content: &[u8], media_type: &str| {
        let digest = Digest::of(content);
        blobs.insert(digest.clone(), content.to_vec());
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    };
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = add(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> = layers.iter().map(|layer| add(layer, "application/vnd.oci.image.layer.v1.tar")).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers});
    Sample { manifest: manifest.to_string().into_bytes(), blobs }
}
