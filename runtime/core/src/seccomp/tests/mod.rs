//! Tests of the seccomp compiler: most of them run our program and libseccomp's on the same calls.

// Numbers of calls and errors are decimal everywhere else, too.
#![allow(clippy::decimal_bitwise_operands)]

mod mutated;
mod profiles;
mod random;
mod refusals;
mod tables;

use super::interpreter::{self, Call};
use super::judge::DOCKER;
use super::oracle::{self, Oracle};
use super::{Filter, compile};
use oci_spec::runtime::LinuxSeccomp;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;
const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
const ERRNO: u32 = 0x0005_0000;

fn spec(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).expect("a seccomp profile")
}

fn compiled(spec: &LinuxSeccomp) -> Filter {
    let filter = compile(spec).expect("compiles").expect("filters something");
    interpreter::check(&filter.program);
    filter
}

fn call(architecture: u32, number: u32, arguments: &[u64]) -> Call {
    let mut call = Call { number, architecture, arguments: [0; 6] };
    call.arguments[..arguments.len()].copy_from_slice(arguments);
    call
}

/// The values around which comparisons of 64 bits in two halves go wrong.
const BOUNDARIES: [u64; 12] = [
    0,
    1,
    2,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    1 << 32,
    (1 << 32) + 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Asserts that ours and runc's agree on `call`.
fn assert_same(filter: &Filter, oracle: &Oracle, call: &Call, spec: &LinuxSeccomp) {
    let ours = interpreter::run(&filter.program, call).0;
    let theirs = oracle.run(call);
    assert_eq!(
        ours,
        theirs,
        "ours {ours:#x}, runc's {theirs:#x} for {call:#x?} under {}",
        serde_json::to_string(spec).unwrap_or_default()
    );
}

/// All numbers that mean something, and some that do not.
fn numbers() -> impl Iterator<Item = u32> {
    let odd = [0x3fff_ffff, 0x7fff_ffff, 0x000f_0000, u32::MAX];
    (0..700).chain(X32_BIT..X32_BIT + 700).chain(0xf_0000..0xf_0008).chain(odd)
}
