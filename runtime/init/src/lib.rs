//! Everything that runs between clone and exec.
//!
//! ```text
//!  spawn ──clone3──▶ run ─▶ step 0, step 1, ... ─▶ AwaitStart ─▶ ... ─▶ Execute ─▶ the container's program
//!    │                        │  each step: one function in the file of its kernel concern
//!    └─ or clone3 ─▶ join ────┘  (pid and user namespaces of others: a throw-away process joins, then clones)
//! ```
//!
//! The maker may be a thread of any program, so after the clone there is one rule: raw system calls and fixed
//! buffers only. No allocation, no lock, no std, no libc function, no panic: the crate has no allocator, forbids
//! unsafe code, and the linked program is checked for the rest. What a step needs was compiled before, by the
//! host; a failing step reports its index, its operation and a number, and the host writes the sentence.
//!
//! What must not happen here: parsing of configuration, policy, anything that depends on the environment.
#![no_std]
#![forbid(unsafe_code)]

mod console;
mod copy_up;
mod device;
mod executor;
pub mod failure;
mod hook;
mod identity;
mod mask;
mod mount;
mod namespace;
mod path;
pub mod plan;
mod program;
pub mod protocol;
mod root;
mod start;
mod stdio;

pub use executor::{Bindings, spawn};
#[cfg(feature = "faults")]
pub use flint_sys::Fault;
pub use flint_sys::{Errno, Fd};
