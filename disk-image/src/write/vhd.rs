//! VHD: fixed and dynamic.

use super::{blocks::Blocks, new_id};
use disk_io::{OutFile, Result};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2040 GiB: what Hyper-V takes.
pub(super) const MAX_LEN: u64 = 2040 << 30;
const BLOCK: u64 = 2 << 20;
/// The bitmap before each block: one bit a sector.
const BITMAP: u64 = 512;
/// Footer copy and dynamic header come before the table.
const TABLE: u64 = 1536;
/// From 1970 to 2000, in seconds.
const EPOCH: u64 = 946_684_800;

pub(super) fn layout(len: u64) -> Blocks {
    let table = len.div_ceil(BLOCK).saturating_mul(4).next_multiple_of(512);
    Blocks::new(len, BLOCK, TABLE.saturating_add(table), BITMAP)
}

pub(super) fn finish(out: &OutFile<'_>, len: u64, fixed: bool, blocks: &Blocks) -> Result<()> {
    let footer = footer(len, fixed);
    if fixed {
        return out.put(&footer, len);
    }
    let mut table = Vec::new();
    for place in blocks.places() {
        let sector = place.map_or(u64::from(u32::MAX), |p| blocks.offset(p) / 512);
        table.extend(u32::try_from(sector).unwrap_or(u32::MAX).to_be_bytes());
    }
    table.resize(table.len().next_multiple_of(512), 0xff);
    out.put(&table, TABLE)?;
    let mut h = vec![0; 1024];
    put(&mut h, 0, b"cxsparse");
    put(&mut h, 8, &[0xff; 8]);
    put(&mut h, 16, &TABLE.to_be_bytes());
    put(&mut h, 24, &0x0001_0000u32.to_be_bytes());
    let count = u32::try_from(blocks.count()).unwrap_or(u32::MAX);
    put(&mut h, 28, &count.to_be_bytes());
    put(&mut h, 32, &(BLOCK as u32).to_be_bytes());
    seal(&mut h, 36);
    out.put(&h, 512)?;
    // The last block may have been written in part: the footer comes after all of it.
    out.put(&footer, blocks.end())?;
    out.put(&footer, 0)
}

fn footer(len: u64, fixed: bool) -> Vec<u8> {
    let mut f = vec![0; 512];
    put(&mut f, 0, b"conectix");
    put(&mut f, 8, &2u32.to_be_bytes());
    put(&mut f, 12, &0x0001_0000u32.to_be_bytes());
    let data_offset = if fixed { u64::MAX } else { 512 };
    put(&mut f, 16, &data_offset.to_be_bytes());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now
        .unwrap_or(Duration::ZERO)
        .as_secs()
        .saturating_sub(EPOCH);
    put(&mut f, 24, &u32::try_from(now).unwrap_or(0).to_be_bytes());
    // Of other creators qemu believes the geometry and not the size, and loses the end.
    put(&mut f, 28, b"win ");
    put(&mut f, 32, &0x000a_0000u32.to_be_bytes());
    put(&mut f, 36, b"Wi2k");
    put(&mut f, 40, &len.to_be_bytes());
    put(&mut f, 48, &len.to_be_bytes());
    let (cylinders, heads, sectors) = geometry(len / 512);
    put(&mut f, 56, &cylinders.to_be_bytes());
    put(&mut f, 58, &[heads, sectors]);
    let kind: u32 = if fixed { 2 } else { 3 };
    put(&mut f, 60, &kind.to_be_bytes());
    put(&mut f, 68, &new_id());
    seal(&mut f, 64);
    f
}

/// The specification's appendix: cylinders, heads, sectors per track.
fn geometry(total: u64) -> (u16, u8, u8) {
    let total = total.min(65535 * 16 * 255);
    let (sectors, heads, tracks);
    if total >= 65535 * 16 * 63 {
        (sectors, heads) = (255, 16);
        tracks = total / 255;
    } else {
        let mut s = 17u64;
        let mut t = total / 17;
        let mut h = t.saturating_add(1023).checked_div(1024).unwrap_or(4).max(4);
        if t >= h.saturating_mul(1024) || h > 16 {
            (s, h) = (31, 16);
            t = total / 31;
        }
        if t >= h.saturating_mul(1024) {
            (s, h) = (63, 16);
            t = total / 63;
        }
        (sectors, heads, tracks) = (s, h, t);
    }
    let cylinders = tracks.checked_div(heads).unwrap_or(0);
    (
        u16::try_from(cylinders).unwrap_or(u16::MAX),
        u8::try_from(heads).unwrap_or(16),
        u8::try_from(sectors).unwrap_or(63),
    )
}

fn seal(bytes: &mut [u8], field: usize) {
    put(bytes, field, &[0; 4]);
    let sum = bytes
        .iter()
        .fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
    put(bytes, field, &(!sum).to_be_bytes());
}

/// Sets bytes of a structure of fixed length.
pub(super) fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    let to = into
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..bytes.len()));
    debug_assert!(to.is_some(), "{at} is outside the structure");
    if let Some(to) = to {
        to.copy_from_slice(bytes);
    }
}
