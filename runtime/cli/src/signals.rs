//! Signals of a foreground command: taken from before the container exists, handed to it once it does.
//!
//! All signals are blocked and read from a signalfd, so none can arrive between two steps and be lost or end
//! flint alone: a SIGINT during the set-up waits and is then the container's.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGCHLD, SIGURG (Go's runtime uses it, so callers in Go send it by accident) and SIGWINCH are flint's own.
const CHILD: u32 = 17;
const URGENT: u32 = 23;
const WINDOW: u32 = 28;

/// All signals, blocked on this thread and readable.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

/// What a signal means for the foreground command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A child has ended.
    Child,
    /// Our terminal has another size.
    Resize,
    /// To be sent to the container.
    Forward(i32),
    /// Nothing.
    Nothing,
}

impl Signals {
    /// Blocks all signals of this thread.
    ///
    /// # Errors
    /// No signalfd to be had.
    pub(crate) fn block() -> Result<Self> {
        let all = SigSet::all();
        all.thread_block().context("blocking signals")?;
        let fd =
            SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("making a signalfd")?;
        Ok(Self(fd))
    }

    /// The next pending signal.
    ///
    /// # Errors
    /// The signalfd cannot be read.
    pub(crate) fn next(&self) -> Result<Option<Meaning>> {
        let signal = self.0.read_signal().context("reading the signalfd")?;
        Ok(signal.map(|signal| meaning(signal.ssi_signo)))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn meaning(signal: u32) -> Meaning {
    match signal {
        CHILD => Meaning::Child,
        WINDOW => Meaning::Resize,
        URGENT => Meaning::Nothing,
        other => Meaning::Forward(other as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal as nix_signal;

    #[test]
    fn the_numbers_are_the_kernels() {
        assert_eq!(nix_signal::Signal::SIGCHLD as u32, CHILD);
        assert_eq!(nix_signal::Signal::SIGURG as u32, URGENT);
        assert_eq!(nix_signal::Signal::SIGWINCH as u32, WINDOW);
    }

    #[test]
    fn pending_signals_are_read_and_told_apart() {
        let signals = Signals::block().expect("a signalfd");
        for signal in [nix_signal::Signal::SIGINT, nix_signal::Signal::SIGWINCH, nix_signal::Signal::SIGURG] {
            nix_signal::raise(signal).expect("raise");
        }
        let mut seen = Vec::new();
        while let Some(meaning) = signals.next().expect("readable") {
            // Other tests of this process have children too.
            if meaning != Meaning::Child {
                seen.push(meaning);
            }
        }
        assert_eq!(seen, [Meaning::Forward(2), Meaning::Nothing, Meaning::Resize]);
    }
}
