//! A set of numbers, by bits: what a volume of 64 TiB has of blocks takes some MiB, however its
//! files lie.

use std::collections::BTreeMap;

const WORDS: usize = 8;
const PER_CHUNK: u64 = 64 * WORDS as u64;

#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeMap<u64, [u64; WORDS]>);

/// Chunk, word in it, bit in that.
fn split(number: u64) -> (u64, usize, u64) {
    let inside = number % PER_CHUNK;
    (
        number / PER_CHUNK,
        (inside / 64) as usize,
        1 << (inside % 64),
    )
}

impl Numbers {
    /// Adds a number; false if it was there.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (chunk, word, bit) = split(number);
        let chunk = self.0.entry(chunk).or_default();
        let Some(word) = chunk.get_mut(word) else {
            return false;
        };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let (chunk, word, bit) = split(number);
        let word = self.0.get(&chunk).and_then(|c| c.get(word));
        word.is_some_and(|w| w & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(all in prop::collection::vec(0u64..2000, 0..200)) {
            let mut numbers = Numbers::default();
            let mut set = BTreeSet::new();
            for n in all {
                prop_assert_eq!(numbers.insert(n), set.insert(n));
            }
            for n in 0..2100 {
                prop_assert_eq!(numbers.contains(n), set.contains(&n));
            }
        }
    }

    #[test]
    fn ends() {
        let mut numbers = Numbers::default();
        assert!(numbers.insert(u64::MAX) && !numbers.insert(u64::MAX));
        assert!(numbers.contains(u64::MAX) && !numbers.contains(0));
    }
}
