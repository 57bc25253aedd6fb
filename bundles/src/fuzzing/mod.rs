//! What must hold of any layer: it is refused with a sentence, or unpacked, the same each time; and nothing is written
//! outside the folder.
//!
//! Shared by the tests and the fuzz targets (`fuzz/`); behind the feature `fuzzing`, which nothing that ships has.

mod inputs;

use std::fs;
use std::path::Path;

use crate::unpack::{Form, Options, Ownership, Unpacked, unpack};
use crate::{Error, Limits};
pub use inputs::{archive, document, text};

/// Far below the defaults: a bomb shall be seen and not cost.
const LIMITS: Limits = Limits { bytes: 256 << 10, entries: 64, header: 16 << 10, depth: 20, names: 16 << 10 };

/// What the names of the top folder of a layer's place are, before and after.
const BESIDE: [&str; 2] = ["outside", "target"];

/// Unpacks `blob` in each form into a folder below the empty folder `place`, twice; whether it was taken in one.
///
/// # Panics
///
/// When what must hold does not.
#[must_use]
pub fn layer(blob: &[u8], place: &Path) -> bool {
    let mut taken = false;
    for (number, form) in [Form::Overlay, Form::OverlayUser, Form::Merged].into_iter().enumerate() {
        let once = unpacked(blob, &place.join(format!("{number}")), form);
        let again = unpacked(blob, &place.join(format!("{number}-again")), form);
        match (once, again) {
            (Ok(once), Ok(again)) => {
                assert_eq!(once, again, "two results of one layer");
                taken = true;
            }
            (Err(once), Err(again)) => {
                assert!(!once.to_string().trim().is_empty(), "refused without a word");
                assert_eq!(once.to_string(), again.to_string());
            }
            (once, again) => panic!("once {once:?}, and again {again:?}"),
        }
    }
    taken
}

/// Unpacks into `place/target`, with a file beside it that must stay what it is.
fn unpacked(blob: &[u8], place: &Path, form: Form) -> Result<Unpacked, Error> {
    fs::create_dir(place).expect("make a place");
    let (target, outside) = (place.join("target"), place.join("outside"));
    fs::create_dir(&target).expect("make the target");
    fs::write(&outside, "untouched").expect("write a file beside it");
    let result = unpack(blob, &target, &Options { form, ownership: Ownership::Kept, limits: LIMITS });
    assert_eq!(fs::read(&outside).expect("read it again"), b"untouched");
    let mut beside: Vec<_> = fs::read_dir(place).expect("list").flatten().map(|entry| entry.file_name()).collect();
    beside.sort();
    assert_eq!(beside, BESIDE, "something was made or removed outside the target");
    result
}

/// Gives each header of the tar in `bytes` the checksum that it should have, as far as sizes lead from one to the next.
pub fn correct_checksums(bytes: &mut [u8]) {
    const BLOCK: usize = 512;
    let mut at = 0_usize;
    while let Some(block) = bytes.get_mut(at..at.saturating_add(BLOCK)) {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        if block.iter().any(|byte| *byte != 0) {
            block.copy_from_slice(header.as_bytes());
        }
        let content = header.entry_size().ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
        let Some(content) = content.checked_next_multiple_of(BLOCK) else { return };
        at = at.saturating_add(BLOCK).saturating_add(content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_header_is_read_again_once_its_checksum_is_correct() {
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["one", "two"] {
            let mut header = tar::Header::new_ustar();
            header.set_size(3);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &b"abc"[..]).expect("a tar");
        }
        let mut bytes = builder.into_inner().expect("a tar");
        bytes[0] = b'O';
        bytes[1024] = b'T';
        let names = |bytes: &[u8]| -> std::io::Result<Vec<String>> {
            let mut archive = tar::Archive::new(bytes);
            let path = |entry: tar::Entry<'_, &[u8]>| Ok(entry.path()?.display().to_string());
            archive.entries()?.map(|entry| path(entry?)).collect()
        };
        assert!(names(&bytes).is_err(), "the checksums are checked");
        correct_checksums(&mut bytes);
        assert_eq!(names(&bytes).expect("a tar"), ["One", "Two"]);
    }

    /// As root: the owners of a layer's files are whoever it says.
    #[test]
    fn layers_of_the_corpus_are_refused_or_unpacked_inside() {
        if std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("procfs")) != 0 {
            return;
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/layer");
        let mut taken = 0;
        for file in fs::read_dir(folder).expect("the corpus").flatten() {
            let place = tempfile::tempdir().expect("a folder");
            taken += usize::from(layer(&fs::read(file.path()).expect("read an input"), place.path()));
        }
        assert!(taken > 0, "the corpus shows nothing");
    }
}
