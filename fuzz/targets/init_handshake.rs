//! What an init that was taken over says to the host: packets, each with its length in front.
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    flint_runtime::fuzzing::init_handshake(bytes);
});
