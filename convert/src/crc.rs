//! The CRC-32 of a file, computed by workers that take its pieces in any order.

use crate::target::Target;
use crc32fast::Hasher;
use disk_io::{DiskError, Result};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Joins the CRC-32 of pieces as they come. Nothing else is kept of them.
#[derive(Debug, Default)]
pub(crate) struct Crc {
    /// By where a joined range begins: its length and CRC-32.
    ranges: Mutex<BTreeMap<u64, (u64, Hasher)>>,
}

impl Crc {
    fn put(&self, offset: u64, len: u64, crc: Hasher) {
        if len == 0 {
            return;
        }
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut start, mut range) = (offset, (len, crc));
        if let Some((before, found)) = ranges.range(..offset).next_back().map(|(at, r)| (*at, r))
            && before.checked_add(found.0) == Some(offset)
            && let Some(mut joined) = ranges.remove(&before)
        {
            joined.1.combine(&range.1);
            joined.0 = joined.0.saturating_add(range.0);
            (start, range) = (before, joined);
        }
        let end = start.saturating_add(range.0);
        if let Some(after) = ranges.remove(&end) {
            range.1.combine(&after.1);
            range.0 = range.0.saturating_add(after.0);
        }
        ranges.insert(start, range);
    }

    /// That of the `len` bytes that came.
    ///
    /// # Errors
    /// `Corrupt` if some did not come.
    pub(crate) fn finish(self, len: u64) -> Result<u32> {
        let ranges = self.ranges.into_inner();
        let mut ranges = ranges.unwrap_or_else(PoisonError::into_inner);
        match ranges.pop_first() {
            None if len == 0 => Ok(0),
            Some((0, (n, crc))) if n == len && ranges.is_empty() => Ok(crc.finalize()),
            _ => Err(DiskError::corrupt("computing a CRC-32").found("gaps")),
        }
    }
}

/// The CRC-32 of `len` zeros, doubled up: it takes a few steps whatever the length.
fn of_zeros(len: u64) -> Hasher {
    let mut all = Hasher::new();
    let mut power = Hasher::new();
    power.update(&[0]);
    let mut left = len;
    while left > 0 {
        if left & 1 == 1 {
            all.combine(&power);
        }
        let same = power.clone();
        power.combine(&same);
        left >>= 1;
    }
    all
}

impl Target for Crc {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut crc = Hasher::new();
        crc.update(bytes);
        self.put(offset, bytes.len() as u64, crc);
        Ok(())
    }

    fn zero_at(&self, offset: u64, len: u64) -> Result<()> {
        self.put(offset, len, of_zeros(len));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CopyOptions, NoProgress, pipeline};
    use disk_io::MemDisk;

    proptest::proptest! {
        #[test]
        fn pieces_in_any_order_are_the_whole(
            len in 0usize..(3 << 20),
            zeros in proptest::collection::vec((0usize..3 << 20, 0usize..1 << 20), 0..4),
        ) {
            let mut bytes: Vec<u8> = (0..len).map(|n| ((n * n) >> 3) as u8 | 1).collect();
            for (at, n) in zeros {
                let at = at.min(len);
                let end = (at + n).min(len);
                bytes[at..end].fill(0);
            }
            let crc = Crc::default();
            pipeline::copy(
                &MemDisk::new(bytes.clone()), &crc, CopyOptions::default(), &NoProgress,
            ).unwrap();
            proptest::prop_assert_eq!(crc.finish(len as u64).unwrap(), crc32fast::hash(&bytes));
        }
    }

    #[test]
    fn a_gap_is_an_error() {
        let crc = Crc::default();
        crc.write_at(b"ab", 0).unwrap();
        crc.write_at(b"ab", 3).unwrap();
        assert!(crc.finish(5).is_err());
        assert_eq!(of_zeros(5).finalize(), crc32fast::hash(&[0; 5]));
    }
}
