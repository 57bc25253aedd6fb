//! Where the fault tests kill the runtime. Without the feature `faults` this is nothing.
//!
//! `FLINT_FAULT_HOST_STEP=n` kills this process after step n of the host lane; `FLINT_FAULT_INIT_CALL=n` makes the
//! n-th system call of init fail, with `FLINT_FAULT_ERRNO` (EIO when unset).

/// After a step of the host lane.
#[cfg(not(feature = "faults"))]
pub(crate) fn after_host_step(_index: usize) {}

/// Which system call of init fails.
#[cfg(not(feature = "faults"))]
pub(crate) fn of_init() -> Option<flint_init::Fault> {
    None
}

#[cfg(feature = "faults")]
pub(crate) use armed::{after_host_step, of_init};

#[cfg(feature = "faults")]
mod armed {
    fn number(name: &str) -> Option<u32> {
        std::env::var(name).ok()?.parse().ok()
    }

    pub(crate) fn after_host_step(index: usize) {
        if number("FLINT_FAULT_HOST_STEP") == Some(index as u32) {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }

    pub(crate) fn of_init() -> Option<flint_init::Fault> {
        let call = number("FLINT_FAULT_INIT_CALL")?;
        let errno = number("FLINT_FAULT_ERRNO").map_or(libc::EIO, |errno| errno as i32);
        Some(flint_init::Fault { call, errno })
    }
}
