//! sd_notify(3) for the container: a socket of its own, whose READY=1 is passed on to the caller's service manager.
//!
//! ```text
//!  program ─READY=1─▶ /run/notify/notify.sock ═bind═ <state folder>/notify/notify.sock ─▶ flint
//!                     flint ─READY=1, MAINPID=, BARRIER=1 (and a pipe's end)─▶ the host's $NOTIFY_SOCKET
//! ```
//!
//! The container never gets the host's socket: only that it is ready passes, not any other word.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::container::bind::send_fd;
use crate::container::process::{Process, open_pidfd};
use crate::{Error, Result};

const READY: &[u8] = b"READY=1";
/// How long the service manager may take to answer a barrier, in milliseconds; runc waits as long.
const BARRIER: u16 = 30_000;
/// More than a datagram of sd_notify(3) has; what is longer is cut.
const LONGEST: usize = 4096;

/// Listens to what a container's program tells by sd_notify(3).
#[derive(Debug)]
pub struct Notifications {
    socket: UnixDatagram,
    pid: i32,
    pidfd: OwnedFd,
}

impl Notifications {
    /// For the container whose init is `pid`, which must be known to live.
    pub(crate) fn of_pid(socket: UnixDatagram, pid: i32) -> Result<Self> {
        Ok(Self { socket, pid, pidfd: open_pidfd(pid)? })
    }

    /// For a container of this program; the socket is taken from it.
    pub(crate) fn of_process(socket: UnixDatagram, process: &Process) -> Result<Self> {
        let pidfd = process.pidfd().try_clone_to_owned().map_err(|error| Error::os("copy init's pidfd", error))?;
        Ok(Self { socket, pid: process.pid(), pidfd })
    }

    /// The pid of the container's init.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the container says READY=1, or has ended without: whether it said so.
    ///
    /// # Errors
    ///
    /// poll(2) or recv(2).
    pub fn wait_ready(&self) -> Result<bool> {
        self.socket.set_nonblocking(true).map_err(|error| Error::os("prepare the notify socket", error))?;
        loop {
            // In this order: it may be said just before the end.
            let ended = self.wait_event()?;
            while let Some(ready) = self.hear()? {
                if ready {
                    return Ok(true);
                }
            }
            if ended {
                return Ok(false);
            }
        }
    }

    /// Waits for a message or the end of init; whether that has ended.
    fn wait_event(&self) -> Result<bool> {
        let mut fds =
            [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => Ok(fds[1].any().unwrap_or(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Error::os("wait for the container's READY=1", errno)),
        }
    }

    /// The next message: whether it says READY=1. Descriptors in it are closed by the kernel, which is the answer to
    /// a barrier.
    fn hear(&self) -> Result<Option<bool>> {
        let mut buffer = [0; LONGEST];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Ok(Some(says_ready(buffer.get(..length).unwrap_or_default()))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Some(false)),
            Err(error) => Err(Error::os("read the container's notify socket", error)),
        }
    }

    /// Tells the service manager behind `host` (the value of its `NOTIFY_SOCKET`) that the container is ready and
    /// `main_pid` the process to watch, and waits up to 30 s until that is taken in.
    ///
    /// # Errors
    ///
    /// A socket that nobody listens on, or that refuses.
    pub fn announce(host: &OsStr, main_pid: i32) -> Result<()> {
        let failure = |doing: &str, error| Error::os(format!("{doing} NOTIFY_SOCKET {}", host.display()), error);
        let socket = connected(host).map_err(|error| failure("connect to", error))?;
        let main_pid = format!("MAINPID={main_pid}\n");
        for message in [&b"READY=1\n"[..], main_pid.as_bytes()] {
            socket.send(message).map_err(|error| failure("write to", error))?;
        }
        let (ours, theirs) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::os("make a pipe for a barrier", errno))?;
        send_fd(&OwnedFd::from(socket), b"BARRIER=1", theirs.as_fd())?;
        drop(theirs);
        // Its end is all that is waited for; who does not know barriers is not waited for longer than that.
        let _ = poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], BARRIER);
        Ok(())
    }
}

/// A line of it, as sd_notify(3) has it.
fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == READY)
}

/// `@` is for the abstract namespace (sd_notify(3)).
fn connected(host: &OsStr) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match host.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(host)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::{Notifications, says_ready};

    #[test]
    fn ready_is_a_line_of_its_own() {
        for yes in ["READY=1", "READY=1\n", "STATUS=up\nREADY=1\nMAINPID=1"] {
            assert!(says_ready(yes.as_bytes()), "{yes:?}");
        }
        for no in ["", "READY=0", "READY=11", "STATUS=READY=1", "NOTREADY=1"] {
            assert!(!says_ready(no.as_bytes()), "{no:?}");
        }
    }

    #[test]
    fn the_end_of_init_ends_the_wait_and_its_last_word_counts() {
        for (script, ready) in [("exit 0", false), ("sleep 0.1", false)] {
            let (theirs, ours) = UnixDatagram::pair().unwrap();
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let notifications = Notifications::of_pid(ours, child.id() as i32).unwrap();
            assert_eq!(notifications.wait_ready().unwrap(), ready);
            theirs.send(b"READY=1").unwrap();
            assert!(notifications.wait_ready().unwrap(), "said before the look at the end");
            child.wait().unwrap();
        }
    }

    #[test]
    fn an_unheard_announcement_is_an_error() {
        let error = Notifications::announce("/nonexistent/notify".as_ref(), 1).unwrap_err();
        assert!(error.to_string().contains("connect to NOTIFY_SOCKET /nonexistent/notify"), "{error}");
    }
}
