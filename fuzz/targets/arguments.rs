//! The command line: words between NUL bytes.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _understood = flint_command::fuzzing::arguments(bytes);
});
