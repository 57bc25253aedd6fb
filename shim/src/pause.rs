//! Process 1 of a pod whose containers share their pids: it reaps, and ends when it is told to.

use std::io::Read as _;
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::process::Signal as DeathSignal;

/// The action of the command line. Nobody calls it but the shim.
pub(crate) const ACTION: &str = "pause";
/// The same for a pod that outlives its shim: it stays once a byte has come by standard input.
pub(crate) const LASTING: &str = "pause-lasting";

/// # Errors
///
/// The kernel refuses what any process may do.
pub(crate) fn run(lasting: bool) -> Result<()> {
    if !lasting {
        rustix::process::set_parent_process_death_signal(Some(DeathSignal::KILL)).context("follow the shim")?;
        // It may have died before; nobody but a living one has the other end of this pipe.
        if is_left().context("look at standard input")? {
            return Ok(());
        }
    }
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("block signals")?;
    // The end instead: the shim has died before it wrote down that there is this process.
    if lasting && std::io::stdin().lock().read(&mut [0]).context("wait for the shim's word")? == 0 {
        return Ok(());
    }
    loop {
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)) {}
        if signals.wait().context("wait for a signal")? != Signal::SIGCHLD {
            return Ok(());
        }
    }
}

/// Whether nobody can write to standard input any more.
fn is_left() -> nix::Result<bool> {
    let input = std::io::stdin();
    let mut fds = [PollFd::new(input.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds.iter().filter_map(PollFd::revents).any(|events| events.contains(PollFlags::POLLHUP)))
}
