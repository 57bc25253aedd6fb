//! The files of a folder or of an archive, by name.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::archive::Archive;
use crate::error::{Error, Result, Told};
use crate::layer::{self, Limits};

/// A folder, or an archive that can be read at any place.
pub(super) enum Files {
    /// A folder.
    Folder(PathBuf),
    /// A tar.
    Archive(Archive),
}

/// What App Container images may be compressed by beside gzip, and nobody else's.
fn other_compression(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xfd, b'7', b'z', b'X'] => Some("xz"),
        [b'B', b'Z', b'h', _] => Some("bzip2"),
        _ => None,
    }
}

impl Files {
    /// Opens what is at `path`. A compressed tar is decompressed into `scratch`, as far as `limits` let it.
    pub(super) fn open(path: &Path, scratch: &Path, limits: &Limits) -> Result<Self> {
        let told = || format!("opening {}", path.display());
        if std::fs::metadata(path).told(told)?.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let mut file = File::open(path).told(told)?;
        let mut magic = [0; 4];
        let is_file = file.metadata().told(told)?.is_file();
        let count = if is_file { file.read(&mut magic).told(told)? } else { 0 };
        if let Some(other) = other_compression(magic.get(..count).unwrap_or_default()) {
            return Err(Error::refused(format!("{} is compressed by {other}; decompress it first", path.display())));
        }
        if is_file && !layer::is_compressed(magic.get(..count).unwrap_or_default()) {
            return Archive::index(file, limits).map(Self::Archive);
        }
        if is_file {
            file.seek(SeekFrom::Start(0)).told(told)?;
        }
        // Also a pipe, which cannot be read twice.
        let plain = scratch.join("plain.tar");
        let mut writing = File::options().read(true).write(true).create_new(true).open(&plain).told(told)?;
        let told = || format!("decompressing {}", path.display());
        let mut tar = layer::decompress(file).told(told)?.take(limits.bytes.saturating_add(1));
        if std::io::copy(&mut tar, &mut writing).told(told)? > limits.bytes {
            return Err(Error::refused(format!("{} has more than {} bytes", path.display(), limits.bytes)));
        }
        Archive::index(writing, limits).map(Self::Archive)
    }

    pub(super) fn is_archive(&self) -> bool {
        matches!(self, Self::Archive(_))
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Archive(archive) => archive.find(name).is_some(),
        }
    }

    /// Opens a file from `offset` on.
    pub(super) fn reader(&self, name: &str, offset: u64) -> Result<Box<dyn Read + Send + '_>> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let told = || format!("opening {}", path.display());
                // Not a fifo, which would wait for ever.
                let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
                let mut file = File::options().read(true).custom_flags(flags).open(&path).told(told)?;
                if !file.metadata().told(told)?.is_file() {
                    return Err(Error::refused(format!("{} is no file", path.display())));
                }
                file.seek(SeekFrom::Start(offset)).told(told)?;
                Ok(Box::new(file))
            }
            Self::Archive(archive) => {
                let piece = archive.find(name).ok_or_else(|| Error::not_found(format!("it has no file {name}")))?;
                Ok(Box::new(archive.reader(piece, offset)))
            }
        }
    }

    /// Reads a small file.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.reader(name, 0)?.take(limit + 1).read_to_end(&mut content).told(|| format!("reading {name}"))?;
        if content.len() as u64 > limit {
            return Err(Error::refused(format!("{name} has more than {limit} bytes")));
        }
        Ok(content)
    }
}
