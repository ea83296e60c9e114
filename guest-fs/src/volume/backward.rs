//! From a disk to the logical volumes over it: which bytes of a volume lie in a range of a disk.

use super::mapped::{Layout, Leg, Piece};
use disk_io::Disk;
use std::{ops::Range, sync::Arc};

/// Stripes of one range that are told apart; of more, all that lies between the first and the last
/// is named.
const MOST: u64 = 1 << 16;

/// Ranges of the volume made of `pieces` whose bytes lie in `range` of `disk`, in the order of the
/// pieces.
pub fn ranges_in(pieces: &[Piece], disk: &Arc<dyn Disk>, range: &Range<u64>) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    for piece in pieces {
        let legs = piece.layout.legs().iter().enumerate();
        let here = |leg: &Leg| leg.disk.as_ref().is_some_and(|d| Arc::ptr_eq(d, disk));
        for (column, leg) in legs.filter(|(_, leg)| here(leg)) {
            // In bytes of the leg, which begins at its offset.
            let from = range.start.saturating_sub(leg.offset);
            let to = range.end.saturating_sub(leg.offset);
            let inside = match &piece.layout {
                Layout::Mirror(_) | Layout::Refused(_) => std::iter::once(from..to).collect(),
                Layout::Striped { columns, chunk } => {
                    stripes(from..to, (column, columns.len()), *chunk)
                }
            };
            found.extend(inside.into_iter().filter_map(|r| {
                let (from, to) = (r.start.min(piece.len), r.end.min(piece.len));
                let at = |n: u64| piece.start.saturating_add(n);
                (from < to).then(|| at(from)..at(to))
            }));
        }
    }
    found
}

/// What of a piece lies in `range` of one of its columns.
fn stripes(range: Range<u64>, (column, columns): (usize, usize), chunk: u64) -> Vec<Range<u64>> {
    let (Ok(column), Ok(columns)) = (u64::try_from(column), u64::try_from(columns)) else {
        return Vec::new();
    };
    if range.is_empty() || chunk == 0 || columns == 0 {
        return Vec::new();
    }
    let last = range.end.saturating_sub(1);
    let row_of = |at: u64| at.checked_div(chunk).unwrap_or(0);
    let (first_row, last_row) = (row_of(range.start), row_of(last));
    // Where a byte of the column is in the piece.
    let place = |at: u64| {
        let row = row_of(at).saturating_mul(columns).saturating_add(column);
        let skip = at.checked_rem(chunk).unwrap_or(0);
        row.saturating_mul(chunk).saturating_add(skip)
    };
    if last_row.saturating_sub(first_row) >= MOST {
        return std::iter::once(place(range.start)..place(last).saturating_add(1)).collect();
    }
    let rows = first_row..=last_row;
    let ranges = rows.map(|row| {
        let begin = row.saturating_mul(chunk);
        let from = range.start.max(begin);
        let to = range.end.min(begin.saturating_add(chunk));
        place(from)..place(from).saturating_add(to.saturating_sub(from))
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::mapped::Mapped;
    use disk_io::MemDisk;
    use proptest::prelude::*;

    fn leg(disk: &Arc<dyn Disk>, offset: u64) -> Leg {
        Leg {
            disk: Some(disk.clone()),
            offset,
            name: "disk".into(),
        }
    }

    proptest! {
        /// What is changed in a range of the disk changes the volume exactly there.
        #[test]
        fn it_is_where_the_volume_changes(
            chunk in 1u64..70, columns in 1usize..4, at in 0u64..3000, len in 1u64..900,
        ) {
            let bytes = vec![0u8; 4000];
            let mut changed = bytes.clone();
            let end = (at + len).min(4000);
            changed[at as usize..end as usize].fill(1);
            let other: Arc<dyn Disk> = Arc::new(MemDisk::new(vec![0; 4000]));
            let volume = |bytes: Vec<u8>| {
                let disk: Arc<dyn Disk> = Arc::new(MemDisk::new(bytes));
                let mut legs = vec![leg(&other, 7); columns];
                legs[columns / 2] = leg(&disk, 100);
                let pieces = vec![
                    Piece {
                        start: 0,
                        len: 500,
                        layout: Layout::Mirror(vec![leg(&disk, 3000)]),
                    },
                    Piece {
                        start: 500,
                        len: 1500,
                        layout: Layout::Striped { columns: legs, chunk },
                    },
                ];
                let mut read = vec![0; 2000];
                let mapped = Mapped::new(2000, pieces.clone()).unwrap();
                mapped.read_exact_at(&mut read, 0).unwrap();
                (read, ranges_in(&pieces, &disk, &(at..end)))
            };
            let (read, ranges) = volume(changed);
            for (n, byte) in read.iter().enumerate() {
                let inside = ranges.iter().any(|r| r.contains(&(n as u64)));
                prop_assert_eq!(*byte == 1, inside, "{} {:?}", n, ranges);
            }
        }
    }
}
