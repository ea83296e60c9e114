//! VHDX: fixed and dynamic.

use super::{blocks::Blocks, new_id, vhd::put};
use crate::guid::Guid;
use disk_io::{OutFile, Result};

/// 64 TiB.
pub(super) const MAX_LEN: u64 = 64 << 40;
const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const BAT: u64 = 3 * MIB;

/// Larger blocks for larger disks keep the table short.
fn block_size(len: u64) -> u64 {
    if len > 4 << 40 { 32 * MIB } else { 2 * MIB }
}

/// Payload blocks between two entries for sector bitmaps.
fn chunk(block: u64, sector_size: u32) -> u64 {
    let covered = (1u64 << 23).saturating_mul(u64::from(sector_size));
    covered >> block.ilog2()
}

fn bat_len(len: u64, sector_size: u32) -> u64 {
    let block = block_size(len);
    let blocks = len.div_ceil(block);
    let bitmaps = blocks.saturating_sub(1) >> chunk(block, sector_size).ilog2();
    blocks
        .saturating_add(bitmaps)
        .saturating_mul(8)
        .next_multiple_of(MIB)
        .max(MIB)
}

pub(super) fn layout(len: u64, sector_size: u32) -> Blocks {
    let start = BAT.saturating_add(bat_len(len, sector_size));
    Blocks::new(len, block_size(len), start, 0)
}

/// The table: after the entries of each chunk of blocks, if there are more, one for a bitmap.
fn table(entries: &[u64], chunk: u64) -> Vec<u8> {
    let chunk = usize::try_from(chunk).unwrap_or(usize::MAX).max(1);
    let mut table = Vec::new();
    for (n, chunk) in entries.chunks(chunk).enumerate() {
        if n > 0 {
            table.extend([0; 8]);
        }
        table.extend(chunk.iter().flat_map(|entry| entry.to_le_bytes()));
    }
    table
}

pub(super) fn finish(
    out: &OutFile<'_>,
    len: u64,
    (fixed, sector_size): (bool, u32),
    blocks: &Blocks,
) -> Result<()> {
    out.set_len(blocks.end())?;
    // State 6 is fully present; a place is a multiple of a MiB, so the bits are free.
    let entry = |place: Option<u32>| place.map_or(0, |p| blocks.offset(p) | 6);
    let entries = blocks.places().into_iter().map(entry).collect::<Vec<u64>>();
    let bat = table(&entries, chunk(blocks.size, sector_size));
    out.put(&bat, BAT)?;
    out.put(&metadata(len, fixed, sector_size, blocks.size), METADATA)?;
    let bat_region = bat_len(len, sector_size);
    let regions = regions(bat_region);
    out.put(&regions, 192 * KIB)?;
    out.put(&regions, 256 * KIB)?;
    let (file_id, data_id) = (new_id(), new_id());
    for (sequence, at) in [(0u64, 64 * KIB), (1, 128 * KIB)] {
        let mut h = vec![0; 4096];
        put(&mut h, 0, b"head");
        put(&mut h, 8, &sequence.to_le_bytes());
        put(&mut h, 16, &file_id);
        put(&mut h, 32, &data_id);
        put(&mut h, 66, &1u16.to_le_bytes());
        put(&mut h, 68, &(MIB as u32).to_le_bytes());
        put(&mut h, 72, &LOG.to_le_bytes());
        seal(&mut h);
        out.put(&h, at)?;
    }
    let mut id = vec![0; 512];
    put(&mut id, 0, b"vhdxfile");
    let creator: Vec<u8> = "vmdkit".encode_utf16().flat_map(u16::to_le_bytes).collect();
    put(&mut id, 8, &creator);
    out.put(&id, 0)
}

fn regions(bat_len: u64) -> Vec<u8> {
    let mut r = vec![0; 64 << 10];
    put(&mut r, 0, b"regi");
    put(&mut r, 8, &2u32.to_le_bytes());
    for (at, id, offset, len) in [
        (16, 0x2dc27766_f623_4200_9d64_115e9bfd4a08, BAT, bat_len),
        (48, 0x8b7ca206_4790_4b9a_b8fe_575f050f886e, METADATA, MIB),
    ] {
        let mut e = Guid::new(id).0.to_vec();
        e.extend(offset.to_le_bytes());
        e.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        e.extend(1u32.to_le_bytes());
        put(&mut r, at, &e);
    }
    seal(&mut r);
    r
}

fn metadata(len: u64, fixed: bool, sector_size: u32, block: u64) -> Vec<u8> {
    // IsRequired, and for what describes the disk IsVirtualDisk.
    const FILE: u32 = 4;
    const DISK: u32 = 6;
    let mut parameters = u32::try_from(block).unwrap_or(0).to_le_bytes().to_vec();
    parameters.extend(u32::from(fixed).to_le_bytes());
    let items: [(u128, u32, Vec<u8>); 5] = [
        (0xcaa16737_fa36_4d43_b3b6_33f0aa44e76b, FILE, parameters),
        (
            0x2fa54224_cd1b_4876_b211_5dbed83bf4b8,
            DISK,
            len.to_le_bytes().to_vec(),
        ),
        (
            0xbeca12ab_b2e6_4523_93ef_c309e000c746,
            DISK,
            new_id().to_vec(),
        ),
        (
            0x8141bf1d_a96f_4709_ba47_f233a8faab5f,
            DISK,
            sector_size.to_le_bytes().to_vec(),
        ),
        (
            0xcda348c7_445d_4471_9cc9_e9885251c556,
            DISK,
            4096u32.to_le_bytes().to_vec(),
        ),
    ];
    let mut m = vec![0; 128 << 10];
    put(&mut m, 0, b"metadata");
    put(&mut m, 10, &5u16.to_le_bytes());
    let mut at = 64usize << 10;
    for (n, (id, flags, data)) in items.iter().enumerate() {
        let entry = n.saturating_mul(32).saturating_add(32);
        let mut e = Guid::new(*id).0.to_vec();
        e.extend(u32::try_from(at).unwrap_or(0).to_le_bytes());
        e.extend(u32::try_from(data.len()).unwrap_or(0).to_le_bytes());
        e.extend(flags.to_le_bytes());
        put(&mut m, entry, &e);
        put(&mut m, at, data);
        at = at.saturating_add(data.len());
    }
    m
}

fn seal(bytes: &mut [u8]) {
    put(bytes, 4, &[0; 4]);
    let crc = crc32c::crc32c(bytes);
    put(bytes, 4, &crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also where the blocks fill their chunks, and the table its room.
    #[test]
    fn the_table_stays_in_its_room() {
        let chunk = chunk(32 * MIB, 512);
        for blocks in [
            1,
            chunk - 1,
            chunk,
            chunk + 1,
            2 * chunk,
            127 * 1024,
            chunk * 16_257,
        ] {
            let len = blocks * 32 * MIB;
            let entries = vec![1u64; usize::try_from(blocks).unwrap()];
            let table = table(&entries, chunk);
            let room = (blocks + (blocks - 1) / chunk) * 8;
            assert_eq!(table.len() as u64, room, "{blocks} blocks");
            if len > 4 << 40 {
                assert!(table.len() as u64 <= bat_len(len, 512), "{blocks} blocks");
            }
        }
        // As the specification places it: one behind each whole chunk but the last.
        let two = super::table(&[1, 2, 3, 4], 2);
        let words: Vec<u8> = two.chunks(8).map(|w| w[0]).collect();
        assert_eq!(words, [1, 2, 0, 3, 4]);
    }
}
