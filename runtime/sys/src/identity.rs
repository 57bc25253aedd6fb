//! Users, groups, capabilities, keyrings, and the prctl(2)s that go with them.

use core::ffi::CStr;

use crate::Result;
use crate::raw::call;

/// `PR_SET_DUMPABLE`.
///
/// # Errors
///
/// None for 0 and 1.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, usize::from(dumpable), 0)
}

/// `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
///
/// None on Linux 3.5 and later.
pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// `PR_SET_KEEPCAPS`: the permitted set survives the change from uid 0; cleared by exec.
///
/// # Errors
///
/// EPERM when locked by securebits.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, usize::from(keep), 0)
}

/// `PR_CAPBSET_DROP`.
///
/// # Errors
///
/// EPERM without CAP_SETPCAP, EINVAL for an unknown capability.
pub fn drop_bounding(capability: u32) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability as usize, 0)
}

/// `PR_CAP_AMBIENT_RAISE` (Linux 4.3).
///
/// # Errors
///
/// EPERM when it is not both permitted and inheritable.
pub fn raise_ambient(capability: u32) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as usize, capability as usize)
}

/// `PR_CAP_AMBIENT_CLEAR_ALL`.
///
/// # Errors
///
/// EINVAL before Linux 4.3.
pub fn clear_ambient() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0)
}

fn prctl(option: i32, a: usize, b: usize) -> Result<()> {
    // SAFETY: every option used here takes numbers only.
    unsafe { call!(SYS_prctl, option as usize, a, b, 0, 0) }.map(drop)
}

/// capset(2), version 3: three sets at once.
///
/// # Errors
///
/// EPERM for a capability that the caller may not have.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data = [low(effective), low(permitted), low(inheritable), high(effective), high(permitted), high(inheritable)];
    // SAFETY: the header is version and pid 0, the data two triples of u32, both live.
    unsafe { call!(SYS_capset, header.as_ptr() as usize, data.as_ptr() as usize) }.map(drop)
}

/// setgroups(2) of the calling thread.
///
/// # Errors
///
/// EPERM (also where /proc/self/setgroups says deny), EINVAL for an unmapped id or too many.
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the list is live and its length given.
    unsafe { call!(SYS_setgroups, groups.len(), groups.as_ptr() as usize) }.map(drop)
}

/// setresgid(2) with one id for all three.
///
/// # Errors
///
/// EPERM, EINVAL for an id that is not mapped.
pub fn setgid(gid: u32) -> Result<()> {
    let gid = gid as usize;
    // SAFETY: takes no memory.
    unsafe { call!(SYS_setresgid, gid, gid, gid) }.map(drop)
}

/// setresuid(2) with one id for all three.
///
/// # Errors
///
/// EPERM, EINVAL for an id that is not mapped, EAGAIN.
pub fn setuid(uid: u32) -> Result<()> {
    let uid = uid as usize;
    // SAFETY: takes no memory.
    unsafe { call!(SYS_setresuid, uid, uid, uid) }.map(drop)
}

/// Joins the session keyring of this name, which is made when there is none that may be searched (keyctl(2),
/// `KEYCTL_JOIN_SESSION_KEYRING`); its serial number.
///
/// # Errors
///
/// ENOSYS without keyrings, EDQUOT when the user's quota of keys is used up.
pub fn join_session_keyring(name: &CStr) -> Result<usize> {
    const JOIN_SESSION_KEYRING: usize = 1;
    // SAFETY: the name is live and NUL-terminated.
    unsafe { call!(SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr() as usize) }
}

/// Describes a key: `type;uid;gid;permissions;description`, with a NUL (keyctl(2), `KEYCTL_DESCRIBE`); the whole length.
///
/// # Errors
///
/// EACCES when the key may not be viewed, ENOKEY.
pub fn describe_key(key: usize, text: &mut [u8]) -> Result<usize> {
    const DESCRIBE: usize = 6;
    // SAFETY: the buffer is live and its length given.
    unsafe { call!(SYS_keyctl, DESCRIBE, key, text.as_mut_ptr() as usize, text.len()) }
}

/// Sets a key's permissions (keyctl(2), `KEYCTL_SETPERM`).
///
/// # Errors
///
/// EACCES for another user's key.
pub fn set_key_permissions(key: usize, permissions: u32) -> Result<()> {
    const SETPERM: usize = 5;
    // SAFETY: takes no memory.
    unsafe { call!(SYS_keyctl, SETPERM, key, permissions as usize) }.map(drop)
}

/// Installs a seccomp filter on the calling thread (seccomp(2), `SECCOMP_SET_MODE_FILTER`); with
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` the result is the number of the listener's descriptor, which is CLOEXEC.
///
/// # Errors
///
/// EACCES without no_new_privs and CAP_SYS_ADMIN; EINVAL for a program the kernel refuses; ENOMEM.
pub fn set_filter(program: &[libc::sock_filter], flags: u32) -> Result<usize> {
    /// struct sock_fprog.
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const libc::sock_filter,
    }
    const SET_MODE_FILTER: usize = 1;
    let program = Program { length: program.len() as u16, filter: program.as_ptr() };
    // SAFETY: the program is live and its length given; the kernel copies and verifies it.
    unsafe { call!(SYS_seccomp, SET_MODE_FILTER, flags as usize, (&raw const program) as usize) }
}
