//! Archives that are imported: OCI layouts, docker's, App Container images, root filesystems. Best with the temporary folder on a tmpfs.
#![no_main]
#![forbid(unsafe_code)]

use flint_bundle::fuzzing;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| {
    let place = tempfile::tempdir().expect("a folder");
    let _taken = fuzzing::archive(input, place.path());
});

// A changed header without its checksum comes no further than the tar reader.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 8 != 0 {
        fuzzing::correct_checksums(&mut data[..size]);
    }
    size
});
