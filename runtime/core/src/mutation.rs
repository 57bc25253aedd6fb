//! Damaged inputs for tests: JSON documents and packets, changed at random but the same on every run.
//!
//! `FLINT_FUZZ_RUNS` sets how many inputs each test takes, `FLINT_FUZZ_SEED` where the generator starts. A failing
//! test says the input.

use serde_json::{Value, json};

/// A linear congruential generator (Knuth's MMIX constants): the same numbers on every run.
pub(crate) struct Random(pub(crate) u64);

/// Inputs of a test that is told no number.
#[cfg(test)]
const RUNS: usize = 3_000;

/// Pieces of strings that readers of paths, names and numbers trip over.
const PIECES: [&str; 18] = [
    "",
    "/",
    "//",
    ".",
    "..",
    "/../..",
    "\0",
    "\n",
    "=",
    ":",
    "%",
    "-1",
    "0x10",
    "4294967296",
    "é",
    "\u{feff}",
    "/proc/self/fd/7",
    "18446744073709551616",
];

/// How many inputs a test shall take.
#[cfg(test)]
pub(crate) fn runs() -> usize {
    number("FLINT_FUZZ_RUNS").map_or(RUNS, |runs| usize::try_from(runs).unwrap_or(usize::MAX))
}

/// Where the generator starts.
#[cfg(test)]
pub(crate) fn seed() -> u64 {
    number("FLINT_FUZZ_SEED").unwrap_or(1)
}

#[cfg(test)]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, and is {text:?}")))
}

impl Random {
    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    /// One of the list.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.below(list.len());
        &list[at]
    }

    /// One of `seeds`, damaged: mostly a value of it, at times its text.
    pub(crate) fn document(&mut self, seeds: &[Value]) -> Vec<u8> {
        let document = self.pick(seeds).clone();
        self.changed(document, seeds)
    }

    /// `document`, damaged with values of `seeds` and others.
    pub(crate) fn changed(&mut self, mut document: Value, seeds: &[Value]) -> Vec<u8> {
        for _ in 0..*self.pick(&[1, 1, 1, 2, 4]) {
            let donor = self.pick(seeds).clone();
            self.edit(&mut document, &donor);
        }
        let mut bytes = document.to_string().into_bytes();
        if self.below(16) == 0 {
            self.damage(&mut bytes);
        }
        bytes
    }

    /// Changes a few bytes, anywhere.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 if at < bytes.len() => {
                    bytes.remove(at);
                }
                _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
    }

    /// Changes one value somewhere in the document.
    fn edit(&mut self, document: &mut Value, donor: &Value) {
        let place = self.descend(document);
        match self.below(8) {
            0 => *place = self.odd(),
            1 => {
                // A value from elsewhere.
                let mut donor = donor.clone();
                *place = self.descend(&mut donor).take();
            }
            2 => self.remove(place),
            3 => self.repeat(place),
            _ => self.alter(place),
        }
    }

    /// A value inside the document; the deeper ones are likelier.
    fn descend<'a>(&mut self, mut place: &'a mut Value) -> &'a mut Value {
        loop {
            let size = match &*place {
                Value::Array(items) => items.len(),
                Value::Object(fields) => fields.len(),
                _ => 0,
            };
            if size == 0 || self.below(16) == 0 {
                return place;
            }
            let at = self.below(size);
            place = match place {
                Value::Array(items) => &mut items[at],
                Value::Object(fields) => fields.values_mut().nth(at).expect("there are so many"),
                _ => unreachable!("it has a size"),
            };
        }
    }

    /// A value of the same type, somewhat different.
    fn alter(&mut self, place: &mut Value) {
        match place {
            Value::Bool(on) => *on = !*on,
            Value::String(text) => {
                let ends: Vec<usize> = (0..=text.len()).filter(|&at| text.is_char_boundary(at)).collect();
                let at = *self.pick(&ends);
                let piece: &str = PIECES[self.below(PIECES.len())];
                text.insert_str(at, piece);
            }
            Value::Number(number) => {
                let step = self.below(3) as i64 - 1;
                *place = number.as_i64().map_or_else(|| self.odd(), |old| json!(old.wrapping_add(step)));
            }
            other => *other = self.odd(),
        }
    }

    fn remove(&mut self, place: &mut Value) {
        match place {
            Value::Array(items) if !items.is_empty() => drop(items.remove(self.below(items.len()))),
            Value::Object(fields) if !fields.is_empty() => {
                let name = fields.keys().nth(self.below(fields.len())).cloned().expect("there are so many");
                fields.remove(&name);
            }
            other => *other = Value::Null,
        }
    }

    fn repeat(&mut self, place: &mut Value) {
        match place {
            Value::Array(items) if !items.is_empty() => {
                let item = self.pick(items).clone();
                let times = if self.below(16) == 0 { 300 } else { 1 };
                items.extend(std::iter::repeat_n(item, times));
            }
            Value::String(text) if text.len() < 4_096 => *text = text.repeat(64),
            other => *other = self.odd(),
        }
    }

    fn odd(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!([]),
            2 => json!({}),
            3 => json!(true),
            4 => json!(1.5e300),
            5 => json!(u64::MAX),
            6 => json!(i64::MIN),
            7 => json!(*self.pick(&[-1_i64, 0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1_0000_0000, i64::MAX])),
            8 => json!("x".repeat(70_000)),
            _ => json!(*self.pick(&PIECES)),
        }
    }
}
