//! A root filesystem without anything about it: one layer, and a config that says the least.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde_json::json;

use super::files::Files;
use super::{Found, Import, measured};
use crate::digest::Digest;
use crate::error::{Result, Told};
use crate::image::Blob;
use crate::source::Source;

/// The parts of an image that is made up: the layer's tar, and the config.
pub(super) struct Blobs<'a> {
    config: Vec<u8>,
    layer: Layer<'a>,
}

enum Layer<'a> {
    Archive(&'a super::archive::Archive),
    Made(std::path::PathBuf),
}

impl Blobs<'_> {
    /// Those of a config and a layer that was written into a file.
    pub(super) fn made(config: Vec<u8>, layer: std::path::PathBuf) -> Self {
        Self { config, layer: Layer::Made(layer) }
    }
}

impl Layer<'_> {
    fn reader(&self, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        let told = || "reading the layer".to_owned();
        match self {
            Self::Archive(archive) => {
                let mut whole = archive.whole()?;
                std::io::copy(&mut whole.by_ref().take(offset), &mut std::io::sink()).told(told)?;
                Ok(Box::new(whole))
            }
            Self::Made(path) => {
                let mut file = File::open(path).told(told)?;
                file.seek(SeekFrom::Start(offset)).told(told)?;
                Ok(Box::new(file))
            }
        }
    }
}

impl Source for Blobs<'_> {
    fn open<'a>(&'a self, blob: &Blob, offset: u64) -> Result<Box<dyn Read + Send + 'a>> {
        if blob.digest == Digest::of(&self.config) {
            let rest = self.config.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            return Ok(Box::new(rest));
        }
        self.layer.reader(offset)
    }
}

/// Makes an image of a root filesystem.
pub(super) fn find<'a>(files: &'a Files, path: &Path, what: &Import, scratch: &Path) -> Result<(Found, Blobs<'a>)> {
    let layer = match files {
        Files::Archive(archive) => Layer::Archive(archive),
        Files::Folder(folder) => {
            let made = scratch.join("layer.tar");
            pack(folder, &made)?;
            Layer::Made(made)
        }
    };
    let (digest, size) = measured(layer.reader(0)?, &path.display().to_string())?;
    let config = json!({
        "architecture": what.platform.architecture,
        "os": what.platform.os,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/bin/sh"],
        },
        "rootfs": {"type": "layers", "diff_ids": [digest.to_string()]},
    });
    let config = config.to_string().into_bytes();
    let manifest = manifest(&config, &[(digest, size)]);
    let digest = Digest::of(&manifest);
    Ok((Found { manifest, digest, name: None }, Blobs { config, layer }))
}

/// An OCI manifest for a config and layers of which nobody knows whether they are compressed: who reads them looks.
pub(super) fn manifest(config: &[u8], layers: &[(Digest, u64)]) -> Vec<u8> {
    let descriptor = |media_type: &str, digest: &Digest, size: u64| json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    let layer = |(digest, size): &(Digest, u64)| descriptor("application/vnd.oci.image.layer.v1.tar", digest, *size);
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &Digest::of(config), config.len() as u64),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes()
}

/// Writes the tar of a folder: owners, modes, times, links, devices and xattrs.
fn pack(folder: &Path, to: &Path) -> Result<()> {
    let told = || format!("writing {}", to.display());
    let mut packing =
        Packing { tar: tar::Builder::new(BufWriter::new(File::create(to).told(told)?)), links: BTreeMap::new() };
    packing.entry(folder, Path::new("."))?;
    packing.folder(folder, Path::new("."))?;
    let mut file = packing.tar.into_inner().told(told)?;
    file.flush().told(told)
}

struct Packing {
    tar: tar::Builder<BufWriter<File>>,
    /// Files with several names, by device and inode: the name that has the content.
    links: BTreeMap<(u64, u64), std::path::PathBuf>,
}

impl Packing {
    fn folder(&mut self, place: &Path, name: &Path) -> Result<()> {
        let told = || format!("listing {}", place.display());
        let entries: std::io::Result<Vec<_>> = std::fs::read_dir(place).told(told)?.collect();
        let mut entries = entries.told(told)?;
        // In order: the same folder gives the same layer.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (place, name) = (entry.path(), name.join(entry.file_name()));
            self.entry(&place, &name)?;
            if entry.file_type().told(told)?.is_dir() {
                self.folder(&place, &name)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, place: &Path, name: &Path) -> Result<()> {
        let told = || format!("packing {}", place.display());
        let status = std::fs::symlink_metadata(place).told(told)?;
        let kind = status.file_type();
        let mut header = tar::Header::new_gnu();
        header.set_uid(status.uid().into());
        header.set_gid(status.gid().into());
        header.set_mode(status.mode() & 0o7777);
        header.set_mtime(u64::try_from(status.mtime()).unwrap_or(0));
        header.set_size(0);
        let records = records(place, &status)?;
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        if kind.is_socket() {
            // A socket means something only to the process that listens.
            return Ok(());
        }
        self.tar.append_pax_extensions(records).told(told)?;
        if status.nlink() > 1 && !kind.is_dir() {
            if let Some(first) = self.links.get(&(status.dev(), status.ino())) {
                header.set_entry_type(tar::EntryType::Link);
                return self.tar.append_link(&mut header, name, first).told(told);
            }
            self.links.insert((status.dev(), status.ino()), name.to_owned());
        }
        if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            return self.tar.append_link(&mut header, name, std::fs::read_link(place).told(told)?).told(told);
        }
        if kind.is_file() {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(status.len());
            // It may be something else by now; a fifo would wait for ever.
            let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
            let file = File::options().read(true).custom_flags(flags).open(place).told(told)?;
            return self.tar.append_data(&mut header, name, file.take(status.len())).told(told);
        }
        if kind.is_char_device() || kind.is_block_device() {
            let is_char = kind.is_char_device();
            header.set_entry_type(if is_char { tar::EntryType::Char } else { tar::EntryType::Block });
            header.set_device_major(rustix::fs::major(status.rdev())).told(told)?;
            header.set_device_minor(rustix::fs::minor(status.rdev())).told(told)?;
        } else if kind.is_fifo() {
            header.set_entry_type(tar::EntryType::Fifo);
        } else {
            header.set_entry_type(tar::EntryType::Directory);
        }
        self.tar.append_data(&mut header, name, std::io::empty()).told(told)
    }
}

/// PAX records: what a header has no room for.
fn records(place: &Path, status: &std::fs::Metadata) -> Result<Vec<(String, Vec<u8>)>> {
    let told = || format!("reading the xattrs of {}", place.display());
    let mut records = Vec::new();
    if status.mtime_nsec() != 0 || status.mtime() < 0 {
        let (seconds, nanoseconds) = (status.mtime(), status.mtime_nsec());
        let text = if seconds < 0 && nanoseconds > 0 {
            format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)
        } else {
            format!("{seconds}.{nanoseconds:09}")
        };
        records.push(("mtime".to_owned(), text.into_bytes()));
    }
    let mut names = Vec::new();
    match rustix::fs::llistxattr(place, rustix::buffer::spare_capacity(reserved(&mut names))) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOTSUP) => return Ok(records),
        Err(error) => return Err(error).told(told),
    }
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(key) = std::str::from_utf8(name) else { continue };
        // The host's labels are not the image's.
        if key.starts_with("security.selinux") || key.starts_with("system.") {
            continue;
        }
        let mut value = Vec::new();
        let name = std::ffi::OsString::from_vec(name.to_vec());
        rustix::fs::lgetxattr(place, name.as_bytes(), rustix::buffer::spare_capacity(reserved(&mut value)))
            .told(told)?;
        records.push((format!("SCHILY.xattr.{key}"), value));
    }
    Ok(records)
}

/// Room for as much as Linux has in one xattr, or in the list of their names.
fn reserved(buffer: &mut Vec<u8>) -> &mut Vec<u8> {
    buffer.reserve(64 << 10);
    buffer
}
