//! The metadata region: sizes, and where a parent may be found.

use super::header::Region;
use crate::guid::Guid;
use disk_io::{Disk, DiskError, Fields, Result};
use std::ops::Range;

const FILE_PARAMETERS: Guid = Guid::new(0xcaa16737_fa36_4d43_b3b6_33f0aa44e76b);
const VIRTUAL_DISK_SIZE: Guid = Guid::new(0x2fa54224_cd1b_4876_b211_5dbed83bf4b8);
const VIRTUAL_DISK_ID: Guid = Guid::new(0xbeca12ab_b2e6_4523_93ef_c309e000c746);
const LOGICAL_SECTOR_SIZE: Guid = Guid::new(0x8141bf1d_a96f_4709_ba47_f233a8faab5f);
const PHYSICAL_SECTOR_SIZE: Guid = Guid::new(0xcda348c7_445d_4471_9cc9_e9885251c556);
const PARENT_LOCATOR: Guid = Guid::new(0xa8d35f2d_b30b_454d_abf7_d3d84834ab0c);
/// The only kind of locator that is defined.
const VHDX_LOCATOR: Guid = Guid::new(0xb04aefb7_d19e_4a81_b789_25b8e9445913);

/// Length of the table in bytes; items follow it.
const TABLE: usize = 64 << 10;
/// 64 TiB.
const MAX_SIZE: u64 = 64 << 40;

/// What the metadata says, checked.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    /// Length of a block in bytes.
    pub(super) block_size: u64,
    /// Every block has its place, also when it is empty.
    pub(super) leave_allocated: bool,
    pub(super) has_parent: bool,
    /// Length of the disk in bytes.
    pub(super) len: u64,
    /// Logical sector size in bytes: 512 or 4096.
    pub(super) sector_size: u32,
    pub(super) disk_id: Guid,
    /// Names and values of the parent locator.
    pub(super) parent: Vec<(String, String)>,
}

impl Metadata {
    pub(super) fn read(disk: &dyn Disk, region: Region) -> Result<Self> {
        let fail = |at: u64| DiskError::corrupt("reading the VHDX metadata").offset(at);
        if region.offset.saturating_add(region.len) > disk.len() {
            return Err(fail(region.offset)
                .expected(format!("{} bytes", region.len))
                .found(format!("the end of the file at {}", disk.len())));
        }
        let mut table = vec![0; TABLE];
        disk.read_exact_at(&mut table, region.offset)?;
        let f = Fields::new(&table, region.offset, "metadata table");
        if f.bytes(0, 8)? != b"metadata" {
            return Err(fail(region.offset)
                .expected("\"metadata\"")
                .found("something else"));
        }
        let count = usize::from(f.u16_le(10)?);
        if count > 2047 {
            return Err(f
                .corrupt(10, "Entry Count")
                .expected("at most 2047")
                .found(count.to_string()));
        }
        let mut found = Self::default();
        let mut sizes = (false, false, false);
        let mut taken: Vec<Range<u64>> = Vec::new();
        for n in 0..count {
            let at = 32usize.saturating_add(n.saturating_mul(32));
            let e = f.sub(at, 32, "metadata table entry")?;
            let id = Guid::read(&e, 0)?;
            let (offset, len) = (u64::from(e.u32_le(16)?), u64::from(e.u32_le(20)?));
            let flags = e.u32_le(24)?;
            let end = offset.saturating_add(len);
            let inside = len == 0 || (offset >= TABLE as u64 && end <= region.len);
            if !inside || len > 1 << 20 {
                return Err(e
                    .corrupt(16, "Offset and Length")
                    .expected(format!("at most 1 MiB inside the region of {}", region.len))
                    .found(format!("{len} bytes at {offset}")));
            }
            let is_user = flags & 1 != 0;
            let known = [
                FILE_PARAMETERS,
                VIRTUAL_DISK_SIZE,
                VIRTUAL_DISK_ID,
                LOGICAL_SECTOR_SIZE,
                PHYSICAL_SECTOR_SIZE,
                PARENT_LOCATOR,
            ];
            if is_user || !known.contains(&id) {
                if flags & 4 != 0 {
                    return Err(DiskError::unsupported("opening the VHDX")
                        .offset(e.place(0))
                        .found(format!("unknown metadata that is required: {id}")));
                }
                continue;
            }
            // One that is moved onto another would be read as that.
            let apart = taken.iter().all(|t| end <= t.start || offset >= t.end);
            if !apart {
                return Err(e
                    .corrupt(16, "Offset and Length")
                    .expected("a place that no other item has")
                    .found(format!("{len} bytes at {offset}")));
            }
            taken.push(offset..end);
            let mut item = vec![0; usize::try_from(len).unwrap_or(0)];
            let item_at = region.offset.saturating_add(offset);
            // Of an empty item no place was checked.
            if len > 0 {
                disk.read_exact_at(&mut item, item_at)?;
            }
            let item = Fields::new(&item, item_at, "metadata item");
            match id {
                FILE_PARAMETERS => {
                    found.block_size = u64::from(item.u32_le(0)?);
                    let flags = item.u32_le(4)?;
                    found.leave_allocated = flags & 1 != 0;
                    found.has_parent = flags & 2 != 0;
                    sizes.0 = true;
                }
                VIRTUAL_DISK_SIZE => {
                    found.len = item.u64_le(0)?;
                    sizes.1 = true;
                }
                LOGICAL_SECTOR_SIZE => {
                    found.sector_size = item.u32_le(0)?;
                    sizes.2 = true;
                }
                VIRTUAL_DISK_ID => found.disk_id = Guid::read(&item, 0)?,
                PARENT_LOCATOR => found.parent = locator(&item)?,
                _ => {}
            }
        }
        if sizes != (true, true, true) {
            return Err(fail(region.offset)
                .expected("file parameters, virtual disk size and logical sector size"));
        }
        found.check(region.offset)?;
        Ok(found)
    }

    fn check(&self, at: u64) -> Result<()> {
        let fail = || DiskError::corrupt("checking the VHDX metadata").offset(at);
        if !matches!(self.sector_size, 512 | 4096) {
            return Err(fail()
                .expected("a logical sector size of 512 or 4096")
                .found(self.sector_size.to_string()));
        }
        let sound =
            self.block_size.is_power_of_two() && (1 << 20..=256 << 20).contains(&self.block_size);
        if !sound {
            return Err(fail()
                .expected("a block size of 1 to 256 MiB, a power of two")
                .found(self.block_size.to_string()));
        }
        if !self.has_parent && !self.parent.is_empty() {
            return Err(fail()
                .expected("HasParent in the file parameters, as a parent is named")
                .found("a disk without a parent"));
        }
        if self.len > MAX_SIZE || !self.len.is_multiple_of(u64::from(self.sector_size)) {
            return Err(fail()
                .expected("a virtual disk size in whole sectors, at most 64 TiB")
                .found(self.len.to_string()));
        }
        Ok(())
    }

    /// A value of the parent locator.
    pub(super) fn parent_value(&self, key: &str) -> Option<&str> {
        let entry = self.parent.iter().find(|(k, _)| k == key);
        entry.map(|(_, v)| v.as_str())
    }
}

/// Keys and values in UTF-16.
fn locator(f: &Fields<'_>) -> Result<Vec<(String, String)>> {
    let kind = Guid::read(f, 0)?;
    if kind != VHDX_LOCATOR {
        return Err(DiskError::unsupported("opening the VHDX")
            .offset(f.place(0))
            .expected("a parent locator of the VHDX kind")
            .found(kind.to_string()));
    }
    let count = usize::from(f.u16_le(18)?);
    let mut found = Vec::new();
    for n in 0..count.min(256) {
        let e = f.sub(
            20usize.saturating_add(n.saturating_mul(12)),
            12,
            "parent locator entry",
        )?;
        let text = |at: u32, len: u16| -> Result<String> {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let bytes = f.bytes(at, usize::from(len))?;
            let units = bytes.chunks_exact(2).map(|c| {
                u16::from_le_bytes([
                    c.first().copied().unwrap_or(0),
                    c.get(1).copied().unwrap_or(0),
                ])
            });
            Ok(char::decode_utf16(units)
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect())
        };
        found.push((
            text(e.u32_le(0)?, e.u16_le(8)?)?,
            text(e.u32_le(4)?, e.u16_le(10)?)?,
        ));
    }
    Ok(found)
}
