//! What the kernel is told for an action: the filter's return value.

use crate::{Error, Result};
use oci_spec::runtime::LinuxSeccompAction;

/// The highest number that the kernel passes on as an error (`MAX_ERRNO`); it silently lowers higher ones to it.
const MAX_ERRNO: u32 = 4095;

/// The return value of the stub for calls that are newer than the profile.
pub(super) const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// The return value for a call of an architecture that the profile does not list.
pub(super) const BAD_ARCHITECTURE: u32 = libc::SECCOMP_RET_KILL_THREAD;

/// The return value for `action` with the bundle's `errnoRet` (or `defaultErrnoRet`); `place` names the rule in
/// messages.
///
/// # Errors
/// `Kind::Invalid` for a number that the kernel cannot carry.
pub(super) fn return_value(
    action: LinuxSeccompAction,
    number: Option<u32>,
    place: &str,
    warnings: &mut Vec<String>,
) -> Result<u32> {
    let limit = match action {
        LinuxSeccompAction::ScmpActErrno => MAX_ERRNO,
        LinuxSeccompAction::ScmpActTrace => libc::SECCOMP_RET_DATA,
        _ => {
            if number.is_some() {
                warnings.push(format!("seccomp: {place}: the error number has no meaning for {action} and is ignored"));
            }
            0
        }
    };
    // EPERM for both: what runc takes for an absent errnoRet.
    let number = number.unwrap_or(libc::EPERM as u32);
    if limit > 0 && number > limit {
        return Err(Error::invalid(format!("seccomp: {place}: {number} is too high for {action}: at most {limit}")));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => libc::SECCOMP_RET_ERRNO | number,
        LinuxSeccompAction::ScmpActTrace => libc::SECCOMP_RET_TRACE | number,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        LinuxSeccompAction::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
    })
}

/// Whether runc's `ENOSYS` stub goes with the default action `default`: it does when that denies. A tracer is
/// expected to know new calls itself.
pub(super) fn has_stub(default: u32) -> bool {
    !matches!(
        default & libc::SECCOMP_RET_ACTION_FULL,
        libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
    )
}
