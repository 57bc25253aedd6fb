//! The files of a container's log, in the order in which they were written.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where a file stands among the others: by attempt, the rotated ones by their time, and what is being written to last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The attempt that it is of.
    pub(super) attempt: u32,
    /// How old it is.
    pub(super) age: Age,
}

/// Files of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Age {
    /// `ATTEMPT.log.TIME`; a later time sorts behind an earlier one.
    Rotated(String),
    /// `ATTEMPT.log`.
    Current,
}

/// A file of the log.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    pub(super) place: Place,
    pub(super) path: PathBuf,
    /// It stays the same when the file is rotated.
    pub(super) inode: u64,
    pub(super) length: u64,
    pub(super) modified: SystemTime,
}

/// Reads a file's name.
fn place(name: &str) -> Option<Place> {
    let (attempt, rest) = name.split_once(".log")?;
    let attempt = attempt.parse().ok()?;
    match rest.strip_prefix('.') {
        // What a rotation is just writing, or has compressed.
        Some(time) if time.is_empty() || !time.bytes().all(|byte| byte.is_ascii_digit() || b"-TZ.".contains(&byte)) => {
            None
        }
        Some(time) => Some(Place { attempt, age: Age::Rotated(time.to_owned()) }),
        None => rest.is_empty().then_some(Place { attempt, age: Age::Current }),
    }
}

/// The files in a folder, the oldest first.
///
/// readdir(3) is not one look: a file that is renamed meanwhile may be seen by neither of its names, and a reader would pass it
/// over. So it is read until twice in a row the same files are there.
pub(super) fn list(folder: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = look(folder)?;
    loop {
        let again = look(folder)?;
        let are_same = |(one, other): (&LogFile, &LogFile)| one.inode == other.inode && one.place == other.place;
        if files.len() == again.len() && files.iter().zip(&again).all(are_same) {
            return Ok(again);
        }
        files = again;
    }
}

/// What one look shows, the oldest first.
fn look(folder: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(place) = entry.file_name().to_str().and_then(place) else { continue };
        // It may be rotated away meanwhile. Nobody but flintd and the shim writes there; a link is not followed all the same.
        let metadata = match entry.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        files.push(LogFile {
            place,
            path: entry.path(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified()?,
        });
    }
    files.sort_by(|one, other| one.place.cmp(&other.place));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_they_were_written() {
        let mut names =
            ["10.log", "2.log", "2.log.20261128-160000", "2.log.20261128-155959", "2.log.20261128-160000.000000001"];
        names.sort_by_key(|name| place(name).unwrap());
        assert_eq!(
            names,
            ["2.log.20261128-155959", "2.log.20261128-160000", "2.log.20261128-160000.000000001", "2.log", "10.log"]
        );
        for other in ["x.log", "1.logs", "1.log.", "1.log.20261128-160000.gz", "1.log.tmp", "1.txt"] {
            assert_eq!(place(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_is_being_rotated_is_never_missing() {
        const ROTATIONS: u32 = 5_000;
        let folder = tempfile::tempdir().unwrap();
        let rotated = |number: u32| folder.path().join(format!("0.log.{number:06}"));
        let current = folder.path().join("0.log");
        fs::write(&current, "").unwrap();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for number in 0..ROTATIONS {
                    fs::rename(&current, rotated(number)).unwrap();
                    fs::write(&current, "").unwrap();
                    if let Some(old) = number.checked_sub(20) {
                        fs::remove_file(rotated(old)).unwrap();
                    }
                }
            });
            while !writing.is_finished() {
                let files = list(folder.path()).unwrap();
                let numbers = files.iter().filter_map(|file| match &file.place.age {
                    Age::Rotated(number) => number.parse::<u32>().ok(),
                    Age::Current => None,
                });
                let numbers: Vec<u32> = numbers.collect();
                assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{numbers:?}");
            }
        });
    }
}
