//! A disk without what its file systems mark as free.

use disk_io::{
    Disk, Result, Run, RunKind,
    disk::{check_range, check_run_offset},
};
use std::{ops::Range, sync::Arc};

/// Ranges begin and end at multiples of this: smaller ones are not worth leaving out.
const BLOCK: u64 = 4096;
/// Ranges that are kept; memory must not grow with fragmentation.
const MOST: usize = 2_000_000;

/// A disk whose free ranges read as zeros and are not stored.
#[derive(Debug)]
pub struct UsedOnly {
    inner: Arc<dyn Disk>,
    free: Vec<Range<u64>>,
}

impl UsedOnly {
    /// Leaves out `free`, ranges of bytes in any order.
    pub fn new(inner: Arc<dyn Disk>, free: Vec<Range<u64>>) -> Self {
        let len = inner.len();
        let mut all: Vec<Range<u64>> = free
            .into_iter()
            .map(|r| r.start.next_multiple_of(BLOCK)..r.end.min(len) / BLOCK * BLOCK)
            .filter(|r| r.start < r.end)
            .collect();
        all.sort_by_key(|r| r.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(all.len().min(MOST));
        for range in all {
            let room = joined.len() < MOST;
            match joined.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ if room => joined.push(range),
                // The rest is taken as it is.
                _ => break,
            }
        }
        Self {
            inner,
            free: joined,
        }
    }

    /// Bytes that are left out.
    pub fn left_out(&self) -> u64 {
        self.free.iter().map(|r| r.end - r.start).sum()
    }

    /// The free ranges that end behind `offset`.
    fn from(&self, offset: u64) -> &[Range<u64>] {
        let first = self.free.partition_point(|r| r.end <= offset);
        self.free.get(first..).unwrap_or_default()
    }
}

impl Disk for UsedOnly {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn states_sector_size(&self) -> bool {
        self.inner.states_sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(self.len(), offset, buf.len())?;
        let end = offset + buf.len() as u64;
        let mut at = offset;
        let mut rest = buf;
        let mut take = |to: u64, zero: bool| -> Result<()> {
            let n = usize::try_from(to - at)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (now, later) = std::mem::take(&mut rest).split_at_mut(n);
            rest = later;
            match zero {
                true => now.fill(0),
                false if now.is_empty() => {}
                false => self.inner.read_exact_at(now, at)?,
            }
            at = to;
            Ok(())
        };
        for range in self.from(offset) {
            if range.start >= end {
                break;
            }
            take(range.start.max(offset), false)?;
            take(range.end.min(end), true)?;
        }
        take(end, false)
    }

    fn run_at(&self, offset: u64) -> Result<Run> {
        check_run_offset(self.len(), offset)?;
        let next = self.from(offset).first();
        if let Some(range) = next.filter(|r| r.start <= offset) {
            return Ok(Run {
                len: range.end - offset,
                kind: RunKind::Unallocated,
            });
        }
        let mut run = self.inner.run_at(offset)?;
        if let Some(range) = next {
            run.len = run.len.min(range.start - offset);
        }
        Ok(run)
    }

    fn will_read(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let mut at = offset;
        for range in self.from(offset) {
            if range.start >= end {
                break;
            }
            if range.start > at {
                self.inner.will_read(at, range.start - at);
            }
            at = range.end;
        }
        if at < end {
            self.inner.will_read(at, end - at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk_io::MemDisk;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn free_ranges_are_zeros_and_nothing_else_is(
            ranges in prop::collection::vec((0u64..200_000, 1u64..60_000), 0..12),
        ) {
            let bytes: Vec<u8> = (0..150_001u32).map(|i| (i % 251) as u8 + 1).collect();
            let mut expected = bytes.clone();
            let free: Vec<_> = ranges.iter().map(|(at, len)| *at..at + len).collect();
            for r in &free {
                let from = r.start.next_multiple_of(BLOCK).min(150_001) as usize;
                let to = (r.end.min(150_001) / BLOCK * BLOCK) as usize;
                if from < to {
                    expected[from..to].fill(0);
                }
            }
            let disk = UsedOnly::new(Arc::new(MemDisk::new(bytes)), free);
            let zeros = expected.iter().filter(|b| **b == 0).count() as u64;
            prop_assert_eq!(disk.left_out(), zeros);
            disk_io::conformance::check(&disk, &expected);
        }
    }
}
