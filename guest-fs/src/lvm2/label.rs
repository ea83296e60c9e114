//! A physical volume: its label, its header, and the areas with the group's metadata.

use super::dashed;
use disk_io::{Disk, DiskError, Fields, Result};
use std::sync::Arc;

/// Longest metadata that is read; LVM's default area has 1 MiB.
const MAX_TEXT: u64 = 16 << 20;

/// The circular buffer begins after the area's header.
const AREA_HEADER: u64 = 512;

/// What a disk says of itself.
#[derive(Clone, Debug)]
pub struct PhysicalVolume {
    /// Its identity, with dashes.
    pub uuid: String,
    /// Texts of the volume group's metadata, one per area.
    pub metadata: Vec<Vec<u8>>,
    /// Areas that cannot be used, and why.
    pub remarks: Vec<String>,
}

/// LVM's checksum: CRC-32 with a start of its own and without inversion.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    crc.update(bytes);
    !crc.finalize()
}

impl PhysicalVolume {
    /// Reads the label, which is in one of the first four sectors; `None` if there is none.
    pub fn read(disk: &Arc<dyn Disk>) -> Result<Option<Self>> {
        for sector in [1u64, 0, 2, 3] {
            let at = sector.saturating_mul(512);
            let mut bytes = [0; 512];
            if at.saturating_add(512) > disk.len() {
                continue;
            }
            disk.read_exact_at(&mut bytes, at)?;
            let f = Fields::new(&bytes, at, "LVM2 label");
            if f.bytes(0, 8)? != b"LABELONE" || f.bytes(24, 8)? != b"LVM2 001" {
                continue;
            }
            let (stored, sum) = (f.u32_le(16)?, checksum(f.bytes(20, 492)?));
            if stored != sum {
                return Err(f
                    .corrupt(16, "the checksum")
                    .expected(format!("{sum:#010x}"))
                    .found(format!("{stored:#010x}")));
            }
            return Self::header(disk, &f).map(Some);
        }
        Ok(None)
    }

    fn header(disk: &Arc<dyn Disk>, label: &Fields<'_>) -> Result<Self> {
        let from = usize::try_from(label.u32_le(20)?).unwrap_or(usize::MAX);
        let id = label.bytes(from, 32)?;
        let uuid = dashed(id).ok_or_else(|| label.corrupt(from, "the identity"))?;
        let mut at = from.saturating_add(40);
        let mut areas = Vec::new();
        // Two lists of (offset, size), each ended by zeros: data areas, metadata areas.
        for list in 0..2 {
            loop {
                let pair = label.sub(at, 16, "LVM2 area list")?;
                at = at.saturating_add(16);
                let (offset, size) = (pair.u64_le(0)?, pair.u64_le(8)?);
                if offset == 0 {
                    break;
                }
                if list == 1 {
                    areas.push((offset, size));
                }
            }
        }
        let mut pv = Self {
            uuid,
            metadata: Vec::new(),
            remarks: Vec::new(),
        };
        for (offset, size) in areas {
            match area(disk, offset, size) {
                Ok(Some(text)) => pv.metadata.push(text),
                Ok(None) => {}
                Err(e) => pv.remarks.push(e.to_string()),
            }
        }
        Ok(pv)
    }
}

/// The committed text of a metadata area; `None` if it has none.
fn area(disk: &Arc<dyn Disk>, offset: u64, size: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = [0; 512];
    disk.read_exact_at(&mut bytes, offset)
        .map_err(|e| e.context("reading an LVM2 metadata area"))?;
    let f = Fields::new(&bytes, offset, "LVM2 metadata area");
    let (stored, sum) = (f.u32_le(0)?, checksum(f.bytes(4, 508)?));
    if f.bytes(4, 16)? != b" LVM2 x[5A%r0N*>" || stored != sum {
        return Err(f
            .corrupt(0, "the header")
            .expected(format!("the area's signature, and checksum {sum:#010x}"))
            .found(format!("{stored:#010x}")));
    }
    let (place, len) = (f.u64_le(40)?, f.u64_le(48)?);
    let (text_sum, flags) = (f.u32_le(56)?, f.u32_le(60)?);
    if place == 0 || len == 0 || flags & 1 != 0 {
        return Ok(None);
    }
    if len > MAX_TEXT || place < AREA_HEADER || place >= size || len > size {
        return Err(f
            .corrupt(40, "the place of the text")
            .expected(format!("a text inside the area's {size} bytes"))
            .found(format!("{len} bytes at {place}")));
    }
    // The text may go round the end of the buffer.
    let first = size.saturating_sub(place).min(len);
    let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
    let (head, tail) = text.split_at_mut(usize::try_from(first).unwrap_or(0));
    disk.read_exact_at(head, offset.saturating_add(place))?;
    disk.read_exact_at(tail, offset.saturating_add(AREA_HEADER))?;
    let sum = checksum(&text);
    if sum != text_sum {
        return Err(DiskError::corrupt("reading LVM2 metadata")
            .offset(offset.saturating_add(place))
            .expected(format!("checksum {text_sum:#010x}"))
            .found(format!("{sum:#010x}")));
    }
    Ok(Some(text))
}
