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

mod birth;
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
mod step;

pub use executor::{Bindings, spawn};
pub use flint_sys::Fault;
pub use flint_sys::schedule::SchedulerAttributes;
pub use flint_sys::{Errno, Fd};

/// Sends a signal through a pidfd; the host needs it too, with signals that its libraries do not name.
///
/// # Errors
///
/// ESRCH when the process has ended, EINVAL for no signal, EPERM.
pub fn signal_process(pidfd: Fd, signal: i32) -> flint_sys::Result<()> {
    flint_sys::process::pidfd_send_signal(pidfd, signal)
}

/// Changes the attributes of a mount that the host prepares (mount_setattr(2)).
///
/// # Errors
///
/// EINVAL when `mount` is not at a mount's root, EPERM.
pub fn set_mount_attributes(mount: Fd, attributes: plan::Attributes, recursive: bool) -> flint_sys::Result<()> {
    use flint_sys::mount::Change;
    let change = Change { set: attributes.set, clear: attributes.clear, recursive, ..Change::default() };
    flint_sys::mount::mount_setattr(mount, change)
}

/// Cuts a mount and those below it from what they were cloned of: mounts still arrive from there, none goes back.
///
/// # Errors
///
/// EINVAL when `mount` is not at a mount's root.
pub fn make_mounts_slave(mount: Fd) -> flint_sys::Result<()> {
    use flint_sys::mount::Change;
    let change = Change { propagation: libc::MS_SLAVE, recursive: true, ..Change::default() };
    flint_sys::mount::mount_setattr(mount, change)
}

/// Shows the owners of a detached mount's files through the maps of a user namespace (`MOUNT_ATTR_IDMAP`).
///
/// # Errors
///
/// EINVAL for a file system that knows no maps, EPERM for one that is not the caller's or has maps already.
pub fn map_mount_ids(mount: Fd, user_namespace: Fd, recursive: bool) -> flint_sys::Result<()> {
    use flint_sys::mount::Change;
    let change = Change { idmap: Some(user_namespace), recursive, ..Change::default() };
    flint_sys::mount::mount_setattr(mount, change)
}

/// The kind of a namespace, as its `CLONE_NEW*` flag (`NS_GET_NSTYPE`, ioctl_ns(2), Linux 4.11).
///
/// # Errors
///
/// ENOTTY for anything else.
pub fn namespace_kind(namespace: Fd) -> flint_sys::Result<u32> {
    flint_sys::namespace::kind(namespace)
}
