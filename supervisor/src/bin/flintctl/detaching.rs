//! The keys that leave a program alone: docker's `--detach-keys`.

use std::collections::VecDeque;
use std::str::FromStr;

/// A sequence of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// Ctrl-P Ctrl-Q
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl DetachKeys {
    /// Nothing leaves.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }
}

impl std::fmt::Display for DetachKeys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = |byte: &u8| match byte {
            0..32 => format!("ctrl-{}", char::from(byte + 64).to_ascii_lowercase()),
            _ => char::from(*byte).to_string(),
        };
        formatter.write_str(&self.0.iter().map(key).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// Characters, and `ctrl-` with a letter or one of `@[\]^_`, divided by commas. An empty text: there is no such sequence.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = |name: &str| match (name.strip_prefix("ctrl-"), name.as_bytes()) {
            (Some(letter), _) => match letter.to_ascii_uppercase().as_bytes() {
                [letter @ b'@'..=b'_'] => Ok(letter - 64),
                _ => Err(format!("{name:?} is no key: behind `ctrl-` comes a letter, or one of @[\\]^_")),
            },
            (None, [character]) => Ok(*character),
            (None, _) => Err(format!("{name:?} is no key like `a` or `ctrl-p`")),
        };
        text.split(',').filter(|_| !text.is_empty()).map(key).collect::<Result<_, _>>().map(Self)
    }
}

/// Finds the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Detacher {
    keys: Vec<u8>,
    /// The beginning of the keys, which is kept back until it is known what it is.
    kept: VecDeque<u8>,
}

impl Detacher {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self { keys: keys.0, kept: VecDeque::new() }
    }

    /// What is to be handed on, and whether the rest is to be left alone.
    pub(crate) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + self.kept.len());
        for byte in typed {
            self.kept.push_back(*byte);
            while !self.keys.iter().take(self.kept.len()).eq(self.kept.iter()) {
                passed.extend(self.kept.pop_front());
            }
            if !self.kept.is_empty() && self.kept.len() == self.keys.len() {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_p_control_q_detaches_and_control_p_alone_is_handed_on() {
        let mut detacher = Detacher::new(DetachKeys::default());
        assert_eq!(detacher.pass(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(detacher.pass(b"\x10"), (Vec::new(), false));
        assert_eq!(detacher.pass(b"\x10x\x11"), (b"\x10\x10x\x11".to_vec(), false));
        assert_eq!(detacher.pass(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(detacher.pass(b"\x11rest"), (Vec::new(), true));
        assert_eq!(Detacher::new(DetachKeys::default()).pass(b"\x10\x11"), (Vec::new(), true));
    }

    #[test]
    fn a_sequence_is_found_behind_a_part_of_itself() {
        let mut detacher = Detacher::new("a,a,b".parse().unwrap());
        assert_eq!(detacher.pass(b"aaab"), (b"a".to_vec(), true));
        let mut never = Detacher::new("".parse().unwrap());
        assert_eq!(never.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn keys_are_written_as_docker_has_them() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        assert_eq!("ctrl-[,x".parse(), Ok(DetachKeys(vec![27, b'x'])));
        assert_eq!(DetachKeys::default().to_string(), "ctrl-p,ctrl-q");
        for wrong in ["ctrl-", "ctrl-1", "ab", "a,,b", "escape"] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }
}
