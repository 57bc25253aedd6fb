//! The scripts of examples/, which make bundles.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a script with the program of this build; the bundle's config. None without a static busybox.
fn made(script: &str) -> Option<(tempfile::TempDir, serde_json::Value)> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let Some(busybox) = busybox else {
        eprintln!("there is no busybox");
        return None;
    };
    let folder = tempfile::Builder::new().prefix("flint-bundle-example-").tempdir_in("/var/tmp").unwrap();
    let path = folder.path().join("example");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(script))
        .arg(&path)
        .env("FLINT_BUNDLE", env!("CARGO_BIN_EXE_flint-bundle"))
        .env("BUSYBOX", busybox)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config = std::fs::read(path.join("bundle/config.json")).unwrap();
    assert!(path.join("bundle/rootfs/bin/busybox").exists());
    let removed = Command::new(env!("CARGO_BIN_EXE_flint-bundle"))
        .arg("--root")
        .arg(path.join("store"))
        .arg("rm")
        .arg(path.join("bundle"))
        .output()
        .unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    Some((folder, serde_json::from_slice(&config).unwrap()))
}

#[test]
fn hello_makes_a_bundle_with_its_own_command() {
    let Some((_folder, config)) = made("hello.sh") else { return };
    assert_eq!(config["process"]["args"][2], "echo $GREETING from $(hostname)");
    assert!(config["process"]["env"].as_array().unwrap().contains(&"GREETING=hello".into()));
}

#[test]
fn rkt_makes_a_bundle_with_the_images_command() {
    let Some((_folder, config)) = made("rkt.sh") else { return };
    assert_eq!(config["process"]["args"], serde_json::json!(["/bin/sh", "-c", "echo hello from rkt"]));
    assert_eq!(config["process"]["user"]["uid"], 0);
}
