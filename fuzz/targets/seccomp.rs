//! linux.seccomp to a program, compared with libseccomp's.
#![no_main]
#![forbid(unsafe_code)]

use flint_runtime::fuzzing::{self, Document};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|json: &[u8]| {
    fuzzing::seccomp(json);
});

// Half of the mutations know JSON, so that they come through its parser.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let json = fuzzing::mutated(Document::Seccomp, &data[..size], seed);
    let size = json.len().min(max_size);
    data[..size].copy_from_slice(&json[..size]);
    size
});
