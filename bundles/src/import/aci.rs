//! App Container images (appc spec, aci.md), as rkt had them: a tar with `manifest`, a JSON, and the folder `rootfs`.
//!
//! ```text
//!  manifest ──> OCI config            rootfs/ ──> one layer, the names without `rootfs/`
//! ```
//!
//! What has no counterpart in an OCI image is left out: isolators, event handlers and socket activation were for rkt to do. Images
//! that depend on others are refused, since they are not whole.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::files::Files;
use super::rootfs::{Blobs, manifest};
use super::{Found, Import, measured, parse};
use crate::digest::Digest;
use crate::error::{Error, Result, Told};
use crate::image::MANIFEST_LIMIT;
use crate::layer::{Limits, Metered};

const MANIFEST: &str = "manifest";
const ROOTFS: &[u8] = b"rootfs";
/// Ranges of ports are written out, up to so many ports.
const PORTS: u32 = 1000;

/// The part of an image manifest that an OCI config can say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    ac_kind: String,
    name: String,
    #[serde(default)]
    labels: Vec<Pair>,
    #[serde(default)]
    app: Option<App>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    #[serde(default)]
    annotations: Vec<Pair>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    image_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    exec: Vec<String>,
    user: String,
    group: String,
    #[serde(default)]
    working_directory: Option<String>,
    #[serde(default)]
    environment: Vec<Pair>,
    #[serde(default)]
    mount_points: Vec<MountPoint>,
    #[serde(default)]
    ports: Vec<Port>,
}

#[derive(Debug, Deserialize)]
struct MountPoint {
    path: String,
}

#[derive(Debug, Deserialize)]
struct Port {
    #[serde(rename = "port")]
    first: u16,
    protocol: String,
    #[serde(default = "one")]
    count: u32,
}

fn one() -> u32 {
    1
}

/// Whether the files are an App Container image's: a root filesystem may have a file `manifest`, too.
pub(super) fn is_one(files: &Files) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        ac_kind: String,
    }
    let json = if files.is_archive() { files.read(MANIFEST, MANIFEST_LIMIT).ok() } else { None };
    json.and_then(|json| serde_json::from_slice::<Kind>(&json).ok()).is_some_and(|kind| kind.ac_kind == "ImageManifest")
}

/// Makes an image of it, with a layer in `scratch`.
pub(super) fn find<'a>(files: &'a Files, what: &Import, scratch: &Path) -> Result<(Found, Blobs<'a>)> {
    let Files::Archive(archive) = files else { return Err(Error::refused("it is no archive")) };
    let read = Manifest::parse(&files.read(MANIFEST, MANIFEST_LIMIT)?)?;
    let layer = scratch.join("layer.tar");
    strip(archive.whole()?, &layer, &what.fetch.limits)?;
    let (digest, size) = measured(File::open(&layer).told(|| "opening the layer".to_owned())?, "the layer")?;
    let config = read.config(&digest, &what.platform.architecture)?.to_string().into_bytes();
    let manifest = manifest(&config, &[(digest, size)]);
    let digest = Digest::of(&manifest);
    Ok((Found { manifest, digest, name: Some(read.reference()) }, Blobs::made(config, layer)))
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// When it is none of an image, or of one that needs others.
    pub(crate) fn parse(json: &[u8]) -> Result<Self> {
        let read: Self = parse(MANIFEST, json)?;
        if read.ac_kind != "ImageManifest" {
            return Err(Error::refused(format!("its manifest is of the kind {:?}, not an image's", read.ac_kind)));
        }
        if let Some(first) = read.dependencies.first() {
            return Err(Error::refused(format!(
                "it is a part of an image: the other parts ({:?} first) are not fetched; put them together with \
                 `actool` or `rkt image render` and import the result",
                first.image_name
            )));
        }
        Ok(read)
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.name == name).map(|label| label.value.as_str())
    }

    /// The name, with the version as its tag.
    fn reference(&self) -> String {
        match self.label("version") {
            Some(version) => format!("{}:{version}", self.name),
            None => self.name.clone(),
        }
    }

    /// The config of the image with this one layer.
    ///
    /// # Errors
    ///
    /// When it is for another system than Linux, or names too many ports.
    pub(crate) fn config(&self, layer: &Digest, default_architecture: &str) -> Result<serde_json::Value> {
        let os = self.label("os").unwrap_or("linux");
        if os != "linux" {
            return Err(Error::refused(format!("it is an image for {os}, not for Linux")));
        }
        // appc has GOARCH's names but for these.
        let architecture = match self.label("arch") {
            None => default_architecture,
            Some("i386") => "386",
            Some("aarch64") => "arm64",
            Some("armv6l" | "armv7l") => "arm",
            Some(other) => other,
        };
        let annotations: BTreeMap<&str, &str> =
            self.annotations.iter().map(|pair| (pair.name.as_str(), pair.value.as_str())).collect();
        let mut config = json!({"Labels": annotations});
        if let Some(app) = &self.app {
            config["Entrypoint"] = json!(app.exec);
            config["User"] = json!(format!("{}:{}", app.user, app.group));
            config["WorkingDir"] = json!(app.working_directory.as_deref().unwrap_or("/"));
            config["Env"] = app.environment.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect();
            let volumes: BTreeMap<&str, _> =
                app.mount_points.iter().map(|one| (one.path.as_str(), json!({}))).collect();
            config["Volumes"] = json!(volumes);
            config["ExposedPorts"] = json!(app.ports()?);
        }
        let mut whole = json!({
            "architecture": architecture,
            "os": os,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [layer.to_string()]},
        });
        for (theirs, ours) in [("authors", "author"), ("created", "created")] {
            if let Some(value) = annotations.get(theirs) {
                whole[ours] = json!(value);
            }
        }
        Ok(whole)
    }
}

impl App {
    fn ports(&self) -> Result<BTreeMap<String, serde_json::Value>> {
        let all = self.ports.iter().fold(0_u32, |sum, port| sum.saturating_add(port.count));
        if all > PORTS {
            return Err(Error::refused(format!("it names {all} ports; {PORTS} are taken")));
        }
        let of = |port: &Port| {
            let (first, protocol) = (u32::from(port.first), port.protocol.clone());
            (0..port.count).map(move |index| (format!("{}/{protocol}", first + index), json!({})))
        };
        Ok(self.ports.iter().flat_map(of).collect())
    }
}

/// Writes the tar of what is below `rootfs/`.
pub(crate) fn strip(archive: impl Read, to: &Path, limits: &Limits) -> Result<()> {
    let told = || "reading the archive".to_owned();
    let writing = || format!("writing {}", to.display());
    let (metered, budget) = Metered::new(archive, limits);
    let mut layer = tar::Builder::new(BufWriter::new(File::create(to).told(writing)?));
    let mut reader = tar::Archive::new(metered);
    let mut content = limits.bytes;
    budget.headers(limits.header);
    for entry in reader.entries().told(told)? {
        let mut entry = entry.told(told)?;
        budget.content();
        // The holes of a sparse file are written out below.
        content = content
            .checked_sub(entry.size())
            .ok_or_else(|| Error::refused(format!("its files are larger than the limit of {} bytes", limits.bytes)))?;
        let name = entry.path_bytes().into_owned();
        let shown = || format!("the entry {:?}", String::from_utf8_lossy(&name));
        if let Some(inside) = inside(&name) {
            copy(&mut entry, &inside, &mut layer).map_err(|error| error.during(&shown()))?;
        } else if parts(&name).ne([MANIFEST.as_bytes()]) && !entry.header().entry_type().is_pax_global_extensions() {
            return Err(Error::refused(format!("{} is neither `manifest` nor in `rootfs`", shown())));
        }
        std::io::copy(&mut entry, &mut std::io::sink()).told(told)?;
        budget.headers(limits.header + 1024);
    }
    layer.into_inner().and_then(|mut file| file.flush()).told(writing)
}

fn parts(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// The name below `rootfs`; None for another.
fn inside(name: &[u8]) -> Option<PathBuf> {
    let mut parts = parts(name);
    (parts.next() == Some(ROOTFS)).then(|| {
        let rest = parts.collect::<Vec<_>>().join(&b'/');
        // The root itself has no name.
        PathBuf::from(OsStr::from_bytes(if rest.is_empty() { b"./" } else { &rest }))
    })
}

fn copy<R: Read>(entry: &mut tar::Entry<'_, R>, name: &Path, layer: &mut tar::Builder<impl Write>) -> Result<()> {
    let told = || "writing the layer".to_owned();
    let mut header = entry.header().clone();
    let mut records: Vec<(String, Vec<u8>)> = Vec::new();
    for record in entry.pax_extensions().told(told)?.into_iter().flatten() {
        let record = record.told(told)?;
        match record.key().unwrap_or_default() {
            // These are written anew.
            "" | "path" | "linkpath" | "size" => {}
            "GNU.sparse.name" => {
                let name = inside(record.value_bytes()).ok_or_else(|| Error::refused("its sparse name is wrong"))?;
                records.push(("GNU.sparse.name".to_owned(), name.as_os_str().as_bytes().to_vec()));
            }
            key => records.push((key.to_owned(), record.value_bytes().to_vec())),
        }
    }
    layer.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice()))).told(told)?;
    let kind = header.entry_type();
    if kind.is_hard_link() || kind.is_symlink() {
        let target = entry.link_name_bytes().unwrap_or_default().into_owned();
        let target = if kind.is_hard_link() {
            inside(&target).ok_or_else(|| Error::refused("it is a link to what is not in `rootfs`"))?
        } else {
            PathBuf::from(OsStr::from_bytes(&target))
        };
        header.set_size(0);
        return layer.append_link(&mut header, name, target).told(told);
    }
    if kind.is_gnu_sparse() {
        // It is read with its holes filled, and gets them again when it is unpacked.
        header.set_entry_type(tar::EntryType::Regular);
    }
    header.set_size(entry.size());
    layer.append_data(&mut header, name, entry).told(told)
}

#[cfg(test)]
mod tests;
