//! bpf(2), as far as the device filter of a cgroup v2 container needs it.
//!
//! Everything happens in one call, so that no raw file descriptor of a program leaves this module.

use core::ffi::c_int;

// linux/bpf.h: enum bpf_cmd, bpf_prog_type, bpf_attach_type.
const BPF_PROG_LOAD: usize = 5;
const BPF_PROG_ATTACH: usize = 8;
const BPF_PROG_DETACH: usize = 9;
const BPF_PROG_GET_FD_BY_ID: usize = 13;
const BPF_PROG_QUERY: usize = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// As many programs as the kernel lets stand on one cgroup (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// Which step of [`set_device_filter`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The kernel did not take the program (EPERM: no `CAP_BPF`; EINVAL: no such program type).
    Load,
    /// The programs that are there could not be listed or opened.
    Query,
    /// The program could not be attached.
    Attach,
    /// An older program could not be detached.
    Detach,
}

/// A step and its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub step: Step,
    /// Why, positive.
    pub errno: i32,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct OpenAttributes {
    id: u32,
    next_id: u32,
    flags: u32,
}

/// Makes `program` the only device filter of the cgroup behind `cgroup`.
///
/// With `fresh` the cgroup is known to have none. Otherwise a single older one is replaced in one step (Linux 5.6), several are
/// detached after the new one stands: at no time is the cgroup without a filter.
///
/// `program` is in the kernel's encoding, one `struct bpf_insn` each; `cgroup` may be opened with `O_PATH`.
///
/// # Errors
///
/// The step that failed and its errno. Before Linux 5.11 a low `RLIMIT_MEMLOCK` is one reason for EPERM.
pub fn set_device_filter(cgroup: c_int, program: &[u64], fresh: bool) -> Result<(), Failure> {
    let new = load(program)?;
    let mut ids = [0u32; MAX_PROGRAMS];
    let older = if fresh { &ids[..0] } else { query(cgroup, &mut ids)? };
    if let [only] = *older {
        let replaced = open(only)?;
        return attach(cgroup, &new, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, replaced.0);
    }
    attach(cgroup, &new, BPF_F_ALLOW_MULTI, 0)?;
    for &id in older {
        let attributes = AttachAttributes {
            target: cgroup as u32,
            program: open(id)?.0 as u32,
            attach_type: BPF_CGROUP_DEVICE,
            ..AttachAttributes::default()
        };
        bpf(BPF_PROG_DETACH, &attributes).map_err(|errno| Failure { step: Step::Detach, errno })?;
    }
    Ok(())
}

/// A descriptor of a BPF program, closed on drop. The kernel opens all of them close-on-exec.
struct Program(c_int);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own and is not used after; close(2) reads no memory.
        unsafe { syscall3(libc::SYS_close as usize, self.0 as usize, 0, 0) };
    }
}

fn load(program: &[u64]) -> Result<Program, Failure> {
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        // The program calls no kernel function that is only for the GPL.
        license: c"Apache-2.0".as_ptr() as u64,
        name: *b"flint_devices\0\0\0",
        ..LoadAttributes::default()
    };
    bpf(BPF_PROG_LOAD, &attributes).map(Program).map_err(|errno| Failure { step: Step::Load, errno })
}

fn query(cgroup: c_int, ids: &mut [u32; MAX_PROGRAMS]) -> Result<&[u32], Failure> {
    let mut attributes = QueryAttributes {
        target: cgroup as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..QueryAttributes::default()
    };
    // SAFETY: `ids` has room for `count` entries and lives through the call; the kernel writes them and `attributes`,
    // which is passed as mutable.
    let result = unsafe {
        syscall3(libc::SYS_bpf as usize, BPF_PROG_QUERY, &raw mut attributes as usize, size_of::<QueryAttributes>())
    };
    checked(result).map_err(|errno| Failure { step: Step::Query, errno })?;
    Ok(ids.get(..attributes.count as usize).unwrap_or(&[]))
}

fn open(id: u32) -> Result<Program, Failure> {
    let attributes = OpenAttributes { id, ..OpenAttributes::default() };
    bpf(BPF_PROG_GET_FD_BY_ID, &attributes).map(Program).map_err(|errno| Failure { step: Step::Query, errno })
}

fn attach(cgroup: c_int, program: &Program, flags: u32, replaced: c_int) -> Result<(), Failure> {
    let attributes = AttachAttributes {
        target: cgroup as u32,
        program: program.0 as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags,
        replaced: replaced as u32,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(|_| ()).map_err(|errno| Failure { step: Step::Attach, errno })
}

/// A command that only reads its attributes.
fn bpf<T>(command: usize, attributes: &T) -> Result<c_int, i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attributes`, and through the pointers in it the instructions
    // and the license, which the callers keep borrowed for the call. None of the commands passed here writes to them.
    let result = unsafe { syscall3(libc::SYS_bpf as usize, command, &raw const *attributes as usize, size_of::<T>()) };
    checked(result)
}

fn checked(result: isize) -> Result<c_int, i32> {
    if result < 0 { Err(-result as i32) } else { Ok(result as c_int) }
}

/// A system call with three arguments.
///
/// # Safety
///
/// The arguments must be what the call wants; memory that it reads or writes must be valid for that.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall3(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention of x86_64; rcx and r11 are lost; the rest is the caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A system call with three arguments.
///
/// # Safety
///
/// The arguments must be what the call wants; memory that it reads or writes must be valid for that.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall3(number: usize, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel's calling convention of aarch64; the rest is the caller's promise.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            options(nostack),
        );
    }
    result
}
