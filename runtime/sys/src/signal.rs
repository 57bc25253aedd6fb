//! Signal masks and dispositions, as the kernel has them (8-byte sets).

use crate::raw::call;
use crate::{Fd, Result};

/// A set of signals: bit n-1 is signal n.
pub type Mask = u64;

const SET_SIZE: usize = size_of::<Mask>();

/// Blocks every signal that can be blocked; returns the mask before.
///
/// # Errors
///
/// None that can happen on a sane kernel.
pub fn block_all() -> Result<Mask> {
    let all: Mask = !0;
    let mut before: Mask = 0;
    // SAFETY: both sets are live and of the size given.
    unsafe {
        call!(
            SYS_rt_sigprocmask,
            libc::SIG_SETMASK as usize,
            (&raw const all) as usize,
            (&raw mut before) as usize,
            SET_SIZE
        )
    }?;
    Ok(before)
}

/// Sets the calling thread's mask.
///
/// # Errors
///
/// None that can happen on a sane kernel.
pub fn set_mask(mask: Mask) -> Result<()> {
    // SAFETY: the set is live and of the size given; the old one is not asked for.
    unsafe { call!(SYS_rt_sigprocmask, libc::SIG_SETMASK as usize, (&raw const mask) as usize, 0, SET_SIZE) }.map(drop)
}

/// Sets a signal's disposition to the default.
///
/// # Errors
///
/// EINVAL for no such signal.
pub fn set_default(signal: i32) -> Result<()> {
    // struct kernel_sigaction: handler (SIG_DFL is 0), flags, restorer, mask; zero all through on every
    // architecture, whatever the order of its fields.
    let action = [0u64; 4];
    // SAFETY: the structure is live and at least as large as the kernel's; the old one is not asked for. No
    // handler is installed.
    unsafe { call!(SYS_rt_sigaction, signal as usize, action.as_ptr() as usize, 0, SET_SIZE) }.map(drop)
}

/// A descriptor that is readable while one of the signals is pending (signalfd(2)); CLOEXEC. They must be blocked.
///
/// # Errors
///
/// EMFILE, ENFILE, ENOMEM.
pub fn descriptor(signals: Mask) -> Result<Fd> {
    // SAFETY: the set is live and of the size given; -1 asks for a new descriptor.
    let result = unsafe {
        call!(SYS_signalfd4, usize::MAX, (&raw const signals) as usize, SET_SIZE, libc::SFD_CLOEXEC as usize)
    };
    result.map(|fd| Fd(fd as i32))
}
