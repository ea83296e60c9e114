//! Which stored ranges overlap: two places of the disk that share bytes of the file. One
//! of them was overwritten by the other, and which cannot be told.
//!
//! Ranges are collected and sorted. Where there are more than memory is given for, the
//! upper half is dropped and the caller walks once more for it.

use std::ops::Range;

/// A stored range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which file of the layer.
    pub file: u32,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes, at least 1.
    pub len: u64,
    /// Where it begins on the disk, in bytes.
    pub guest: u64,
}

impl Stored {
    fn key(&self) -> (u32, u64) {
        (self.file, self.offset)
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(self.len)
    }
}

/// Where a file's own tables begin among the places of the disk, where no disk reaches.
pub const TABLES: u64 = 1 << 63;

/// Two places of the disk that are stored in the same bytes, or one that lies in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Which file of the layer.
    pub file: u32,
    /// The bytes of the file.
    pub bytes: Range<u64>,
    /// The two places on the disk, each as long as `bytes`, in order; from [`TABLES`] on it is none.
    pub guest: [Range<u64>; 2],
}

/// Stored ranges of a window of places.
#[derive(Debug)]
pub struct Places {
    runs: Vec<Stored>,
    /// Places before this were done in an earlier walk.
    from: (u32, u64),
    /// Places from here on are for a later walk.
    to: Option<(u32, u64)>,
    /// The range of the earlier walks that reaches furthest.
    open: Option<Stored>,
    most: usize,
}

impl Places {
    /// At most `most` ranges in memory (32 bytes each), 16 at least.
    pub fn new(most: usize) -> Self {
        Self {
            runs: Vec::new(),
            from: (0, 0),
            to: None,
            open: None,
            most: most.max(16),
        }
    }

    /// Takes a range of the file in that is a table.
    pub fn add_table(&mut self, file: u32, bytes: &Range<u64>) {
        let len = bytes.end.saturating_sub(bytes.start);
        if len > 0 && len < TABLES {
            self.add(Stored {
                file,
                offset: bytes.start,
                len,
                guest: TABLES,
            });
        }
    }

    /// Takes a range in. Ranges of the disk come in order.
    pub fn add(&mut self, next: Stored) {
        if next.key() < self.from || self.to.is_some_and(|to| next.key() >= to) {
            return;
        }
        if let Some(last) = self.runs.last_mut()
            && last.file == next.file
            && last.end() == next.offset
            && last.guest.saturating_add(last.len) == next.guest
        {
            last.len = last.len.saturating_add(next.len);
            return;
        }
        if self.runs.len() >= self.most {
            self.halve();
            if self.to.is_some_and(|to| next.key() >= to) {
                return;
            }
        }
        self.runs.push(next);
    }

    /// Drops the upper half of the places. Of many ranges with one place the two longest are
    /// kept: enough to tell what of it is shared.
    fn halve(&mut self) {
        self.runs
            .sort_by_key(|r| (r.key(), std::cmp::Reverse(r.len), r.guest));
        let mut same = 0;
        let mut last = None;
        self.runs.retain(|r| {
            same = if last == Some(r.key()) { same + 1 } else { 0 };
            last = Some(r.key());
            same < 2
        });
        let half = self.most / 2;
        if let Some(first) = self.runs.get(half).map(Stored::key) {
            self.runs.retain(|r| r.key() < first);
            self.to = Some(first);
        }
        // Order of the disk again: ranges are joined as they come.
        self.runs.sort_by_key(|r| r.guest);
    }

    /// Visits what is shared, and gives the places that are left for another walk.
    pub fn finish(mut self, visit: &mut dyn FnMut(Shared)) -> Option<Self> {
        self.runs.sort_by_key(|r| (r.key(), r.guest));
        let mut open = self.open;
        for run in &self.runs {
            if let Some(before) = open.filter(|o| o.file == run.file && o.end() > run.offset) {
                let end = before.end().min(run.end());
                let len = end - run.offset;
                let first = before.guest + (run.offset - before.offset);
                let mut guest = [first..first + len, run.guest..run.guest + len];
                guest.sort_by_key(|r| r.start);
                // Tables may be told twice.
                if guest.iter().any(|r| r.start < TABLES) {
                    visit(Shared {
                        file: run.file,
                        bytes: run.offset..end,
                        guest,
                    });
                }
            }
            if open.is_none_or(|o| o.file != run.file || o.end() < run.end()) {
                open = Some(*run);
            }
        }
        let from = self.to?;
        self.runs.clear();
        Some(Self {
            runs: self.runs,
            from,
            to: None,
            open,
            most: self.most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shared(runs: &[Stored], most: usize) -> Vec<Shared> {
        let mut found = Vec::new();
        let mut next = Some(Places::new(most));
        while let Some(mut places) = next.take() {
            runs.iter().for_each(|r| places.add(*r));
            next = places.finish(&mut |s| found.push(s));
        }
        found
    }

    #[test]
    fn names_both_sides() {
        let run = |offset, len, guest| Stored {
            file: 0,
            offset,
            len,
            guest,
        };
        let found = shared(&[run(100, 10, 0), run(500, 10, 10), run(104, 10, 20)], 16);
        assert_eq!(
            found,
            [Shared {
                file: 0,
                bytes: 104..110,
                guest: [4..10, 20..26],
            }]
        );
        // Another file is another place, and neighbours are not shared.
        let other = Stored {
            file: 1,
            ..run(100, 10, 40)
        };
        assert_eq!(shared(&[run(100, 10, 0), other, run(110, 5, 60)], 16), []);
    }

    proptest! {
        /// Whatever the memory, every byte of a file that two places have is found.
        #[test]
        fn finds_every_shared_byte(
            runs in prop::collection::vec((0u32..2, 0u64..400, 1u64..12), 0..120),
        ) {
            let mut guest = 0;
            let runs: Vec<Stored> = runs.into_iter().map(|(file, offset, len)| {
                let run = Stored { file, offset, len, guest };
                guest += len + 1;
                run
            }).collect();
            let mut times = std::collections::BTreeMap::new();
            for r in &runs {
                for b in r.offset..r.end() {
                    *times.entry((r.file, b)).or_insert(0) += 1;
                }
            }
            let truth: std::collections::BTreeSet<_> =
                times.into_iter().filter(|(_, n)| *n > 1).map(|(b, _)| b).collect();
            for most in [16, 1000] {
                let found: std::collections::BTreeSet<_> = shared(&runs, most)
                    .iter()
                    .flat_map(|s| s.bytes.clone().map(|b| (s.file, b)))
                    .collect();
                prop_assert_eq!(&found, &truth, "at most {}", most);
            }
        }
    }
}
