//! The BPF program that guards the devices of a cgroup v2 container (`BPF_PROG_TYPE_CGROUP_DEVICE`, Linux 4.15).
//!
//! The kernel asks it with a device's type, numbers and the wanted access. It walks the rules from the last to the first and
//! keeps the set of accesses that no rule has decided yet: a rule that denies one of them ends the walk with no,
//! a rule that allows the last of them with yes. So each access is decided by the last rule that speaks of it.

use super::devices::{Access, DeviceKind, DeviceRule};

// linux/bpf_common.h and linux/bpf.h: class, operation and source, put together.
const LDX_MEM_W: u8 = 0x61;
const ALU32_AND_K: u8 = 0x54;
const ALU32_RSH_K: u8 = 0x74;
const ALU32_MOV_X: u8 = 0xbc;
const ALU64_MOV_K: u8 = 0xb7;
const JMP_JEQ_K: u8 = 0x15;
const JMP_JNE_K: u8 = 0x55;
const JMP_EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
/// The context is not needed once its fields are read.
const SCRATCH: u8 = CONTEXT;
const TYPE: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Encodes one instruction as the kernel reads it on a machine of this byte order.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&immediate.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

fn exit_with(allow: bool) -> [u64; 2] {
    [instruction(ALU64_MOV_K, RESULT, 0, 0, i32::from(allow)), instruction(JMP_EXIT, 0, 0, 0, 0)]
}

/// The program for `rules`, in their order; what no rule speaks of is denied.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<u64> {
    // struct bpf_cgroup_dev_ctx { __u32 access_type /* access << 16 | type */, major, minor; }
    let mut program = vec![
        instruction(LDX_MEM_W, TYPE, CONTEXT, 0, 0),
        instruction(ALU32_MOV_X, UNDECIDED, TYPE, 0, 0),
        instruction(ALU32_AND_K, TYPE, 0, 0, 0xffff),
        instruction(ALU32_RSH_K, UNDECIDED, 0, 0, 16),
        instruction(LDX_MEM_W, MAJOR, CONTEXT, 4, 0),
        instruction(LDX_MEM_W, MINOR, CONTEXT, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(block(rule));
        // The verifier refuses code that cannot be reached.
        if rule.kind == DeviceKind::All {
            return program;
        }
    }
    program.extend(exit_with(false));
    program
}

/// One rule: conditions that leave the block, then its decision.
fn block(rule: &DeviceRule) -> Vec<u64> {
    if rule.kind == DeviceKind::All {
        return exit_with(rule.allow).to_vec();
    }
    // Each is (code, register, immediate), jumps with an offset that is set when the block's length is known.
    let mut block: Vec<(u8, u8, u8, i32)> = Vec::with_capacity(8);
    block.push((JMP_JNE_K, TYPE, 0, if rule.kind == DeviceKind::Block { BLOCK } else { CHARACTER }));
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            // Device numbers have 12 and 20 bits in Linux (linux/kdev_t.h): what is larger than an i32 matches nothing,
            // and the sign extension of the immediate keeps it so.
            block.push((JMP_JNE_K, register, 0, number as i32));
        }
    }
    let mask = i32::from(rule.access.bits());
    if rule.access != Access::ALL {
        if rule.allow {
            block.push((ALU32_AND_K, UNDECIDED, 0, !mask & i32::from(Access::ALL.bits())));
            block.push((JMP_JNE_K, UNDECIDED, 0, 0));
        } else {
            block.push((ALU32_MOV_X, SCRATCH, UNDECIDED, 0));
            block.push((ALU32_AND_K, SCRATCH, 0, mask));
            block.push((JMP_JEQ_K, SCRATCH, 0, 0));
        }
    }
    let length = block.len() + 2;
    let encode = |(index, (code, destination, source, immediate)): (usize, (u8, u8, u8, i32))| {
        let is_jump = matches!(code, JMP_JEQ_K | JMP_JNE_K);
        let offset = if is_jump { (length - index - 1) as i16 } else { 0 };
        instruction(code, destination, source, offset, immediate)
    };
    block.into_iter().enumerate().map(encode).chain(exit_with(rule.allow)).collect()
}

#[cfg(test)]
#[path = "device_filter_tests.rs"]
mod tests;
