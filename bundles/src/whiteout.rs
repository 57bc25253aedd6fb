//! What a name in a layer means: an entry, or the removal of something below it (image-spec, layer.md, "Whiteouts").

use crate::error::{Error, Result};

/// The meaning of an entry's last name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    /// An entry of this name.
    Entry,
    /// Lower layers' entry of this name is gone.
    Whiteout(&'a [u8]),
    /// All that lower layers have in this folder is gone.
    Opaque,
    /// Bookkeeping of aufs that older builders left in layers (`.wh..wh.plnk` and so on).
    Ignored,
}

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What `name`, one component of a path, means.
///
/// # Errors
///
/// For a whiteout of nothing, of `.` and of `..`: the last would remove what is outside the folder.
pub(crate) fn meaning(name: &[u8]) -> Result<Meaning<'_>> {
    if name == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Meaning::Entry),
        Some(removed) if removed.starts_with(PREFIX) => Ok(Meaning::Ignored),
        Some(b"" | b"." | b"..") => {
            Err(Error::refused(format!("the whiteout {:?} names no file", String::from_utf8_lossy(name))))
        }
        Some(removed) => Ok(Meaning::Whiteout(removed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        assert_eq!(meaning(b"a.wh.").unwrap(), Meaning::Entry);
        assert_eq!(meaning(b".wh.a").unwrap(), Meaning::Whiteout(b"a"));
        assert_eq!(meaning(b".wh..a").unwrap(), Meaning::Whiteout(b".a"));
        assert_eq!(meaning(b".wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(meaning(b".wh..wh.plnk").unwrap(), Meaning::Ignored);
        for trick in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(meaning(trick).is_err(), "{}", String::from_utf8_lossy(trick));
        }
    }
}
