//! Which addresses of the node's network are given.
//!
//! IPv4 and IPv6 addresses of a pod have the same distance from the first of their networks, so there is one number to
//! give. The next one is looked for behind the last that was given: an address that was just freed rests as long as possible,
//! since others may still send to its former pod.

use super::{Error, Result};

/// The first distance that a pod may have: 0 is the network itself, 1 the host's address in it.
const FIRST: u32 = 2;

/// Distances, given and free.
#[derive(Debug)]
pub(super) struct Pool {
    /// One bit each; true: given.
    given: Vec<u64>,
    /// Behind the last distance.
    end: u32,
    /// Where the next search begins.
    next: u32,
}

impl Pool {
    /// All of an IPv4 network with so many bits, but its first two addresses and its last.
    pub(super) fn new(prefix: u8) -> Self {
        let end = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0).max(FIRST);
        Self { given: vec![0; end as usize / 64 + 1], end, next: FIRST }
    }

    /// Gives one that nobody has.
    pub(super) fn give(&mut self) -> Result<u32> {
        let found = (self.next..self.end).chain(FIRST..self.next).find(|offset| !self.is_given(*offset));
        let offset = found.ok_or(Error::Exhausted(self.end - FIRST))?;
        self.mark(offset, true);
        self.next = if offset + 1 < self.end { offset + 1 } else { FIRST };
        Ok(offset)
    }

    /// Notes that one is given, as a record says; false: somebody else has it, or there is no such one.
    pub(super) fn take(&mut self, offset: u32) -> bool {
        let free = (FIRST..self.end).contains(&offset) && !self.is_given(offset);
        if free {
            self.mark(offset, true);
            self.next = if offset + 1 < self.end { (offset + 1).max(self.next) } else { FIRST };
        }
        free
    }

    /// Takes one back.
    pub(super) fn free(&mut self, offset: u32) {
        self.mark(offset, false);
    }

    fn is_given(&self, offset: u32) -> bool {
        self.given.get(offset as usize / 64).is_some_and(|word| word >> (offset % 64) & 1 == 1)
    }

    fn mark(&mut self, offset: u32, given: bool) {
        if let Some(word) = self.given.get_mut(offset as usize / 64) {
            let bit = 1 << (offset % 64);
            if given {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_are_given_once_and_then_none() {
        let mut pool = Pool::new(28);
        let given: HashSet<u32> = (0..13).map(|_| pool.give().expect("one is left")).collect();
        assert_eq!(given, (2..15).collect());
        let error = pool.give().expect_err("none is left").to_string();
        assert!(error.contains("all 13 addresses"), "{error}");
        pool.free(7);
        pool.free(7);
        assert_eq!(pool.give().expect("the freed one"), 7);
        pool.give().expect_err("none is left again");
    }

    #[test]
    fn a_freed_one_rests() {
        let mut pool = Pool::new(24);
        let first = pool.give().expect("one");
        pool.free(first);
        assert_ne!(pool.give().expect("another"), first);
        for _ in 0..251 {
            let one = pool.give().expect("one");
            pool.free(one);
        }
        assert_eq!(pool.give().expect("all others had their turn"), first);
    }

    #[test]
    fn what_records_say_is_taken_once() {
        let mut pool = Pool::new(24);
        assert!(pool.take(9));
        assert!(!pool.take(9));
        assert!(!pool.take(1), "the host's own");
        assert!(!pool.take(255), "the last one");
        assert!(!pool.take(70_000));
        assert_eq!(pool.give().expect("one"), 10, "behind the highest of them");
    }
}
