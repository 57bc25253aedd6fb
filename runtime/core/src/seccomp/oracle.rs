//! What runc would do: libseccomp's filter for a profile, and runc's `ENOSYS` stub in front of it.

use super::abi::{self, Abi};
use super::interpreter::{self, Call};
use libc::sock_filter;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator};

pub(super) struct Oracle {
    pub(super) program: Vec<sock_filter>,
    /// Per ABI: its audit number, whether x32, the highest number that the profile names.
    highest: Vec<(u32, bool, u32)>,
    has_stub: bool,
}

/// Whether libseccomp knows the architecture of this name.
pub(super) fn knows(arch: Arch) -> bool {
    matches!(
        arch,
        Arch::ScmpArchX86_64
            | Arch::ScmpArchX86
            | Arch::ScmpArchX32
            | Arch::ScmpArchAarch64
            | Arch::ScmpArchArm
            | Arch::ScmpArchRiscv64
            | Arch::ScmpArchPpc64le
    )
}

pub(super) fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        other => panic!("{other}"),
    }
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> ScmpAction {
    let number = number.unwrap_or(1);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number as i32),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(number as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => panic!("not here"),
    }
}

fn condition(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
    };
    ScmpArgCompare::new(argument.index() as u32, operator, value)
}

/// Drops names that this libseccomp does not know: its tables are older than ours.
pub(super) fn keep_known_names(spec: &mut LinuxSeccomp) {
    let mut syscalls = spec.syscalls().clone().unwrap_or_default();
    for block in &mut syscalls {
        let names = block.names().iter().filter(|name| ScmpSyscall::from_name(name).is_ok()).cloned().collect();
        block.set_names(names);
    }
    spec.set_syscalls(Some(syscalls));
}

impl Oracle {
    /// Builds the filter as runc does. `None` when libseccomp refuses a rule (contradicting ones) or does not know an
    /// architecture.
    pub(super) fn new(spec: &LinuxSeccomp) -> Option<Self> {
        let default = action(spec.default_action(), spec.default_errno_ret());
        let mut filter = ScmpFilterContext::new(default).expect("seccomp_init");
        let listed = spec.architectures().clone().unwrap_or_default();
        for arch in &listed {
            filter.add_arch(architecture(*arch)).ok()?;
        }
        let blocks = spec.syscalls().clone().unwrap_or_default();
        if blocks.iter().map(|block| block.names().len()).sum::<usize>() > 32 {
            filter.set_ctl_optimize(2).expect("SCMP_FLTATR_CTL_OPTIMIZE");
        }
        for block in &blocks {
            let action = action(block.action(), block.errno_ret());
            let arguments: Vec<_> = block.args().iter().flatten().collect();
            let mut indexes: Vec<_> = arguments.iter().map(|argument| argument.index()).collect();
            indexes.sort_unstable();
            let repeated = indexes.windows(2).any(|pair| pair[0] == pair[1]);
            for name in block.names() {
                let Ok(call) = ScmpSyscall::from_name(name) else {
                    continue;
                };
                if action == default {
                    continue;
                }
                let conditions: Vec<_> = arguments.iter().map(|argument| condition(argument)).collect();
                if conditions.is_empty() {
                    filter.add_rule(action, call).ok()?;
                } else if repeated {
                    for condition in conditions {
                        filter.add_rule_conditional(action, call, &[condition]).ok()?;
                    }
                } else {
                    filter.add_rule_conditional(action, call, &conditions).ok()?;
                }
            }
        }
        let highest = abi::families(&listed, &mut Vec::new())
            .into_iter()
            .flatten()
            .filter_map(|abi| Some((abi.audit, abi.is_x32(), highest(abi, spec)?)))
            .collect();
        let has_stub = !matches!(default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_));
        Some(Self { program: exported(&filter), highest, has_stub })
    }

    /// What runc's container gets for `call`.
    pub(super) fn run(&self, call: &Call) -> u32 {
        if self.has_stub {
            let x32 = call.architecture == 0xc000_003e && call.number & 0x4000_0000 != 0;
            let family = self.highest.iter().find(|known| known.0 == call.architecture && known.1 == x32);
            if family.is_some_and(|known| call.number > known.2) {
                return libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
            }
        }
        interpreter::run(&self.program, call).0
    }
}

/// The highest number of `abi` that the profile names, by libseccomp's tables. Those hide the direct numbers of the
/// multiplexed calls, so these come from ours.
fn highest(abi: &Abi, spec: &LinuxSeccomp) -> Option<u32> {
    let ours = (abi.calls)();
    let names = spec.syscalls().iter().flatten().flat_map(|block| block.names().iter());
    names
        .filter_map(|name| {
            let number = ScmpSyscall::from_name_by_arch(name, architecture(abi.architecture())).ok()?.as_raw_syscall();
            match u32::try_from(number) {
                Ok(number) => Some(number),
                Err(_) => ours.iter().find(|known| known.1 == name).map(|known| known.0),
            }
        })
        .filter(|number| abi.architecture() != Arch::ScmpArchArm || *number < 0xf_0000)
        .max()
}

fn exported(filter: &ScmpFilterContext) -> Vec<sock_filter> {
    use std::io::{Read, Seek};
    let file = rustix::fs::memfd_create("filter", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = std::fs::File::from(file);
    filter.export_bpf(&file).expect("seccomp_export_bpf");
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("read the filter");
    let decode = |raw: &[u8]| sock_filter {
        code: u16::from_ne_bytes([raw[0], raw[1]]),
        jt: raw[2],
        jf: raw[3],
        k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    };
    bytes.chunks_exact(8).map(decode).collect()
}
