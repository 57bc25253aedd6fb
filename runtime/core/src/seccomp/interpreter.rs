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
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            _ => panic!("a filter of ours has no business at offset {offset}"),
        }
    }
}

/// The filter's return value for `call` and the number of instructions on the way.
pub(super) fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let (mut accumulator, mut at, mut steps) = (0, 0, 0);
    loop {
        let instruction = program.get(at).expect("the program ends with a return");
        steps += 1;
        at += 1;
        let branch = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => accumulator = call.word(instruction.k),
            0x54 => accumulator &= instruction.k,
            0x05 => at += instruction.k as usize,
            0x15 => at += branch(accumulator == instruction.k),
            0x25 => at += branch(accumulator > instruction.k),
            0x35 => at += branch(accumulator >= instruction.k),
            0x45 => at += branch(accumulator & instruction.k != 0),
            0x06 => return (instruction.k, steps),
            code => panic!("instruction {code:#x} is not one that the kernel's cache understands"),
        }
    }
}

/// What the kernel checks at load: the length, and that each jump stays inside.
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
