//! Processes by pidfd: a pid may be another process's by the time it is used, a pidfd never.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::container::notify::Notifications;
use crate::{Error, Kind, Result};

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl ExitStatus {
    /// The exit code that a shell gives: 128+n for signal n.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// A process of a container that this program made.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    warnings: Vec<String>,
    notifications: Option<UnixDatagram>,
}

/// A container that this program made: its init.
pub type Container = Process;

impl Process {
    /// For a child that nobody has reaped yet, so that its pid is still its own.
    pub(crate) fn of_child(pid: i32) -> Result<Self> {
        Ok(Self { pid, pidfd: open_pidfd(pid)?, warnings: Vec::new(), notifications: None })
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    pub(crate) fn with_notifications(mut self, socket: Option<UnixDatagram>) -> Self {
        self.notifications = socket;
        self
    }

    /// What tells when it says that it is ready, for a container that was made with a notify socket; once.
    ///
    /// # Errors
    ///
    /// No free descriptor.
    pub fn take_notifications(&mut self) -> Result<Option<Notifications>> {
        self.notifications.take().map(|socket| Notifications::of_process(socket, self)).transpose()
    }

    /// Its pid in the caller's pid namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its pidfd: readable (poll) when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// What the specification says to warn about, each a sentence.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Waits for its end and reaps it. Only for a process that this program is the parent of.
    ///
    /// # Errors
    ///
    /// `NotFound` when another wait of this program (a `waitpid(-1)`) took its exit status.
    pub fn wait(&self) -> Result<ExitStatus> {
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Ok(WaitStatus::Exited(_, code)) => return Ok(ExitStatus::Exited(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(ExitStatus::Signaled(signal as i32)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => {
                    return Err(Error::new(
                        Kind::NotFound,
                        format!("process {} has ended and another part of this program took its exit status", self.pid),
                    ));
                }
                Err(errno) => return Err(Error::os(format!("wait for process {}", self.pid), errno)),
            }
        }
    }

    /// Sends it a signal by its pidfd.
    ///
    /// # Errors
    ///
    /// `WrongState` ("process already finished") when it has ended; `Invalid` for no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match signal_pidfd(self.pidfd.as_fd(), signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(Error::new(Kind::WrongState, "process already finished")),
            Err(Errno::EINVAL) => Err(Error::invalid(format!("signal {signal}: there is none with this number"))),
            Err(errno) => Err(Error::os(format!("send signal {signal} to process {}", self.pid), errno)),
        }
    }

    /// Kills it for good and reaps it; for the way out of a failed step.
    pub(crate) fn destroy(&self) -> Option<ExitStatus> {
        // Already dead is what is wanted.
        let _ = signal_pidfd(self.pidfd.as_fd(), nix::libc::SIGKILL);
        self.wait().ok()
    }
}

/// pidfd_open(2).
pub(crate) fn open_pidfd(pid: i32) -> Result<OwnedFd> {
    let gone = || Error::new(Kind::NotFound, format!("process {pid}: no such process"));
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(gone)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(|errno| match errno {
        rustix::io::Errno::SRCH => gone(),
        errno => Error::os("pidfd_open", errno),
    })
}

/// pidfd_send_signal(2). Real-time signals and 0 are allowed.
///
/// # Errors
///
/// The errno: ESRCH for a process that has ended, EINVAL for no signal.
pub(crate) fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> std::result::Result<(), Errno> {
    use std::os::fd::AsRawFd;
    flint_init::signal_process(flint_init::Fd(pidfd.as_raw_fd()), signal).map_err(|errno| Errno::from_raw(errno.0))
}

/// Waits until the process has ended, at most `milliseconds`.
pub(crate) fn wait_for_end(pidfd: BorrowedFd<'_>, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::from(milliseconds)) {
            Err(Errno::EINTR) => {}
            Ok(count) => return count > 0,
            Err(_) => return false,
        }
    }
}

/// The start time of a process in clock ticks since boot, unless it has ended (a zombie has).
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    let stat = crate::procfs::read(&format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// proc_pid_stat(5): the name may hold spaces and parentheses, so the fields start behind the last one.
fn parse_start_time(stat: &[u8]) -> Option<u64> {
    let behind = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(stat.get(behind + 1..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    // State is field 3, the start time field 22.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_start_time;

    #[test]
    fn start_times() {
        let line = |name: &str, state: &str| {
            format!("12 ({name}) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20\n").into_bytes()
        };
        assert_eq!(parse_start_time(&line("a", "S")), Some(777));
        assert_eq!(parse_start_time(&line("a) S (b c", "R")), Some(777));
        assert_eq!(parse_start_time(&line("a", "Z")), None);
        assert_eq!(parse_start_time(b""), None);
    }
}
