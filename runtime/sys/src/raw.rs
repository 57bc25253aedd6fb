//! The system call instruction.

use crate::{Errno, Result};

/// A system call with up to six arguments.
///
/// # Safety
///
/// The arguments must be valid for system call `number`: pointers must point to live memory of the size that
/// the kernel will read or write, and the call must not break an invariant of the program's memory.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn instruction(number: usize, a: [usize; 6]) -> isize {
    let [a0, a1, a2, a3, a4, a5] = a;
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel clobbers rcx and r11 alone.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a0, in("rsi") a1, in("rdx") a2, in("r10") a3, in("r8") a4, in("r9") a5,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// As above, for 64-bit Arm.
///
/// # Safety
///
/// As above.
#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn instruction(number: usize, a: [usize; 6]) -> isize {
    let [a0, a1, a2, a3, a4, a5] = a;
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the kernel changes x0 alone.
    unsafe {
        core::arch::asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a0 as isize => result,
            in("x1") a1, in("x2") a2, in("x3") a3, in("x4") a4, in("x5") a5,
            options(nostack),
        );
    }
    result
}

/// A system call whose result is a number or an error.
///
/// # Safety
///
/// As for the instruction: pointers must be live and of the right size for `number`.
#[inline]
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> Result<usize> {
    crate::fault::point(number)?;
    // SAFETY: the caller vouches for the arguments.
    let result = unsafe { instruction(number as usize, arguments) };
    if result < 0 { Err(Errno(result.wrapping_neg() as i32)) } else { Ok(result as usize) }
}

/// Pads arguments with zeros: `call!(SYS_close, fd)`. Must be used inside `unsafe`.
macro_rules! call {
    ($number:ident) => {
        $crate::raw::syscall(libc::$number, [0; 6])
    };
    ($number:ident, $a:expr) => {
        $crate::raw::syscall(libc::$number, [$a, 0, 0, 0, 0, 0])
    };
    ($number:ident, $a:expr, $b:expr) => {
        $crate::raw::syscall(libc::$number, [$a, $b, 0, 0, 0, 0])
    };
    ($number:ident, $a:expr, $b:expr, $c:expr) => {
        $crate::raw::syscall(libc::$number, [$a, $b, $c, 0, 0, 0])
    };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr) => {
        $crate::raw::syscall(libc::$number, [$a, $b, $c, $d, 0, 0])
    };
    ($number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        $crate::raw::syscall(libc::$number, [$a, $b, $c, $d, $e, 0])
    };
}
pub(crate) use call;
