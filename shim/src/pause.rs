//! Process 1 of a pod whose containers share their pids: it reaps, and ends when it is told to.

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::process::Signal as DeathSignal;

/// The action of the command line. Nobody calls it but the shim.
pub(crate) const ACTION: &str = "pause";

/// # Errors
///
/// The kernel refuses what any process may do.
pub(crate) fn run() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(DeathSignal::KILL)).context("follow the shim")?;
    let mut signals = SigSet::empty();
    signals.extend([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("block signals")?;
    loop {
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD)) {}
        if signals.wait().context("wait for a signal")? != Signal::SIGCHLD {
            return Ok(());
        }
    }
}
