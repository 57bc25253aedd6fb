//! Damaged manifests are refused, and nothing worse. The seed is fixed: a failure is found again.

use crate::manifest::fuzzing::manifest;

/// Numbers that look random (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }
}

const PIECES: [&str; 24] = [
    "null",
    "true",
    "-1",
    "18446744073709551616",
    "1e400",
    "\"\"",
    "[]",
    "{}",
    "[{}]",
    "&a [*a]",
    "!!binary x",
    "~",
    ": ",
    "- ",
    "\n---\n",
    "\0",
    "\u{feff}",
    "$(",
    "..",
    "/",
    "status.podIP",
    "metadata.labels['",
    "9999999999999999999Ei",
    "0x7fffffffffffffff",
];

fn damage(text: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.roll(text.len() + 1);
    match dice.roll(4) {
        0 => {
            let end = (at + dice.roll(12)).min(text.len());
            text.drain(at..end);
        }
        1 => {
            let piece = PIECES[dice.roll(PIECES.len())];
            text.splice(at..at, piece.bytes());
        }
        2 => {
            // A value of a line is another.
            let from = text[at..].windows(2).position(|two| two == b": ").map_or(text.len(), |found| at + found + 2);
            let to = text[from..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |found| from + found);
            text.splice(from..to, PIECES[dice.roll(PIECES.len())].bytes());
        }
        _ => {
            if let Some(byte) = text.get_mut(at) {
                *byte = dice.roll(256) as u8;
            }
        }
    }
}

#[test]
fn damaged_manifests_are_refused_and_no_more() {
    let whole = super::documentation::ROWS.iter().map(|row| row.text).collect::<Vec<_>>();
    let mut dice = Dice(0x5eed);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..6000 {
        let mut text = whole[round % whole.len()].as_bytes().to_vec();
        for _ in 0..=dice.roll(3) {
            damage(&mut text, &mut dice);
        }
        let found = manifest(&text);
        taken += found.0;
        refused += found.1;
    }
    // A damage that changes nothing would test nothing, one that leaves nothing neither.
    assert!(taken > 100 && refused > 1000, "{taken} pods were taken, {refused} documents refused");
}

#[test]
fn aliases_and_depth_are_bounded() {
    let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.extend(["b", &level.to_string(), ": &a", &level.to_string(), " [", &inner, "]\n"]);
    }
    assert_eq!(manifest(bomb.as_bytes()), (0, 1));
    assert_eq!(manifest("[".repeat(100_000).as_bytes()), (0, 1));
    assert_eq!(manifest("{\"a\":".repeat(100_000).as_bytes()), (0, 1));
    assert_eq!(manifest(&vec![b' '; 11 << 20]), (0, 1));
}
