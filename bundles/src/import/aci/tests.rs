//! App Container images that the tests make.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tar::EntryType;

use crate::error::Result;
use crate::fetch::Fetch;
use crate::image::{Image, Platform};
use crate::import::{Import, import};
use crate::progress::Silent;
use crate::store::{ImageRecord, Store};

fn whole_manifest() -> Value {
    json!({
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/reduce-worker",
        "labels": [{"name": "version", "value": "1.0.0"}, {"name": "os", "value": "linux"}, {"name": "arch", "value": "aarch64"}],
        "app": {
            "exec": ["/bin/worker", "--quiet"], "user": "100", "group": "300", "workingDirectory": "/opt/work",
            "eventHandlers": [{"name": "pre-start", "exec": ["/bin/x"]}],
            "environment": [{"name": "DEBUG", "value": "a=b"}],
            "isolators": [{"name": "resource/memory", "value": {"limit": "2G"}}],
            "mountPoints": [{"name": "work", "path": "/var/lib/work", "readOnly": false}],
            "ports": [{"name": "health", "port": 4000, "protocol": "tcp"}, {"name": "data", "port": 7, "count": 2, "protocol": "udp"}],
        },
        "annotations": [{"name": "authors", "value": "Carly"}, {"name": "homepage", "value": "https://example.com"}],
    })
}

/// An image of these entries: the kind, the name, where a link leads or the content, and the PAX records.
type Entry<'a> = (EntryType, &'a str, &'a str, &'a [(&'a str, &'a [u8])]);

fn aci(manifest: &Value, entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let text = manifest.to_string();
    let own: Entry<'_> = (EntryType::Regular, "manifest", &text, &[]);
    for (kind, name, content, records) in std::iter::once(&own).chain(entries) {
        tar.append_pax_extensions(records.iter().copied()).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o751);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_size(0);
            tar.append_link(&mut header, name, content).unwrap();
        } else {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

fn imported(folder: &Path, bytes: &[u8]) -> Result<(Store, ImageRecord, Image)> {
    let store = Store::open(&folder.join("store")).unwrap();
    let path = folder.join("image.aci");
    std::fs::write(&path, bytes).unwrap();
    let import_it = Import { name: None, wanted: None, platform: Platform::host(), fetch: Fetch::default() };
    let (record, image) = import(&store, &path, &import_it, &Silent)?;
    Ok((store, record, image))
}

#[test]
fn an_image_is_what_its_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("rootfs/{}/{}", "d".repeat(120), "f".repeat(120));
    let bytes = aci(
        &whole_manifest(),
        &[
            (EntryType::Directory, "rootfs/", "", &[]),
            (EntryType::Directory, "rootfs/bin/", "", &[]),
            (
                EntryType::Regular,
                "rootfs/bin/worker",
                "program",
                &[("mtime", b"1000000000.25"), ("SCHILY.xattr.user.a", b"b")],
            ),
            (EntryType::Link, "rootfs/bin/again", "rootfs/bin/worker", &[]),
            (EntryType::Symlink, "rootfs/bin/link", "/bin/worker", &[]),
            (EntryType::Regular, &long, "long", &[]),
        ],
    );
    // As most were sent.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let (store, record, image) = imported(folder.path(), &gzip.finish().unwrap()).unwrap();
    assert_eq!(record.name, "example.com/reduce-worker:1.0.0");
    assert_eq!(image.platform().to_string(), "linux/arm64");
    assert_eq!(image.config.author().as_deref(), Some("Carly"));
    let config = serde_json::to_value(image.config.config()).unwrap();
    assert_eq!(config["Entrypoint"], json!(["/bin/worker", "--quiet"]));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&json!("100:300"), &json!("/opt/work")));
    assert_eq!((&config["Env"], &config["Cmd"]), (&json!(["DEBUG=a=b"]), &Value::Null));
    assert_eq!(config["Volumes"], json!({"/var/lib/work": {}}));
    let ports = config["ExposedPorts"].as_object().unwrap();

    assert_eq!(ports.keys().collect::<Vec<_>>(), ["4000/tcp", "7/udp", "8/udp"]);

    let target = folder.path().join("target");
    std::fs::create_dir(&target).unwrap();
    crate::bundle::copy(&store, &image, &target, crate::unpack::Ownership::Mine, &Fetch::default()).unwrap();
    let status = std::fs::metadata(target.join("bin/worker")).unwrap();
    assert_eq!(
        (status.mode() & 0o7777, status.mtime(), status.mtime_nsec(), status.nlink()),
        (0o751, 1_000_000_000, 250_000_000, 2)
    );
    assert_eq!(std::fs::metadata(&target).unwrap().mode() & 0o7777, 0o751, "the root's own entry");
    assert_eq!(std::fs::read_link(target.join("bin/link")).unwrap(), Path::new("/bin/worker"));
    assert_eq!(std::fs::read(target.join(long.strip_prefix("rootfs/").unwrap())).unwrap(), b"long");
    assert!(!target.join("manifest").exists() && !target.join("rootfs").exists());
}

#[test]
fn what_is_not_whole_or_not_an_image_is_refused() {
    let with = |pointer: &str, value: Value| {
        let mut manifest = whole_manifest();
        manifest[pointer] = value;
        manifest
    };
    let root: Entry<'_> = (EntryType::Directory, "rootfs/", "", &[]);
    let many = json!({"exec": ["/x"], "user": "0", "group": "0", "ports": [{"name": "a", "port": 1, "count": 5000, "protocol": "tcp"}]});
    for (manifest, entry, words) in [
        (
            with("dependencies", json!([{"imageName": "example.com/base"}])),
            root,
            "(\"example.com/base\" first) are not fetched",
        ),
        (with("labels", json!([{"name": "os", "value": "freebsd"}])), root, "for freebsd, not for Linux"),
        (with("app", many), root, "5000 ports"),
        (with("app", json!({"exec": "x"})), root, "manifest is wrong"),
        (whole_manifest(), (EntryType::Regular, "other", "x", &[]), "\"other\" is neither `manifest` nor in `rootfs`"),
        (whole_manifest(), (EntryType::Link, "rootfs/x", "manifest", &[]), "link to what is not in `rootfs`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let error = imported(folder.path(), &aci(&manifest, &[entry])).map(drop).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(std::fs::read_dir(folder.path().join("store/tmp")).unwrap().count(), 0);
    }
    let folder = tempfile::tempdir().unwrap();
    let error = imported(folder.path(), b"\xfd7zXZ\0 and so on").map(drop).unwrap_err().to_string();
    assert!(error.contains("compressed by xz"), "{error}");
}

/// Holes are written out here, and have no end of their own.
#[test]
fn sparse_bombs_are_refused() {
    let mut header = tar::Header::new_gnu();
    header.set_path("rootfs/bomb").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    header.set_mode(0o644);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize.copy_from_slice(b"77777777777\0");
    gnu.sparse[0].offset.copy_from_slice(b"77777777777\0");
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
    header.set_cksum();
    let bomb = [header.as_bytes(), &[0; 1024][..]].concat();
    let place = tempfile::tempdir().unwrap();
    let limits = crate::Limits { bytes: 1 << 20, ..crate::Limits::default() };
    let error = super::strip(&bomb[..], &place.path().join("layer"), &limits).unwrap_err();
    assert!(error.to_string().contains("larger than the limit of 1048576 bytes"), "{error}");
}

#[test]
fn a_compressed_archive_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb");
    std::fs::write(&path, zstd::encode_all(&vec![0; 1 << 20][..], 1).unwrap()).unwrap();
    let limits = crate::Limits { bytes: 1 << 16, ..crate::Limits::default() };
    let error = super::Files::open(&path, folder.path(), &limits).map(drop).unwrap_err();
    assert!(error.to_string().contains("has more than 65536 bytes"), "{error}");
}

/// Else an archive would stand for what somebody pins by its digest.
#[test]
fn a_name_with_a_digest_is_given_to_that_image_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let path = folder.path().join("image.aci");
    std::fs::write(&path, aci(&whole_manifest(), &[(EntryType::Directory, "rootfs/", "", &[])])).unwrap();
    let named = |digest: &crate::Digest| {
        let name = Some(format!("example.com/a:1@{digest}").parse().unwrap());
        import(
            &store,
            &path,
            &Import { name, wanted: None, platform: Platform::host(), fetch: Fetch::default() },
            &Silent,
        )
    };
    let error = named(&crate::Digest::of(b"another")).map(drop).unwrap_err();
    assert!(error.to_string().contains("as the name says"), "{error}");
    assert!(store.images().unwrap().is_empty());
    let (_, record, _) = imported(folder.path(), &std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(named(&record.manifest).unwrap().0.manifest, record.manifest);
}
