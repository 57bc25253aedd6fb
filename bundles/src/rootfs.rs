//! The folder that layers are written to, and the only way to a path in it.
//!
//! Every path is resolved by the kernel below the folder's descriptor (openat2, RESOLVE_IN_ROOT, Linux 5.6): `..` and
//! absolute symbolic links of an image end at the folder, magic links are refused. The last component is never followed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result, Told};

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
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
}

impl Rootfs {
    /// Opens an existing folder.
    ///
    /// # Errors
    ///
    /// When it is missing or no folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fd = rustix::fs::openat(CWD, path, PATH_ONLY, Mode::empty())
            .told(|| format!("opening the folder {}", path.display()))?;
        Ok(Self { fd: Rc::new(fd), last: None, implied: BTreeSet::new() })
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

/// Removes an entry with all below it, following nothing.
///
/// # Errors
///
/// When something cannot be removed; a missing entry is none, also one that somebody else removes at the same time.
pub(crate) fn remove(folder: impl AsFd, name: &OsStr) -> Result<()> {
    let told = || format!("removing {}", name.display());
    match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error).told(told),
    }
    let inside = match rustix::fs::openat(&folder, name, LISTED, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.told(told)?,
    };
    for below in names(&inside)? {
        remove(&inside, OsStr::from_bytes(&below))?;
    }
    match rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result.told(told),
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
