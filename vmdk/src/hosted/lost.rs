//! Grains of a stream that its tables have lost.
//!
//! An entry of 0 reads as zeros, and nothing beside it tells whether something was there. But in a
//! stream every grain says itself where it belongs, and they follow each other in the order of
//! the disk (fact sheet, VMDK 6.1). So where the tables have nothing, what stands in the file behind
//! the grain before is looked at: if that is a grain for just there, the entry is lost, and
//! the range cannot be read. That costs two short reads for each hole. Where a writer did not keep
//! the order (fact sheet, VMDK 6.1: parallel ones) nothing is said here, but by `check`, which walks
//! all of the stream. Grains that were written twice have an entry, and are no matter of this.

use super::{Hosted, grain::MARKER_LEN, redundancy::Block};
use disk_io::{Disk, DiskError};

/// Empty blocks that are looked back over for the grain before a hole; in a disk that is mapped
/// in order it is the block before.
const BACK: u64 = 256;
/// Markers that are looked at for one block: its own grains, and what stands between tables.
const MARKERS: u64 = 8192;

/// How far the stream is known: what belongs before `block` stands before `place`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    block: u64,
    place: u64,
    /// The grain that stands before it.
    last: Option<u64>,
    /// The grain that stands there; the greatest number where none comes any more.
    next: u64,
}

/// What stands at a place of the stream.
enum Stands {
    Grain { number: u64, end: u64 },
    Metadata { end: u64 },
    Nothing,
}

impl Hosted {
    /// Which grains of a block the stream holds without an entry leading there, by their index and
    /// their place.
    pub(super) fn lost(&self, number: u64, block: Option<&Block>) -> Vec<(usize, u64)> {
        let mut lost = Vec::new();
        let all = self.len.div_ceil(self.grain);
        let first = number.saturating_mul(self.entries_of_block());
        let end = first.saturating_add(self.entries_of_block()).min(all);
        let mut at = first;
        while at < end {
            let index = usize::try_from(at.saturating_sub(first)).unwrap_or(usize::MAX);
            let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let empty = block.map_or(left, |b| b.below(index, left));
            if empty == 0 {
                at = at.saturating_add(1);
                continue;
            }
            let hole = at..at.saturating_add(empty as u64).min(end);
            let start = match at.checked_sub(1).filter(|before| *before >= first) {
                Some(before) => block
                    .and_then(|b| self.end_of(b, before.saturating_sub(first), before))
                    .map(|place| Reached {
                        block: number,
                        place,
                        last: Some(before),
                        next: 0,
                    }),
                None => self.reached(number),
            };
            if let Some(mut reached) = start {
                self.follow(&mut reached, &hole, |grain, place| {
                    let index = grain.saturating_sub(first);
                    lost.push((usize::try_from(index).unwrap_or(usize::MAX), place));
                });
                // Where the block ends with a hole the next one goes on from here.
                if hole.end == end
                    && let Ok(mut memo) = self.reached.lock()
                {
                    *memo = Some(Reached {
                        block: number.saturating_add(1),
                        ..reached
                    });
                }
            }
            at = hole.end;
        }
        lost.sort_unstable();
        lost.dedup_by_key(|(index, _)| *index);
        lost
    }

    fn entries_of_block(&self) -> u64 {
        crate::tables::Tables::block_entries(self).max(1)
    }

    /// Goes on in the stream until behind what belongs into a hole.
    fn follow(
        &self,
        reached: &mut Reached,
        hole: &std::ops::Range<u64>,
        mut found: impl FnMut(u64, u64),
    ) {
        if reached.next >= hole.end {
            return;
        }
        for _ in 0..MARKERS {
            match self.stands(reached.place) {
                // Not in the order of the disk: nothing can be said of what follows.
                Stands::Grain { number, .. } if reached.last.is_some_and(|l| number <= l) => {
                    reached.next = u64::MAX;
                    return;
                }
                Stands::Grain { number, end } if number < hole.end => {
                    // One before the hole is lost too, in a block that has nothing at all.
                    if number >= hole.start {
                        found(number, reached.place);
                    }
                    reached.place = end;
                    reached.last = Some(number);
                }
                Stands::Grain { number, .. } => {
                    reached.next = number;
                    return;
                }
                Stands::Metadata { end } => reached.place = end,
                Stands::Nothing => {
                    reached.next = u64::MAX;
                    return;
                }
            }
        }
    }

    /// Where what belongs behind all blocks before this one comes, if anything does.
    fn reached(&self, number: u64) -> Option<Reached> {
        if let Ok(memo) = self.reached.lock()
            && let Some(memo) = *memo
            && memo.block == number
        {
            return Some(memo);
        }
        let at = |place, last| Reached {
            block: number,
            place,
            last,
            next: 0,
        };
        let oldest = number.saturating_sub(BACK);
        for before in (oldest..number).rev() {
            let Some(block) = self.resolve(before).ok()? else {
                continue;
            };
            let entries = self.entries_of_block();
            for index in (0..entries).rev() {
                if block.entry(usize::try_from(index).ok()?)? > 1 {
                    let grain = before.saturating_mul(entries).saturating_add(index);
                    let end = self.end_of(&block, index, grain);
                    return end.map(|place| at(place, Some(grain)));
                }
            }
        }
        let first = self.metadata.first().map_or(crate::SECTOR, |m| m.end);
        (oldest == 0).then(|| at(first, None))
    }

    /// Where a grain of a block ends, if it is stored and its marker is its own.
    fn end_of(&self, block: &Block, index: u64, grain: u64) -> Option<u64> {
        let entry = block.entry(usize::try_from(index).ok()?)?;
        let place = u64::from(entry).checked_mul(crate::SECTOR)?;
        match self.stands(place) {
            Stands::Grain { number, end } if number == grain => Some(end),
            _ => None,
        }
    }

    /// What stands at a place. What is no marker, or cannot be read, is nothing: it has no
    /// part in what the tables say.
    fn stands(&self, place: u64) -> Stands {
        let mut head = [0; 16];
        if self.file.read_exact_at(&mut head, place).is_err() {
            return Stands::Nothing;
        }
        let fields = disk_io::Fields::new(&head, place, "marker");
        let (Ok(value), Ok(size), Ok(kind)) =
            (fields.u64_le(0), fields.u32_le(8), fields.u32_le(12))
        else {
            return Stands::Nothing;
        };
        let inside = |end: Option<u64>| end.filter(|end| *end <= self.file.len());
        if size == 0 {
            // Tables and directories, and the one sector of type 4; behind a footer comes nothing.
            let sectors = match kind {
                1 | 2 => value,
                4 => 0,
                _ => return Stands::Nothing,
            };
            let len = crate::bytes(sectors.saturating_add(1));
            return match inside(len.and_then(|len| place.checked_add(len))) {
                Some(end) => Stands::Metadata { end },
                None => Stands::Nothing,
            };
        }
        let sectors = (self.grain / crate::SECTOR).max(1);
        let (number, beside) = crate::split(value, sectors);
        let len = u64::from(size).saturating_add(MARKER_LEN as u64);
        let sane = beside == 0
            && is_zlib(kind)
            && number < self.len.div_ceil(self.grain)
            && u64::from(size) <= self.grain.saturating_mul(2);
        let end = len
            .checked_next_multiple_of(crate::SECTOR)
            .and_then(|len| place.checked_add(len));
        // The last grain of a file need not fill its sector.
        let whole = inside(place.checked_add(len)).is_some();
        match end.filter(|_| sane && whole) {
            Some(end) => Stands::Grain { number, end },
            None => Stands::Nothing,
        }
    }

    /// Why a lost grain cannot be read.
    pub(super) fn lost_entry(&self, grain: u64, place: u64) -> DiskError {
        let sector = grain.saturating_mul(self.grain) / crate::SECTOR;
        DiskError::corrupt(format!("looking up the grain of sector {sector}"))
            .code("grain-unreferenced")
            .file(&self.seat.name)
            .offset(place)
            .expected(format!("{place} in the grain table"))
            .found("nothing, but the stream has the grain: its entry is lost")
    }
}

/// Whether the data behind a marker begin as a zlib stream does (RFC 1950, 2.2): the first two of
/// the four bytes are its header.
fn is_zlib(first: u32) -> bool {
    let [method, flags, ..] = first.to_le_bytes();
    let both = u16::from_be_bytes([method, flags]);
    method & 0x0f == 8 && both.checked_rem(31) == Some(0)
}
