//! Namespaces, host names, the loopback device.

use core::ffi::CStr;

use crate::raw::call;
use crate::{Fd, Result, file};

/// setns(2): joins the namespace (or, for a pidfd and several flags, the namespaces; Linux 5.8).
///
/// # Errors
///
/// EINVAL for another kind of namespace or a threaded caller; EPERM.
pub fn setns(fd: Fd, kind: u32) -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_setns, fd.argument(), kind as usize) }.map(drop)
}

/// unshare(2).
///
/// # Errors
///
/// EPERM, ENOSPC (the limits in /proc/sys/user).
pub fn unshare(flags: u32) -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_unshare, flags as usize) }.map(drop)
}

/// sethostname(2).
///
/// # Errors
///
/// EINVAL for more than 64 bytes, EPERM.
pub fn sethostname(name: &CStr) -> Result<()> {
    let bytes = name.to_bytes();
    // SAFETY: the name is live and its length given.
    unsafe { call!(SYS_sethostname, bytes.as_ptr() as usize, bytes.len()) }.map(drop)
}

/// setdomainname(2).
///
/// # Errors
///
/// As sethostname.
pub fn setdomainname(name: &CStr) -> Result<()> {
    let bytes = name.to_bytes();
    // SAFETY: the name is live and its length given.
    unsafe { call!(SYS_setdomainname, bytes.as_ptr() as usize, bytes.len()) }.map(drop)
}

/// Brings the device `lo` of the current network namespace up (netdevice(7)).
///
/// # Errors
///
/// EPERM, ENODEV.
pub fn loopback_up() -> Result<()> {
    /// struct ifreq: the name, then a union of which the flags are used.
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let mut request = InterfaceRequest { name: *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0", flags: 0, rest: [0; 22] };
    // SAFETY: takes no memory.
    let socket =
        Fd(unsafe { call!(SYS_socket, libc::AF_INET as usize, (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize, 0) }?
            as i32);
    request.flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request is live and has the size of struct ifreq.
    let result =
        unsafe { call!(SYS_ioctl, socket.argument(), libc::SIOCSIFFLAGS as usize, (&raw mut request) as usize) };
    let _ = file::close(socket);
    result.map(drop)
}

/// The kind of a namespace, as its `CLONE_NEW*` flag (`NS_GET_NSTYPE`, ioctl_ns(2), Linux 4.11).
///
/// # Errors
///
/// ENOTTY for anything else.
pub fn kind(namespace: Fd) -> Result<u32> {
    const NS_GET_NSTYPE: usize = 0xb703;
    // SAFETY: takes no argument.
    unsafe { call!(SYS_ioctl, namespace.argument(), NS_GET_NSTYPE, 0) }.map(|kind| kind as u32)
}
