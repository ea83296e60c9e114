//! A set of numbers as ranges.

use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `count` numbers from `start` on; false, and nothing is added, if one was there.
    pub(super) fn insert(&mut self, start: u64, count: u64) -> bool {
        let Some(end) = start.checked_add(count) else {
            return false;
        };
        let before = self.0.range(..end).next_back().map(|(s, e)| (*s, *e));
        let mut from = start;
        if let Some((s, e)) = before {
            if e > start {
                return false;
            }
            if e == start {
                from = s;
            }
        }
        let to = self.0.remove(&end).unwrap_or(end);
        self.0.insert(from, to);
        true
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back();
        before.is_some_and(|(_, end)| number < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(steps in prop::collection::vec((0u64..60, 1u64..5), 0..60)) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for (start, count) in steps {
                let fresh = (start..start + count).all(|n| !set.contains(&n));
                prop_assert_eq!(ranges.insert(start, count), fresh);
                if fresh {
                    set.extend(start..start + count);
                }
            }
            for n in 0..70 {
                prop_assert_eq!(ranges.contains(n), set.contains(&n));
            }
        }
    }

    #[test]
    fn ends() {
        let mut ranges = Ranges::default();
        assert!(!ranges.insert(u64::MAX, 1));
        assert!(ranges.insert(u64::MAX - 1, 1));
        assert!(!ranges.contains(u64::MAX));
    }
}
