//! Names, digests, platforms, mounts, WWW-Authenticate headers and docker's config.json.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _taken = flint_bundle::fuzzing::text(input);
});
