//! Documents as builders and registries write them, and as they must not be believed.

use serde_json::{Value, json};

use super::document::choose;
use super::{Document, Image, Parts, Platform};
use crate::Digest;

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len()})
}

fn manifest(config: &str, layer: &str) -> Value {
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
           "config": descriptor(config, b"c"), "layers": [descriptor(layer, b"l"), descriptor(layer, b"m")]})
}

const OCI: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn parse(document: &Value) -> crate::Result<Document> {
    Document::parse(&serde_json::to_vec(document).unwrap(), None)
}

fn parts(document: &Value) -> crate::Result<Parts> {
    match parse(document)? {
        Document::Manifest(manifest) => Parts::of(&manifest),
        Document::Index(_) => panic!("an index"),
    }
}

#[test]
fn manifests_of_both_families_are_images() {
    let read = parts(&manifest(OCI, OCI_LAYER)).unwrap();
    assert_eq!(read.layers.len(), 2);
    assert_eq!(read.config.digest, Digest::of(b"c"));
    let mut docker =
        manifest("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip");
    docker["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(parts(&docker).unwrap().layers, {
        let mut layers = read.layers;
        for layer in &mut layers {
            layer.media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned();
        }
        layers
    });
}

#[test]
fn artifacts_and_strange_layers_are_refused_by_their_type() {
    for (document, part) in [
        (manifest("application/vnd.cncf.helm.config.v1+json", OCI_LAYER), "helm"),
        (manifest("application/vnd.oci.empty.v1+json", OCI_LAYER), "vnd.oci.empty"),
        (manifest(OCI, "application/vnd.in-toto+json"), "in-toto"),
        (manifest(OCI, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), "encrypted"),
        (manifest(OCI, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), "not in the registry"),
    ] {
        let error = parts(&document).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_could_be_two_things_is_refused() {
    let mut both = manifest(OCI, OCI_LAYER);
    both["manifests"] = json!([]);
    assert!(parse(&both).unwrap_err().to_string().contains("CVE-2021-41190"));
    let plain = manifest(OCI, OCI_LAYER);
    let index = "application/vnd.oci.image.index.v1+json";
    let bytes = serde_json::to_vec(&plain).unwrap();
    assert!(Document::parse(&bytes, Some(index)).unwrap_err().to_string().contains("something else"));
    assert!(Document::parse(&bytes, Some("application/json; charset=utf-8")).is_ok());
    assert!(parse(&json!({"schemaVersion": 1, "fsLayers": []})).unwrap_err().to_string().contains("schema 1"));
    assert!(parse(&json!([])).is_err());
    assert!(parse(&json!({"schemaVersion": 2})).is_err());
}

#[test]
fn the_config_must_name_each_layer() {
    let config = |diff_ids: Value| {
        let config =
            json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        Image::new(Digest::of(b""), parts(&manifest(OCI, OCI_LAYER)).unwrap(), &serde_json::to_vec(&config).unwrap())
    };
    let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
    let image = config(json!([one.to_string(), two.to_string()])).unwrap();
    assert_eq!(image.layers[0].chain_id, one);
    assert_eq!(image.layers[1].chain_id, Digest::of(format!("{one} {two}").as_bytes()));
    assert!(config(json!([one.to_string()])).unwrap_err().to_string().contains("2 layers and its config 1"));
    assert!(config(json!([one.to_string(), "../../etc"])).is_err());
}

#[test]
fn platforms_are_chosen_as_docker_does() {
    let index = |platforms: &[&str]| {
        let manifests: Vec<Value> = platforms
            .iter()
            .map(|name| {
                let parts: Vec<&str> = name.split('/').collect();
                let mut one = descriptor("application/vnd.oci.image.manifest.v1+json", name.as_bytes());
                one["platform"] = json!({"os": parts[0], "architecture": parts[1]});
                if let Some(variant) = parts.get(2) {
                    one["platform"]["variant"] = json!(variant);
                }
                one
            })
            .collect();
        match parse(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("a manifest"),
        }
    };
    let chosen = |there: &[&str], wanted: &str| {
        choose(index(there).manifests(), &wanted.parse::<Platform>().unwrap()).map(|blob| blob.digest)
    };
    let all = ["linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/arm64/v8", "unknown/unknown", "windows/amd64"];
    for (wanted, got) in [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
    ] {
        assert_eq!(chosen(&all, wanted).unwrap(), Digest::of(got.as_bytes()), "{wanted}");
    }
    assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64"], "amd64").unwrap(), Digest::of(b"linux/amd64"));
    let error = chosen(&all, "linux/s390x").unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains("linux/arm64/v8") && !error.contains("unknown"), "{error}");
    assert!(chosen(&["linux/amd64/v3"], "amd64").is_err(), "this machine may not have its instructions");
    assert!("windows/amd64".parse::<Platform>().is_err());
}
