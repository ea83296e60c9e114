//! The map of clusters in use, read a page at a time: held against chains.

use crate::fat::{chain::Chain, contents::Contents};
use disk_io::Disk;
use quick_cache::sync::Cache;
use std::sync::Arc;

const PAGE: u64 = 16 << 10;

/// Pages kept: 1 MiB.
const PAGES: usize = 64;

/// The bitmap; bit 0 is cluster 2.
#[derive(Debug)]
pub(super) struct Bitmap {
    contents: Contents,
    pages: Cache<u64, Arc<[u8]>>,
}

impl Bitmap {
    pub(super) fn new(contents: Contents) -> Self {
        Self {
            contents,
            pages: Cache::new(PAGES),
        }
    }

    fn page(&self, number: u64) -> Option<Arc<[u8]>> {
        if let Some(found) = self.pages.get(&number) {
            return Some(found);
        }
        let from = number.checked_mul(PAGE)?;
        let n = self.contents.len().checked_sub(from)?.min(PAGE);
        let mut bytes = vec![0; usize::try_from(n).ok()?];
        self.contents.read_exact_at(&mut bytes, from).ok()?;
        let bytes: Arc<[u8]> = bytes.into();
        self.pages.insert(number, bytes.clone());
        Some(bytes)
    }

    /// The first cluster of a chain that is called free. What cannot be read says nothing.
    pub(super) fn free_of(&self, chain: &Chain) -> Option<u32> {
        let pieces = chain.pieces();
        pieces.into_iter().find_map(|(first, n)| {
            let first = first.checked_sub(2)?;
            self.free_in(first.into(), first.checked_add(n)?.into())
        })
    }

    /// The same of clusters that follow each other, by their bits.
    fn free_in(&self, mut bit: u64, end: u64) -> Option<u32> {
        while bit < end {
            let page = self.page(bit / 8 / PAGE)?;
            let next = (bit / 8 / PAGE)
                .saturating_add(1)
                .saturating_mul(PAGE.saturating_mul(8));
            let stop = end.min(next);
            while bit < stop {
                let byte = page.get(usize::try_from(bit / 8 % PAGE).ok()?).copied()?;
                if byte == 0xff {
                    bit = (bit / 8).saturating_add(1).saturating_mul(8);
                    continue;
                }
                if byte >> (bit % 8) & 1 == 0 {
                    return u32::try_from(bit.saturating_add(2)).ok();
                }
                bit = bit.saturating_add(1);
            }
        }
        None
    }
}
