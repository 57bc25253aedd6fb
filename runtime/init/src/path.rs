//! Paths in fixed buffers: init has no allocator.

use core::ffi::CStr;

use crate::failure::{Failure, Operation, Outcome};

/// PATH_MAX, with the NUL.
const CAPACITY: usize = 4096;

/// A NUL-terminated path that is built here.
#[derive(Clone, Copy)]
pub(crate) struct PathBuffer {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl PathBuffer {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.length = 0;
        if let Some(first) = self.bytes.first_mut() {
            *first = 0;
        }
    }

    /// Appends bytes; a result longer than PATH_MAX is a failure, and a NUL inside ends the path early.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Outcome {
        for &byte in bytes {
            // The last place is the NUL's.
            match self.bytes.get_mut(self.length) {
                Some(place) if self.length < CAPACITY - 1 => *place = byte,
                _ => return Err(Failure::new(Operation::PathLength, libc::ENAMETOOLONG)),
            }
            self.length += 1;
        }
        if let Some(end) = self.bytes.get_mut(self.length) {
            *end = 0;
        }
        Ok(())
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// Splits at the last slash: the folder (without it, empty at the top) and the name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or(&[]), path.get(at.wrapping_add(1)..).unwrap_or(&[])),
        None => (&[], path),
    }
}

/// Appends a number in decimal digits.
pub(crate) fn push_number(path: &mut PathBuffer, number: u32) -> Outcome {
    let mut digits = [0u8; 10];
    let mut rest = number;
    let mut count = 0usize;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    path.push(digits.get(digits.len() - count..).unwrap_or(&[]))
}

/// Appends the mode of a file in octal digits.
pub(crate) fn push_mode(path: &mut PathBuffer, mode: u32) -> Outcome {
    let digit = |shift: u32| b'0' + ((mode >> shift) & 7) as u8;
    path.push(&[digit(9), digit(6), digit(3), digit(0)])
}

#[cfg(test)]
mod tests {
    use super::{CAPACITY, PathBuffer, push_mode, push_number, split};

    #[test]
    fn builds_paths_and_refuses_what_is_too_long() {
        let mut path = PathBuffer::new();
        path.push(b"/dev/pts/").unwrap();
        push_number(&mut path, 1_234_567_890).unwrap();
        assert_eq!(path.as_c_str(), c"/dev/pts/1234567890");
        path.clear();
        push_number(&mut path, 0).unwrap();
        assert_eq!(path.as_c_str(), c"0");
        path.clear();
        push_mode(&mut path, 0o4710).unwrap();
        assert_eq!(path.as_c_str(), c"4710");
        path.clear();
        assert!(path.push(&[b'a'; CAPACITY - 1]).is_ok());
        assert!(path.push(b"b").is_err());
        assert_eq!(path.as_c_str().to_bytes().len(), CAPACITY - 1);
    }

    #[test]
    fn splits_folder_and_name() {
        assert_eq!(split(b"/dev/null"), (&b"/dev"[..], &b"null"[..]));
        assert_eq!(split(b"/null"), (&b""[..], &b"null"[..]));
        assert_eq!(split(b"null"), (&b""[..], &b"null"[..]));
    }
}
