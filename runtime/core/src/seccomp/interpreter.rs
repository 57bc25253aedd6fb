//! A small classic-BPF machine: runs a filter as the kernel does and counts the steps.

use libc::sock_filter;

/// What the kernel shows to a filter (`struct seccomp_data`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) architecture: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    /// None where a filter of ours has no business.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.architecture),
            16..64 if offset.is_multiple_of(4) => {
                let argument = *self.arguments.get((offset as usize - 16) / 8)?;
                Some(if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 })
            }
            _ => None,
        }
    }
}

/// The filter's return value for `call` and the number of instructions on the way; None for what is no filter of ours: one
/// without an end, or with instructions that the kernel's cache does not understand.
pub(super) fn evaluate(program: &[sock_filter], call: &Call) -> Option<(u32, usize)> {
    let (mut accumulator, mut at, mut steps) = (0, 0, 0);
    loop {
        let instruction = program.get(at)?;
        steps += 1;
        at += 1;
        let branch = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => accumulator = call.word(instruction.k)?,
            0x54 => accumulator &= instruction.k,
            0x05 => at += instruction.k as usize,
            0x15 => at += branch(accumulator == instruction.k),
            0x25 => at += branch(accumulator > instruction.k),
            0x35 => at += branch(accumulator >= instruction.k),
            0x45 => at += branch(accumulator & instruction.k != 0),
            0x06 => return Some((instruction.k, steps)),
            _ => return None,
        }
    }
}

/// The same of a filter of ours.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    evaluate(program, call).expect("the program ends with a return and has instructions of the kernel's cache alone")
}

/// What the kernel checks at load: the length, and that each jump stays inside.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn check(program: &[sock_filter]) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    assert_eq!(program.last().map(|last| last.code), Some(0x06), "the last instruction returns");
    for (at, instruction) in program.iter().enumerate() {
        let furthest = match instruction.code {
            0x05 => instruction.k as usize,
            0x15 | 0x25 | 0x35 | 0x45 => usize::from(instruction.jt.max(instruction.jf)),
            _ => 0,
        };
        assert!(at + 1 + furthest < program.len() || instruction.code == 0x06, "instruction {at} jumps out");
    }
}
