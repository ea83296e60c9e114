//! What all sparse extents share: a directory of tables, tables of grains, and the loop that
//! turns them into mappings.

use crate::link::Counts;
use disk_io::{DiskError, ErrorKind, FileIndex, Mapping, Place, Result, UnitId};

/// What a table says of one grain.
#[derive(Debug)]
pub(crate) enum Cell {
    /// Not here.
    Below,
    /// Zeros.
    Zero,
    /// Zeros: the guest discarded it (seSparse).
    Unmapped,
    /// As it is, at this byte offset of the file.
    At(u64),
    /// Compressed, to be decoded under this unit.
    Packed(UnitId),
    /// It cannot be read.
    Bad(DiskError),
}

/// The tables of a sparse extent, as blocks: a table, or a part of a very large one.
pub(crate) trait Tables {
    /// A block in memory, checked as a whole.
    type Block;
    /// Bytes in a grain.
    fn grain(&self) -> u64;
    /// Entries in a block, at least 1.
    fn block_entries(&self) -> u64;
    /// Reads a block; `None` if nothing of it is stored.
    fn block(&self, number: u64) -> Result<Option<Self::Block>>;
    /// How many entries of `block` from `index` on say "not here", at most `most`. In a delta
    /// nearly all do.
    fn below(&self, block: &Self::Block, index: usize, most: usize) -> usize;
    /// What `block` says of its entry `index`, which is the extent's grain `grain`.
    fn cell(&self, block: &Self::Block, index: usize, grain: u64) -> Cell;
}

/// Where a range of an extent lives: calls `each` with the length of every piece and its
/// cell, in order. `skip` is how far into its grain the piece begins.
fn walk<T: Tables>(
    tables: &T,
    start: u64,
    len: u64,
    each: &mut dyn FnMut(u64, u64, Cell),
) -> Result<()> {
    let grain = tables.grain().max(1);
    let covered = grain.saturating_mul(tables.block_entries()).max(1);
    let end = start.saturating_add(len);
    let mut at = start;
    while at < end {
        let number = crate::split(at, covered).0;
        let first = number.saturating_mul(covered);
        let stop = first.saturating_add(covered).min(end);
        let block = match tables.block(number) {
            Ok(Some(block)) => block,
            Ok(None) => {
                each(stop.saturating_sub(at), 0, Cell::Below);
                at = stop;
                continue;
            }
            // The device failed: that may pass, so it is not remembered as damage.
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            Err(e) => {
                each(stop.saturating_sub(at), 0, Cell::Bad(e));
                at = stop;
                continue;
            }
        };
        let mut grain_number = crate::split(at, grain).0;
        while at < stop {
            let begin = grain_number.saturating_mul(grain);
            let index = crate::split(begin.saturating_sub(first), grain).0;
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let left = crate::split(stop.saturating_sub(begin).saturating_add(grain), grain).0;
            let empty = tables.below(&block, index, usize::try_from(left).unwrap_or(usize::MAX));
            let (next, skip, cell) = if empty > 0 {
                (
                    begin.saturating_add(grain.saturating_mul(empty as u64)),
                    0,
                    Cell::Below,
                )
            } else {
                let cell = tables.cell(&block, index, grain_number);
                (begin.saturating_add(grain), at.saturating_sub(begin), cell)
            };
            let next = next.min(stop);
            each(next.saturating_sub(at), skip, cell);
            at = next;
            grain_number = grain_number.saturating_add(empty.max(1) as u64);
        }
    }
    Ok(())
}

/// Visits every piece of the first `len` bytes of an extent with its length.
pub(crate) fn for_each<T: Tables>(
    tables: &T,
    len: u64,
    each: &mut dyn FnMut(u64, Cell),
) -> Result<()> {
    walk(tables, 0, len, &mut |len, _, cell| each(len, cell))
}

/// How many entries of `width` bytes are 0 from entry `index` on, at most `most`.
pub(crate) fn zero_entries(table: &[u8], width: usize, index: usize, most: usize) -> usize {
    let start = index.saturating_mul(width);
    let end = start
        .saturating_add(most.saturating_mul(width))
        .min(table.len());
    let entries = table.get(start..end).unwrap_or_default();
    // By blocks first: comparing them as a whole is what compilers make fast.
    const BLOCK: usize = 128;
    let blocks = entries
        .chunks_exact(BLOCK)
        .take_while(|b| b.iter().fold(0, |all, byte| all | byte) == 0)
        .count();
    let rest = entries
        .get(blocks.saturating_mul(BLOCK)..)
        .unwrap_or_default()
        .chunks_exact(width)
        .take_while(|e| e.iter().all(|byte| *byte == 0))
        .count();
    let in_blocks = blocks
        .saturating_mul(BLOCK)
        .checked_div(width)
        .unwrap_or_default();
    in_blocks.saturating_add(rest)
}

/// Joins what is contiguous, so that a run of grains is one mapping.
pub(crate) fn map<T: Tables>(
    tables: &T,
    file: FileIndex,
    start: u64,
    len: u64,
    emit: &mut dyn FnMut(Mapping),
) -> Result<()> {
    let unit_len = u32::try_from(tables.grain()).unwrap_or(u32::MAX);
    let mut last: Option<Mapping> = None;
    walk(tables, start, len, &mut |len, skip, cell| {
        let place = match cell {
            Cell::Below => Place::Below,
            Cell::Zero | Cell::Unmapped => Place::Zero,
            Cell::At(offset) => Place::Stored {
                file,
                offset: offset.saturating_add(skip),
            },
            Cell::Packed(unit) => Place::Encoded {
                unit,
                unit_len,
                skip: u32::try_from(skip).unwrap_or(u32::MAX),
            },
            Cell::Bad(e) => Place::Bad(e),
        };
        if let Some(previous) = &mut last {
            let joins = match (&previous.place, &place) {
                (Place::Below, Place::Below) | (Place::Zero, Place::Zero) => true,
                (Place::Stored { offset: a, .. }, Place::Stored { offset: b, .. }) => {
                    a.checked_add(previous.len) == Some(*b)
                }
                _ => false,
            };
            if joins {
                previous.len = previous.len.saturating_add(len);
                return;
            }
        }
        if let Some(done) = last.replace(Mapping { len, place }) {
            emit(done);
        }
    })?;
    if let Some(done) = last {
        emit(done);
    }
    Ok(())
}

/// Counts the bytes of each kind in the first `len` bytes of an extent. Reads every table.
pub(crate) fn count<T: Tables>(tables: &T, len: u64, counts: &mut Counts) -> Result<()> {
    walk(tables, 0, len, &mut |len, _, cell| {
        let (field, grains) = match cell {
            Cell::Below => (&mut counts.below, None),
            Cell::Zero => (&mut counts.zero, Some(&mut counts.zero_grains)),
            Cell::Unmapped => (&mut counts.unmapped, Some(&mut counts.unmapped_grains)),
            Cell::At(_) | Cell::Packed(_) => (&mut counts.stored, Some(&mut counts.stored_grains)),
            Cell::Bad(_) => (&mut counts.bad, None),
        };
        *field = field.saturating_add(len);
        if let Some(grains) = grains {
            *grains = grains.saturating_add(1);
        }
    })
}
