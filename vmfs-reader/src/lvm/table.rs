//! The extent tables of a device (fact sheet, VMFS 1.3 and 1.4).
//!
//! A device of 64 TiB of LVM 5 has 32 MiB of tables. They are read in pieces of 64 entries
//! as they are needed: entry *n* of a device describes unit *first + n* of the volume, as on
//! every volume that was seen, and each entry is checked to say so. A device whose tables
//! say otherwise has all of them read at once.

use super::{UNIT, device::Device};
use disk_io::{DiskError, Fields, Result};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, RwLock},
};

const ENTRY: u64 = 128;
const PER_MAP: u64 = 8192;
const PIECE: u64 = 64;
/// Tables up to this many entries are read and checked whole when the volume is opened.
pub(super) const EAGER: u64 = 1024;
/// Entries of a device at most: 256 TiB of LVM 5.
const MAX_ENTRIES: u64 = 1 << 20;

/// A range of the volume on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Offset in the volume.
    pub(super) logical: u64,
    /// Length.
    pub(super) len: u64,
    /// Offset on the device.
    pub(super) physical: u64,
}

/// A header and the tables behind it.
#[derive(Debug)]
struct Region {
    start: u64,
    maps: u64,
}

/// The tables of one device for one volume.
#[derive(Debug)]
pub(super) struct Tables {
    device: Device,
    volume: u32,
    first: u64,
    entries: u64,
    regions: Vec<Region>,
    pieces: RwLock<BTreeMap<u64, Arc<[Extent]>>>,
    all: OnceLock<Arc<[Extent]>>,
}

impl Tables {
    pub(super) fn new(device: &Device, volume: u32, first: u64) -> Result<Self> {
        let header = &device.header;
        let mut regions = vec![Region {
            start: header.offset,
            maps: u64::from(header.maps),
        }];
        let mut next = header.extended;
        let mut before = header.offset;
        while next != 0 {
            let fail = |what: &str| {
                DiskError::corrupt("reading the extended LVM metadata")
                    .offset(next)
                    .found(what)
            };
            if next <= before || regions.len() >= 64 {
                return Err(fail("a header that does not lie behind the one before"));
            }
            let mut bytes = [0u8; 24];
            if next.saturating_add(24) > device.disk.len() {
                return Err(fail("a header past the end of the device"));
            }
            device.disk.read_exact_at(&mut bytes, next)?;
            let f = Fields::new(&bytes, next, "extended LVM header");
            let maps = f.u32_le(4)?;
            if f.u32_le(0)? != super::MAGIC || maps > 64 {
                return Err(fail("no header"));
            }
            regions.push(Region {
                start: next,
                maps: u64::from(maps),
            });
            before = next;
            next = f.u64_le(16)?;
        }
        let entries = u64::from(header.entries).max(u64::from(header.last_entry).saturating_add(1));
        let room = regions.iter().fold(0u64, |sum, r| {
            sum.saturating_add(r.maps.saturating_mul(PER_MAP))
        });
        if entries > room || entries > MAX_ENTRIES {
            return Err(DiskError::corrupt("reading the LVM device header")
                .offset(header.offset.saturating_add(0x6A))
                .expected(format!("at most {} extents", room.min(MAX_ENTRIES)))
                .found(entries.to_string()));
        }
        Ok(Self {
            device: device.clone(),
            volume,
            first,
            entries,
            regions,
            pieces: RwLock::default(),
            all: OnceLock::new(),
        })
    }

    /// Whether the whole table is cheap to read.
    pub(super) fn is_small(&self) -> bool {
        self.device.header.major >= 6 || self.entries <= EAGER
    }

    /// Where entry `index` is stored.
    fn place(&self, index: u64) -> Result<u64> {
        let header = &self.device.header;
        let mut map = index / PER_MAP;
        for region in &self.regions {
            if map < region.maps {
                let stride = header
                    .bitmap()
                    .saturating_add(PER_MAP.saturating_mul(ENTRY));
                return Ok(region
                    .start
                    .saturating_add(header.to_bitmap())
                    .saturating_add(map.saturating_mul(stride))
                    .saturating_add(header.bitmap())
                    .saturating_add((index % PER_MAP).saturating_mul(ENTRY)));
            }
            map = map.saturating_sub(region.maps);
        }
        Err(
            DiskError::corrupt("finding an entry of the LVM extent table")
                .found(format!("entry {index} of a device without a table for it")),
        )
    }

    /// Reads `count` entries (inside one map) from `index` on.
    fn read(&self, index: u64, count: u64, emit: &mut dyn FnMut(u64, Extent)) -> Result<()> {
        let at = self.place(index)?;
        let mut bytes = vec![0; count.saturating_mul(ENTRY) as usize];
        if at.saturating_add(bytes.len() as u64) > self.device.disk.len() {
            return Err(DiskError::corrupt("reading the LVM extent table")
                .offset(at)
                .expected("a table inside the device")
                .found(format!("a device of {} bytes", self.device.disk.len()))
                .hint("the image is cut off"));
        }
        self.device.disk.read_exact_at(&mut bytes, at)?;
        for (i, (entry, number)) in bytes.chunks(ENTRY as usize).zip(index..).enumerate() {
            let place = at.saturating_add((i as u64).saturating_mul(ENTRY));
            let f = Fields::new(entry, place, "LVM extent entry");
            if f.u8(0)? == 0 || f.u32_le(5)? != self.volume {
                continue;
            }
            let extent = Extent {
                physical: f.u64_le(9)?,
                logical: f.u64_le(0x11)?,
                len: f.u64_le(0x19)?,
            };
            let ends = |from: u64| from.checked_add(extent.len);
            if extent.len == 0 || ends(extent.physical).is_none() || ends(extent.logical).is_none()
            {
                return Err(f
                    .corrupt(9, "the range")
                    .found(format!("{} bytes from {}", extent.len, extent.logical)));
            }
            emit(number, extent);
        }
        Ok(())
    }

    /// Every extent, sorted by place in the volume and joined.
    pub(super) fn all(&self) -> Result<Arc<[Extent]>> {
        if let Some(all) = self.all.get() {
            return Ok(all.clone());
        }
        let mut found = Vec::new();
        let mut index = 0;
        while index < self.entries {
            let count = (self.entries.saturating_sub(index)).min(PER_MAP);
            self.read(index, count, &mut |_, e| found.push(e))?;
            found = join(found)?;
            index = index.saturating_add(count);
        }
        let all: Arc<[Extent]> = found.into();
        Ok(self.all.get_or_init(|| all).clone())
    }

    /// The extent that holds `logical`, which must lie on this device.
    pub(super) fn find(&self, logical: u64) -> Result<Option<Extent>> {
        if self.is_small() || self.all.get().is_some() {
            return Ok(pick(&self.all()?, logical));
        }
        let index = (logical / UNIT).saturating_sub(self.first);
        let piece = index / PIECE;
        let known = self
            .pieces
            .read()
            .ok()
            .and_then(|pieces| pieces.get(&piece).cloned());
        if let Some(known) = known {
            return Ok(pick(&known, logical));
        }
        let start = piece.saturating_mul(PIECE);
        let count = self.entries.saturating_sub(start).min(PIECE);
        let mut found = Vec::new();
        let mut as_expected = true;
        self.read(start, count, &mut |number, e| {
            let unit = self.first.saturating_add(number);
            as_expected &= e.len == UNIT && unit.checked_mul(UNIT) == Some(e.logical);
            found.push(e);
        })?;
        if !as_expected || found.len() as u64 != count {
            return Ok(pick(&self.all()?, logical));
        }
        let found: Arc<[Extent]> = join(found)?.into();
        if let Ok(mut pieces) = self.pieces.write() {
            pieces.insert(piece, found.clone());
        }
        Ok(pick(&found, logical))
    }
}

fn pick(extents: &[Extent], logical: u64) -> Option<Extent> {
    let after = extents.partition_point(|e| e.logical <= logical);
    let e = extents.get(after.checked_sub(1)?)?;
    (logical < e.logical.checked_add(e.len)?).then_some(*e)
}

/// Sorts, refuses overlaps, and joins what is contiguous in both places.
fn join(mut extents: Vec<Extent>) -> Result<Vec<Extent>> {
    extents.sort_unstable_by_key(|e| e.logical);
    let mut out: Vec<Extent> = Vec::new();
    for e in extents {
        if let Some(last) = out.last_mut() {
            let end = last.logical.saturating_add(last.len);
            if e.logical < end {
                return Err(DiskError::corrupt("reading the LVM extent table")
                    .expected("extents that do not overlap")
                    .found(format!("two that hold byte {} of the volume", e.logical)));
            }
            if e.logical == end && last.physical.checked_add(last.len) == Some(e.physical) {
                last.len = last.len.saturating_add(e.len);
                continue;
            }
        }
        out.push(e);
    }
    Ok(out)
}
