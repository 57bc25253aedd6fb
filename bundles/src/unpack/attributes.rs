//! Owner, mode, xattrs and times of an entry, in the order in which none undoes another.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Ownership;
use crate::error::{Error, Result, Told};

/// What a header says of an entry, beside its kind and content.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The permission bits, with set-id and sticky.
    pub(super) mode: u32,
    pub(super) times: Times,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// When an entry was changed and read last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    modified: Timespec,
    accessed: Timespec,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Attributes {
    /// Reads the header and the PAX records, which go before it.
    pub(super) fn read<R: std::io::Read>(entry: &mut tar::Entry<'_, R>) -> Result<Self> {
        let told = || "reading an entry's header".to_owned();
        let header = entry.header();
        let seconds = |value: u64| Timespec { tv_sec: value as i64, tv_nsec: 0 };
        let id = |value: u64| {
            // u32::MAX means "leave it" to chown.
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| Error::refused(format!("{value} is no user or group number of Linux")))
        };
        let modified = seconds(header.mtime().told(told)?);
        let mut read = Self {
            uid: id(header.uid().told(told)?)?,
            gid: id(header.gid().told(told)?)?,
            mode: header.mode().told(told)? & 0o7777,
            times: Times { modified, accessed: modified },
            xattrs: Vec::new(),
        };
        let Some(records) = entry.pax_extensions().told(told)? else { return Ok(read) };
        let mut accessed = None;
        for record in records {
            let record = record.told(told)?;
            match record.key_bytes() {
                b"mtime" => read.times.modified = time(record.value_bytes())?,
                b"atime" => accessed = Some(time(record.value_bytes())?),
                key => {
                    if let Some(name) = key.strip_prefix(XATTR)
                        && is_taken(name)
                    {
                        read.xattrs.push((name.to_vec(), record.value_bytes().to_vec()));
                    }
                }
            }
        }
        read.times.accessed = accessed.unwrap_or(read.times.modified);
        Ok(read)
    }

    /// Gives the attributes to the entry `name` of `folder`, except a folder's times: writing into it changes them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; with the reason where it is a missing id of a user namespace.
    pub(super) fn apply(&self, folder: impl AsFd, name: &OsStr, kind: FileType, ownership: Ownership) -> Result<()> {
        let told = |what: &str| format!("setting the {what} of {}", name.display());
        if ownership == Ownership::Kept {
            let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
            match rustix::fs::chownat(&folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::INVAL) => {
                    return Err(Error::refused(format!(
                        "{} belongs to {}:{}, which this user namespace does not map: give it more ids in /etc/subuid and \
                         /etc/subgid",
                        name.display(),
                        self.uid,
                        self.gid
                    )));
                }
                result => result.told(|| told("owner"))?,
            }
        }
        if kind != FileType::Symlink {
            let mut mode = self.mode;
            if kind == FileType::Directory && ownership == Ownership::Mine {
                // No privilege opens it again, to what is still to come in it or to its removal.
                mode |= 0o700;
            }
            // After chown, which takes the set-id bits away. What stands at `name` was made by us and is no link.
            rustix::fs::chmodat(&folder, name, Mode::from_raw_mode(mode), AtFlags::empty()).told(|| told("mode"))?;
        }
        for (key, value) in &self.xattrs {
            let written = set_xattr(&folder, name, OsStr::from_bytes(key), value);
            let refused = matches!(written, Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP));
            if refused && ownership == Ownership::Mine {
                continue;
            }
            written.told(|| told(&format!("xattr {}", String::from_utf8_lossy(key))))?;
        }
        if kind != FileType::Directory {
            self.times.touch(folder, name).told(|| told("times"))?;
        }
        Ok(())
    }
}

impl Times {
    /// What a file or folder has.
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
        Self { modified: time(stat.st_mtime, stat.st_mtime_nsec), accessed: time(stat.st_atime, stat.st_atime_nsec) }
    }

    /// Sets the times alone.
    pub(super) fn touch(&self, folder: impl AsFd, name: &OsStr) -> rustix::io::Result<()> {
        let times = Timestamps { last_access: self.accessed, last_modification: self.modified };
        rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Which xattrs of an image are set. Overlayfs believes its own (CVE-2023-2640 and others began there): a `redirect` or
/// `metacopy` in a layer would show files of other folders.
fn is_taken(name: &[u8]) -> bool {
    let overlay: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
    !name.is_empty() && !name.contains(&0) && !overlay.iter().any(|prefix| name.starts_with(prefix))
}

/// Sets an xattr on the entry itself. The link in /proc leads to the open folder; the last name is not followed.
pub(super) fn set_xattr(folder: impl AsFd, name: &OsStr, key: &OsStr, value: &[u8]) -> rustix::io::Result<()> {
    let mut path = format!("/proc/self/fd/{}/", folder.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    rustix::fs::lsetxattr(OsStr::from_bytes(&path), key, value, XattrFlags::empty())
}

/// A PAX time: decimal seconds, perhaps negative, perhaps with a fraction of any length.
fn time(text: &[u8]) -> Result<Timespec> {
    let wrong = || Error::refused(format!("{:?} is no PAX time", String::from_utf8_lossy(text)));
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse().map_err(|_| wrong())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let mut nanoseconds: i64 = digits.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    if whole.starts_with('-') && nanoseconds > 0 {
        seconds = seconds.checked_sub(1).ok_or_else(wrong)?;
        nanoseconds = 1_000_000_000 - nanoseconds;
    }
    Ok(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_times_are_exact() {
        let parsed = |text: &str| time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec)).ok();
        assert_eq!(parsed("12"), Some((12, 0)));
        assert_eq!(parsed("12.5"), Some((12, 500_000_000)));
        assert_eq!(parsed("12.0000000019"), Some((12, 1)));
        assert_eq!(parsed("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parsed("-0.25"), Some((-1, 750_000_000)));
        for wrong in ["", "x", "1.x", "1.-5", "9223372036854775808"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn xattrs_of_overlayfs_are_not_taken() {
        assert!(is_taken(b"security.capability"));
        assert!(is_taken(b"user.overlayed"));
        assert!(!is_taken(b"trusted.overlay.redirect"));
        assert!(!is_taken(b"user.overlay.opaque"));
    }
}
