//! Processes by pidfd: a pid may be another process's by the time it is used, a pidfd never.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use flint_init::plan::Step;
use flint_sys::process::{Ended, exit_of};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::container::notify::Notifications;
use crate::plan::Plan;
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

impl From<Ended> for ExitStatus {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Exited(code) => Self::Exited(code),
            Ended::Signaled(signal) => Self::Signaled(signal),
        }
    }
}

/// A process of a container that this program made, or adopted ([`crate::Runtime::adopt`]).
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    /// Of one that is no child of this program: when it was started.
    adopted: Option<u64>,
    warnings: Vec<String>,
    notes: Vec<String>,
    notifications: Option<UnixDatagram>,
}

/// A container that this program made: its init.
pub type Container = Process;

impl Process {
    /// For a child that nobody has reaped yet, so that its pid is still its own.
    pub(crate) fn of_child(pid: i32) -> Result<Self> {
        Ok(Self {
            pid,
            pidfd: open_pidfd(pid)?,
            adopted: None,
            warnings: Vec::new(),
            notes: Vec::new(),
            notifications: None,
        })
    }

    /// Another program's child that was started then (see [`start_time`]); None if it has ended, or another has its pid now.
    ///
    /// # Errors
    ///
    /// No free descriptor.
    pub fn of_stranger(pid: i32, started: u64) -> Result<Option<Self>> {
        let process = match Self::of_child(pid) {
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            process => Self { adopted: Some(started), ..process? },
        };
        // After it was opened: from here on the descriptor is of this process and no other.
        Ok((start_time(pid) == Some(started)).then_some(process))
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    pub(crate) fn with_notes(mut self, notes: Vec<String>) -> Self {
        self.notes = notes;
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

    /// What its plan had init do that people look for in a debug log, in runc's words.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether it has ended, be it reaped or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        wait_for_end(self.pidfd.as_fd(), PollTimeout::ZERO)
    }

    /// Waits for its end and reaps it. One that was adopted is reaped by somebody else.
    ///
    /// # Errors
    ///
    /// `NotFound` when the exit status is lost: another wait of this program (a `waitpid(-1)`) took it; or it was adopted, and
    /// reaped on a kernel that does not tell others (before 6.15).
    pub fn wait(&self) -> Result<ExitStatus> {
        if let Some(started) = self.adopted {
            wait_for_end(self.pidfd.as_fd(), PollTimeout::NONE);
            return exit_of_stranger(self.pidfd.as_fd(), self.pid, started);
        }
        // Not nix's: it knows no real-time signals, and one may have ended the program.
        let ended = flint_sys::process::wait(flint_sys::Fd(self.pidfd.as_raw_fd()));
        ended.map(Into::into).map_err(|errno| self.unseen(errno))
    }

    /// Reaps it if it has ended, without waiting for anything. None: it runs; or another process traces it and has not heard of its
    /// end yet, so that nobody else does, while [`Process::has_ended`] is true already.
    ///
    /// # Errors
    ///
    /// As [`Process::wait`].
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        if self.adopted.is_some() {
            return self.has_ended().then(|| self.wait()).transpose();
        }
        let ended = flint_sys::process::try_wait(flint_sys::Fd(self.pidfd.as_raw_fd()));
        ended.map(|ended| ended.map(Into::into)).map_err(|errno| self.unseen(errno))
    }

    fn unseen(&self, errno: flint_sys::Errno) -> Error {
        if errno == flint_sys::Errno(libc::ECHILD) {
            let sentence = "has ended and another part of this program took its exit status";
            return Error::new(Kind::NotFound, format!("process {} {sentence}", self.pid));
        }
        Error::os(format!("wait for process {}", self.pid), Errno::from_raw(errno.0))
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
    flint_init::signal_process(flint_init::Fd(pidfd.as_raw_fd()), signal).map_err(|errno| Errno::from_raw(errno.0))
}

/// Raises the hard limits of a process that will set those of its plan, and may not raise them in its user namespace. Who may
/// not either (without CAP_SYS_RESOURCE) leaves it to the process to warn.
///
/// # Errors
///
/// The process has ended.
pub(crate) fn raise_hard_limits(pid: i32, plan: &Plan) -> Result<()> {
    for step in &plan.init {
        if let Step::ResourceLimit { resource, hard, .. } = *step {
            match flint_sys::process::raise_hard_limit(pid, resource, hard) {
                Ok(()) | Err(flint_sys::Errno(libc::EPERM)) => {}
                Err(errno) => {
                    return Err(Error::os(format!("raise a limit of process {pid}"), Errno::from_raw(errno.0)));
                }
            }
        }
    }
    Ok(())
}

/// Waits until the process has ended, at most `milliseconds`.
pub(crate) fn wait_for_end(pidfd: BorrowedFd<'_>, patience: impl Into<PollTimeout>) -> bool {
    let (mut fds, patience) = ([PollFd::new(pidfd, PollFlags::POLLIN)], patience.into());
    loop {
        match poll(&mut fds, patience) {
            Err(Errno::EINTR) => {}
            Ok(count) => return count > 0,
            Err(_) => return false,
        }
    }
}

/// The start time of a process in clock ticks since boot, unless it has ended (a zombie has): with its pid it names the process
/// for as long as the host is up.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    let stat = crate::procfs::read(&format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// The parent of a process.
pub(crate) fn parent_of(pid: i32) -> Option<i32> {
    parse_parent(&crate::procfs::read(&format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5), field 4; fields start behind the last parenthesis.
pub(super) fn parse_parent(stat: &[u8]) -> Option<i32> {
    let behind = stat.iter().rposition(|&byte| byte == b')')?;
    std::str::from_utf8(stat.get(behind + 1..)?).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The user namespace of a process, as procfs names it (`user:[4026531837]`); `None` without the right to look.
pub(crate) fn user_namespace_of(pid: i32) -> Option<String> {
    std::fs::read_link(format!("/proc/{pid}/ns/user")).ok()?.into_os_string().into_string().ok()
}

/// How a process has ended that is no child of ours: a zombie tells it in procfs, and a pidfd once it was reaped.
fn exit_of_stranger(pidfd: BorrowedFd<'_>, pid: i32, started: u64) -> Result<ExitStatus> {
    let told = || exit_of(flint_sys::Fd(pidfd.as_raw_fd())).ok().flatten().map(ExitStatus::from);
    // It may be reaped between the first two.
    told().or_else(|| exit_of_zombie(pid, started)).or_else(told).ok_or_else(|| {
        let text =
            format!("process {pid} has ended and was reaped, and this kernel does not tell how (Linux 6.15 does)");
        Error::new(Kind::NotFound, text)
    })
}

/// How a process has ended that was started then and waits to be reaped.
pub(crate) fn exit_of_zombie(pid: i32, started: u64) -> Option<ExitStatus> {
    // Who may not look into the process reads 0 as its exit code; the same right is asked for here.
    std::fs::read_link(format!("/proc/{pid}/ns/user")).ok()?;
    let stat = crate::procfs::read(&format!("/proc/{pid}/stat")).ok()?;
    parse_exit(&stat, started)
}

fn parse_exit(stat: &[u8], started: u64) -> Option<ExitStatus> {
    let behind = stat.iter().rposition(|&byte| byte == b')')?;
    let fields: Vec<_> = std::str::from_utf8(stat.get(behind + 1..)?).ok()?.split_ascii_whitespace().collect();
    // State is field 3, the start time field 22, the exit code field 52.
    let (state, began, code) = (fields.first()?, fields.get(19)?, fields.get(49)?);
    let is_it = *state == "Z" && began.parse() == Ok(started);
    is_it.then(|| code.parse().ok().map(|code| Ended::of_wait_status(code).into())).flatten()
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
    use super::{ExitStatus, parse_exit, parse_start_time};

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

    #[test]
    fn exits_of_zombies() {
        let line = |state: &str, code: &str| {
            let before = (4..22).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
            let behind = (23..52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
            format!("12 (a) b) {state} {before} 777 {behind} {code}\n").into_bytes()
        };
        assert_eq!(parse_exit(&line("Z", "768"), 777), Some(ExitStatus::Exited(3)));
        assert_eq!(parse_exit(&line("Z", "9"), 777), Some(ExitStatus::Signaled(9)));
        assert_eq!(parse_exit(&line("Z", "139"), 777), Some(ExitStatus::Signaled(11)));
        assert_eq!(parse_exit(&line("Z", "768"), 778), None);
        assert_eq!(parse_exit(&line("S", "0"), 777), None);
    }
}
