//! Reading files of procfs.

use std::fs::File;
use std::io::{self, Read as _};

/// Room for most files: std grows from 32 bytes, a system call a step, since these files have no size.
const USUAL: usize = 8 << 10;

/// Reads a file, in two system calls where it fits.
///
/// # Errors
///
/// What open(2) and read(2) say.
pub(crate) fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(USUAL);
    File::open(path)?.read_to_end(&mut data)?;
    Ok(data)
}
