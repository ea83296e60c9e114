//! The two levels of tables: where is the byte at this offset.

use super::{
    decode,
    header::{Compression, Header},
    read_table,
};
use crate::map::{emit_stored, in_file};
use disk_io::{BlockMap, Disk, DiskError, FileIndex, Mapping, Opened, Place, Result, UnitId};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bits 9 to 55: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The reference count is exactly one; with a data file: it is allocated.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Reads as zeros (version 3, without extended entries).
const ZERO: u64 = 1;
const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// How many parts an extended entry tells apart.
const SUBCLUSTERS: u64 = 32;

/// One qcow2 file (or one of its snapshots) as a layer.
#[derive(Debug)]
pub(super) struct Qcow2Map {
    pub(super) file: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    pub(super) data: Option<Opened>,
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) extended_l2: bool,
    pub(super) compression: Compression,
    pub(super) len: u64,
    pub(super) l1_table_offset: u64,
    /// What no cluster may lie over: header and L1 table.
    reserved: [Range<u64>; 2],
    /// Not needed for reading: where it is wrong, clusters are read all the same.
    refcount_table: Range<u64>,
}

impl Qcow2Map {
    /// Checks the L1 table's place. `l1` is (offset, entries) and `len` the disk's length:
    /// the header's, or a snapshot's.
    pub(super) fn new(
        source: &Opened,
        header: &Header,
        data: Option<Opened>,
        l1: (u64, u32),
        len: u64,
    ) -> Result<Self> {
        let map = Self {
            file: source.disk.clone(),
            path: source.path.clone(),
            data,
            version: header.version,
            cluster_bits: header.cluster_bits,
            extended_l2: header.extended_l2,
            compression: header.compression,
            len,
            l1_table_offset: l1.0,
            reserved: [
                0..1 << header.cluster_bits,
                l1.0..l1.0.saturating_add(u64::from(l1.1).saturating_mul(8)),
            ],
            refcount_table: header.refcount_table.clone(),
        };
        let needed = len.div_ceil(1 << map.group_bits());
        let fail = || DiskError::corrupt("reading the L1 table").offset(40);
        if u64::from(l1.1) < needed {
            return Err(fail()
                .expected(format!("{needed} entries for a disk of {len} bytes"))
                .found(l1.1.to_string()));
        }
        let end = needed
            .checked_mul(8)
            .and_then(|bytes| l1.0.checked_add(bytes));
        let inside = end.is_some_and(|end| end <= map.file.len());
        if needed > 0 && !(inside && l1.0.is_multiple_of(header.cluster_size())) {
            return Err(fail()
                .expected(format!(
                    "{needed} entries at a cluster's beginning, inside {} bytes",
                    map.file.len()
                ))
                .found(format!("a table at {}", l1.0)));
        }
        Ok(map)
    }

    /// log2 of the bytes of disk that one L2 table covers: at most 21 + 18.
    fn group_bits(&self) -> u32 {
        let entry_bits = if self.extended_l2 { 4 } else { 3 };
        self.cluster_bits
            .saturating_add(self.cluster_bits.saturating_sub(entry_bits))
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    fn bad(&self, at: u64, what: &str, entry: u64) -> Place {
        Place::Bad(
            DiskError::corrupt(format!("reading {what}"))
                .file(self.path.display())
                .offset(at)
                .found(format!("{entry:#018x}")),
        )
    }

    /// One L1 entry's worth of disk: `at..end`.
    fn group(&self, l1: (u64, u64), at: u64, end: u64, emit: &mut dyn FnMut(Mapping)) {
        let (l1_at, entry) = l1;
        let len = end.saturating_sub(at);
        let table = entry & OFFSET;
        let place = if entry & L1_RESERVED != 0 {
            Some(self.bad(l1_at, "an L1 entry with reserved bits", entry))
        } else if table == 0 && entry & COPIED != 0 {
            Some(self.bad(l1_at, "an L1 entry that is in use and has no place", entry))
        } else if table == 0 {
            Some(Place::Below)
        } else if !table.is_multiple_of(self.cluster_size()) {
            Some(self.bad(
                l1_at,
                "an L1 entry that is not at a cluster's beginning",
                entry,
            ))
        } else {
            None
        };
        if let Some(place) = place {
            return emit(Mapping { len, place });
        }
        let mut cursor = at;
        if let Err(e) = self.clusters(table, &mut cursor, end, emit) {
            let place = Place::Bad(e.file(self.path.display()));
            let len = end.saturating_sub(cursor);
            emit(Mapping { len, place });
        }
    }

    /// The L2 entries of `cursor..end`, read at once.
    fn clusters(
        &self,
        table: u64,
        cursor: &mut u64,
        end: u64,
        emit: &mut dyn FnMut(Mapping),
    ) -> Result<()> {
        let entry_len: u64 = if self.extended_l2 { 16 } else { 8 };
        let in_group = (1u64 << self.group_bits()).wrapping_sub(1);
        let first = (*cursor & in_group) >> self.cluster_bits;
        let last = (end.saturating_sub(1) & in_group) >> self.cluster_bits;
        let count = last.saturating_sub(first).saturating_add(1);
        let bytes = usize::try_from(count.saturating_mul(entry_len)).unwrap_or(0);
        let mut entries = vec![0; bytes];
        let table_at = table.saturating_add(first.saturating_mul(entry_len));
        read_table(&*self.file, &mut entries, table_at, "an L2 table")?;
        let step = usize::try_from(entry_len).unwrap_or(8);
        for (n, raw) in (0u64..).zip(entries.chunks_exact(step)) {
            let at = table_at.saturating_add(n.saturating_mul(entry_len));
            let f = disk_io::Fields::new(raw, at, "L2 table");
            let start = *cursor;
            let skip = start & self.cluster_size().wrapping_sub(1);
            let left = self.cluster_size().saturating_sub(skip);
            let len = left.min(end.saturating_sub(start));
            if len == 0 {
                break;
            }
            let entry = f.u64_be(0)?;
            if self.extended_l2 {
                self.extended((at, entry, f.u64_be(8)?), skip, len, emit);
            } else {
                self.standard((at, entry), skip, len, emit);
            }
            *cursor = start.saturating_add(len);
        }
        Ok(())
    }

    /// A whole cluster of one kind; `skip` and `len` are inside it.
    fn standard(&self, l2: (u64, u64), skip: u64, len: u64, emit: &mut dyn FnMut(Mapping)) {
        let (at, entry) = l2;
        if entry & COMPRESSED != 0 {
            let place = self.compressed(at, entry, skip);
            return emit(Mapping { len, place });
        }
        let zero = entry & ZERO != 0;
        let place = if entry & L2_RESERVED != 0 || (zero && self.version < 3) {
            self.bad(at, "an L2 entry with reserved bits", entry)
        } else if self.lost_its_place(entry) {
            self.bad(at, "an L2 entry that is in use and has no place", entry)
        } else if entry & OFFSET & self.cluster_size().wrapping_sub(1) != 0 {
            self.bad(
                at,
                "an L2 entry that is not at a cluster's beginning",
                entry,
            )
        } else if zero {
            Place::Zero
        } else if self.is_allocated(entry) {
            return self.stored((at, entry), skip, len, emit);
        } else {
            Place::Below
        };
        emit(Mapping { len, place });
    }

    /// 32 parts of a cluster: the bitmap's low half says allocated, the high half zero.
    fn extended(&self, l2: (u64, u64, u64), skip: u64, len: u64, emit: &mut dyn FnMut(Mapping)) {
        let (at, entry, bitmap) = l2;
        let (allocated, zero) = (bitmap & 0xffff_ffff, bitmap >> 32);
        if entry & COMPRESSED != 0 {
            let place = match bitmap {
                0 => self.compressed(at, entry, skip),
                _ => self.bad(at, "a compressed L2 entry with subclusters", bitmap),
            };
            return emit(Mapping { len, place });
        }
        let has_offset = self.is_allocated(entry);
        let place = if entry & (L2_RESERVED | ZERO) != 0 {
            Some(self.bad(at, "an L2 entry with reserved bits", entry))
        } else if self.lost_its_place(entry) {
            Some(self.bad(at, "an L2 entry that is in use and has no place", entry))
        } else if entry & OFFSET & self.cluster_size().wrapping_sub(1) != 0 {
            Some(self.bad(
                at,
                "an L2 entry that is not at a cluster's beginning",
                entry,
            ))
        } else if allocated & zero != 0 || (allocated != 0 && !has_offset) {
            Some(self.bad(at, "the subclusters of an L2 entry", bitmap))
        } else {
            None
        };
        if let Some(place) = place {
            return emit(Mapping { len, place });
        }
        let sub_bits = self.cluster_bits.saturating_sub(SUBCLUSTERS.ilog2());
        let sub_size = 1u64 << sub_bits;
        let end = skip.saturating_add(len);
        let mut from = skip;
        while from < end {
            let sub = from >> sub_bits;
            let next = sub.saturating_add(1).saturating_mul(sub_size).min(end);
            let n = next.saturating_sub(from);
            if allocated >> sub & 1 == 1 {
                self.stored((at, entry), from, n, emit);
            } else {
                let place = match zero >> sub & 1 {
                    1 => Place::Zero,
                    _ => Place::Below,
                };
                emit(Mapping { len: n, place });
            }
            from = next;
        }
    }

    /// What is referred to once is somewhere.
    fn lost_its_place(&self, entry: u64) -> bool {
        self.data.is_none() && entry & OFFSET == 0 && entry & COPIED != 0
    }

    /// Offset 0 is a place only in a data file, and only when the entry says so.
    fn is_allocated(&self, entry: u64) -> bool {
        entry & OFFSET != 0 || (self.data.is_some() && entry & COPIED != 0)
    }

    fn stored(&self, l2: (u64, u64), skip: u64, len: u64, emit: &mut dyn FnMut(Mapping)) {
        let (at, entry) = l2;
        let cluster = entry & OFFSET;
        let end = cluster.saturating_add(self.cluster_size());
        let taken = |r: &Range<u64>| cluster < r.end && end > r.start;
        if self.data.is_none() && self.reserved.iter().any(taken) {
            let e = DiskError::corrupt("reading an L2 entry")
                .code("block-in-metadata")
                .file(self.path.display())
                .offset(at)
                .expected("a cluster behind header and L1 table")
                .found(format!("one at {cluster}"));
            let place = Place::Bad(e);
            return emit(Mapping { len, place });
        }
        let offset = cluster.saturating_add(skip);
        let file: (FileIndex, u64, &Path) = match &self.data {
            Some(data) => (FileIndex(1), data.disk.len(), &data.path),
            None => (FileIndex(0), self.file.len(), &self.path),
        };
        emit_stored(file, offset, len, "a cluster", emit);
    }

    fn compressed(&self, at: u64, entry: u64, skip: u64) -> Place {
        let descriptor = entry & !(COPIED | COMPRESSED);
        let (offset, _) = decode::place(descriptor, self.cluster_bits);
        if self.data.is_some() {
            return self.bad(
                at,
                "a compressed cluster of an image with a data file",
                entry,
            );
        }
        if offset >= self.file.len() {
            return self.bad(at, "a compressed cluster beyond the end of the file", entry);
        }
        Place::Encoded {
            unit: UnitId(descriptor),
            unit_len: 1 << self.cluster_bits,
            skip: u32::try_from(skip).unwrap_or(0),
        }
    }
}

impl BlockMap for Qcow2Map {
    fn len(&self) -> u64 {
        self.len
    }

    fn states_sector_size(&self) -> bool {
        false
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn tables(&self, emit: &mut dyn FnMut(FileIndex, Range<u64>)) -> Result<()> {
        if self.data.is_some() {
            return Ok(());
        }
        let mut pointers = |place: Range<u64>| -> Result<()> {
            let mut at = place.start;
            while at < place.end {
                let len = place.end.saturating_sub(at).min(64 << 10);
                let mut raw = vec![0; usize::try_from(len).unwrap_or(0)];
                read_table(&*self.file, &mut raw, at, "a table")
                    .map_err(|e| e.file(self.path.display()))?;
                for entry in raw.chunks_exact(8).filter_map(|c| c.first_chunk()) {
                    let to = u64::from_be_bytes(*entry) & OFFSET;
                    if to != 0 && to.is_multiple_of(self.cluster_size()) {
                        emit(FileIndex(0), to..to.saturating_add(self.cluster_size()));
                    }
                }
                at = at.saturating_add(len);
            }
            emit(FileIndex(0), place);
            Ok(())
        };
        let [header, l1] = self.reserved.clone();
        let groups = self.len.div_ceil(1 << self.group_bits());
        pointers(
            l1.start
                ..l1.start
                    .saturating_add(groups.saturating_mul(8))
                    .min(l1.end),
        )?;
        // Reference counts are not needed for reading, and may be damaged.
        let _ = pointers(self.refcount_table.clone());
        emit(FileIndex(0), header);
        Ok(())
    }

    fn map_range(&self, start: u64, len: u64, emit: &mut dyn FnMut(Mapping)) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = start.saturating_add(len);
        let bits = self.group_bits();
        let (first, last) = (start >> bits, end.saturating_sub(1) >> bits);
        // The L1 entries of a window are few: 1,024 with the smallest clusters.
        let mut at = start;
        for chunk_first in (first..=last).step_by(4096) {
            let count = last.saturating_sub(chunk_first).saturating_add(1).min(4096);
            let mut table = vec![0; usize::try_from(count.saturating_mul(8)).unwrap_or(0)];
            let table_at = self
                .l1_table_offset
                .saturating_add(chunk_first.saturating_mul(8));
            read_table(&*self.file, &mut table, table_at, "the L1 table")
                .map_err(|e| e.file(self.path.display()))?;
            let f = disk_io::Fields::new(&table, table_at, "L1 table");
            for n in 0..table.len() / 8 {
                let group = chunk_first.saturating_add(n as u64);
                let group_end = group.saturating_add(1).checked_mul(1 << bits);
                let to = group_end.map_or(end, |e| e.min(end));
                let entry = f.u64_be(n.saturating_mul(8))?;
                self.group((f.place(n.saturating_mul(8)), entry), at, to, emit);
                at = to;
            }
        }
        Ok(())
    }

    fn file(&self, index: FileIndex) -> Result<Arc<dyn Disk>> {
        match &self.data {
            Some(data) => in_file(index, &[&self.file, &data.disk], &self.path),
            None => in_file(index, &[&self.file], &self.path),
        }
    }

    fn file_name(&self, index: FileIndex) -> String {
        match (&self.data, index.0) {
            (Some(data), 1) => data.path.display().to_string(),
            _ => self.name(),
        }
    }

    fn decode(&self, unit: UnitId, out: &mut [u8]) -> Result<()> {
        let (offset, len) = decode::place(unit.0, self.cluster_bits);
        // The last sector of the last stream may be cut by the end of the file.
        let len = len.min(self.file.len().saturating_sub(offset));
        let mut stored = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file
            .read_exact_at(&mut stored, offset)
            .and_then(|()| decode::decode(self.compression, &stored, out))
            .map_err(|e| e.file(self.path.display()).offset(offset))
    }

    fn unit_place(&self, unit: UnitId) -> Option<(FileIndex, u64)> {
        Some((FileIndex(0), decode::place(unit.0, self.cluster_bits).0))
    }
}
