//! The block allocation table: where is the byte at this offset.

use crate::map::{emit_stored, in_file};
use disk_io::{BlockMap, Disk, DiskError, Fields, FileIndex, Mapping, Place, Result};
use std::{ops::Range, path::PathBuf, sync::Arc};

/// A block that has no place in the file.
const UNUSED: u32 = 0xffff_ffff;

/// How a VHD's data is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout {
    /// From the file's beginning, in order.
    Fixed,
    /// In blocks, each behind a bitmap of its sectors.
    Blocks {
        table_offset: u64,
        block_size: u64,
        /// Whether the bitmap decides between this file and its parent. In a dynamic disk
        /// it decides nothing: sectors that were never written are stored as zeros, and
        /// some writers leave their bits clear.
        differencing: bool,
    },
}

/// One VHD as a layer.
#[derive(Debug)]
pub(super) struct VhdMap {
    pub(super) file: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) layout: Layout,
    /// What no block may lie over.
    pub(super) reserved: Vec<Range<u64>>,
}

/// Bytes of the bitmap before a block.
fn bitmap_len(block_size: u64) -> u64 {
    (block_size / 512).div_ceil(8).next_multiple_of(512)
}

impl VhdMap {
    /// The bitmaps of all blocks.
    fn bitmaps(
        &self,
        (table_offset, block_size): (u64, u64),
        emit: &mut dyn FnMut(FileIndex, Range<u64>),
    ) -> Result<()> {
        let blocks = self.len.div_ceil(block_size.max(1));
        let mut at = 0;
        while at < blocks {
            let count = blocks.saturating_sub(at).min(16_384);
            let mut table = vec![0; usize::try_from(count.saturating_mul(4)).unwrap_or(0)];
            let table_at = table_offset.saturating_add(at.saturating_mul(4));
            self.file.read_exact_at(&mut table, table_at)?;
            let f = Fields::new(&table, table_at, "block allocation table");
            for n in 0..table.len() / 4 {
                let sector = f.u32_be(n.saturating_mul(4))?;
                if sector != UNUSED {
                    let start = u64::from(sector).saturating_mul(512);
                    emit(
                        FileIndex(0),
                        start..start.saturating_add(bitmap_len(block_size)),
                    );
                }
            }
            at = at.saturating_add(count);
        }
        Ok(())
    }

    fn blocks(
        &self,
        layout: (u64, u64, bool),
        start: u64,
        end: u64,
        emit: &mut dyn FnMut(Mapping),
    ) -> Result<()> {
        let (table_offset, block_size, differencing) = layout;
        let shift = block_size.ilog2();
        let (first, last) = (start >> shift, end.saturating_sub(1) >> shift);
        let mut at = start;
        // 64 KiB of table at a time: a window of the smallest blocks.
        for chunk in (first..=last).step_by(16_384) {
            let count = last.saturating_sub(chunk).saturating_add(1).min(16_384);
            let mut table = vec![0; usize::try_from(count.saturating_mul(4)).unwrap_or(0)];
            let table_at = table_offset.saturating_add(chunk.saturating_mul(4));
            self.file.read_exact_at(&mut table, table_at)?;
            let f = Fields::new(&table, table_at, "block allocation table");
            for n in 0..table.len() / 4 {
                let entry_at = n.saturating_mul(4);
                let sector = f.u32_be(entry_at)?;
                let block = chunk.saturating_add(n as u64);
                let next = block.saturating_add(1).saturating_mul(block_size).min(end);
                let inside = at & block_size.wrapping_sub(1);
                let len = next.saturating_sub(at);
                if sector == UNUSED {
                    emit(Mapping {
                        len,
                        place: Place::Below,
                    });
                } else {
                    let place = (u64::from(sector).saturating_mul(512), f.place(entry_at));
                    self.block(place, (block_size, differencing), inside, len, emit);
                }
                at = next;
            }
        }
        Ok(())
    }

    /// `len` bytes from `inside` on of the block at `offset`.
    fn block(
        &self,
        (offset, entry_at): (u64, u64),
        (block_size, differencing): (u64, bool),
        inside: u64,
        len: u64,
        emit: &mut dyn FnMut(Mapping),
    ) {
        let bitmap_len = bitmap_len(block_size);
        let data = offset.saturating_add(bitmap_len);
        let mut bad = |e: DiskError| {
            let place = Place::Bad(e.file(self.path.display()));
            emit(Mapping { len, place });
        };
        if offset < 512 || offset >= self.file.len() {
            return bad(DiskError::corrupt("reading the block allocation table")
                .code("block-outside-file")
                .offset(entry_at)
                .expected(format!("a block inside {} bytes", self.file.len()))
                .found(format!("one at {offset}")));
        }
        if self.reserved.iter().any(|r| {
            let end = data.saturating_add(block_size);
            offset < r.end && end > r.start
        }) {
            return bad(DiskError::corrupt("reading the block allocation table")
                .code("block-in-metadata")
                .offset(entry_at)
                .expected("a block behind headers and table")
                .found(format!("one at {offset}")));
        }
        let stored_at = data.saturating_add(inside);
        let file = (FileIndex(0), self.file.len(), &*self.path);
        if !differencing {
            return emit_stored(file, stored_at, len, "a block", emit);
        }
        // The bits of the sectors that are asked for, a window's worth at most.
        let (first, end) = (inside / 512, inside.saturating_add(len).div_ceil(512));
        let bits_at = offset.saturating_add(first / 8);
        let count = end.div_ceil(8).saturating_sub(first / 8);
        let mut bits = vec![0u8; usize::try_from(count).unwrap_or(0)];
        if let Err(e) = self.file.read_exact_at(&mut bits, bits_at) {
            return bad(match e.kind() {
                disk_io::ErrorKind::OutOfRange => DiskError::corrupt("reading a sector bitmap")
                    .offset(bits_at)
                    .found("the end of the file: it was cut short"),
                _ => e,
            });
        }
        let is_here = |sector: u64| {
            let byte =
                usize::try_from((sector / 8).saturating_sub(first / 8)).unwrap_or(usize::MAX);
            let bit = 7u64.saturating_sub(sector % 8);
            bits.get(byte).is_some_and(|b| b >> bit & 1 == 1)
        };
        let stop = inside.saturating_add(len);
        let mut from = inside;
        while from < stop {
            let here = is_here(from / 512);
            let mut to = from;
            while to < stop && is_here(to / 512) == here {
                to = (to / 512).saturating_add(1).saturating_mul(512);
            }
            let n = to.min(stop).saturating_sub(from);
            if here {
                emit_stored(file, data.saturating_add(from), n, "a block", emit);
            } else {
                emit(Mapping {
                    len: n,
                    place: Place::Below,
                });
            }
            from = from.saturating_add(n);
        }
    }
}

impl BlockMap for VhdMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let file = (FileIndex(0), self.file.len(), &*self.path);
        match self.layout {
            Layout::Fixed => {
                emit_stored(file, start, len, "a fixed VHD", emit);
                Ok(())
            }
            Layout::Blocks {
                table_offset,
                block_size,
                differencing,
            } => self
                .blocks(
                    (table_offset, block_size, differencing),
                    start,
                    start.saturating_add(len),
                    emit,
                )
                .map_err(|e| e.file(self.path.display())),
        }
    }

    fn tables(&self, emit: &mut dyn FnMut(FileIndex, Range<u64>)) -> Result<()> {
        let Layout::Blocks {
            table_offset,
            block_size,
            ..
        } = self.layout
        else {
            return Ok(());
        };
        self.reserved
            .iter()
            .for_each(|range| emit(FileIndex(0), range.clone()));
        self.bitmaps((table_offset, block_size), emit)
            .map_err(|e| e.file(self.path.display()))
    }

    fn file(&self, index: FileIndex) -> Result<Arc<dyn Disk>> {
        in_file(index, &[&self.file], &self.path)
    }

    fn file_name(&self, _: FileIndex) -> String {
        self.name()
    }
}
