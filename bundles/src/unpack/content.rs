//! The content of plain files: written to a new file, with holes where it is sparse.
//!
//! GNU's old sparse format is resolved by `tar`; the PAX ones (0.1 and 1.0) are resolved here. Runs of zeros of a whole
//! block become holes in any case, so a sparse file stays sparse through builders that wrote its zeros out.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, Told};

const BLOCK: usize = 4096;
/// The pieces of one sparse file, at most: its map is held in memory.
const PIECES: usize = 1 << 16;

/// What a sparse file's PAX records say.
#[derive(Default)]
struct Sparse {
    is_version_1: bool,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    map: Option<Vec<u64>>,
}

fn wrong() -> Error {
    Error::refused("its sparse map is wrong")
}

fn number(text: &[u8]) -> Result<u64> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

impl Sparse {
    fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Self> {
        let told = || "reading an entry's header".to_owned();
        let mut sparse = Self::default();
        let Some(records) = entry.pax_extensions().told(told)? else { return Ok(sparse) };
        for record in records {
            let record = record.told(told)?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"GNU.sparse.major" => sparse.is_version_1 = value == b"1",
                b"GNU.sparse.name" => sparse.name = Some(value.to_vec()),
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => sparse.size = Some(number(value)?),
                b"GNU.sparse.map" => {
                    sparse.map = Some(value.split(|byte| *byte == b',').map(number).collect::<Result<_>>()?);
                }
                b"GNU.sparse.offset" => return Err(Error::refused("sparse files of PAX format 0.0 are not supported")),
                _ => {}
            }
        }
        Ok(sparse)
    }
}

/// The true name of a sparse file, which its header hides behind `GNUSparseFile.0/`.
pub(super) fn sparse_name<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<Vec<u8>>> {
    Ok(Sparse::read(entry)?.name)
}

/// Whether entries of this type are plain files. Old tars have a NUL, contiguous files are files today.
pub(super) fn is_file(kind: tar::EntryType) -> bool {
    matches!(kind, tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse)
}

/// Writes an entry's content to the new file `name`, of `limit` bytes at most.
pub(super) fn write<R: Read>(entry: &mut tar::Entry<'_, R>, folder: impl AsFd, name: &OsStr, limit: u64) -> Result<()> {
    let told = || format!("writing {}", name.display());
    let sparse = Sparse::read(entry)?;
    // A name that is there is refused: nothing is ever written through a link.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600)).told(told)?;
    let mut file = File::from(fd);
    let map = match sparse.map {
        Some(map) => Some(map),
        None if sparse.is_version_1 => Some(map_of_version_1(entry)?),
        None => None,
    };
    let Some(map) = map else {
        let size = copy(entry, &mut file).told(told)?;
        return file.set_len(size).told(told);
    };
    let size = sparse.size.ok_or_else(wrong)?;
    if size > limit || map.len() % 2 != 0 || map.len() > 2 * PIECES {
        return Err(wrong());
    }
    for piece in map.chunks_exact(2) {
        let &[offset, length] = piece else { return Err(wrong()) };
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(wrong());
        }
        file.seek(SeekFrom::Start(offset)).told(told)?;
        if copy(&mut entry.by_ref().take(length), &mut file).told(told)? != length {
            return Err(wrong());
        }
    }
    file.set_len(size).told(told)
}

/// Format 1.0: the content begins with lines of decimal numbers, a count and its pairs, padded to a block of 512.
fn map_of_version_1(content: &mut impl Read) -> Result<Vec<u64>> {
    let mut read = 0_u64;
    let mut line = || -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            let mut byte = [0];
            content.read_exact(&mut byte).told(|| "reading its sparse map".to_owned())?;
            read += 1;
            match byte {
                [b'\n'] => return number(&digits),
                [byte] if digits.len() < 20 => digits.push(byte),
                _ => return Err(wrong()),
            }
        }
    };
    let pieces = line()?;
    if pieces > PIECES as u64 {
        return Err(wrong());
    }
    let map = (0..2 * pieces).map(|_| line()).collect::<Result<Vec<u64>>>()?;
    let padding = read.next_multiple_of(512) - read;
    std::io::copy(&mut content.take(padding), &mut std::io::sink()).told(|| "reading its sparse map".to_owned())?;
    Ok(map)
}

/// Copies, leaving holes for blocks of zeros. The file may end in a hole: the caller sets its length.
fn copy(from: &mut impl Read, to: &mut File) -> std::io::Result<u64> {
    let mut buffer = vec![0; 32 * BLOCK];
    let mut total = 0;
    loop {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match from.read(rest)? {
                0 => break,
                count => filled += count,
            }
        }
        let full = buffer.get(..filled).unwrap_or_default();
        if full.is_empty() {
            return Ok(total);
        }
        write_blocks(full, to)?;
        total += filled as u64;
    }
}

/// Writes runs of blocks with content, and seeks over those without.
fn write_blocks(mut content: &[u8], to: &mut File) -> std::io::Result<()> {
    let is_hole = |block: &[u8]| block.len() == BLOCK && block.iter().all(|byte| *byte == 0);
    while !content.is_empty() {
        let hole = content.chunks(BLOCK).take_while(|block| is_hole(block)).count() * BLOCK;
        if hole > 0 {
            to.seek(SeekFrom::Current(hole as i64))?;
        }
        let (_, rest) = content.split_at(hole.min(content.len()));
        let data: usize = rest.chunks(BLOCK).take_while(|block| !is_hole(block)).map(<[u8]>::len).sum();
        let (data, rest) = rest.split_at(data);
        to.write_all(data)?;
        content = rest;
    }
    Ok(())
}
