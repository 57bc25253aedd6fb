//! What is mounted below a folder.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Mount points at or below `folder`, in the order in which they can be unmounted: the last mounted first.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let table = "/proc/self/mountinfo";
    let text = std::fs::read(table).map_err(|error| Error::os(format!("read {table}"), error))?;
    Ok(below_in(&text, folder))
}

fn below_in(table: &[u8], folder: &Path) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    // The fifth field is the mount point (proc_pid_mountinfo(5)). What cannot be below is not decoded: a node has thousands.
    let wanted = folder.as_os_str().as_bytes();
    let prefix = wanted.split(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\\')).next().unwrap_or(b"");
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = fields.filter(|field| field.starts_with(prefix)).map(decode);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(folder)).collect();
    found.reverse();
    found
}

/// Space, tab, newline and backslash come as `\040` and so on.
fn decode(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &behind[3..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mounted_comes_first_and_neighbours_do_not() {
        let table = b"22 1 0:20 / /run rw - tmpfs tmpfs rw\n\
            30 22 0:40 / /run/f\\040d/pods/a rw shared:1 - tmpfs tmpfs rw\n\
            31 30 0:41 / /run/f\\040d/pods/a/x rw - tmpfs tmpfs rw\n\
            32 22 0:42 / /run/f\\040d/pods/ab rw - tmpfs tmpfs rw\n";
        let found = below_in(table, Path::new("/run/f d/pods/a"));
        assert_eq!(found, [PathBuf::from("/run/f d/pods/a/x"), PathBuf::from("/run/f d/pods/a")]);
    }
}
