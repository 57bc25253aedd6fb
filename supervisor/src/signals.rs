//! Signals that a program waits for.

use std::io;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears of a signal from here on, also where the caller of this program had it blocked: that outlives execve (signal(7)), and
/// who waits for the signal would wait for ever. The thread that calls this is one that takes it.
///
/// # Errors
///
/// When the signal cannot be caught, or the kernel refuses a handler.
pub fn hear(kind: SignalKind) -> io::Result<Signal> {
    let heard = signal(kind)?;
    let number = nix::sys::signal::Signal::try_from(kind.as_raw_value())?;
    SigSet::from(number).thread_unblock()?;
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{SigSet, Signal, raise};
    use tokio::signal::unix::SignalKind;

    #[tokio::test]
    async fn a_signal_that_the_caller_had_blocked_is_heard() {
        SigSet::from(Signal::SIGWINCH).thread_block().unwrap();
        raise(Signal::SIGWINCH).unwrap();
        let mut heard = super::hear(SignalKind::window_change()).unwrap();
        tokio::time::timeout(Duration::from_secs(30), heard.recv()).await.unwrap().unwrap();
    }
}
