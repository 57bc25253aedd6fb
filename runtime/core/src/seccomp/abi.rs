//! The system-call ABIs: their audit numbers, their tables of names, and what is particular about them.
//!
//! Only ABIs of little-endian kernels are here: a filter for the other byte order cannot be loaded on the same
//! machine.

use oci_spec::runtime::Arch;

/// Calls of the x32 ABI have this bit in their number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// The audit number that `x86_64` and x32 share.
pub(super) const X86_64_AUDIT: u32 = 0xc000_003e;

/// ARM's private calls begin here; the kernel's table ends far below.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

/// One ABI.
pub(super) struct Abi {
    /// Its name in the bundle.
    architecture: Arch,
    /// The kernel's number of it in `seccomp_data` (`AUDIT_ARCH_*`).
    pub(super) audit: u32,
    /// Whether arguments are 64 bits wide.
    pub(super) wide: bool,
    /// The numbers of `socketcall` and `ipc`, where these exist.
    pub(super) multiplexers: Option<(u32, u32)>,
    /// Numbers and names of its calls.
    pub(super) calls: fn() -> Vec<(u32, &'static str)>,
}

impl Abi {
    /// Its name in the bundle.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn architecture(&self) -> Arch {
        self.architecture
    }

    /// Whether this is x32, which lives beside `x86_64`.
    pub(super) fn is_x32(&self) -> bool {
        self.architecture == Arch::ScmpArchX32
    }
}

macro_rules! calls {
    ($module:ident) => {
        || {
            use syscalls::$module::Sysno;
            // Not Sysno::iter(): that leaves the last call out (syscalls 0.8.1).
            let numbers = 0..=Sysno::last().id() as usize;
            numbers.filter_map(Sysno::new).map(|call| (call.id() as u32, call.name())).collect()
        }
    };
}

static ABIS: [Abi; 8] = [
    Abi {
        architecture: Arch::ScmpArchX86_64,
        audit: X86_64_AUDIT,
        wide: true,
        multiplexers: None,
        calls: calls!(x86_64),
    },
    Abi { architecture: Arch::ScmpArchX32, audit: X86_64_AUDIT, wide: false, multiplexers: None, calls: x32_calls },
    Abi {
        architecture: Arch::ScmpArchX86,
        audit: 0x4000_0003,
        wide: false,
        multiplexers: Some((102, 117)),
        calls: calls!(x86),
    },
    Abi {
        architecture: Arch::ScmpArchAarch64,
        audit: 0xc000_00b7,
        wide: true,
        multiplexers: None,
        calls: || corrected(calls!(aarch64)),
    },
    Abi { architecture: Arch::ScmpArchArm, audit: 0x4000_0028, wide: false, multiplexers: None, calls: arm_calls },
    Abi {
        architecture: Arch::ScmpArchRiscv64,
        audit: 0xc000_00f3,
        wide: true,
        multiplexers: None,
        calls: calls!(riscv64),
    },
    Abi {
        architecture: Arch::ScmpArchLoongarch64,
        audit: 0xc000_0102,
        wide: true,
        multiplexers: None,
        calls: || corrected(calls!(loongarch64)),
    },
    Abi {
        architecture: Arch::ScmpArchPpc64le,
        audit: 0xc000_0015,
        wide: true,
        multiplexers: Some((102, 117)),
        calls: calls!(powerpc64),
    },
];

/// Whether any ABI has a call of this name.
pub(super) fn is_known(name: &str) -> bool {
    multiplexed(name).is_some() || ABIS.iter().any(|abi| (abi.calls)().iter().any(|(_, call)| *call == name))
}

/// The ABI that this program runs on.
fn native() -> Option<Arch> {
    Some(match std::env::consts::ARCH {
        "x86_64" => Arch::ScmpArchX86_64,
        "x86" => Arch::ScmpArchX86,
        "aarch64" => Arch::ScmpArchAarch64,
        "arm" => Arch::ScmpArchArm,
        "riscv64" => Arch::ScmpArchRiscv64,
        "loongarch64" => Arch::ScmpArchLoongarch64,
        "powerpc64" if cfg!(target_endian = "little") => Arch::ScmpArchPpc64le,
        _ => return None,
    })
}

/// The ABIs of the filter, those with one audit number together, the native one first. The native one belongs to it
/// even if `listed` does not have it. One that is not known here is left out: its calls are killed.
pub(super) fn families(listed: &[Arch], warnings: &mut Vec<String>) -> Vec<Vec<&'static Abi>> {
    let native = native();
    let mut families: Vec<Vec<&'static Abi>> = Vec::new();
    for architecture in native.into_iter().chain(listed.iter().copied()) {
        if architecture == Arch::ScmpArchNative {
            continue;
        }
        let Some(abi) = ABIS.iter().find(|abi| abi.architecture == architecture) else {
            warnings.push(format!("seccomp: {architecture} is not supported here: the filter kills its calls"));
            continue;
        };
        match families.iter_mut().find(|family| family[0].audit == abi.audit) {
            Some(family) if family.iter().any(|known| known.architecture == architecture) => {}
            Some(family) => family.push(abi),
            None => families.push(vec![abi]),
        }
    }
    families
}

/// The sub-number of `name` in `socketcall` (first) or `ipc` (second), from the kernel's `linux/net.h` and
/// `linux/ipc.h`.
pub(super) fn multiplexed(name: &str) -> Option<(bool, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET.iter().position(|known| *known == name) {
        return Some((true, at as u64 + 1));
    }
    IPC.iter().find(|known| known.0 == name).map(|known| (false, known.1))
}

/// x32's numbers for the calls whose arguments differ from `x86_64`'s: 512 onwards, from the kernel's
/// `syscall_64.tbl`. The same calls under their `x86_64` number do not exist in x32.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of `x86_64` that x32 does not have (marked `64` in the kernel's `syscall_64.tbl`).
const NOT_IN_X32: [&str; 14] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
    "uretprobe",
    "uprobe",
    "map_shadow_stack",
];

fn x32_calls() -> Vec<(u32, &'static str)> {
    let common: fn() -> Vec<(u32, &'static str)> = calls!(x86_64);
    let own = (512..).zip(X32_OWN);
    common()
        .into_iter()
        .filter(|(_, name)| !X32_OWN.contains(name) && !NOT_IN_X32.contains(name))
        .chain(own)
        .map(|(number, name)| (number | X32_BIT, name))
        .collect()
}

/// The table of aarch64 and loongarch64 with two corrections (syscalls 0.8.1): the calls with 64-bit times (403 to
/// 423) exist on 32-bit architectures only, and profiles know number 79 as `newfstatat`.
fn corrected(table: fn() -> Vec<(u32, &'static str)>) -> Vec<(u32, &'static str)> {
    table()
        .into_iter()
        .filter(|(number, _)| !(403..=423).contains(number))
        .map(|(number, name)| (number, if name == "fstatat" { "newfstatat" } else { name }))
        .collect()
}

fn arm_calls() -> Vec<(u32, &'static str)> {
    let table: fn() -> Vec<(u32, &'static str)> = calls!(arm);
    // From the kernel's asm/unistd.h (__ARM_NR_*), with libseccomp's names.
    let private = (ARM_PRIVATE + 1..).zip(["breakpoint", "cacheflush", "usr26", "usr32", "set_tls"]);
    table().into_iter().chain(private).collect()
}
