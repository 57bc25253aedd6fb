//! A command in the foreground: stays with the program, forwards signals to it, relays its terminal.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use flint_runtime::children;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::signals::{Meaning, Signals};
use crate::terminal::{Ready, Relay};

/// The program that is stayed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program<'a> {
    /// In our pid namespace.
    pub(crate) pid: i32,
    /// Readable once it has ended.
    pub(crate) pidfd: BorrowedFd<'a>,
    /// Whether we are a subreaper and so have to reap what others left to us.
    pub(crate) orphans: bool,
}

/// Returns when the program has ended and all its output is out; its status is still to be waited for.
///
/// # Errors
/// poll(2), the signalfd, or a refused signal.
pub(crate) fn attend(program: Program<'_>, signals: &Signals, mut relay: Option<&mut Relay<'_>>) -> Result<()> {
    loop {
        let (pending, ended, ready) = wait(program, signals, relay.as_deref())?;
        if let Some(relay) = relay.as_deref_mut() {
            relay.pump(ready);
        }
        if pending {
            take_signals(program, signals, relay.as_deref())?;
        }
        if ended {
            if let Some(relay) = relay {
                relay.finish();
            }
            return Ok(());
        }
    }
}

/// Whether signals are pending, whether the program has ended, what the relay can do.
fn wait(program: Program<'_>, signals: &Signals, relay: Option<&Relay<'_>>) -> Result<(bool, bool, Ready)> {
    let interests = relay.map_or([None, None, None], Relay::interests);
    let mut fds = Vec::with_capacity(5);
    fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
    fds.push(PollFd::new(program.pidfd, PollFlags::POLLIN));
    fds.extend(interests.iter().flatten().cloned());
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the container"),
        }
    }
    let mut told = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    let mut next = |polled: bool| if polled { told.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() };
    let pending = !next(true).is_empty();
    let ended = !next(true).is_empty();
    let [input, master, output] = interests.map(|interest| next(interest.is_some()));
    Ok((pending, ended, Ready { input, master, output }))
}

fn take_signals(program: Program<'_>, signals: &Signals, relay: Option<&Relay<'_>>) -> Result<()> {
    while let Some(meaning) = signals.next()? {
        match (meaning, relay) {
            (Meaning::Child, _) if program.orphans => children::reap_orphans(program.pid),
            (Meaning::Resize, Some(relay)) => relay.resize(),
            (Meaning::Forward(signal), _) => children::send_signal(program.pidfd, signal)?,
            (Meaning::Child | Meaning::Resize | Meaning::Nothing, _) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "foreground_tests.rs"]
mod tests;
