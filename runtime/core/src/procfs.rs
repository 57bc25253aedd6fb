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

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Which folder of its file system is mounted.
    pub(crate) root: String,
    /// The mountpoint.
    pub(crate) place: String,
    /// Its type.
    pub(crate) filesystem: String,
}

/// The mounts that a process sees, the oldest first. `process` is a pid or `self`.
///
/// # Errors
///
/// What open(2) and read(2) say.
pub(crate) fn mounts(process: &str) -> io::Result<Vec<Mount>> {
    let text = read(&format!("/proc/{process}/mountinfo"))?;
    Ok(mounts_in(&String::from_utf8_lossy(&text)))
}

/// The ids of the mounts that a process sees, as fdinfo tells them (`mnt_id`). `process` is a pid or `self`.
///
/// # Errors
///
/// What open(2) and read(2) say.
pub(crate) fn mount_ids(process: &str) -> io::Result<Vec<u32>> {
    let text = read(&format!("/proc/{process}/mountinfo"))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect())
}

/// The mounts of a mountinfo's text; what is no such line is left out.
pub(crate) fn mounts_in(mountinfo: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (before, behind) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, place) = (unescape(fields.next()?), unescape(fields.next()?));
        Some(Mount { root, place, filesystem: behind.split(' ').next()?.to_owned() })
    };
    mountinfo.lines().filter_map(line).collect()
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::{Mount, mounts_in};

    #[test]
    fn mountinfo_lines() {
        let text = "36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw\nnonsense\n";
        let mount = Mount { root: "/mnt1".to_owned(), place: "/a b".to_owned(), filesystem: "ext3".to_owned() };
        assert_eq!(mounts_in(text), [mount]);
    }
}
