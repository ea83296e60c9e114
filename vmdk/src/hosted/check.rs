//! What can be wrong with a hosted sparse extent beyond what its block map says: grains off
//! their boundaries, space that nothing uses, and a stream that contradicts its tables.

use super::{Hosted, grain::MARKER_LEN, header::NEWLINE_TEST, redundancy::Block};
use crate::tables::{self, Cell, Tables};
use disk_io::{Disk, DiskError, Finding, Result, Severity, finding::Visit};
use std::ops::Range;

/// Findings of one kind and one extent that are told one by one; the rest is counted.
const TOLD: u64 = 32;

impl Hosted {
    /// Visits what is wrong. `start` is where the extent begins on the disk.
    pub(super) fn check_structure(&self, start: u64, visit: Visit<'_>) -> Result<()> {
        self.newline_test(visit);
        if self.compressed {
            return self.stream(start, visit);
        }
        self.boundaries(start, visit)
    }

    fn corrupt(&self, doing: impl Into<String>) -> DiskError {
        DiskError::corrupt(doing).file(&self.seat.name)
    }

    /// All zero is a writer that never set them; anything else is refused when opening.
    fn newline_test(&self, visit: Visit<'_>) {
        if self.newline_test == [0; 4] && self.newline_test_said {
            let e = self
                .corrupt("reading the end-of-line bytes of the header")
                .offset(73)
                .expected(format!("{NEWLINE_TEST:02x?}, since flag 1 is set"))
                .found("zeros");
            visit(Finding::note("newline-test-missing", e));
        }
    }

    /// Grains begin at multiples of their size (fact sheet, VMDK 5.4); where a writer put
    /// all of them equally beside it, that is its way.
    fn boundaries(&self, start: u64, visit: Visit<'_>) -> Result<()> {
        let mut usual: Option<u64> = None;
        let mut odd = 0u64;
        let mut at = start;
        let mut stored = 0u64;
        tables::for_each(self, self.len, &mut |len, cell| {
            if let Cell::At(offset) = cell {
                stored = stored.saturating_add(len);
                let beside = crate::split(offset, self.grain).1;
                let usual = *usual.get_or_insert(beside);
                if beside != usual {
                    odd = odd.saturating_add(1);
                    if odd <= TOLD {
                        let e = self
                            .corrupt("looking at the places of grains")
                            .offset(offset)
                            .expected(format!("a multiple of {} bytes", self.grain))
                            .found(format!("{beside} bytes behind one"));
                        let range = at..at.saturating_add(len);
                        visit(Finding::warning("grain-unaligned", e).touching([range]));
                    }
                }
            }
            at = at.saturating_add(len);
        })?;
        self.count_rest("grain-unaligned", odd, visit);
        self.unreferenced(stored, visit);
        Ok(())
    }

    fn count_rest(&self, code: &'static str, all: u64, visit: Visit<'_>) {
        if all > TOLD {
            let e = self
                .corrupt("counting findings of one kind")
                .found(format!("{} more of {code}", all.saturating_sub(TOLD)));
            visit(Finding::new(code, Severity::Warning, e));
        }
    }

    /// Space behind the metadata that no grain takes. Harmless (fact sheet, VMDK 5.6).
    fn unreferenced(&self, stored: u64, visit: Visit<'_>) {
        let first = self.metadata.first().map_or(0, |m| m.end);
        let room = self.file.len().saturating_sub(first);
        let tables = [&self.gd, &self.rgd]
            .into_iter()
            .flatten()
            .filter(|d| d.range().start >= first)
            .map(|d| {
                let range = d.range();
                let tables = range.end.saturating_sub(range.start) / 4;
                let each = self.entries.saturating_mul(4);
                tables.saturating_mul(each)
            })
            .fold(0, u64::saturating_add);
        let lost = room.saturating_sub(stored).saturating_sub(tables);
        if lost >= self.grain {
            let e = self
                .corrupt("adding up what the grains take")
                .expected(format!("{stored} bytes behind the metadata"))
                .found(format!(
                    "{room}: {lost} bytes are used by nothing: freed, or of an entry that is lost"
                ));
            visit(Finding::note("space-unreferenced", e));
        }
    }

    /// The stream from its first marker to its last, beside what the tables say.
    fn stream(&self, start: u64, visit: Visit<'_>) -> Result<()> {
        let mut walk = Walk {
            extent: self,
            start,
            last: None,
            unsorted: 0,
            lost: 0,
            block: None,
            visit,
        };
        walk.run()
    }
}

struct Walk<'a> {
    extent: &'a Hosted,
    start: u64,
    /// Guest sector of the last grain.
    last: Option<u64>,
    unsorted: u64,
    lost: u64,
    /// The block that was last asked for lost entries, and its number.
    block: Option<(u64, Option<Block>)>,
    visit: Visit<'a>,
}

/// What stands at a place of the stream (fact sheet, VMDK 6.1).
enum Marker {
    Grain { lba: u64, size: u32 },
    End,
    Metadata { sectors: u64 },
    Unknown(u32),
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        let x = self.extent;
        let mut at = x.metadata.first().map_or(crate::SECTOR, |m| m.end);
        let mut ended = false;
        while at.saturating_add(crate::SECTOR) <= x.file.len() {
            let next = match self.marker(at)? {
                Marker::Grain { lba, size } => {
                    self.grain(at, lba);
                    let len = u64::from(size).saturating_add(MARKER_LEN as u64);
                    len.checked_next_multiple_of(crate::SECTOR)
                        .and_then(|len| at.checked_add(len))
                }
                Marker::Metadata { sectors } => {
                    crate::bytes(sectors.saturating_add(1)).and_then(|len| at.checked_add(len))
                }
                Marker::End => {
                    ended = true;
                    break;
                }
                Marker::Unknown(kind) => {
                    let e = x
                        .corrupt("walking the markers of the stream")
                        .offset(at)
                        .expected("a grain, a table, a directory, a footer or the end")
                        .found(format!("a marker of type {kind}"))
                        .hint("what stands behind it is only reachable through the tables");
                    (self.visit)(Finding::warning("marker-unknown", e));
                    return Ok(());
                }
            };
            match next {
                Some(next) if next > at => at = next,
                _ => break,
            }
        }
        if !ended && x.footer {
            let e = x
                .corrupt("walking the markers of the stream")
                .offset(at.min(x.file.len()))
                .expected("the end marker")
                .found("the end of the file");
            (self.visit)(Finding::warning("stream-unterminated", e));
        }
        if self.unsorted > 0 {
            let e = x
                .corrupt("walking the markers of the stream")
                .expected("grains in the order of the disk")
                .found(format!("{} that are not", self.unsorted))
                .hint("readers that take the file as a stream want them sorted");
            (self.visit)(Finding::note("stream-unsorted", e));
        }
        x.count_rest("grain-unreferenced", self.lost, self.visit);
        Ok(())
    }

    fn marker(&self, at: u64) -> Result<Marker> {
        let mut head = [0; 16];
        self.extent.file.read_exact_at(&mut head, at)?;
        let f = disk_io::Fields::new(&head, at, "marker");
        let (value, size, kind) = (f.u64_le(0)?, f.u32_le(8)?, f.u32_le(12)?);
        Ok(match (size, kind) {
            (1.., _) => Marker::Grain { lba: value, size },
            (0, 0) if value == 0 => Marker::End,
            (0, 1..=3) => Marker::Metadata { sectors: value },
            // One sector that says how far the writer was.
            (0, 4) => Marker::Metadata { sectors: 0 },
            (0, kind) => Marker::Unknown(kind),
        })
    }

    /// A grain of the stream that the tables do not lead to is lost for every reader that
    /// looks grains up.
    fn grain(&mut self, at: u64, lba: u64) {
        let x = self.extent;
        if self.last.is_some_and(|last| lba <= last) {
            self.unsorted = self.unsorted.saturating_add(1);
        }
        self.last = Some(lba);
        let sectors = (x.grain / crate::SECTOR).max(1);
        let (grain, beside) = crate::split(lba, sectors);
        let begin = grain.saturating_mul(x.grain);
        let (found, severity) = if beside != 0 || begin >= x.len {
            (format!("sector {lba}"), Severity::Warning)
        } else {
            match self.named(grain) {
                Some(place) if place == at => return,
                Some(place) => (
                    format!("{place}: this copy of the grain is not used"),
                    Severity::Note,
                ),
                // The map cannot read it, and has told.
                None if self.is_lost(grain) => return,
                None => (
                    "nothing: the disk reads as zeros there".into(),
                    Severity::Damage,
                ),
            }
        };
        self.lost = self.lost.saturating_add(1);
        if self.lost > TOLD {
            return;
        }
        let e = x
            .corrupt(format!("looking up the grain of sector {lba}"))
            .offset(at)
            .expected(format!("{at} in the grain table"))
            .found(found);
        let finding = Finding::new("grain-unreferenced", severity, e);
        let touched: Option<Range<u64>> = (begin < x.len).then(|| {
            let begin = self.start.saturating_add(begin);
            begin..begin.saturating_add(x.needed(grain))
        });
        (self.visit)(finding.touching(touched));
    }

    /// Whether the map knows that the entry of a grain is lost.
    fn is_lost(&mut self, grain: u64) -> bool {
        let (number, index) = crate::split(grain, self.extent.block_entries());
        if self.block.as_ref().is_none_or(|(n, _)| *n != number) {
            self.block = Some((number, self.extent.block(number).ok().flatten()));
        }
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let block = self.block.as_ref().and_then(|(_, block)| block.as_ref());
        block.is_some_and(|b| b.lost(index).is_some())
    }

    /// Where the table says that a grain is.
    fn named(&self, grain: u64) -> Option<u64> {
        // An error: nothing of that part is stored, or it cannot be read, which the map says.
        let (block, index) = self.extent.block_of(grain).ok()?;
        let entry = block.entry(index)?;
        (entry > 1).then(|| u64::from(entry).saturating_mul(crate::SECTOR))
    }
}
