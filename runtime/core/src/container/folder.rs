//! A container's folder below the state root: its files, and the lock of the commands that change it.

use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::state::Record;
use crate::{Error, Kind, Result};

const STATE: &str = "state.json";
const NEW_STATE: &str = "state.json.new";
const CONFIG: &str = "config.json";
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);
const SOCKET: &str = "start.sock";
/// The folder that the container sees, with nothing but its notify socket.
pub(super) const NOTIFY: &str = "notify";
const NOTIFY_SOCKET: &str = "notify/notify.sock";
/// How long a command waits for another one that works on the same container.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container's folder, open.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    id: String,
}

/// Keeps other commands from changing the container; let go when dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<OwnedFd>);

/// Checks an id: letters, digits, `_ + - .`, and neither `.` nor `..` (runc's rule).
///
/// # Errors
///
/// An id that is empty or has another character.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.bytes().all(allowed) {
        return Err(Error::invalid(format!(
            "invalid container id {id:?}: it may have letters, digits and _ + - . and must not be empty, \".\" or \"..\""
        )));
    }
    Ok(())
}

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

impl Folder {
    /// Makes the folder: this claims the id.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` for a taken id; a state root that cannot be written.
    pub(crate) fn make(root: BorrowedFd<'_>, root_path: &Path, id: &str) -> Result<Self> {
        let path = root_path.join(id);
        match mkdirat(root, id, Mode::from_bits_truncate(0o711)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                return Err(Error::new(Kind::AlreadyExists, format!("container with given ID already exists: {id}")));
            }
            Err(errno) => return Err(Error::os(format!("make the state folder {}", path.display()), errno)),
        }
        let folder = Self::open(root, root_path, id)?;
        folder.must_be_own()?;
        Ok(folder)
    }

    /// Opens the folder of an existing container.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such container.
    pub(crate) fn open(root: BorrowedFd<'_>, root_path: &Path, id: &str) -> Result<Self> {
        let path = root_path.join(id);
        match openat(root, id, FOLDER, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path, id: id.to_owned() }),
            Err(Errno::ENOENT) => Err(Error::new(Kind::NotFound, format!("container {id} does not exist"))),
            Err(errno) => Err(Error::os(format!("open the state folder {}", path.display()), errno)),
        }
    }

    /// Refuses a folder that is not the caller's own. What it says decides which processes are signalled, which cgroups
    /// removed and what `exec` joins with the caller's rights: root must not take that from a user (a state root of theirs,
    /// or a folder that was swapped).
    ///
    /// # Errors
    ///
    /// `Permission`, with whom to be.
    pub(crate) fn must_be_own(&self) -> Result<()> {
        let owner = fstat(&self.fd).map_err(|errno| self.failure("stat", errno))?.st_uid;
        if owner == nix::unistd::geteuid().as_raw() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Permission,
            format!(
                "container {} belongs to user {owner}, by the folder {}: call flint as that user",
                self.id,
                self.path.display()
            ),
        ))
    }

    /// Takes the lock, waiting for another command for a while.
    ///
    /// # Errors
    ///
    /// `Busy` when the other command takes too long; `NotFound` when it deleted the container.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = self.try_lock()? {
                if fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0) {
                    return Err(Error::new(Kind::NotFound, format!("container {} does not exist", self.id)));
                }
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "another command has been at work on container {} for {} s; try again",
                        self.id,
                        PATIENCE.as_secs()
                    ),
                ));
            }
            // Backs off: the other side cannot wake us.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Whether nobody has the lock. Who asks is in the way of no other who asks.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.try_flock(FlockArg::LockSharedNonblock), Ok(Some(_)))
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        self.try_flock(FlockArg::LockExclusiveNonblock)
    }

    fn try_flock(&self, kind: FlockArg) -> Result<Option<Lock>> {
        // A lock belongs to an open file, so it gets one of its own.
        let own = openat(&self.fd, ".", FOLDER, Mode::empty()).map_err(|errno| self.failure("open", errno))?;
        match Flock::lock(own, kind) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(self.failure("lock", errno)),
        }
    }

    /// When something was last put into the folder: when it was made, for one with nothing in it.
    ///
    /// # Errors
    ///
    /// What fstat(2) says.
    pub(crate) fn changed(&self) -> Result<SystemTime> {
        let stat = fstat(&self.fd).map_err(|errno| self.failure("stat", errno))?;
        let since_epoch =
            Duration::new(stat.st_mtime.try_into().unwrap_or(0), stat.st_mtime_nsec.try_into().unwrap_or(0));
        Ok(SystemTime::UNIX_EPOCH + since_epoch)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn failure(&self, doing: &str, errno: Errno) -> Error {
        Error::os(format!("{doing} {}", self.path.display()), errno)
    }

    /// Writes state.json: whole or not at all, so that a reader needs no lock. Not synced: the state root is a
    /// tmpfs, and no container outlives a reboot.
    ///
    /// # Errors
    ///
    /// A full or read-only state root.
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        self.write(NEW_STATE, &encode(record)?)?;
        nix::fcntl::renameat(&self.fd, NEW_STATE, &self.fd, STATE)
            .map_err(|errno| self.failure("write state.json in", errno))
    }

    /// Writes the first state.json, where there is none to replace. A reader takes an empty one for none.
    ///
    /// # Errors
    ///
    /// A full or read-only state root.
    pub(crate) fn save_first(&self, record: &Record) -> Result<()> {
        self.write(STATE, &encode(record)?)
    }

    /// Reads state.json; `None` when the container's maker was killed before it wrote one.
    ///
    /// # Errors
    ///
    /// A damaged record, or one of a newer version.
    pub(crate) fn load(&self) -> Result<Option<Record>> {
        match self.read(STATE)? {
            // The maker was killed between making the file and writing it.
            Some(json) if json.is_empty() => Ok(None),
            Some(json) => {
                Record::from_json(&json).map(Some).map_err(|error| error.context(format!("container {}", self.id)))
            }
            None => Ok(None),
        }
    }

    /// Reads state.json of a container that must have one.
    ///
    /// # Errors
    ///
    /// `WrongState` when its maker was killed before it wrote one.
    pub(crate) fn record(&self) -> Result<Record> {
        self.load()?.ok_or_else(|| {
            Error::new(
                Kind::WrongState,
                format!("container {} was broken off while it was created: delete it", self.id),
            )
        })
    }

    /// Keeps config.json as it was at `create`: exec and the late hooks go by it, whatever happens to the bundle.
    ///
    /// # Errors
    ///
    /// A full or read-only state root.
    pub(crate) fn save_config(&self, json: &[u8]) -> Result<()> {
        self.write(CONFIG, json)
    }

    /// The config.json of `create`.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none.
    pub(crate) fn config(&self) -> Result<Vec<u8>> {
        self.read(CONFIG)?.ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!(
                    "{} has no config.json: the container was broken off while it was created",
                    self.path.display()
                ),
            )
        })
    }

    /// Remembers that a process of `exec` can get CAP_SYS_PTRACE in this container. Not in the record, since `exec` does not wait
    /// for the lock, nor in a file of its own, which a `delete` of an older flint would not know: by the sticky bit of
    /// config.json, which means nothing on a file (inode(7)).
    ///
    /// # Errors
    ///
    /// A read-only state root.
    pub(crate) fn note_tracers(&self) -> Result<()> {
        fchmodat(&self.fd, CONFIG, FILE_MODE | Mode::S_ISVTX, FchmodatFlags::FollowSymlink)
            .map_err(|errno| self.failure("change the mode of config.json in", errno))
    }

    /// Whether that was noted.
    pub(crate) fn has_tracers(&self) -> bool {
        let stat = fstatat(&self.fd, CONFIG, AtFlags::AT_SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| stat.st_mode & Mode::S_ISVTX.bits() != 0)
    }

    fn write(&self, name: &str, data: &[u8]) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = openat(&self.fd, name, flags, FILE_MODE)
            .map_err(|errno| self.failure(&format!("create {name} in"), errno))?;
        File::from(fd)
            .write_all(data)
            .map_err(|error| Error::os(format!("write {name} in {}", self.path.display()), error))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        // A fifo in its place must not keep the reader waiting.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(self.failure(&format!("open {name} in"), errno)),
        };
        let mut data = Vec::with_capacity(4096);
        File::from(fd)
            .read_to_end(&mut data)
            .map_err(|error| Error::os(format!("read {name} in {}", self.path.display()), error))?;
        Ok(Some(data))
    }

    /// Where the socket for `start` is bound and found: by the open folder, since a socket's path may have 107
    /// bytes at most (unix(7)) and a state root more.
    pub(crate) fn socket_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.fd.as_fd().as_raw_fd()))
    }

    /// Makes the container's notify socket, in a folder of its own; one that another command listened on is replaced.
    /// Any user of the container may write to it.
    ///
    /// # Errors
    ///
    /// A full or read-only state root.
    pub(crate) fn listen_for_notifications(&self) -> Result<UnixDatagram> {
        match mkdirat(&self.fd, NOTIFY, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(self.failure("make notify in", errno)),
        }
        match unlinkat(&self.fd, NOTIFY_SOCKET, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(self.failure("replace the notify socket in", errno)),
        }
        // By the open folder, as for `start`.
        let path = format!("/proc/self/fd/{}/{NOTIFY_SOCKET}", self.fd.as_fd().as_raw_fd());
        let failure = |error| Error::os(format!("make the notify socket in {}", self.path.display()), error);
        let socket = UnixDatagram::bind(&path).map_err(failure)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(failure)?;
        Ok(socket)
    }

    /// Removes the folder and all that this module puts into it.
    ///
    /// # Errors
    ///
    /// A file that cannot be removed; files of others in the folder.
    pub(crate) fn remove(&self, root: BorrowedFd<'_>) -> Result<()> {
        for name in [SOCKET, NOTIFY_SOCKET, NEW_STATE, CONFIG, STATE] {
            match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(self.failure(&format!("remove {name} from"), errno)),
            }
        }
        match unlinkat(&self.fd, NOTIFY, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(self.failure("remove notify from", errno)),
        }
        match unlinkat(root, self.id.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.failure("remove", errno)),
        }
    }
}

fn encode(record: &Record) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|error| Error::invalid(format!("encode the state: {error}")))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::{Folder, check_id};

    #[test]
    fn ids() {
        for good in ["a", "a.b", "A_b+c-1", "...", "-a"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\0", "../x"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_or_missing_state_is_none_and_can_be_removed() {
        let root = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        let folder = Folder::make(fd.as_fd(), root.path(), "a").unwrap();
        assert!(folder.load().unwrap().is_none());
        std::fs::write(root.path().join("a/state.json"), "").unwrap();
        assert!(folder.load().unwrap().is_none());
        assert!(folder.record().unwrap_err().to_string().contains("broken off"));
        folder.remove(fd.as_fd()).unwrap();
        assert!(!root.path().join("a").exists());
    }
}
