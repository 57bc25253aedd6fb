//! Where the fault tests make a system call of init fail. Without the feature `faults` this is nothing.

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The call that fails, counted from 1 from the moment of arming.
    pub call: u32,
    /// What it returns.
    pub errno: i32,
}

#[cfg(feature = "faults")]
pub use armed::arm;
#[cfg(feature = "faults")]
pub(crate) use armed::point;
#[cfg(not(feature = "faults"))]
pub use disarmed::arm;
#[cfg(not(feature = "faults"))]
pub(crate) use disarmed::point;

#[cfg(not(feature = "faults"))]
#[allow(clippy::inline_always, reason = "must vanish where faults are not built in")]
mod disarmed {
    use super::Fault;
    use crate::Result;

    /// Does nothing: faults are not built in.
    #[inline(always)]
    pub fn arm(_fault: Fault) {}

    #[inline(always)]
    #[allow(clippy::unnecessary_wraps, reason = "the other one can fail")]
    pub(crate) fn point(_number: libc::c_long) -> Result<()> {
        Ok(())
    }
}

#[cfg(feature = "faults")]
mod armed {
    use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

    use super::Fault;
    use crate::{Errno, Result};

    /// Calls left until the fault; 0 is disarmed.
    static REMAINING: AtomicU32 = AtomicU32::new(0);
    static ERRNO: AtomicI32 = AtomicI32::new(0);

    /// Makes the `fault.call`-th system call of this process from now on fail once.
    pub fn arm(fault: Fault) {
        ERRNO.store(fault.errno, Ordering::Relaxed);
        REMAINING.store(fault.call, Ordering::Relaxed);
    }

    pub(crate) fn point(number: libc::c_long) -> Result<()> {
        // The end of a process cannot fail.
        if number == libc::SYS_exit_group || REMAINING.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        if REMAINING.fetch_sub(1, Ordering::Relaxed) == 1 {
            return Err(Errno(ERRNO.load(Ordering::Relaxed)));
        }
        Ok(())
    }
}
