//! OCI layouts that tests make.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A layer with these entries: a name that ends in a slash is a folder.
pub(crate) fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Writes an image of uncompressed layers as an OCI layout.
pub(crate) fn write(folder: &Path, layers: &[Vec<u8>]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let add = |content: &[u8], kind: &str| -> Value {
        let hex = Sha256::digest(content).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        fs::write(blobs.join(&hex), content).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{hex}"), "size": content.len()})
    };
    let layers: Vec<Value> = layers.iter().map(|layer| add(layer, "layer.v1.tar")).collect();
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/file0"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = add(config.to_string().as_bytes(), "config.v1+json");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = add(manifest.to_string().as_bytes(), "manifest.v1+json");
    fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
}
