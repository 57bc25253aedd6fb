//! Pseudo terminals (pty(7), ioctl_tty(2)).

use crate::raw::call;
use crate::{Fd, Result};

/// Unlocks the other end of a pty master (`TIOCSPTLCK`).
///
/// # Errors
///
/// ENOTTY for something else.
pub fn unlock(master: Fd) -> Result<()> {
    let locked: i32 = 0;
    // SAFETY: the kernel reads one int.
    unsafe { call!(SYS_ioctl, master.argument(), libc::TIOCSPTLCK as usize, (&raw const locked) as usize) }.map(drop)
}

/// The number of a pty: its other end is `/dev/pts/<number>` of its devpts (`TIOCGPTN`).
///
/// # Errors
///
/// ENOTTY for something else.
pub fn number(master: Fd) -> Result<u32> {
    let mut number: u32 = 0;
    // SAFETY: the kernel writes one unsigned int.
    unsafe { call!(SYS_ioctl, master.argument(), libc::TIOCGPTN as usize, (&raw mut number) as usize) }?;
    Ok(number)
}

/// Opens the other end of a pty without a path (`TIOCGPTPEER`, Linux 4.13); CLOEXEC, not controlling.
///
/// # Errors
///
/// EIO when it is locked.
pub fn peer(master: Fd) -> Result<Fd> {
    let flags = (libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) as usize;
    // SAFETY: the argument is flags, no pointer.
    unsafe { call!(SYS_ioctl, master.argument(), libc::TIOCGPTPEER as usize, flags) }.map(|fd| Fd(fd as i32))
}

/// Sets the window's size in characters (`TIOCSWINSZ`).
///
/// # Errors
///
/// ENOTTY for something else.
pub fn set_size(terminal: Fd, columns: u16, rows: u16) -> Result<()> {
    let size = [rows, columns, 0, 0];
    // SAFETY: struct winsize is four u16.
    unsafe { call!(SYS_ioctl, terminal.argument(), libc::TIOCSWINSZ as usize, size.as_ptr() as usize) }.map(drop)
}

/// Makes it the controlling terminal of the calling session leader (`TIOCSCTTY`).
///
/// # Errors
///
/// EPERM when the caller leads no session, or another session owns it.
pub fn set_controlling(terminal: Fd) -> Result<()> {
    // SAFETY: the argument is a number.
    unsafe { call!(SYS_ioctl, terminal.argument(), libc::TIOCSCTTY as usize, 0) }.map(drop)
}
