//! What the fuzz targets (`fuzz/`) and the tests of damaged inputs have in common: one function for each input that
//! others write, which panics when something does not hold that must.
//!
//! Behind the feature `fuzzing`, which nothing that ships has.

use serde_json::Value;

use crate::mutation::Random;
pub use crate::{
    compile::damaged::check as config_to_plan, container::heard::check as init_handshake,
    seccomp::judge::check as seccomp, state::check as state_file,
};

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was understood.
    Taken,
    /// It was refused, with a sentence.
    Refused,
}

/// Where a mutator of JSON starts when the input is none.
#[derive(Clone, Copy, Debug)]
pub enum Document {
    /// config.json
    Config,
    /// state.json
    State,
    /// linux.seccomp
    Seccomp,
}

/// `json` with a value of it changed, removed, repeated, or taken from an undamaged document; such a document,
/// changed, when `json` is none. The same for the same `seed`.
#[must_use]
pub fn mutated(document: Document, json: &[u8], seed: u32) -> Vec<u8> {
    let seeds = match document {
        Document::Config => crate::compile::damaged::seeds().to_vec(),
        Document::State => vec![crate::state::whole()],
        Document::Seccomp => crate::seccomp::judge::seeds(),
    };
    let mut random = Random(u64::from(seed));
    // The first numbers of neighbouring seeds are alike.
    for _ in 0..4 {
        random.below(2);
    }
    match serde_json::from_slice::<Value>(json) {
        Ok(value) if value.is_object() => random.changed(value, &seeds),
        _ => random.document(&seeds),
    }
}

/// The committed inputs of a fuzz target.
///
/// # Panics
///
/// When there are none: then a test of them would show nothing.
#[cfg(test)]
pub(crate) fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let inputs: Vec<_> = files.flatten().map(|file| std::fs::read(file.path()).expect("read an input")).collect();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    inputs
}
