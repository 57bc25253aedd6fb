//! Where the bytes of blobs come from: a registry, a folder, an archive.

use std::io::Read;

use crate::error::Result;
use crate::image::Blob;

/// Something that has blobs. Called from several threads at once.
pub(crate) trait Source: Sync {
    /// The bytes of a blob from `offset` on. What comes is not believed: the store verifies it.
    ///
    /// # Errors
    ///
    /// When the source has no such blob, or cannot be asked. A read of what is returned that fails may hold an
    /// [`crate::Error`] as its inner error.
    fn open<'a>(&'a self, blob: &Blob, offset: u64) -> Result<Box<dyn Read + Send + 'a>>;
}
