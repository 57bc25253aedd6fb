//! What must hold of any command line: it is a verb with its arguments, or it is refused with a sentence.
//!
//! Shared by the tests and the fuzz target `arguments` (`fuzz/`); behind the feature `fuzzing`, which nothing that ships has.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crate::arguments::{Order, UsageError, parse};
use crate::log::Log;
use crate::{GLOBAL_FLAGS, session, verbs};

/// Reads `bytes` as words between NUL bytes, as the kernel hands them over; whether they were understood.
///
/// # Panics
///
/// When what must hold does not.
#[must_use]
pub fn arguments(bytes: &[u8]) -> bool {
    let words: Vec<_> = bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    command_line(&words)
}

/// Reads the words as `main` does, and does nothing; whether they were understood.
///
/// # Panics
///
/// When what must hold does not.
#[must_use]
pub(crate) fn command_line(words: &[OsString]) -> bool {
    let given = words.len();
    let read = || -> Result<usize, UsageError> {
        let globals = parse(GLOBAL_FLAGS, words.iter().cloned(), Order::Verb)?;
        let _session = session(&globals, &mut Log::default())?;
        let name = globals.operand(0)?.to_owned();
        let found = verbs::find(&name).ok_or_else(|| UsageError(format!("no verb {name:?}")))?;
        let arguments = parse(found.flags, globals.operands.iter().skip(1).cloned(), found.order)?;
        found.check_operands(arguments.operands.len())?;
        // Each reader of values takes or refuses what stands there.
        for flag in found.flags {
            let _ = (arguments.is_set(flag.long), arguments.text(flag.long), arguments.texts(flag.long));
            let _ = arguments.integer(flag.long);
        }
        Ok(arguments.operands.len())
    };
    match read() {
        Ok(operands) => {
            assert!(operands <= given, "{words:?}");
            true
        }
        Err(error) => {
            assert!(!error.to_string().trim().is_empty(), "{words:?}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn command_lines_of_the_corpus_are_a_verb_or_a_sentence() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/arguments");
        let mut understood = 0;
        for file in std::fs::read_dir(folder).expect("the corpus").flatten() {
            understood += usize::from(super::arguments(&std::fs::read(file.path()).expect("read an input")));
        }
        assert!(understood > 0, "the corpus shows nothing");
    }
}
