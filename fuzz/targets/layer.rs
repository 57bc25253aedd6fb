//! A layer of an image, of any compression, unpacked into a folder. Best with the temporary folder on a tmpfs.
#![no_main]
#![forbid(unsafe_code)]

use flint_bundle::fuzzing;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|blob: &[u8]| {
    let place = tempfile::tempdir().expect("a folder");
    let _taken = fuzzing::layer(blob, place.path());
});

// A changed header without its checksum comes no further than the tar reader.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 8 == 0 {
        return size;
    }
    fuzzing::correct_checksums(&mut data[..size]);
    size
});
