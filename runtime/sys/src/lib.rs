//! Raw system calls for the side of flint that runs between clone and exec.
//!
//! ```text
//!   flint-init (no_std, forbid(unsafe_code))
//!        |
//!   flint-sys:  process  identity  schedule  signal  namespace  mount  file  socket  terminal   thin, safe, typed
//!        |
//!   raw: the `syscall` instruction                                                   the only unsafe code
//! ```
//!
//! Nothing here calls libc, allocates, takes a lock or touches thread-local storage: after clone3 in a
//! threaded program none of that may be used. `libc` is used for constants and layouts alone.
//!
//! The wrappers are memory-safe for any arguments: every pointer handed to the kernel comes from a live Rust
//! reference with its length. They are *not* I/O-safe: an [`Fd`] is a plain number, since init owns its whole
//! descriptor table. Code outside init uses std's and nix's owned descriptors instead.
//!
//! What must not happen here: policy, retries (but for EINTR where a caller could not tell), strings for people.
#![no_std]

pub mod bpf;
mod fault;
pub mod file;
pub mod identity;
pub mod mount;
pub mod namespace;
pub mod process;
mod raw;
pub mod schedule;
pub mod signal;
pub mod socket;
pub mod terminal;

pub use fault::{Fault, arm};

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// The result of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

/// A file descriptor as a number; see the crate's text on ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Fd(pub i32);

impl Fd {
    /// The current directory, where a directory descriptor is asked for.
    pub const CWD: Self = Self(libc::AT_FDCWD);

    /// As a system call's argument.
    const fn argument(self) -> usize {
        self.0 as isize as usize
    }
}
