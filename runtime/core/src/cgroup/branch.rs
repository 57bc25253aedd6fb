//! One folder of a container's cgroup, in one hierarchy.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{self, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

/// A folder in the v1 hierarchy `name`, or in the v2 tree when the name is empty.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) name: String,
    pub(super) path: PathBuf,
    directory: OnceLock<OwnedFd>,
}

impl Branch {
    /// A folder that is open.
    pub(super) fn open_at(name: &str, path: PathBuf, directory: OwnedFd) -> Self {
        Self { name: name.to_owned(), path, directory: OnceLock::from(directory) }
    }

    /// A folder that is opened when it is needed, from a recorded path.
    pub(super) fn recorded(name: &str, path: &Path) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), directory: OnceLock::new() }
    }

    /// Whether it is in a hierarchy with `controller`.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.name.split(',').any(|name| name == controller)
    }

    /// The folder, opened with `O_PATH`.
    pub(super) fn directory(&self) -> nix::Result<BorrowedFd<'_>> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory.as_fd());
        }
        let opened = fcntl::open(&self.path, directory_flags(), Mode::empty())?;
        Ok(self.directory.get_or_init(|| opened).as_fd())
    }

    pub(super) fn open(&self, file: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        fcntl::openat(self.directory()?, file, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
    }

    pub(super) fn read(&self, file: &str) -> nix::Result<String> {
        read_at(self.directory()?, file)
    }

    pub(super) fn write(&self, file: &str, value: &str) -> nix::Result<()> {
        write_once(&self.open(file, OFlag::O_WRONLY)?, value)
    }

    /// A file's absolute path, for messages.
    pub(super) fn shown(&self, file: &str) -> String {
        self.path.join(file).display().to_string()
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// Opens a hierarchy's mountpoint.
pub(super) fn open_mountpoint(path: &Path) -> nix::Result<OwnedFd> {
    fcntl::open(path, directory_flags(), Mode::empty())
}

/// Opens a folder below `base`, that is: not through a symbolic link, another mount or `..` (openat2, Linux 5.6).
pub(super) fn open_beneath(base: impl AsFd, path: &str) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(directory_flags())
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    fcntl::openat2(base, path, how)
}

pub(super) fn read_at(directory: impl AsFd, file: &str) -> nix::Result<String> {
    let file = fcntl::openat(directory, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?;
    read_all(&file)
}

/// Reads from the file's beginning; one system call for what fits a page, which is nearly all there is in cgroupfs.
pub(super) fn read_all(file: &OwnedFd) -> nix::Result<String> {
    let mut text = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let length = nix::sys::uio::pread(file, &mut buffer, text.len() as i64)?;
        text.extend_from_slice(&buffer[..length]);
        // A seq_file gives whole lines only, up to the end of its buffer: less than half a page means there is no more.
        if length < buffer.len() / 2 {
            return String::from_utf8(text).map_err(|_| Errno::EILSEQ);
        }
    }
}

/// cgroupfs takes a value in one write(2).
pub(super) fn write_once(file: &OwnedFd, value: &str) -> nix::Result<()> {
    nix::unistd::write(file, value.as_bytes()).map(|_| ())
}

/// Waits until the kernel tells of a change of a `cgroup.events` file; whether it did within `milliseconds`.
pub(super) fn wait_for_event(events: &OwnedFd, milliseconds: u16) -> nix::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], PollTimeout::from(milliseconds)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// The number behind `key ` in a flat keyed file.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The cgroup's own processes, without those of its sub-cgroups. A cgroup that is gone has none.
pub(super) fn listed_processes(folder: &OwnedFd) -> io::Result<Vec<i32>> {
    let read = |file: &str| -> io::Result<String> {
        let file = fcntl::openat(folder, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        io::read_to_string(File::from(file))
    };
    let text = match read("cgroup.procs") {
        // A threaded cgroup (v2) lists only threads; a signal to one reaches its process.
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => read("cgroup.threads"),
        result => result,
    };
    match text {
        // 0 stands for a process outside of our pid namespace.
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the cgroup was removed, before or after its file was opened.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ENODEV))
}
