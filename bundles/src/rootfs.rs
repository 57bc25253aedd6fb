//! The folder that layers are written to, and the only way to a path in it.
//!
//! Every path is resolved by the kernel below the folder's descriptor (openat2, RESOLVE_IN_ROOT, Linux 5.6): `..` and
//! absolute symbolic links of an image end at the folder, magic links are refused. The last component is never followed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result, Told};

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Folders in each other that are emptied by one descriptor each; deeper ones are moved up. A layer's links to its own folders
/// let it make them deeper than descriptors reach.
const DEPTH: usize = 64;
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// A path in a layer: its components, without `.`; none for the folder itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerPath<'a>(Vec<&'a [u8]>);

impl<'a> LayerPath<'a> {
    /// Takes an entry's name apart.
    ///
    /// # Errors
    ///
    /// For `..` (no builder writes it), a NUL and more than `depth` components.
    pub(crate) fn parse(name: &'a [u8], depth: usize) -> Result<Self> {
        let told = || String::from_utf8_lossy(name).chars().take(200).collect::<String>();
        let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        if parts.contains(&&b".."[..]) {
            return Err(Error::refused(format!("the name {:?} has a `..` in it", told())));
        }
        if name.contains(&0) || parts.iter().any(|part| part.len() > 255) {
            return Err(Error::refused(format!("the name {:?} is none that Linux can have", told())));
        }
        if parts.len() > depth {
            return Err(Error::refused(format!("the name {:?} has more than {depth} folders", told())));
        }
        Ok(Self(parts))
    }

    /// The folders above, and the last name; None for the folder itself.
    pub(crate) fn split(&self) -> Option<(&'a [u8], Self)> {
        let (name, above) = self.0.split_last()?;
        Some((name, Self(above.to_vec())))
    }

    /// The whole path, with one slash between its parts.
    pub(crate) fn text(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }

    fn joined(&self, count: usize) -> Vec<u8> {
        match self.0.get(..count) {
            None | Some([]) => b".".to_vec(),
            Some(parts) => parts.join(&b'/'),
        }
    }
}

/// The folder.
pub(crate) struct Rootfs {
    fd: Rc<OwnedFd>,
    /// The folder of the last entry: archives list a folder's entries one after the other.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Folders that were made because something is in them.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Bytes that the names may still have which are kept.
    names: u64,
}

impl Rootfs {
    /// Opens an existing folder.
    ///
    /// # Errors
    ///
    /// When it is missing or no folder.
    pub(crate) fn open(path: &Path, names: u64) -> Result<Self> {
        let fd = rustix::fs::openat(CWD, path, PATH_ONLY, Mode::empty())
            .told(|| format!("opening the folder {}", path.display()))?;
        Ok(Self { fd: Rc::new(fd), last: None, implied: BTreeSet::new(), names })
    }

    /// Counts a name that is kept in memory.
    ///
    /// # Errors
    ///
    /// When there are too many of them.
    pub(crate) fn keeps(&mut self, name: &[u8]) -> Result<()> {
        let left = self.names.checked_sub(name.len() as u64);
        self.names =
            left.ok_or_else(|| Error::refused("the names of the layer's folders are larger than their limit"))?;
        Ok(())
    }

    /// The folder itself.
    pub(crate) fn fd(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.fd)
    }

    /// Forgets what is cached: a folder was removed or became something else.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// An existing folder; None when it is missing.
    pub(crate) fn folder(&mut self, path: &LayerPath<'_>) -> Result<Option<Rc<OwnedFd>>> {
        let joined = path.joined(path.0.len());
        if let Some((last, fd)) = &self.last
            && *last == joined
        {
            return Ok(Some(Rc::clone(fd)));
        }
        match self.resolve(&joined, PATH_ONLY) {
            Ok(fd) => {
                let fd = Rc::new(fd);
                self.last = Some((joined, Rc::clone(&fd)));
                Ok(Some(fd))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).told(|| format!("the folder {}", String::from_utf8_lossy(&joined))),
        }
    }

    /// A folder, made with mode 0755 where it is missing: layers need not have entries for all their folders.
    pub(crate) fn folder_made(&mut self, path: &LayerPath<'_>) -> Result<Rc<OwnedFd>> {
        if let Some(fd) = self.folder(path)? {
            return Ok(fd);
        }
        let mut above = self.fd();
        for (index, name) in path.0.iter().enumerate() {
            let joined = path.joined(index + 1);
            let told = || format!("making the folder {}", String::from_utf8_lossy(&joined));
            above = match self.resolve(&joined, PATH_ONLY) {
                Ok(fd) => Rc::new(fd),
                Err(Errno::NOENT) => {
                    // EEXIST here is a symbolic link that leads nowhere.
                    rustix::fs::mkdirat(&above, *name, Mode::from_raw_mode(0o755)).told(told)?;
                    // Whatever the caller's umask took away.
                    rustix::fs::chmodat(&above, *name, Mode::from_raw_mode(0o755), AtFlags::empty()).told(told)?;
                    self.keeps(&joined)?;
                    self.implied.insert(joined.clone());
                    Rc::new(self.resolve(&joined, PATH_ONLY).told(told)?)
                }
                Err(error) => return Err(error).told(told),
            };
        }
        Ok(above)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), inside) {
                // Something was renamed on the host meanwhile; the kernel asks to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }
}

/// Removes an entry with all below it, however deep, following nothing and entering no other mount. What is very deep is moved up on the
/// way.
///
/// # Errors
///
/// When something cannot be removed; a missing entry is none, also one that somebody else removes at the same time.
pub fn remove(folder: impl AsFd, name: &OsStr) -> Result<()> {
    let told = || format!("removing {}", name.display());
    if unlinked(&folder, name).told(told)? {
        return Ok(());
    }
    let Some(inside) = opened(&folder, name).told(told)? else { return Ok(()) };
    while !empty(inside.as_fd(), inside.as_fd(), DEPTH)? {}
    remove_folder(&folder, name)
}

/// Removes what is in the folder; false if something of it was only moved to `top`.
fn empty(top: BorrowedFd<'_>, folder: BorrowedFd<'_>, depth: usize) -> Result<bool> {
    let mut whole = true;
    for name in names(folder)? {
        let name = OsStr::from_bytes(&name);
        let told = || format!("removing {}", name.display());
        if unlinked(folder, name).told(told)? {
            continue;
        }
        let Some(inside) = opened(folder, name).told(told)? else { continue };
        if depth == 0 {
            move_up(top, folder, name).told(told)?;
            whole = false;
            continue;
        }
        whole &= empty(top, inside.as_fd(), depth - 1)?;
        drop(inside);
        remove_folder(folder, name)?;
    }
    Ok(whole)
}

/// Unlinks what is no folder; false for a folder.
fn unlinked(folder: impl AsFd, name: &OsStr) -> rustix::io::Result<bool> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => Ok(false),
        Err(error) => Err(error),
    }
}

fn remove_folder(folder: impl AsFd, name: &OsStr) -> Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result.told(|| format!("removing {}", name.display())),
    }
}

/// Opens a folder to empty it, following nothing; None for a missing one. A user's own folder may be closed to the user.
fn opened(folder: impl AsFd, name: &OsStr) -> rustix::io::Result<Option<OwnedFd>> {
    let here = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let own = match rustix::fs::openat2(folder, name, PATH_ONLY | OFlags::NOFOLLOW, Mode::empty(), here) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&own)?.st_mode);
    if !mode.contains(Mode::RWXU) && !rustix::process::geteuid().is_root() {
        rustix::fs::chmod(format!("/proc/self/fd/{}", own.as_raw_fd()), mode | Mode::RWXU)?;
    }
    rustix::fs::openat(own, ".", LISTED, Mode::empty()).map(Some)
}

/// Moves a folder to where it is less deep, under a name that is free.
fn move_up(top: BorrowedFd<'_>, folder: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    let mut number = 0_u64;
    loop {
        match rustix::fs::renameat(folder, name, top, format!(".deep-{number}")) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => number += 1,
            // Somebody else removes it, too.
            Err(Errno::NOENT) => return Ok(()),
            result => return result,
        }
    }
}

/// The names in a folder, without `.` and `..`.
pub(crate) fn names(folder: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let listed = rustix::fs::openat(&folder, ".", LISTED, Mode::empty()).told(|| "opening a folder".to_owned())?;
    let mut names = Vec::new();
    for entry in Dir::new(listed).told(|| "listing a folder".to_owned())? {
        let entry = entry.told(|| "listing a folder".to_owned())?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// What stands at a name, not followed; None for nothing.
pub(crate) fn kind(folder: impl AsFd, name: &OsStr) -> Result<Option<FileType>> {
    Ok(stat(folder, name)?.map(|stat| FileType::from_raw_mode(stat.st_mode)))
}

/// The status of a name, not followed; None for nothing.
pub(crate) fn stat(folder: impl AsFd, name: &OsStr) -> Result<Option<rustix::fs::Stat>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).told(|| format!("looking at {}", name.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// By links to its own folders a layer makes them deeper than a process has descriptors.
    #[test]
    fn what_is_deeper_than_descriptors_reach_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let top = fs::File::open(place.path()).unwrap();
        rustix::fs::mkdirat(&top, "deep", Mode::RWXU).unwrap();
        let mut folder = rustix::fs::openat(&top, "deep", LISTED, Mode::empty()).unwrap();
        // A name that is taken, where folders are moved to.
        rustix::fs::mkdirat(&folder, ".deep-0", Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&folder, ".deep-0/x", Mode::RWXU).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
            rustix::fs::symlinkat("/nowhere", &folder, "link").unwrap();
            folder = rustix::fs::openat(&folder, "d", LISTED, Mode::empty()).unwrap();
        }
        remove(&top, OsStr::new("deep")).unwrap();
        assert_eq!(names(&top).unwrap(), Vec::<Vec<u8>>::new());
    }
}
