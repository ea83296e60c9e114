//! Hosted sparse extents: monolithicSparse, twoGbMaxExtentSparse, streamOptimized.

mod check;
mod footer;
mod grain;
pub mod header;
mod lost;
mod redundancy;
mod salvage;

pub use header::Header;
pub use salvage::Salvaged;

use crate::{
    directory::Directory,
    extent::{ExtentMap, Seat, UNIT_GRAIN_BITS},
    link::Counts,
    tables::{self, Cell, Tables},
};
use disk_io::{Disk, DiskError, Mapping, Result, UnitId, finding::Visit};
use header::{GD_AT_END, flags};
use lost::Reached;
use redundancy::Block;
use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

/// Entries of the largest block that is read at once.
const BLOCK_ENTRIES: u64 = 4096;
/// Directories up to this size are looked at when the extent is opened; larger ones when
/// their pieces are read.
const LOOKED_AT: u64 = 64 << 10;

/// A block and its number.
type LastBlock = Option<(u64, Arc<Block>)>;

/// A KDMV extent with its tables.
#[derive(Debug)]
pub(crate) struct Hosted {
    file: Arc<dyn Disk>,
    seat: Seat,
    /// Bytes in a grain.
    grain: u64,
    /// Bytes that the tables map: the extent's length.
    len: u64,
    /// Entries in a table.
    entries: u64,
    gd: Option<Directory>,
    rgd: Option<Directory>,
    /// Bytes where no grain can be: header, descriptor, directories, everything up to
    /// `overHead`.
    metadata: Vec<Range<u64>>,
    zeroed_grains: bool,
    compressed: bool,
    /// The directory's place is in a footer.
    footer: bool,
    /// The bytes that an ASCII-mode transfer would have changed, and whether they are said
    /// to be set.
    newline_test: [u8; 4],
    newline_test_said: bool,
    /// The block that the last compressed grain was looked up in.
    last: Mutex<LastBlock>,
    /// How far the stream was followed for grains that are lost.
    reached: Mutex<Option<Reached>>,
}

impl Hosted {
    /// Opens the tables of an extent of `len` bytes whose header has been checked.
    ///
    /// # Errors
    /// `Corrupt` if no directory can be found.
    pub(crate) fn open(file: Arc<dyn Disk>, seat: Seat, header: &Header, len: u64) -> Result<Self> {
        let mut header = header.clone();
        let footer = header.gd_offset == GD_AT_END;
        if footer {
            let (found, remark) = footer::find(&*file, &header, &seat.name)?;
            header = found;
            if let Some(remark) = remark {
                seat.remarks.add(
                    "footer-misplaced",
                    || seat.at(file.len()),
                    || format!("{}: {remark}", seat.name),
                );
            }
        }
        if header.unclean_shutdown {
            seat.remarks.add(
                "unclean-shutdown",
                || seat.at(72),
                || {
                    format!(
                        "{}: was not closed by its last writer (uncleanShutdown is set)",
                        seat.name
                    )
                },
            );
        }
        let descriptor = crate::bytes(header.descriptor_offset).filter(|o| *o > 0);
        let descriptor = descriptor.and_then(|start| {
            let size = crate::bytes(header.descriptor_size)?;
            Some(start..start.saturating_add(size))
        });
        let directory = |sector: u64| {
            // Sector 0 is the header.
            let offset = crate::bytes(sector).filter(|o| *o > 0)?;
            let found = Directory::new(
                file.clone(),
                seat.number,
                offset,
                header.tables(),
                4,
                seat.pieces.clone(),
            )?;
            // Text that ends in zeros would be a disk of nothing.
            let own = found.range();
            let over = |d: &Range<u64>| own.start < d.end && own.end > d.start;
            (!descriptor.as_ref().is_some_and(over)).then_some(found)
        };
        let mut gd = directory(header.gd_offset);
        // A compressed extent need not have the copy, and qemu's do (fact sheet, VMDK 6.2).
        let rgd = header
            .has(flags::REDUNDANT)
            .then(|| directory(header.rgd_offset))
            .flatten();
        if gd.is_none() && rgd.is_none() {
            return Err(DiskError::corrupt("opening the grain directory")
                .code("grain-directory-outside-file")
                .file(&seat.name)
                .offset(56)
                .expected(format!(
                    "{} entries inside the file of {} bytes",
                    header.tables(),
                    file.len()
                ))
                .found(format!("sector {}", header.gd_offset))
                .hint("the file is cut short, or not what its header says"));
        }
        if gd.is_none() {
            seat.remarks.add("grain-directory-unusable", || seat.at(56), || {
                format!(
                    "{}: the grain directory is not inside the file; its redundant copy is used",
                    seat.name
                )
            });
        } else if rgd.is_none() && header.has(flags::REDUNDANT) && !header.compressed() {
            seat.remarks.add("grain-directory-unusable", || seat.at(48), || {
                format!(
                    "{}: its header says that there is a redundant grain directory, and where it \
                     should be there is none: nothing tells whether the first one is right",
                    seat.name
                )
            });
        } else if let Some(copy) = &rgd
            && gd.as_ref().and_then(|d| d.is_zero(LOOKED_AT)) == Some(true)
            && copy.is_zero(LOOKED_AT) == Some(false)
        {
            // Each table would be decided in the same way; said once, and at once.
            let place = || seat.at(gd.as_ref().map_or(0, |d| d.range().start));
            seat.remarks.add("grain-directory-unusable", place, || {
                format!(
                    "{}: the grain directory is all zeros; its redundant copy is used",
                    seat.name
                )
            });
            gd = None;
        }
        let over_head = crate::bytes(header.over_head).unwrap_or(u64::MAX);
        let mut metadata: Vec<Range<u64>> = Vec::new();
        // Tables lie in it; what follows are the parts of it that they may not lie over.
        metadata.push(0..over_head.max(crate::SECTOR));
        metadata.push(0..crate::SECTOR);
        metadata.extend(descriptor);
        metadata.extend(gd.iter().chain(&rgd).map(Directory::range));
        Ok(Self {
            grain: header.grain_size.saturating_mul(crate::SECTOR).max(1),
            entries: u64::from(header.num_gtes_per_gt).max(1),
            zeroed_grains: header.has(flags::ZEROED_GRAINS),
            compressed: header.compressed(),
            footer,
            newline_test: header.newline_test,
            newline_test_said: header.has(flags::VALID_NEWLINE_TEST),
            file,
            seat,
            len,
            gd,
            rgd,
            metadata,
            last: Mutex::default(),
            reached: Mutex::default(),
        })
    }

    /// How many blocks a table is read in.
    fn blocks_per_table(&self) -> u64 {
        (self.entries / BLOCK_ENTRIES).max(1)
    }

    /// Bytes that grain `number` needs: the last one may be cut by the end of the disk.
    fn needed(&self, number: u64) -> u64 {
        self.len
            .saturating_sub(number.saturating_mul(self.grain))
            .min(self.grain)
    }

    /// Checks one entry: `None` is a good place. A file may end inside the last grain.
    fn fault(&self, entry: u32, grain: u64) -> Option<DiskError> {
        let offset = u64::from(entry).saturating_mul(crate::SECTOR);
        let needs = if self.compressed {
            grain::MARKER_LEN as u64
        } else {
            self.needed(grain)
        };
        let end = offset.saturating_add(needs);
        let bad = || {
            DiskError::corrupt(format!("finding grain {grain}"))
                .file(&self.seat.name)
                .offset(offset)
        };
        if end > self.file.len() {
            return Some(
                bad()
                    .code("grain-outside-file")
                    .expected("a place inside the file")
                    .found(format!(
                        "sector {entry} of a file of {} bytes",
                        self.file.len()
                    )),
            );
        }
        if self
            .metadata
            .iter()
            .any(|m| offset < m.end && end > m.start)
        {
            return Some(
                bad()
                    .code("grain-in-metadata")
                    .expected("a place behind the metadata")
                    .found(format!("sector {entry}")),
            );
        }
        None
    }

    /// The block that holds a grain, remembered while grains are decoded one after another.
    fn block_of(&self, grain: u64) -> Result<(Arc<Block>, usize)> {
        let per_block = self.block_entries();
        let (number, index) = crate::split(grain, per_block);
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        if let Ok(last) = self.last.lock()
            && let Some((n, block)) = &*last
            && *n == number
        {
            return Ok((block.clone(), index));
        }
        let block = self.resolve(number)?.ok_or_else(|| {
            DiskError::corrupt("decoding").found(format!("grain {grain}, which is not stored"))
        })?;
        let block = Arc::new(block);
        if let Ok(mut last) = self.last.lock() {
            *last = Some((number, block.clone()));
        }
        Ok((block, index))
    }
}

impl Tables for Hosted {
    type Block = Block;

    fn grain(&self) -> u64 {
        self.grain
    }

    fn block_entries(&self) -> u64 {
        self.entries.min(BLOCK_ENTRIES)
    }

    fn block(&self, number: u64) -> Result<Option<Block>> {
        let block = self.resolve(number)?;
        if !self.compressed {
            return Ok(block);
        }
        let lost = self.lost(number, block.as_ref());
        if lost.is_empty() {
            return Ok(block);
        }
        Ok(Some(match block {
            Some(block) => block.without(lost),
            None => self.empty_block().without(lost),
        }))
    }

    fn below(&self, block: &Block, index: usize, most: usize) -> usize {
        block.below(index, most)
    }

    fn cell(&self, block: &Block, index: usize, grain: u64) -> Cell {
        if let Some(place) = block.lost(index) {
            return Cell::Bad(self.lost_entry(grain, place));
        }
        let Some(entry) = block.entry(index) else {
            return Cell::Bad(block.disagreement(index, grain, &self.seat.name));
        };
        match entry {
            0 => Cell::Below,
            1 if self.zeroed_grains => Cell::Zero,
            1 => Cell::Bad(
                DiskError::corrupt(format!("finding grain {grain}"))
                    .code("grain-entry-invalid")
                    .file(&self.seat.name)
                    .expected("a place, or flag 4 in the header")
                    .found("entry 1, which without the flag means nothing"),
            ),
            _ => match self.fault(entry, grain) {
                Some(e) => Cell::Bad(e),
                None if self.compressed => Cell::Packed(UnitId(
                    u64::from(self.seat.number) << UNIT_GRAIN_BITS | grain,
                )),
                None => Cell::At(u64::from(entry).saturating_mul(crate::SECTOR)),
            },
        }
    }
}

impl ExtentMap for Hosted {
    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        tables::map(self, self.seat.file, start, len, emit)
    }

    fn file(&self) -> Option<&Arc<dyn Disk>> {
        Some(&self.file)
    }

    fn decode(&self, grain: u64, out: &mut [u8]) -> Result<()> {
        let (block, index) = self.block_of(grain)?;
        let entry = match (block.entry(index), block.entry(index.saturating_add(1))) {
            (Some(entry), next) if entry > 1 => (entry, next),
            _ => {
                return Err(DiskError::corrupt("decoding")
                    .file(&self.seat.name)
                    .found(format!("grain {grain}, which is not stored")));
            }
        };
        grain::decode(
            &*self.file,
            &self.seat.name,
            &grain::Packed {
                offset: u64::from(entry.0).saturating_mul(crate::SECTOR),
                next: entry
                    .1
                    .map(|next| u64::from(next).saturating_mul(crate::SECTOR)),
                lba: grain.saturating_mul(self.grain) / crate::SECTOR,
                needed: usize::try_from(self.needed(grain)).unwrap_or(usize::MAX),
            },
            out,
        )
    }

    fn grain_place(&self, grain: u64) -> Option<u64> {
        let (block, index) = self.block_of(grain).ok()?;
        block
            .entry(index)
            .filter(|e| *e > 1)
            .map(|e| u64::from(e).saturating_mul(crate::SECTOR))
    }

    fn count(&self, len: u64, counts: &mut Counts) -> Result<()> {
        tables::count(self, len, counts)
    }

    fn check(&self, start: u64, visit: Visit<'_>) -> Result<()> {
        self.check_structure(start, visit)
    }
}
