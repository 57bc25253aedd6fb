//! A layer's bytes: decompressed by what they are, counted, and cut into tar entries.
//!
//! ```text
//!  blob ──> magic bytes ──> gzip | zstd | as it is ──> Hashing (diff id) ──> Metered (limits) ──> tar
//! ```

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use crate::error::invalid;

/// What a layer may cost at most. A layer over a limit is refused as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the decompressed tar.
    pub bytes: u64,
    /// Entries of the tar: inodes of the host.
    pub entries: u64,
    /// Bytes of the headers of one entry (long names, PAX records), which are held in memory.
    pub header: u64,
    /// Folders in one name.
    pub depth: usize,
    /// Bytes of the names that are held in memory: those of a layer's folders, of an archive's files.
    pub names: u64,
}

impl Default for Limits {
    /// 64 GiB, 4 million entries, 1 MiB of headers (Linux's xattrs of one file may have 64 KiB each), 400 folders, 256 MiB.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, header: 1 << 20, depth: 400, names: 256 << 20 }
    }
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The largest window of zstd that is taken: 2^27 = 128 MiB is what `zstd --ultra` needs; its default is 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Whether something that begins so is compressed.
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(GZIP) || start.starts_with(ZSTD)
}

/// Decompresses by the magic bytes: media types lie, and Docker's does not say.
///
/// # Errors
///
/// When the first bytes cannot be read.
pub(crate) fn decompress<'a>(blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut blob = BufReader::with_capacity(128 << 10, blob);
    let start = blob.fill_buf()?;
    if start.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(blob)));
    }
    if start.starts_with(ZSTD) {
        let mut decoder = zstd::Decoder::with_buffer(blob)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(blob))
}

/// What one entry's headers may still take; None while content is read.
#[derive(Clone, Default)]
pub(crate) struct Budget {
    left: Rc<Cell<Option<u64>>>,
    padded: Rc<Cell<bool>>,
}

impl Budget {
    pub(crate) fn headers(&self, bytes: u64) {
        self.left.set(Some(bytes));
    }

    pub(crate) fn content(&self) {
        self.left.set(None);
    }

    /// Whether the tar has ended within a block, and zeros were read in its place.
    pub(crate) fn was_padded(&self) -> bool {
        self.padded.get()
    }
}

/// The block of a tar.
const BLOCK: usize = 512;

/// Refuses what is over the limits while it is read: the tar reader holds an entry's headers in memory. Fills the last block:
/// `umoci insert` ends a layer with the last file's last byte, and Go's readers take that.
pub(crate) struct Metered<R> {
    inner: R,
    left: u64,
    read: u64,
    budget: Budget,
}

impl<R: Read> Metered<R> {
    pub(crate) fn new(inner: R, limits: &Limits) -> (Self, Budget) {
        let budget = Budget::default();
        (Self { inner, left: limits.bytes, read: 0, budget: budget.clone() }, budget)
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.inner.read(buffer)?;
        let filled = (self.read % BLOCK as u64) as usize;
        if count == 0 && filled > 0 {
            count = (BLOCK - filled).min(buffer.len());
            buffer.get_mut(..count).unwrap_or_default().fill(0);
            self.budget.padded.set(true);
        }
        self.read += count as u64;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| invalid("the layer is larger than the limit of its unpacked size".to_owned()))?;
        if let Some(headers) = self.budget.left.get() {
            let left = headers.checked_sub(count as u64);
            self.budget.left.set(Some(left.ok_or_else(|| {
                invalid("the headers of one entry are larger than their limit (a long name or PAX records)".to_owned())
            })?));
        }
        Ok(count)
    }
}

/// What is skipped costs nothing.
impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.read = self.inner.seek(to)?;
        Ok(self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(blob: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        decompress(blob)?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn each_compression_is_known_by_its_magic() {
        let gzip = |content: &[u8]| {
            let mut encoder = flate2::read::GzEncoder::new(content, flate2::Compression::fast());
            let mut blob = Vec::new();
            encoder.read_to_end(&mut blob).unwrap();
            blob
        };
        assert_eq!(text(b"plain").unwrap(), "plain");
        assert_eq!(text(b"").unwrap(), "");
        // Parallel compressors write several members.
        assert_eq!(text(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), "one two");
        assert_eq!(text(&zstd::encode_all(&b"zstd"[..], 1).unwrap()).unwrap(), "zstd");
        assert!(text(&gzip(b"cut")[..15]).is_err());
    }

    #[test]
    fn limits_hold_while_reading() {
        let limits = Limits { bytes: 100, ..Limits::default() };
        let read = |budget: Option<u64>| {
            let (mut reader, of_entry) = Metered::new(io::repeat(0), &limits);
            if let Some(budget) = budget {
                of_entry.headers(budget);
            }
            io::copy(&mut reader.by_ref().take(100), &mut io::sink()).map_err(|error| error.to_string())
        };
        assert_eq!(read(None), Ok(100));
        assert!(read(Some(99)).unwrap_err().contains("headers"));
        let (mut reader, _) = Metered::new(io::repeat(0), &limits);
        assert!(io::copy(&mut reader.by_ref().take(101), &mut io::sink()).is_err());
    }
}
