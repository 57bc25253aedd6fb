//! Where the fault tests make a system call of init fail. Without the feature `faults` this is nothing.

#[cfg(not(feature = "faults"))]
#[inline(always)]
#[allow(clippy::inline_always, clippy::unnecessary_wraps, reason = "must vanish where faults are not built in")]
pub(crate) fn point(_number: libc::c_long) -> crate::Result<()> {
    Ok(())
}

#[cfg(feature = "faults")]
pub(crate) use armed::point;
#[cfg(feature = "faults")]
pub use armed::{Fault, arm};

#[cfg(feature = "faults")]
mod armed {
    use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

    use crate::{Errno, Result};

    /// Calls left until the fault; 0 is disarmed.
    static REMAINING: AtomicU32 = AtomicU32::new(0);
    static ERRNO: AtomicI32 = AtomicI32::new(0);

    /// Which call fails, and how.
    #[derive(Clone, Copy, Debug)]
    pub struct Fault {
        /// The call that fails, counted from 1 from the moment of arming.
        pub call: u32,
        /// What it returns.
        pub errno: i32,
    }

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
