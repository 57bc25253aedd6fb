//! A manifest: damaged YAML and JSON become pods or problems, and nothing worse.
#![no_main]
#![forbid(unsafe_code)]

use flintd::manifest::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let _read = fuzzing::manifest(text);
});
