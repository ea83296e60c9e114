//! Which objects of a volume have which of its blocks: all runs at once, sorted, so that what two
//! have is side by side. File systems collect; what is found is told here.

use std::ops::Range;

/// Runs that are held at once, 16 bytes each. Real volumes have some million.
pub(crate) const MOST: usize = 1 << 24;

/// A run of blocks, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    start: u64,
    len: u32,
    owner: u32,
}

impl Run {
    fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.len.into())
    }
}

/// Runs as they are met.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    all: Vec<Run>,
    full: bool,
}

/// All of them, in order.
#[derive(Debug)]
pub(crate) struct Sorted(Vec<Run>);

impl Runs {
    /// Adds a run.
    pub(crate) fn add(&mut self, owner: u32, blocks: Range<u64>) {
        let mut at = blocks.start;
        while at < blocks.end {
            let len = u32::try_from(blocks.end.saturating_sub(at)).unwrap_or(u32::MAX);
            if self.all.len() >= MOST {
                self.full = true;
                return;
            }
            self.all.push(Run {
                start: at,
                len,
                owner,
            });
            at = at.saturating_add(len.into());
        }
    }

    /// In order; `None` if there were too many.
    pub(crate) fn sorted(self) -> Option<Sorted> {
        let Self { mut all, full } = self;
        all.sort_unstable();
        (!full).then_some(Sorted(all))
    }
}

impl Sorted {
    /// Visits what two have: the blocks, and whose they are. Each run is compared with the one
    /// that reaches furthest of those before it, so that what many have is told once for each.
    pub(crate) fn shared(&self, visit: &mut dyn FnMut(Range<u64>, u32, u32)) {
        let mut reach: Option<&Run> = None;
        for run in &self.0 {
            let (here, before) = (run.range(), reach.map_or(0..0, Run::range));
            if let Some(other) = reach
                && here.start < before.end
            {
                visit(here.start..here.end.min(before.end), other.owner, run.owner);
            }
            if before.end < here.end {
                reach = Some(run);
            }
        }
    }

    /// Each block once, in order, with one that has it.
    pub(crate) fn once(&self) -> impl Iterator<Item = (Range<u64>, u32)> {
        let mut reach = 0;
        self.0.iter().filter_map(move |run| {
            let range = run.range();
            let rest = range.start.max(reach)..range.end;
            reach = reach.max(range.end);
            (rest.start < rest.end).then_some((rest, run.owner))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn held(runs: &[(u32, Range<u64>)]) -> Sorted {
        let mut all = Runs::default();
        for (owner, range) in runs {
            all.add(*owner, range.clone());
        }
        all.sorted().unwrap()
    }

    proptest::proptest! {
        #[test]
        fn every_shared_block_is_told(
            runs in proptest::collection::vec((0u64..60, 1u64..9), 0..20),
        ) {
            let runs: Vec<_> = (0..).zip(runs).map(|(n, (s, l))| (n, s..s + l)).collect();
            let mut owners: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
            for (owner, range) in &runs {
                for block in range.clone() {
                    owners.entry(block).or_default().insert(*owner);
                }
            }
            let (sorted, mut told) = (held(&runs), BTreeSet::new());
            sorted.shared(&mut |range, one, two| {
                for block in range {
                    assert!(one != two && [one, two].iter().all(|o| owners[&block].contains(o)));
                    told.insert(block);
                }
            });
            let shared: BTreeSet<u64> =
                owners.iter().filter(|(_, o)| o.len() > 1).map(|(b, _)| *b).collect();
            assert_eq!(told, shared);
            let once: Vec<u64> = sorted.once().flat_map(|(range, _)| range).collect();
            assert_eq!(once, owners.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_runs_and_too_many() {
        let long = held(&[(1, 0..1 << 34), (2, 1 << 33..(1 << 33) + 1)]);
        let mut told = Vec::new();
        long.shared(&mut |range, one, two| told.push((range, one, two)));
        assert_eq!(told, [(1 << 33..(1 << 33) + 1, 1, 2)]);
        assert_eq!(
            long.once().map(|(r, _)| r.end - r.start).sum::<u64>(),
            1 << 34
        );
        assert_eq!(size_of::<Run>(), 16);
        let mut runs = Runs::default();
        (runs.all, runs.full) = (Vec::new(), true);
        assert!(runs.sorted().is_none());
    }
}
