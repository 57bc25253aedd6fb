//! Making and ending processes.

use core::convert::Infallible;
use core::ffi::{CStr, c_char};

use crate::raw::call;
use crate::{Errno, Fd, Result, signal};

/// `struct clone_args` of clone3(2), version 2 (Linux 5.7, with `cgroup`).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// How [`spawn`] clones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clone {
    /// `CLONE_NEW*`, and `CLONE_PARENT` where the caller's parent shall wait for the child.
    pub flags: u64,
    /// A cgroup v2 folder to be born in (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<Fd>,
    /// Ask for a pidfd (`CLONE_PIDFD`).
    pub pidfd: bool,
    /// Block every signal across the clone: the child must not run a handler of its maker (trap 3). The child
    /// starts with all signals blocked and all handlers reset (`CLONE_CLEAR_SIGHAND`, Linux 5.5).
    pub block_signals: bool,
}

/// A process that [`spawn`] made.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd, when asked for; CLOEXEC. The caller owns it.
    pub pidfd: Option<Fd>,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Clones the process; the child runs `child(argument)`, which never returns, on a copy of this memory.
///
/// Memory is copied, never shared: flags that share memory, descriptors or threads are refused. The child has
/// only the calling thread, so `child` must not allocate, lock, or use std or libc in any way that could. A plain
/// function whose return type is [`Infallible`], so that the call of it is a direct one.
///
/// A child without any options but a pidfd and `CLONE_PARENT` is made by clone(2) where a container's filter does not know
/// clone3(2): most answer ENOSYS, since they cannot look into its arguments.
///
/// # Errors
///
/// EINVAL for a sharing flag; else what clone3(2) says.
// The check of the linked program (integration-tests/init-object) starts here: the child's first instructions are
// those behind the system call. Inlined into its caller they would lie amid code of the maker, and through a
// pointer nothing could say what they call.
#[inline(never)]
#[allow(unreachable_code, reason = "the match proves that the child's function does not return")]
pub fn spawn<A>(options: Clone, argument: A, child: impl FnOnce(A) -> Infallible) -> Result<Child> {
    const SHARING: u64 = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_SETTLS) as u64;
    if options.flags & SHARING != 0 {
        return Err(Errno(libc::EINVAL));
    }
    let mut pidfd: i32 = -1;
    let mut arguments = CloneArguments {
        flags: options.flags | CLONE_CLEAR_SIGHAND,
        // With CLONE_PARENT the kernel takes the caller's own exit signal and wants none here.
        exit_signal: if options.flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..CloneArguments::default()
    };
    if options.pidfd {
        arguments.flags |= CLONE_PIDFD;
        arguments.pidfd = (&raw mut pidfd) as u64;
    }
    if let Some(cgroup) = options.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.0 as u64;
    }
    let before = if options.block_signals { Some(signal::block_all()?) } else { None };
    // SAFETY: the structure is live and its size is given. No flag shares memory with the child, so it runs on
    // a copy of this stack and of everything reachable; both sides return from the call with their own.
    let mut result = unsafe { call!(SYS_clone3, (&raw const arguments) as usize, size_of::<CloneArguments>()) };
    let parent = libc::CLONE_PARENT as u64;
    let is_plain = options.flags & !parent == 0 && options.cgroup.is_none() && !options.block_signals;
    if is_plain && matches!(result, Err(Errno(libc::ENOSYS | libc::EPERM))) {
        let flags = arguments.flags & (CLONE_PIDFD | parent) | libc::SIGCHLD as u64;
        // SAFETY: as above: without a stack of its own the child runs on a copy of this one. The pidfd's place is live.
        result = unsafe { call!(SYS_clone, flags as usize, 0, (&raw mut pidfd) as usize, 0, 0) };
    }
    if result == Ok(0) {
        let _guard = NeverUnwinds;
        match child(argument) {}
    }
    if let Some(mask) = before {
        signal::set_mask(mask)?;
    }
    let pid = result? as i32;
    Ok(Child { pid, pidfd: options.pidfd.then_some(Fd(pidfd)) })
}

/// A panic of the child must not unwind into its copy of the maker's stack, whose destructors are the maker's. Nothing is
/// left of it where panics abort, as in all that ships; a program that embeds the library may choose otherwise.
struct NeverUnwinds;

impl Drop for NeverUnwinds {
    fn drop(&mut self) {
        exit(PANICKED)
    }
}

/// The exit status of a Rust program whose main thread panicked.
const PANICKED: i32 = 101;

/// Ends the process at once (exit_group): no destructors, no buffers.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: ends the process; no memory is passed.
        let _ = unsafe { call!(SYS_exit_group, code as usize) };
    }
}

/// execve(2). Returns only when it failed.
///
/// # Errors
///
/// EINVAL when a list is not ended by a null pointer; else what execve(2) says. A pointer that leads nowhere
/// is EFAULT from the kernel, not undefined behaviour: only the kernel follows it.
#[must_use]
pub fn execve(path: &CStr, arguments: &[*const c_char], environment: &[*const c_char]) -> Errno {
    let ended = |list: &[*const c_char]| list.last().is_some_and(|last| last.is_null());
    if !ended(arguments) || !ended(environment) {
        return Errno(libc::EINVAL);
    }
    // SAFETY: the path is NUL-terminated and both lists end with null, as was just checked.
    let result = unsafe {
        call!(SYS_execve, path.as_ptr() as usize, arguments.as_ptr() as usize, environment.as_ptr() as usize)
    };
    match result {
        Err(errno) => errno,
        Ok(_) => Errno(libc::EINVAL),
    }
}

/// The pid in the caller's own pid namespace.
#[must_use]
pub fn getpid() -> i32 {
    // SAFETY: takes no memory and cannot fail.
    unsafe { call!(SYS_getpid) }.unwrap_or(0) as i32
}

/// setsid(2).
///
/// # Errors
///
/// EPERM for a process group leader.
pub fn setsid() -> Result<()> {
    // SAFETY: takes no memory.
    unsafe { call!(SYS_setsid) }.map(drop)
}

/// Sends a signal through a pidfd (Linux 5.1).
///
/// # Errors
///
/// ESRCH when the process is gone, EPERM.
pub fn pidfd_send_signal(pidfd: Fd, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo is allowed.
    unsafe { call!(SYS_pidfd_send_signal, pidfd.argument(), signal as usize, 0, 0) }.map(drop)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Ended {
    /// From the number that wait4(2) gives, and /proc/PID/stat for a zombie.
    #[must_use]
    pub const fn of_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited(status >> 8 & 0xff),
            signal => Self::Signaled(signal),
        }
    }
}

/// Waits for a child by its pidfd and reaps it (waitid with `P_PIDFD`, Linux 5.4). Any signal may have ended it, real-time ones too.
///
/// # Errors
///
/// ECHILD when it is no child of the caller, or somebody else reaped it.
pub fn wait(pidfd: Fd) -> Result<Ended> {
    const P_PIDFD: usize = 3;
    let [_, _, code, _, _, _, status, ..] = waitid(P_PIDFD, pidfd.argument(), libc::WEXITED)?;
    Ok(if code == libc::CLD_EXITED { Ended::Exited(status) } else { Ended::Signaled(status) })
}

/// Reaps a child by its pidfd if that can be done now (waitid with `P_PIDFD` and `WNOHANG`). None while it runs, and also while
/// another process traces it that has not taken its end yet: its pidfd is readable then, and
/// [`wait`] waits for that one (`wait_consider_task` in Linux's kernel/exit.c).
///
/// # Errors
///
/// ECHILD when it is no child of the caller, or somebody else reaped it.
pub fn try_wait(pidfd: Fd) -> Result<Option<Ended>> {
    const P_PIDFD: usize = 3;
    let [_, _, code, _, pid, _, status, ..] = waitid(P_PIDFD, pidfd.argument(), libc::WEXITED | libc::WNOHANG)?;
    let ended = if code == libc::CLD_EXITED { Ended::Exited(status) } else { Ended::Signaled(status) };
    Ok((pid != 0).then_some(ended))
}

/// A child that has ended and is not reaped, whichever signal ended it; it is left so.
///
/// # Errors
///
/// ECHILD without any children.
pub fn ended_child() -> Result<Option<i32>> {
    const P_ALL: usize = 0;
    let [_, _, _, _, pid, ..] = waitid(P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?;
    Ok((pid != 0).then_some(pid))
}

/// The words of a SIGCHLD's siginfo (64-bit kernels): si_code is the third, si_pid the fifth, si_status the seventh.
fn waitid(kind: usize, id: usize, options: i32) -> Result<[i32; 32]> {
    let mut info = [0i32; 32];
    loop {
        // SAFETY: the buffer has the 128 bytes of a siginfo; rusage is null.
        let result = unsafe { call!(SYS_waitid, kind, id, info.as_mut_ptr() as usize, options as usize, 0) };
        match result {
            Err(Errno(libc::EINTR)) => {}
            result => return result.map(|_| info),
        }
    }
}

/// Reaps a child that has ended (wait4(2)).
///
/// # Errors
///
/// ECHILD when it is no child of the caller, or somebody else reaped it.
pub fn reap(pid: i32) -> Result<()> {
    // SAFETY: the status and rusage are null.
    unsafe { call!(SYS_wait4, pid as usize, 0, libc::WNOHANG as usize, 0) }.map(drop)
}

/// `struct pidfd_info` of ioctl_pidfd(2), version 0 (Linux 6.13; the exit code since 6.15).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and the pairs of ids.
    numbers: [u32; 11],
    exit_code: i32,
}

/// How a process that need not be a child has ended (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, Linux 6.15). None: it has not
/// been reaped.
///
/// The kernel keeps it as long as a pidfd is open that was opened before the process was reaped.
///
/// # Errors
///
/// ENOTTY or EINVAL on older kernels; ESRCH on those that know the call and not the exit code, once it is reaped.
pub fn exit_of(pidfd: Fd) -> Result<Option<Ended>> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info)
    const PIDFD_GET_INFO: usize = 3 << 30 | size_of::<PidfdInfo>() << 16 | 0xff0b;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the structure is live, and its size is a part of the request's number.
    unsafe { call!(SYS_ioctl, pidfd.argument(), PIDFD_GET_INFO, (&raw mut info) as usize) }?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then(|| Ended::of_wait_status(info.exit_code)))
}

/// umask(2).
pub fn umask(mask: u32) {
    // SAFETY: takes no memory and cannot fail.
    let _ = unsafe { call!(SYS_umask, mask as usize) };
}

/// Raises the hard limit of a process, where it is lower, and leaves the soft one (prlimit64).
///
/// # Errors
///
/// EPERM without CAP_SYS_RESOURCE; ESRCH for a process that has ended.
pub fn raise_hard_limit(pid: i32, resource: u32, hard: u64) -> Result<()> {
    let mut present = [0u64; 2];
    // SAFETY: struct rlimit64 is two u64, and the buffer is live; no new limit is given.
    unsafe { call!(SYS_prlimit64, pid as usize, resource as usize, 0, present.as_mut_ptr() as usize) }?;
    let [soft, present] = present;
    if hard <= present {
        return Ok(());
    }
    let limit = [soft, hard];
    // SAFETY: as in `setrlimit`.
    unsafe { call!(SYS_prlimit64, pid as usize, resource as usize, limit.as_ptr() as usize, 0) }.map(drop)
}

/// Sets a resource limit of the calling process (prlimit64).
///
/// # Errors
///
/// EPERM for a hard limit raised without CAP_SYS_RESOURCE; EINVAL for soft above hard.
pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = [soft, hard];
    // SAFETY: struct rlimit64 is two u64; the old limit is not asked for.
    unsafe { call!(SYS_prlimit64, 0, resource as usize, limit.as_ptr() as usize, 0) }.map(drop)
}
