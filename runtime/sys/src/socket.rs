//! Messages on connected sockets, and waiting.

use crate::raw::call;
use crate::{Errno, Fd, Result};

/// Receives one message (recvfrom without flags). 0 is the end of the connection.
///
/// # Errors
///
/// What recv(2) says; EINTR is retried.
pub fn receive(socket: Fd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: the buffer is live and its length given; no address is asked for.
        let result =
            unsafe { call!(SYS_recvfrom, socket.argument(), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0) };
        if result != Err(Errno(libc::EINTR)) {
            return result;
        }
    }
}

/// Accepts a connection; CLOEXEC.
///
/// # Errors
///
/// What accept(2) says; EINTR is retried.
pub fn accept(listener: Fd) -> Result<Fd> {
    loop {
        // SAFETY: no address is asked for.
        let result = unsafe { call!(SYS_accept4, listener.argument(), 0, 0, libc::SOCK_CLOEXEC as usize) };
        if result != Err(Errno(libc::EINTR)) {
            return result.map(|fd| Fd(fd as i32));
        }
    }
}

/// struct cmsghdr with room for one descriptor, padded as CMSG_SPACE does on 64-bit machines.
#[repr(C)]
struct Control {
    length: usize,
    level: i32,
    kind: i32,
    fd: i32,
    padding: i32,
}

impl Control {
    /// With the header and the descriptor, without the padding (CMSG_LEN).
    const LENGTH: usize = 16 + size_of::<i32>();

    const fn with(fd: Fd) -> Self {
        Self { length: Self::LENGTH, level: libc::SOL_SOCKET, kind: libc::SCM_RIGHTS, fd: fd.0, padding: 0 }
    }
}

/// struct iovec
#[repr(C)]
struct Vector {
    base: *mut u8,
    length: usize,
}

/// The kernel's struct user_msghdr.
#[repr(C)]
struct Header {
    name: usize,
    name_length: u32,
    vectors: *const Vector,
    vector_count: usize,
    control: *mut Control,
    control_length: usize,
    flags: u32,
}

impl Header {
    const fn of(vector: &Vector, control: &mut Control) -> Self {
        Self {
            name: 0,
            name_length: 0,
            vectors: &raw const *vector,
            vector_count: 1,
            control: &raw mut *control,
            control_length: size_of::<Control>(),
            flags: 0,
        }
    }
}

/// Receives one message, with the descriptor that came with it (`SCM_RIGHTS`, unix(7)); CLOEXEC. 0 is the end of the connection.
///
/// # Errors
///
/// What recvmsg(2) says; EINTR is retried.
pub fn receive_with_fd(socket: Fd, buffer: &mut [u8]) -> Result<(usize, Option<Fd>)> {
    let mut control = Control { length: 0, ..Control::with(Fd(-1)) };
    let vector = Vector { base: buffer.as_mut_ptr(), length: buffer.len() };
    let header = Header::of(&vector, &mut control);
    loop {
        // SAFETY: the header points to one live vector and to room for one control message, with their sizes; both are this
        // function's own.
        let result = unsafe {
            call!(SYS_recvmsg, socket.argument(), (&raw const header) as usize, libc::MSG_CMSG_CLOEXEC as usize)
        };
        match result {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(length) => {
                // SAFETY: the control message is live and was written through the same pointer; every bit pattern is one.
                let control = unsafe { header.control.read_volatile() };
                let came = control.length == Control::LENGTH && control.kind == libc::SCM_RIGHTS;
                return Ok((length, came.then_some(Fd(control.fd))));
            }
        }
    }
}

/// Sends `data` and one descriptor in one message (`SCM_RIGHTS`, unix(7)).
///
/// # Errors
///
/// What sendmsg(2) says; EINTR is retried. EPIPE comes without SIGPIPE.
pub fn send_with_fd(socket: Fd, data: &[u8], fd: Fd) -> Result<()> {
    let mut control = Control::with(fd);
    let vector = Vector { base: data.as_ptr().cast_mut(), length: data.len() };
    let header = Header::of(&vector, &mut control);
    loop {
        // SAFETY: the header points to one live vector and one live control message, with their sizes.
        let result =
            unsafe { call!(SYS_sendmsg, socket.argument(), (&raw const header) as usize, libc::MSG_NOSIGNAL as usize) };
        if result != Err(Errno(libc::EINTR)) {
            return result.map(drop);
        }
    }
}

/// Waits until `fd` can be read or has ended, at most `seconds` (`None`: for ever). False when the time is up.
///
/// # Errors
///
/// What ppoll(2) says; EINTR is retried with the time that is left (the kernel counts it down).
pub fn wait_readable(fd: Fd, seconds: Option<u32>) -> Result<bool> {
    let mut poll = libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 };
    let mut time = [i64::from(seconds.unwrap_or(0)), 0];
    let time_pointer = if seconds.is_some() { time.as_mut_ptr() as usize } else { 0 };
    loop {
        // SAFETY: one live pollfd; the time is null or a live timespec; no signal mask.
        let result = unsafe { call!(SYS_ppoll, (&raw mut poll) as usize, 1, time_pointer, 0, 0) };
        match result {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(count) => return Ok(count > 0),
        }
    }
}

/// Waits until one of two descriptors can be read or has ended; true when it is the first.
///
/// # Errors
///
/// What ppoll(2) says; EINTR is retried.
pub fn first_readable(first: Fd, second: Fd) -> Result<bool> {
    let poll = |fd: Fd| libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 };
    let mut fds = [poll(first), poll(second)];
    loop {
        // SAFETY: two live pollfds; no time and no signal mask.
        match unsafe { call!(SYS_ppoll, fds.as_mut_ptr() as usize, fds.len(), 0, 0, 0) } {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(_) => {
                let [first, _] = fds;
                return Ok(first.revents != 0);
            }
        }
    }
}
