//! Two copies of directory and tables: which of them is believed.
//!
//! There are no checksums, so two sound copies that differ cannot be told apart (fact sheet,
//! VMDK 5.6). What they agree on is used. Where they differ and exactly one of them is
//! possible, that one is used and it is said; but where it has nothing and the damaged one names a
//! grain that could be, the range cannot be read, as where neither is known to be right.

use super::{BLOCK_ENTRIES, Hosted};
use crate::{
    directory::Directory,
    extent::Spot,
    tables::{self, Tables},
};
use disk_io::{DiskError, Result};
use std::ops::Range;

/// A table, or a part of it, in one copy or two that differ.
#[derive(Debug)]
pub(crate) struct Block {
    entries: Vec<u8>,
    other: Option<Vec<u8>>,
    /// Entries of 0 whose grains the stream has all the same, by index, and their places.
    lost: Vec<(usize, u64)>,
}

impl Block {
    fn of(entries: Vec<u8>, other: Option<Vec<u8>>) -> Self {
        Self {
            entries,
            other,
            lost: Vec::new(),
        }
    }

    /// The block with these entries known to be lost, in their order.
    pub(super) fn without(self, lost: Vec<(usize, u64)>) -> Self {
        Self { lost, ..self }
    }

    /// Where the grain of a lost entry is.
    pub(super) fn lost(&self, index: usize) -> Option<u64> {
        let at = self.lost.binary_search_by_key(&index, |(i, _)| *i).ok()?;
        self.lost.get(at).map(|(_, place)| *place)
    }

    /// Entry `index`; `None` if the copies disagree on it (or it is outside).
    pub(super) fn entry(&self, index: usize) -> Option<u32> {
        let value = entry(&self.entries, index)?;
        match &self.other {
            Some(other) if entry(other, index) != Some(value) => None,
            _ => Some(value),
        }
    }

    /// How many entries from `index` on are 0 in every copy.
    pub(super) fn below(&self, index: usize, most: usize) -> usize {
        let from = self.lost.partition_point(|(i, _)| *i < index);
        let most = match self.lost.get(from) {
            Some((lost, _)) => most.min(lost.saturating_sub(index)),
            None => most,
        };
        let first = tables::zero_entries(&self.entries, 4, index, most);
        match &self.other {
            Some(other) => tables::zero_entries(other, 4, index, first),
            None => first,
        }
    }

    pub(super) fn disagreement(&self, index: usize, grain: u64, name: &str) -> DiskError {
        let show = |e: Option<u32>| e.map_or("nothing".into(), |e| e.to_string());
        DiskError::corrupt(format!("finding grain {grain}"))
            .code("grain-tables-differ")
            .file(name)
            .expected("the grain table and its redundant copy to agree")
            .found(format!(
                "sector {} and sector {}",
                show(entry(&self.entries, index)),
                show(self.other.as_ref().and_then(|o| entry(o, index)))
            ))
    }
}

fn entry(table: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    table
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes))
}

/// From the first entry in which two copies differ to behind the last.
fn differing(a: &[u8], b: &[u8]) -> Option<Range<u64>> {
    let pairs = || a.chunks(4).zip(b.chunks(4));
    let first = pairs().position(|(a, b)| a != b)? as u64;
    let last = pairs().rposition(|(a, b)| a != b)? as u64;
    Some(first..last.saturating_add(1))
}

/// What one copy says of a block.
enum Copy {
    Absent,
    Table(Vec<u8>),
    Bad(DiskError),
}

impl Hosted {
    /// A block of which nothing is stored.
    pub(super) fn empty_block(&self) -> Block {
        let len = self.block_entries().saturating_mul(4);
        Block::of(vec![0; usize::try_from(len).unwrap_or_default()], None)
    }

    /// Reads a block in both copies, if there are two, and decides.
    pub(super) fn resolve(&self, number: u64) -> Result<Option<Block>> {
        let one = |entries| Ok(Some(Block::of(entries, None)));
        let (first, second) = match (&self.gd, &self.rgd) {
            (Some(gd), Some(rgd)) => (self.copy(gd, number), Some(self.copy(rgd, number))),
            (Some(only), None) | (None, Some(only)) => (self.copy(only, number), None),
            (None, None) => return Ok(None),
        };
        match (first, second) {
            (Copy::Absent, None | Some(Copy::Absent)) => Ok(None),
            // A block of nothing but "not here" needs no walk, and most are.
            (Copy::Table(t), None) if disk_io::zero::is_zero(&t) => Ok(None),
            (Copy::Table(t), None) => one(t),
            (Copy::Bad(e), None | Some(Copy::Bad(_) | Copy::Absent))
            | (Copy::Absent, Some(Copy::Bad(e))) => Err(e),
            (Copy::Bad(e), Some(Copy::Table(t))) => self.only(number, t, "first", &e),
            (Copy::Table(t), Some(Copy::Bad(e))) => self.only(number, t, "redundant", &e),
            (Copy::Absent, Some(Copy::Table(t))) => self.present(number, t, "first"),
            (Copy::Table(t), Some(Copy::Absent)) => self.present(number, t, "redundant"),
            (Copy::Table(a), Some(Copy::Table(b))) if a == b => {
                if disk_io::zero::is_zero(&a) {
                    return Ok(None);
                }
                one(a)
            }
            (Copy::Table(a), Some(Copy::Table(b))) => {
                let differ = differing(&a, &b);
                match (self.possible(number, &a), self.possible(number, &b)) {
                    (true, false) => {
                        self.say(
                            number,
                            false,
                            differ,
                            "the redundant copy is damaged; the first is used",
                        );
                        Ok(Some(self.doubted(number, a, &b)))
                    }
                    (false, true) => {
                        self.say(
                            number,
                            true,
                            differ,
                            "is damaged; its redundant copy is used",
                        );
                        Ok(Some(self.doubted(number, b, &a)))
                    }
                    _ => {
                        self.say(
                            number,
                            true,
                            differ,
                            "and its redundant copy differ and neither is known to be right; \
                             what they do not agree on cannot be read",
                        );
                        Ok(Some(Block::of(a, Some(b))))
                    }
                }
            }
        }
    }

    /// The copy that is possible, in doubt where it has nothing and the other, damaged as that is,
    /// has a place where a grain could be: the guest's data may be there, and zeros are not.
    fn doubted(&self, number: u64, good: Vec<u8>, damaged: &[u8]) -> Block {
        let first = number.saturating_mul(self.block_entries());
        let mut other = good.clone();
        let mut doubt = false;
        let pairs = other.chunks_exact_mut(4).zip(damaged.chunks_exact(4));
        for (index, (own, theirs)) in (first..).zip(pairs) {
            let theirs = theirs.first_chunk().map(|b| u32::from_le_bytes(*b));
            // Nothing here, or zeros by the flag: neither is believed of one copy alone.
            let nothing = own
                .first_chunk()
                .is_some_and(|b| u32::from_le_bytes(*b) <= 1);
            if nothing
                && let Some(place) = theirs.filter(|e| *e > 1)
                && self.could_be(index, place)
            {
                own.copy_from_slice(&place.to_le_bytes());
                doubt = true;
            }
        }
        Block::of(good, doubt.then_some(other))
    }

    /// A table whose other copy has no table at all. VMware allocates all tables (fact
    /// sheet, VMDK 5.4), so it is the entry of 0 that is wrong, unless the table is empty.
    fn present(&self, number: u64, table: Vec<u8>, missing: &str) -> Result<Option<Block>> {
        if disk_io::zero::is_zero(&table) {
            return Ok(None);
        }
        let e = DiskError::corrupt("reading a grain directory")
            .code("grain-tables-differ")
            .file(&self.seat.name)
            .expected(format!("table {number} in both directories"))
            .found(format!("none in the {missing}"));
        self.only(number, table, missing, &e)
    }

    /// The only table there is, if it is possible.
    fn only(
        &self,
        number: u64,
        table: Vec<u8>,
        bad: &str,
        why: &DiskError,
    ) -> Result<Option<Block>> {
        if !self.possible(number, &table) {
            return Err(why.clone());
        }
        self.say(
            number,
            bad == "first",
            None,
            &format!("is used in one copy only: the {bad} one cannot be used"),
        );
        Ok(Some(Block::of(table, None)))
    }

    /// Notes what is wrong with the first copy of a block, or the second; in which entries they
    /// differ, where that is known.
    fn say(&self, number: u64, first: bool, entries: Option<Range<u64>>, what: &str) {
        let (table, part) = crate::split(number, self.blocks_per_table());
        let place = || {
            let directory = if first { &self.gd } else { &self.rgd };
            let all = self.block_entries();
            let begin = number.saturating_mul(all);
            let at = directory.as_ref().map_or(0, |d| match &entries {
                None => d.place(table),
                Some(entries) => {
                    let before = part.saturating_mul(BLOCK_ENTRIES);
                    let before = before.saturating_add(entries.start).saturating_mul(4);
                    let sector = d.get(table).unwrap_or(0);
                    sector.saturating_mul(crate::SECTOR).saturating_add(before)
                }
            });
            let entries = entries.clone().unwrap_or(0..all);
            let start = begin.saturating_add(entries.start);
            let count = entries.end.saturating_sub(entries.start);
            Spot {
                touched: Some((
                    self.seat.number,
                    start.saturating_mul(self.grain),
                    count.saturating_mul(self.grain),
                )),
                ..self.seat.at(at)
            }
        };
        self.seat.remarks.add("grain-tables-differ", place, || {
            format!("{}: grain table {table} {what}", self.seat.name)
        });
    }

    /// One copy of a block.
    fn copy(&self, directory: &Directory, number: u64) -> Copy {
        let (table, part) = crate::split(number, self.blocks_per_table());
        let sector = match directory.get(table) {
            Ok(0) => return Copy::Absent,
            Ok(sector) => sector,
            Err(e) => return Copy::Bad(e),
        };
        let per_block = self.block_entries();
        let start = sector.saturating_mul(crate::SECTOR);
        // A table may not lie over the header, nor outside the file.
        let end = start.saturating_add(self.entries.saturating_mul(4));
        if end > self.file.len() {
            return Copy::Bad(
                DiskError::corrupt(format!("finding grain table {table}"))
                    .code("grain-table-outside-file")
                    .file(&self.seat.name)
                    .offset(directory.place(table))
                    .expected(format!("a table inside {} bytes", self.file.len()))
                    .found(format!("sector {sector}")),
            );
        }
        // The first range is everything before the grains, where tables belong.
        let mut taken = self.metadata.iter().skip(1);
        if taken.any(|m| start < m.end && end > m.start) {
            return Copy::Bad(
                DiskError::corrupt(format!("finding grain table {table}"))
                    .code("grain-table-in-metadata")
                    .file(&self.seat.name)
                    .offset(directory.place(table))
                    .expected("a table beside header, descriptor and directories")
                    .found(format!("sector {sector}")),
            );
        }
        let mut entries = vec![0; usize::try_from(per_block.saturating_mul(4)).unwrap_or_default()];
        let at = start.saturating_add(part.saturating_mul(BLOCK_ENTRIES.saturating_mul(4)));
        match self.file.read_exact_at(&mut entries, at) {
            Ok(()) => Copy::Table(entries),
            Err(e) => Copy::Bad(e),
        }
    }

    /// Whether a block could be that of a sound extent: every entry leads behind the
    /// metadata and into the file, to whole grains, and no two to the same.
    fn possible(&self, number: u64, table: &[u8]) -> bool {
        let first = number.saturating_mul(self.block_entries());
        let mut places = Vec::new();
        for (index, bytes) in (first..).zip(table.chunks_exact(4)) {
            let Some(entry) = bytes.first_chunk().map(|b| u32::from_le_bytes(*b)) else {
                continue;
            };
            match entry {
                0 => continue,
                1 if self.zeroed_grains => continue,
                1 => return false,
                _ => {}
            }
            if !self.could_be(index, entry) {
                return false;
            }
            places.push(entry);
        }
        places.sort_unstable();
        places.windows(2).all(|pair| pair.first() != pair.last())
    }

    /// Whether a grain of the extent could be where an entry says.
    fn could_be(&self, grain: u64, entry: u32) -> bool {
        let sectors = self.grain / crate::SECTOR;
        let rest = u64::from(entry).checked_rem(sectors);
        let aligned = self.compressed || rest.is_none_or(|rest| rest == 0);
        aligned && grain < self.len.div_ceil(self.grain) && self.fault(entry, grain).is_none()
    }
}
