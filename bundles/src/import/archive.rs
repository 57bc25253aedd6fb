//! A tar on the disk: where in it each file is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result, Told};
use crate::layer::{Limits, Metered};

/// Links that lead to links end here.
const LINKS_LIMIT: usize = 16;

/// A place in the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    start: u64,
    size: u64,
}

enum Entry {
    File(Piece),
    /// Old `docker save` has links to layers that several images share.
    Link(String),
}

/// An indexed tar.
pub(super) struct Archive {
    file: File,
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Reads all headers, nothing of the content. What of them is held in memory is bounded by `limits`, their bytes are not.
    pub(super) fn index(mut file: File, limits: &Limits) -> Result<Self> {
        let told = || "reading the archive".to_owned();
        file.seek(SeekFrom::Start(0)).told(told)?;
        let mut entries = BTreeMap::new();
        let mut names = limits.names;
        let (metered, budget) = Metered::new(BufReader::new(&file), &Limits { bytes: u64::MAX, ..*limits });
        let mut tar = tar::Archive::new(metered);
        budget.headers(limits.header);
        for entry in tar.entries_with_seek().told(told)? {
            let entry = entry.told(told)?;
            budget.headers(limits.header + 1024);
            let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
            let mut held = name.len();
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                let target = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = if kind.is_symlink() { normal(&format!("{folder}/{target}")) } else { normal(&target) };
                held += target.len();
                entries.insert(name, Entry::Link(target));
            } else if kind.is_file() || kind.is_contiguous() {
                entries.insert(name, Entry::File(Piece { start: entry.raw_file_position(), size: entry.size() }));
            }
            names = names.checked_sub(held as u64).ok_or_else(|| {
                Error::refused(format!("the names in the archive have more than {} bytes", limits.names))
            })?;
            if entries.len() as u64 > limits.entries {
                return Err(Error::refused(format!("the archive has more than {} files", limits.entries)));
            }
        }
        drop(tar);
        Ok(Self { file, entries })
    }

    /// Where a file is; links are followed, inside of the archive.
    pub(super) fn find(&self, name: &str) -> Option<Piece> {
        let mut name = normal(name);
        for _ in 0..LINKS_LIMIT {
            match self.entries.get(&name)? {
                Entry::File(piece) => return Some(*piece),
                Entry::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// Reads a piece from `offset` on; several readers do not disturb each other.
    pub(super) fn reader(&self, piece: Piece, offset: u64) -> impl Read + Send + '_ {
        let offset = offset.min(piece.size);
        PieceReader { file: &self.file, at: piece.start + offset, left: piece.size - offset }
    }

    /// The whole archive.
    pub(super) fn whole(&self) -> Result<impl Read + Send + '_> {
        let size = self.file.metadata().told(|| "looking at the archive".to_owned())?.len();
        Ok(PieceReader { file: &self.file, at: 0, left: size })
    }
}

struct PieceReader<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The name without `.`, `..` and doubled slashes; it stays in the archive.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(normal("./a//b/../c"), "a/c");
        assert_eq!(normal("../../etc/passwd"), "etc/passwd");
    }

    #[test]
    fn files_are_found_by_name_and_by_link() {
        let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
        let mut add = |kind: tar::EntryType, name: &str, link: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if link.is_empty() {
                tar.append_data(&mut header, name, content).unwrap();
            } else {
                tar.append_link(&mut header, name, link).unwrap();
            }
        };
        add(tar::EntryType::Regular, "a/layer.tar", "", b"content");
        add(tar::EntryType::Symlink, "b/layer.tar", "../a/layer.tar", b"");
        add(tar::EntryType::Symlink, "c", "c", b"");
        let archive = Archive::index(tar.into_inner().unwrap(), &Limits::default()).unwrap();
        let read = |name: &str, offset| {
            let mut text = String::new();
            archive.reader(archive.find(name)?, offset).read_to_string(&mut text).unwrap();
            Some(text)
        };
        assert_eq!(read("./b/layer.tar", 0).as_deref(), Some("content"));
        assert_eq!(read("a/layer.tar", 3).as_deref(), Some("tent"));
        assert_eq!(read("a/layer.tar", 30).as_deref(), Some(""));
        assert_eq!(read("c", 0), None, "a link to itself");
        assert_eq!(read("d", 0), None);
    }

    /// Names are held in memory, and so are an entry's headers while it is read.
    #[test]
    fn names_do_not_fill_the_memory() {
        let archive = |names: &[String]| {
            let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
            for name in names {
                let mut header = tar::Header::new_gnu();
                header.set_size(0);
                tar.append_data(&mut header, name, std::io::empty()).unwrap();
            }
            tar.into_inner().unwrap()
        };
        let refused = |names: &[String], limits: &Limits| {
            Archive::index(archive(names), limits).map(drop).unwrap_err().to_string()
        };
        let limits = Limits { entries: 3, header: 10_000, names: 5000, ..Limits::default() };
        let long = |letter: &str| letter.repeat(4000);
        Archive::index(archive(&[long("a")]), &limits).map(drop).unwrap();
        assert!(refused(&[long("a"), long("b")], &limits).contains("names in the archive have more than 5000 bytes"));
        assert!(refused(&["a".repeat(20_000)], &limits).contains("headers of one entry"));
        let four = ["a", "b", "c", "d"].map(str::to_owned);
        assert!(refused(&four, &limits).contains("more than 3 files"));
    }
}
