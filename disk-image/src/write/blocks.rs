//! Blocks that get their place in the file when the first byte of them comes.

use disk_io::{OutFile, Result};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};

/// The table of blocks, and where they lie.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Length of a block in bytes, a power of two.
    pub(super) size: u64,
    /// Where the first one begins in the file.
    pub(super) start: u64,
    /// What goes before the data of every block (a bitmap of all ones).
    pub(super) lead: u64,
    count: usize,
    table: Mutex<Table>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    /// The place of each block plus one; 0 is none.
    places: Vec<u32>,
    used: u32,
}

impl Blocks {
    pub(super) fn new(len: u64, size: u64, start: u64, lead: u64) -> Self {
        Self {
            size,
            start,
            lead,
            count: usize::try_from(len.div_ceil(size)).unwrap_or(usize::MAX),
            table: Mutex::default(),
        }
    }

    /// How many blocks the disk has.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every block its place, in order.
    pub(super) fn take_all(&self) {
        for block in 0..self.count {
            self.take(block);
        }
    }

    /// The place of a block, and whether it is new.
    fn take(&self, block: usize) -> (u32, bool) {
        let mut table = self.table();
        if table.places.is_empty() {
            table.places = vec![0; self.count];
        }
        let used = table.used;
        let Some(place) = table.places.get_mut(block) else {
            return (0, false);
        };
        if let Some(place) = place.checked_sub(1) {
            return (place, false);
        }
        *place = used.saturating_add(1);
        table.used = used.saturating_add(1);
        (used, true)
    }

    /// Where the block at `place` begins in the file.
    pub(super) fn offset(&self, place: u32) -> u64 {
        u64::from(place)
            .saturating_mul(self.size.saturating_add(self.lead))
            .saturating_add(self.start)
    }

    pub(super) fn save(&self) -> Table {
        self.table().clone()
    }

    pub(super) fn restore(&self, table: &Table) {
        self.table().clone_from(table);
    }

    /// How many blocks have a place.
    pub(super) fn used(&self) -> u32 {
        self.table().used
    }

    /// Where the last block ends.
    pub(super) fn end(&self) -> u64 {
        self.offset(self.used())
    }

    /// The places of all blocks, in order.
    pub(super) fn places(&self) -> Vec<Option<u32>> {
        let mut places = self.table().places.clone();
        places.resize(self.count, 0);
        places.into_iter().map(|p| p.checked_sub(1)).collect()
    }

    pub(super) fn write_at(&self, out: &OutFile<'_>, bytes: &[u8], offset: u64) -> Result<()> {
        let (mut rest, mut at) = (bytes, offset);
        while !rest.is_empty() {
            let block = usize::try_from(at >> self.size.ilog2()).unwrap_or(usize::MAX);
            let inside = at & self.size.wrapping_sub(1);
            let room = self.size.saturating_sub(inside);
            let n = usize::try_from(room).map_or(rest.len(), |room| room.min(rest.len()));
            let (now, later) = rest.split_at(n);
            let (place, new) = self.take(block);
            let start = self.offset(place);
            if new && self.lead > 0 {
                out.put(&vec![0xff; usize::try_from(self.lead).unwrap_or(0)], start)?;
            }
            out.put(now, start.saturating_add(self.lead).saturating_add(inside))?;
            rest = later;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }
}
