//! Grains that get their place when the first byte of them comes, and the tables that say
//! where they are.

use super::saved::Tables;
use crate::{SECTOR, split};
use disk_io::{OutFile, Result};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What the formats differ in.
pub(super) trait Layout {
    /// Writes a finished table. `place` is what [`Layout::room`] took for it.
    fn put_table(&self, table: u64, place: u64, entries: &[u64]) -> Result<()>;

    /// The extent's file.
    fn out(&self) -> &OutFile<'_>;

    /// Where the grain at a place begins in the file, in bytes. Places are sectors unless
    /// the format says otherwise.
    fn byte_of(&self, place: u64) -> u64 {
        place.saturating_mul(SECTOR)
    }

    /// Takes room for a table out of `next`, the next free unit; 0 if tables lie elsewhere.
    fn room(&self, _next: &mut u64) -> u64 {
        0
    }

    /// Takes room for a grain out of `next`: its place. Fails where the format has none.
    fn grain(&self, next: &mut u64) -> Result<u64>;

    /// The entry of a grain at a place.
    fn entry(&self, place: u64) -> u64 {
        place
    }

    /// The place of an entry.
    fn place(&self, entry: u64) -> u64 {
        entry
    }
}

/// The tables of one extent that are being filled.
#[derive(Debug)]
pub(super) struct Grains {
    /// Bytes in a grain, a power of two.
    grain: u64,
    /// Grains in a table.
    per_table: u64,
    /// Bytes of the extent.
    len: u64,
    /// Zeros must be said, since a parent is below: with this entry, or with a stored grain
    /// where the format has none.
    zeros: Zeros,
    state: Mutex<Tables>,
}

/// What becomes of grains of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeros {
    /// They are left out: nothing is below.
    LeftOut,
    /// A table entry says so.
    Entry(u64),
    /// They are stored as any other grain.
    Stored,
}

/// Part of a range in one grain.
struct Part {
    place: u64,
    /// Bytes from the grain's beginning.
    inside: u64,
    len: u64,
}

impl Grains {
    /// `next` is the first free unit of the file.
    pub(super) fn new(grain: u64, per_table: u64, len: u64, zeros: Zeros, next: u64) -> Self {
        Self {
            grain,
            per_table,
            len,
            zeros,
            state: Mutex::new(Tables {
                next,
                open: BTreeMap::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, Tables> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the extent that one table covers.
    fn span(&self) -> u64 {
        self.grain.saturating_mul(self.per_table)
    }

    /// The next free unit.
    pub(super) fn next(&self) -> u64 {
        self.state().next
    }

    pub(super) fn write_at(&self, layout: &impl Layout, bytes: &[u8], offset: u64) -> Result<()> {
        let parts = self.places(layout, offset, bytes.len() as u64)?;
        let mut rest = bytes;
        let mut parts = parts.into_iter().peekable();
        while let Some(mut part) = parts.next() {
            // Grains that lie together go in one call.
            while let Some(following) = parts.next_if(|following| {
                following.inside == 0 && following.place == self.after(layout, &part)
            }) {
                part.len = part.len.saturating_add(following.len);
            }
            let n = usize::try_from(part.len)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (now, later) = rest.split_at(n);
            let at = layout.byte_of(part.place).saturating_add(part.inside);
            layout.out().put(now, at)?;
            rest = later;
        }
        self.cover(layout, offset, bytes.len() as u64)
    }

    /// The place that would follow a part that fills its grains to the end.
    fn after(&self, layout: &impl Layout, part: &Part) -> u64 {
        let (grains, left) = split(part.inside.saturating_add(part.len), self.grain);
        let mut next = part.place;
        if left != 0 {
            return u64::MAX;
        }
        for _ in 0..grains {
            if layout.grain(&mut next).is_err() {
                return u64::MAX;
            }
        }
        next
    }

    pub(super) fn zero_at(&self, layout: &impl Layout, offset: u64, len: u64) -> Result<()> {
        if self.zeros != Zeros::LeftOut {
            self.say_zeros(layout, offset, len)?;
        }
        self.cover(layout, offset, len)
    }

    /// In a child: whole grains of zeros get their entry, parts of grains a place.
    fn say_zeros(&self, layout: &impl Layout, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let (number, inside) = split(at, self.grain);
            let grain_end = at
                .saturating_sub(inside)
                .saturating_add(self.grain)
                .min(self.len);
            let to = grain_end.min(end);
            match self.zeros {
                Zeros::Entry(entry) if inside == 0 && to == grain_end => {
                    let (table, index) = split(number, self.per_table);
                    let mut state = self.state();
                    if let Some(slot) = self.slot(layout, &mut state, table, index) {
                        *slot = entry;
                    }
                }
                // A hole in the file is what is written.
                _ => drop(self.places(layout, at, to.saturating_sub(at))?),
            }
            at = to;
        }
        Ok(())
    }

    fn slot<'s>(
        &self,
        layout: &impl Layout,
        state: &'s mut Tables,
        table: u64,
        index: u64,
    ) -> Option<&'s mut u64> {
        let Tables { next, open } = state;
        let table = open.entry(table).or_default();
        if table.entries.is_empty() {
            table.entries = vec![0; usize::try_from(self.per_table).unwrap_or(0)];
            table.room = layout.room(next);
        }
        table.entries.get_mut(usize::try_from(index).ok()?)
    }

    /// Where the grains of a range are; those that have no place get one.
    fn places(&self, layout: &impl Layout, offset: u64, len: u64) -> Result<Vec<Part>> {
        let end = offset.saturating_add(len);
        let mut parts = Vec::new();
        let mut state = self.state();
        let mut at = offset;
        while at < end {
            let (number, inside) = split(at, self.grain);
            let (table, index) = split(number, self.per_table);
            let to = at
                .saturating_sub(inside)
                .saturating_add(self.grain)
                .min(end);
            let entry = self
                .slot(layout, &mut state, table, index)
                .map_or(0, |slot| *slot);
            let place = if entry == 0 {
                let place = layout.grain(&mut state.next)?;
                if let Some(slot) = self.slot(layout, &mut state, table, index) {
                    *slot = layout.entry(place);
                }
                place
            } else {
                layout.place(entry)
            };
            parts.push(Part {
                place,
                inside,
                len: to.saturating_sub(at),
            });
            at = to;
        }
        Ok(parts)
    }

    /// Counts a range as come; tables of which everything came are written.
    fn cover(&self, layout: &impl Layout, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len);
        let mut at = offset;
        while at < end {
            let (number, inside) = split(at, self.span());
            let start = at.saturating_sub(inside);
            let table_end = start.saturating_add(self.span()).min(self.len);
            let to = table_end.min(end);
            let full = {
                let mut state = self.state();
                let table = state.open.entry(number).or_default();
                table.covered = table.covered.saturating_add(to.saturating_sub(at));
                if table.covered >= table_end.saturating_sub(start) {
                    state.open.remove(&number)
                } else {
                    None
                }
            };
            if let Some(table) = full
                && !table.entries.is_empty()
            {
                layout.put_table(number, table.room, &table.entries)?;
            }
            at = to;
        }
        Ok(())
    }

    /// The tables that are being filled, and where the next grain goes.
    pub(super) fn save(&self) -> Tables {
        self.state().clone()
    }

    /// Goes on from there; returns the first free unit of the file.
    pub(super) fn restore(&self, tables: &Tables) -> u64 {
        self.state().clone_from(tables);
        tables.next
    }

    /// Writes the tables that never filled up.
    pub(super) fn finish(&self, layout: &impl Layout) -> Result<()> {
        let open = std::mem::take(&mut self.state().open);
        for (number, table) in open {
            if !table.entries.is_empty() {
                layout.put_table(number, table.room, &table.entries)?;
            }
        }
        Ok(())
    }
}

/// A table of 32-bit entries as it is stored.
pub(super) fn le32(entries: &[u64]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|e| u32::try_from(*e).unwrap_or(u32::MAX).to_le_bytes())
        .collect()
}
