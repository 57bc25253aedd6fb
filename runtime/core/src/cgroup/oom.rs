//! A watch over a container's memory: a descriptor that is readable when the kernel ran out of it there.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::branch::{Branch, keyed, write_once};
use super::live::Cgroup;
use crate::{Error, Result};

/// A watch over the kernel's out-of-memory killer in one container.
///
/// Wait until its descriptor is readable (poll, epoll; it never blocks), then ask [`OomWatch::take`].
#[derive(Debug)]
pub struct OomWatch {
    /// v1: an eventfd that the kernel counts up. v2: inotify on memory.events.
    fd: OwnedFd,
    cgroup: Branch,
    /// On v2, how many processes were killed when it was last asked.
    kills: Option<u64>,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Cgroup {
    /// Watches for want of memory from now on. `None` without a memory controller.
    ///
    /// # Errors
    ///
    /// The kernel refuses the watch.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let (branch, watch) = match (self.with("memory"), &self.unified) {
            (Some(branch), _) => (branch, watch_v1(branch).map(|fd| (fd, None))),
            (None, Some(branch)) if kills(branch).is_some() => (branch, watch_v2(branch)),
            _ => return Ok(None),
        };
        let (fd, kills) =
            watch.map_err(|errno| Error::os(format!("cannot watch the memory of {}", branch.path.display()), errno))?;
        Ok(Some(OomWatch { fd, cgroup: Branch::recorded(&branch.name, &branch.path), kills }))
    }
}

/// `cgroup.event_control` (cgroup-v1/memory.rst, "OOM Control").
fn watch_v1(branch: &Branch) -> nix::Result<OwnedFd> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(from_rustix)?;
    let events = branch.open("memory.oom_control", OFlag::O_RDONLY)?;
    let control = branch.open("cgroup.event_control", OFlag::O_WRONLY)?;
    write_once(&control, &format!("{} {}", fd.as_raw_fd(), events.as_raw_fd()))?;
    Ok(fd)
}

fn watch_v2(branch: &Branch) -> nix::Result<(OwnedFd, Option<u64>)> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(from_rustix)?;
    let file: &Path = &branch.path.join("memory.events");
    inotify::add_watch(&fd, file, WatchFlags::MODIFY).map_err(from_rustix)?;
    // After the watch, so that nothing falls in between.
    Ok((fd, Some(kills(branch).unwrap_or(0))))
}

fn kills(branch: &Branch) -> Option<u64> {
    branch.read("memory.events").ok().and_then(|text| keyed(&text, "oom_kill"))
}

fn from_rustix(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

impl OomWatch {
    /// Whether memory ran out since this was last asked; never waits. On v1 that is so when the killer was called
    /// (or would have been, with `disableOOMKiller`), on v2 when it killed.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be read.
    pub fn take(&mut self) -> Result<bool> {
        let mut buffer = [0u8; 4096];
        let mut happened = false;
        loop {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(_) => happened = true,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os("cannot read the watch over the container's memory", errno)),
            }
            // An eventfd is read whole at once.
            if self.kills.is_none() {
                break;
            }
        }
        Ok(match self.kills {
            // The removal of the cgroup counts as an event, too.
            None => happened && self.cgroup.read("memory.oom_control").is_ok(),
            // The count itself: the kernel tells of its change some milliseconds later, when a container may have ended.
            Some(before) => {
                let now = kills(&self.cgroup).unwrap_or(before);
                self.kills = Some(now);
                now > before
            }
        })
    }
}
