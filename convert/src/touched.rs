//! Which units of a disk, and which blocks of them, ranges lie in.

use crate::{
    digest::{UNIT, lanes},
    pipeline::side_by_side,
};
use std::{collections::BTreeMap, ops::Range};

/// What is compared and left out: the grain of a child.
pub(crate) const BLOCK: usize = 64 << 10;

/// A unit in which something can have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) unit: u64,
    /// Of its blocks those that can have, by number, one bit each.
    pub(crate) blocks: u32,
}

impl Touched {
    /// Where all of it can have.
    pub(crate) fn whole(unit: u64) -> Self {
        Self {
            unit,
            blocks: u32::MAX,
        }
    }

    /// Whether block `n` can have.
    pub(crate) fn has(self, n: usize) -> bool {
        self.blocks >> n & 1 != 0
    }
}

/// Units of a disk of `len` bytes that ranges lie in, ascending.
pub(crate) fn touched(ranges: &[Range<u64>], len: u64) -> Vec<Touched> {
    let mut units: BTreeMap<u64, u32> = BTreeMap::new();
    let block = BLOCK as u64;
    for range in ranges.iter().filter(|r| r.start < r.end.min(len)) {
        let last = range.end.min(len) - 1;
        for unit in range.start / UNIT..=last / UNIT {
            let base = unit.saturating_mul(UNIT);
            let first = range.start.max(base).saturating_sub(base) / block;
            let last = last.min(base + UNIT - 1).saturating_sub(base) / block;
            let blocks = units.entry(unit).or_default();
            for bit in first..=last {
                *blocks |= 1 << bit;
            }
        }
    }
    units
        .into_iter()
        .map(|(unit, blocks)| Touched { unit, blocks })
        .collect()
}

/// What each of so many workers looks at at a time: as many units as it hashes side by side, or
/// fewer, so that all have some.
pub(crate) fn batches(touched: &[Touched], workers: usize) -> Vec<&[Touched]> {
    // No more than that: buffers that are used again soon are still in the processor's caches.
    let most = lanes().min(side_by_side(workers));
    let fair = touched.len().div_ceil(workers.max(1));
    let most = usize::try_from(most).unwrap_or(1);
    touched.chunks(fair.clamp(1, most)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every byte of every range is in a block that is marked, and no other block is.
        #[test]
        fn marks_what_ranges_lie_in(
            len in 1u64..5 << 20,
            ranges in prop::collection::vec((0u64..5 << 20, 1u64..3 << 20), 0..6),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(at, n)| at..at + n).collect();
            let found = touched(&ranges, len);
            for block in 0..len.div_ceil(BLOCK as u64) {
                let (start, end) = (block << 16, ((block + 1) << 16).min(len));
                let wanted = ranges.iter().any(|r| r.start < end && r.end > start);
                let n = (block % 16) as usize;
                let marked = found.iter().any(|t| t.unit == block / 16 && t.has(n));
                prop_assert_eq!(wanted, marked, "block {}", block);
            }
            prop_assert!(found.is_sorted_by_key(|t| t.unit));
        }
    }
}
