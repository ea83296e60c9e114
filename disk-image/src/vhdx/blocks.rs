//! The block allocation table: where is the byte at this offset.

use super::{header::Region, metadata::Metadata};
use crate::map::{emit_stored, in_file};
use disk_io::{BlockMap, Disk, DiskError, Fields, FileIndex, Mapping, Place, Result};
use std::{ops::Range, path::PathBuf, sync::Arc};

// States of payload blocks.
const NOT_PRESENT: u64 = 0;
const UNDEFINED: u64 = 1;
const ZERO: u64 = 2;
const UNMAPPED: u64 = 3;
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;
/// The state of a sector bitmap that is there.
const BITMAP_PRESENT: u64 = 6;

/// Sectors that one sector bitmap block describes: 1 MiB of bits.
const CHUNK_SECTORS: u64 = 1 << 23;
/// Bytes of a sector bitmap block.
const BITMAP: u64 = CHUNK_SECTORS / 8;

/// One VHDX as a layer.
#[derive(Debug)]
pub(super) struct VhdxMap {
    /// With the log replayed.
    pub(super) file: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) bat: Region,
    pub(super) len: u64,
    pub(super) sector_size: u32,
    pub(super) block_size: u64,
    pub(super) has_parent: bool,
    /// What no block may lie over.
    pub(super) reserved: Vec<Range<u64>>,
}

impl VhdxMap {
    pub(super) fn new(
        file: Arc<dyn Disk>,
        path: PathBuf,
        regions: &[Region],
        metadata: &Metadata,
    ) -> Result<Self> {
        let Some(bat) = regions.first().copied() else {
            return Err(DiskError::corrupt("reading the block allocation table").found("none"));
        };
        let map = Self {
            file,
            path,
            bat,
            len: metadata.len,
            sector_size: metadata.sector_size,
            block_size: metadata.block_size,
            has_parent: metadata.has_parent,
            reserved: regions
                .iter()
                .map(|r| r.offset..r.offset.saturating_add(r.len))
                .collect(),
        };
        let blocks = map.len.div_ceil(map.block_size);
        let needed = match blocks.checked_sub(1) {
            None => 0,
            // The bitmap of the last chunk comes after all of its blocks.
            Some(last) if map.has_parent => map.bitmap_entry(last).saturating_add(1),
            Some(last) => map.entry(last).saturating_add(1),
        };
        let fits = needed.saturating_mul(8) <= map.bat.len
            && map.bat.offset.saturating_add(map.bat.len) <= map.file.len();
        if !fits {
            return Err(DiskError::corrupt("reading the block allocation table")
                .offset(map.bat.offset)
                .expected(format!("{needed} entries inside {} bytes", map.file.len()))
                .found(format!("{} bytes", map.bat.len)));
        }
        Ok(map)
    }

    /// Payload blocks between two sector bitmap entries, as a power of two.
    fn chunk_shift(&self) -> u32 {
        let chunk = CHUNK_SECTORS.saturating_mul(u64::from(self.sector_size));
        chunk.ilog2().saturating_sub(self.block_size.ilog2())
    }

    /// Index of a payload block's entry.
    fn entry(&self, block: u64) -> u64 {
        block.saturating_add(block >> self.chunk_shift())
    }

    /// Index of the entry of the sector bitmap that describes a block.
    fn bitmap_entry(&self, block: u64) -> u64 {
        let per_chunk = 1u64 << self.chunk_shift();
        let chunk = block >> self.chunk_shift();
        chunk
            .saturating_add(1)
            .saturating_mul(per_chunk.saturating_add(1))
            .saturating_sub(1)
    }

    /// An entry's state, and its offset in bytes.
    fn read_entry(&self, index: u64) -> Result<(u64, u64, u64)> {
        let at = self.bat.offset.saturating_add(index.saturating_mul(8));
        let mut raw = [0; 8];
        self.file.read_exact_at(&mut raw, at)?;
        let entry = Fields::new(&raw, at, "block allocation table").u64_le(0)?;
        Ok((entry & 7, (entry >> 20) << 20, at))
    }

    /// `len` bytes from `inside` on of `block`.
    fn block(
        &self,
        block: u64,
        inside: u64,
        len: u64,
        emit: &mut dyn FnMut(Mapping),
    ) -> Result<()> {
        let (state, offset, at) = self.read_entry(self.entry(block))?;
        let file = (FileIndex(0), self.file.len(), &*self.path);
        let place = match state {
            NOT_PRESENT => Place::Below,
            // The place is reserved, and Hyper-V does not open such a file (MS-VHDX 2.5.1.1): one
            // bit of the state is lost.
            ZERO if offset != 0 => {
                return Err(self.bad_entry(at, "a block of zeros without a place", offset));
            }
            // Never the parent's: these say that whatever was there is gone.
            UNDEFINED | ZERO | UNMAPPED => Place::Zero,
            FULLY_PRESENT | PARTIALLY_PRESENT if offset < 1 << 20 => {
                return Err(self.bad_entry(at, "an offset after the first MiB", offset));
            }
            FULLY_PRESENT | PARTIALLY_PRESENT
                if self.is_reserved(offset..offset.saturating_add(self.block_size)) =>
            {
                return Err(self
                    .bad_entry(at, "a place beside log, tables and metadata", offset)
                    .code("block-in-metadata"));
            }
            FULLY_PRESENT => {
                emit_stored(file, offset.saturating_add(inside), len, "a block", emit);
                return Ok(());
            }
            PARTIALLY_PRESENT if self.has_parent => {
                return self.partial(block, offset, inside, len, emit);
            }
            other => {
                return Err(self.bad_entry(at, "a state that a payload block can have", other));
            }
        };
        emit(Mapping { len, place });
        Ok(())
    }

    fn is_reserved(&self, range: Range<u64>) -> bool {
        self.reserved
            .iter()
            .any(|r| range.start < r.end && range.end > r.start)
    }

    fn bad_entry(&self, at: u64, expected: &str, found: u64) -> DiskError {
        DiskError::corrupt("reading the block allocation table")
            .file(self.path.display())
            .offset(at)
            .expected(expected)
            .found(found.to_string())
    }

    /// A block of a differencing disk whose sector bitmap says which sectors are here.
    fn partial(
        &self,
        block: u64,
        offset: u64,
        inside: u64,
        len: u64,
        emit: &mut dyn FnMut(Mapping),
    ) -> Result<()> {
        let (state, bitmap, at) = self.read_entry(self.bitmap_entry(block))?;
        if state != BITMAP_PRESENT || bitmap < 1 << 20 {
            return Err(self.bad_entry(at, "a sector bitmap that is present", state));
        }
        if self.is_reserved(bitmap..bitmap.saturating_add(BITMAP)) {
            return Err(self
                .bad_entry(at, "a place beside log, tables and metadata", bitmap)
                .code("block-in-metadata"));
        }
        let sector = u64::from(self.sector_size);
        let shift = sector.ilog2();
        // Bits of this block begin where those of the blocks before it in the chunk end.
        let in_chunk = block & (1u64 << self.chunk_shift()).wrapping_sub(1);
        let base = in_chunk.saturating_mul(self.block_size >> shift);
        let (first, end) = (inside >> shift, inside.saturating_add(len).div_ceil(sector));
        let first_byte = base.saturating_add(first) / 8;
        let end_byte = base.saturating_add(end).div_ceil(8);
        let count = end_byte.saturating_sub(first_byte);
        let mut bits = vec![0u8; usize::try_from(count).unwrap_or(0)];
        let bits_at = bitmap.saturating_add(first_byte);
        if bits_at.saturating_add(count) > self.file.len() {
            return Err(self.bad_entry(at, "a sector bitmap inside the file", bitmap));
        }
        self.file.read_exact_at(&mut bits, bits_at)?;
        let is_here = |n: u64| {
            let bit = base.saturating_add(n);
            let byte = usize::try_from((bit / 8).saturating_sub(first_byte)).unwrap_or(usize::MAX);
            bits.get(byte).is_some_and(|b| b >> (bit % 8) & 1 == 1)
        };
        let file = (FileIndex(0), self.file.len(), &*self.path);
        let stop = inside.saturating_add(len);
        let mut from = inside;
        while from < stop {
            let here = is_here(from >> shift);
            let mut to = from;
            while to < stop && is_here(to >> shift) == here {
                to = (to >> shift).saturating_add(1) << shift;
            }
            let n = to.min(stop).saturating_sub(from);
            if here {
                emit_stored(file, offset.saturating_add(from), n, "a block", emit);
            } else {
                emit(Mapping {
                    len: n,
                    place: Place::Below,
                });
            }
            from = from.saturating_add(n);
        }
        Ok(())
    }
}

impl BlockMap for VhdxMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn tables(&self, emit: &mut dyn FnMut(FileIndex, Range<u64>)) -> Result<()> {
        self.reserved
            .iter()
            .for_each(|range| emit(FileIndex(0), range.clone()));
        let blocks = self.len.div_ceil(self.block_size);
        if !self.has_parent || blocks == 0 {
            return Ok(());
        }
        for chunk in 0..=blocks.saturating_sub(1) >> self.chunk_shift() {
            let (state, place, _) =
                self.read_entry(self.bitmap_entry(chunk << self.chunk_shift()))?;
            if state == BITMAP_PRESENT {
                emit(FileIndex(0), place..place.saturating_add(BITMAP));
            }
        }
        Ok(())
    }

    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        let end = start.saturating_add(len);
        let shift = self.block_size.ilog2();
        let mut at = start;
        while at < end {
            let block = at >> shift;
            let next = block.saturating_add(1) << shift;
            let n = next.min(end).saturating_sub(at);
            let inside = at & self.block_size.wrapping_sub(1);
            let mut done = 0u64;
            let result = self.block(block, inside, n, &mut |m| {
                done = done.saturating_add(m.len);
                emit(m);
            });
            if let Err(e) = result {
                emit(Mapping {
                    len: n.saturating_sub(done),
                    place: Place::Bad(e.file(self.path.display())),
                });
            }
            at = at.saturating_add(n);
        }
        Ok(())
    }

    fn file(&self, index: FileIndex) -> Result<Arc<dyn Disk>> {
        in_file(index, &[&self.file], &self.path)
    }

    fn file_name(&self, _: FileIndex) -> String {
        self.name()
    }
}
