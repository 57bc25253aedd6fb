//! Descriptors in the executor's reactor.

use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor. `owner` must keep the same one open for as long as it lives, as all that are given here do: they own
/// it, and none hands it out.
///
/// # Errors
///
/// The kernel cannot poll it (a file on a disk), or is out of memory.
pub(crate) fn watch<T: AsRawFd>(owner: T, interest: Interest) -> std::io::Result<AsyncFd<T>> {
    // tokio asks for the promise above by an unsafe function, which is not for this crate.
    #[allow(deprecated, reason = "the other constructors are unsafe; their condition is kept here")]
    AsyncFd::with_interest(owner, interest)
}
