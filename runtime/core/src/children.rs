//! For a program that stays with a process: signals for it, and the children beside it.
//!
//! libc's bindings have names for the kernel's first 31 signals only, and an enumeration of them cannot hold the others.

use std::os::fd::BorrowedFd;

use flint_sys::process;
use nix::errno::Errno;

use crate::container::signal_pidfd;
use crate::{Error, Result};

/// Sends a signal, also a real-time one, to the process of a pidfd. One that has just ended needs none.
///
/// # Errors
///
/// The kernel refuses it.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    match signal_pidfd(pidfd, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::os(format!("forward signal {signal} to the container"), errno)),
    }
}

/// Reaps children that have ended, as those that came to us as their subreaper, up to `main`: its status is waited for
/// elsewhere.
pub fn reap_orphans(main: i32) {
    while let Ok(Some(pid)) = process::ended_child() {
        if pid == main || process::reap(pid).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

    use super::*;

    /// One that is there for the other tests of this process as well: they wait for their own children by pid.
    #[test]
    fn a_child_that_a_real_time_signal_ended_is_reaped() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        send_signal(pidfd.as_fd(), 40).unwrap();
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        assert!(process::ended_child().is_ok_and(|pid| pid.is_some()));
        process::reap(child.id().cast_signed()).unwrap();
        assert!(child.wait().is_err(), "it is still there");
        send_signal(pidfd.as_fd(), 40).unwrap();
    }
}
