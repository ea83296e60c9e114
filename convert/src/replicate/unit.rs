//! New contents of one unit (a MiB) of a disk, compressed.

use crate::{
    digest::{Hash, UNIT},
    touched::BLOCK,
};
use disk_io::{DiskError, Result};
use std::ops::Range;

/// The hash of a unit that is all zeros, as lists of hashes have it.
pub(super) const ZERO: Hash = [0; 32];
/// Bytes before the compressed contents: index, hash, blocks.
const HEAD: usize = 8 + 32 + 4;
/// Fast, and a third smaller than nothing on what disks hold.
const LEVEL: i32 = 1;

/// The unit of a disk of `len` bytes.
pub(super) fn range(unit: u64, len: u64) -> Range<u64> {
    let start = unit.saturating_mul(UNIT).min(len);
    start..start.saturating_add(UNIT).min(len)
}

/// How long it is.
pub(super) fn size(unit: u64, len: u64) -> usize {
    let range = range(unit, len);
    usize::try_from(range.end - range.start).unwrap_or(0)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) index: u64,
    /// SHA-256 of all of it; [`ZERO`] for zeros, which have no contents here.
    pub(super) hash: Hash,
    /// The blocks that are here, one bit each.
    blocks: u32,
    packed: Vec<u8>,
}

/// All blocks of a unit of `size` bytes, one bit each.
pub(super) fn blocks(size: usize) -> u32 {
    let count = u32::try_from(size.div_ceil(BLOCK)).unwrap_or(u32::MAX);
    1u32.checked_shl(count).map_or(u32::MAX, |bit| bit - 1)
}

/// Makes units. What the compressor holds is made once.
#[derive(Default)]
pub(super) struct Packer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    chosen: Vec<u8>,
}

impl Packer {
    /// Of `bytes` the `blocks`.
    pub(super) fn pack(
        &mut self,
        index: u64,
        hash: Hash,
        bytes: &[u8],
        blocks: u32,
    ) -> Result<Unit> {
        let fail = |e| DiskError::io("compressing what changed", &e);
        self.chosen.clear();
        for (n, block) in bytes.chunks(BLOCK).enumerate() {
            if blocks >> n & 1 != 0 {
                self.chosen.extend_from_slice(block);
            }
        }
        let zstd = match self.zstd.take() {
            Some(zstd) => zstd,
            None => zstd::bulk::Compressor::new(LEVEL).map_err(fail)?,
        };
        let zstd = self.zstd.insert(zstd);
        Ok(Unit {
            index,
            hash,
            blocks,
            packed: zstd.compress(&self.chosen).map_err(fail)?,
        })
    }
}

impl Unit {
    /// One that is all zeros.
    pub(super) fn zero(index: u64) -> Self {
        Self {
            index,
            hash: ZERO,
            blocks: 0,
            packed: Vec::new(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.packed.len());
        out.extend(self.index.to_le_bytes());
        out.extend(self.hash);
        out.extend(self.blocks.to_le_bytes());
        out.extend(&self.packed);
        out
    }

    /// Of a disk of `len` bytes; none for what is no such unit.
    pub(super) fn decode(body: &[u8], len: u64) -> Option<Self> {
        let (index, rest) = body.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        let (blocks, packed) = rest.split_first_chunk()?;
        let unit = Self {
            index: u64::from_le_bytes(*index),
            hash: *hash,
            blocks: u32::from_le_bytes(*blocks),
            packed: packed.to_vec(),
        };
        let count = size(unit.index, len).div_ceil(BLOCK);
        let fits = count > 0 && u64::from(unit.blocks) < 1 << count;
        fits.then_some(unit)
    }

    /// The blocks that are here: place within the unit, and contents.
    pub(super) fn blocks(&self, len: u64) -> Result<Vec<(usize, Vec<u8>)>> {
        let size = size(self.index, len);
        let parts: Vec<Range<usize>> = (0..size.div_ceil(BLOCK))
            .filter(|n| self.blocks >> n & 1 != 0)
            .map(|n| n * BLOCK..((n + 1) * BLOCK).min(size))
            .collect();
        let total = parts.iter().map(ExactSizeIterator::len).sum();
        let bad = |found: String| {
            DiskError::corrupt("unpacking what changed")
                .offset(range(self.index, len).start)
                .expected(format!("{total} bytes"))
                .found(found)
        };
        let bytes = zstd::bulk::decompress(&self.packed, total).map_err(|e| bad(e.to_string()))?;
        if bytes.len() != total {
            return Err(bad(format!("{} bytes", bytes.len())));
        }
        let mut rest = bytes.as_slice();
        Ok(parts
            .into_iter()
            .map(|part| {
                let (block, more) = rest.split_at_checked(part.len()).unwrap_or_default();
                rest = more;
                (part.start, block.to_vec())
            })
            .collect())
    }

    /// All of it, where all of it is here.
    pub(super) fn whole(&self, len: u64) -> Result<Option<Vec<u8>>> {
        let size = size(self.index, len);
        if self.hash == ZERO {
            return Ok(Some(vec![0; size]));
        }
        let bytes: Vec<u8> = self.blocks(len)?.into_iter().flat_map(|b| b.1).collect();
        Ok((bytes.len() == size).then_some(bytes))
    }

    /// Bytes of the disk that are here.
    pub(super) fn bytes(&self, len: u64) -> u64 {
        let size = size(self.index, len);
        let blocks = (0..size.div_ceil(BLOCK)).filter(|n| self.blocks >> n & 1 != 0);
        blocks
            .map(|n| (((n + 1) * BLOCK).min(size) - n * BLOCK) as u64)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comes_back_as_it_was(
            len in 1u64..3 << 20,
            changes in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let index = (len - 1) / UNIT;
            let size = size(index, len);
            let old: Vec<u8> = (0..size).map(|n| (n / 7) as u8).collect();
            let mut new = old.clone();
            for change in changes {
                new[change.index(size)] ^= 0x55;
            }
            let differs = |n: &usize| old.chunks(BLOCK).nth(*n) != new.chunks(BLOCK).nth(*n);
            let some = (0..size.div_ceil(BLOCK)).filter(differs).map(|n| 1 << n).sum();
            let mut packer = Packer::default();
            let unit = packer.pack(index, [1; 32], &new, some).unwrap();
            let unit = Unit::decode(&unit.encode(), len).unwrap();
            let mut patched = old.clone();
            for (at, block) in unit.blocks(len).unwrap() {
                patched[at..at + block.len()].copy_from_slice(&block);
            }
            prop_assert_eq!(&patched, &new);
            let whole = packer.pack(index, [1; 32], &new, blocks(size)).unwrap();
            prop_assert_eq!(whole.whole(len).unwrap(), Some(new));
            prop_assert_eq!(whole.bytes(len), size as u64);
        }

        #[test]
        fn what_is_no_unit_is_an_error(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(unit) = Unit::decode(&body, 10 << 20) {
                let _ = unit.whole(10 << 20);
            }
        }
    }
}
