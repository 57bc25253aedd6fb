//! Manifests, indexes, configs of images, and manifests of App Container images.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _taken = flint_bundle::fuzzing::document(input);
});
