//! VDI: fixed and dynamic.

use super::{blocks::Blocks, new_id, vhd::put};
use disk_io::{OutFile, Result};

const BLOCK: u64 = 1 << 20;
/// Where blocks begin is said in 32 bits: the map before them, with 4 bytes for each, has at most so
/// many.
const MAX_MAP: u64 = (4096 - 2) << 20;
pub(super) const MAX_LEN: u64 = MAX_MAP / 4 * BLOCK;
/// Where the block map is.
const MAP: u64 = 1 << 20;

pub(super) fn layout(len: u64) -> Blocks {
    let map = len
        .div_ceil(BLOCK)
        .saturating_mul(4)
        .next_multiple_of(1 << 20);
    Blocks::new(len, BLOCK, MAP.saturating_add(map), 0)
}

pub(super) fn finish(out: &OutFile<'_>, len: u64, fixed: bool, blocks: &Blocks) -> Result<()> {
    out.set_len(blocks.end())?;
    let map: Vec<u8> = blocks
        .places()
        .into_iter()
        .flat_map(|place| place.unwrap_or(u32::MAX).to_le_bytes())
        .collect();
    out.put(&map, MAP)?;
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut h = vec![0; 512];
    put(&mut h, 0, b"<<< Oracle VM VirtualBox Disk Image >>>\n");
    put(&mut h, 64, &0xbeda_107f_u32.to_le_bytes());
    put(&mut h, 68, &0x0001_0001_u32.to_le_bytes());
    put(&mut h, 72, &400u32.to_le_bytes());
    let kind: u32 = if fixed { 2 } else { 1 };
    put(&mut h, 76, &kind.to_le_bytes());
    put(&mut h, 340, &narrow(MAP));
    put(&mut h, 344, &narrow(blocks.start));
    put(&mut h, 360, &512u32.to_le_bytes());
    put(&mut h, 368, &len.to_le_bytes());
    put(&mut h, 376, &narrow(BLOCK));
    put(&mut h, 384, &narrow(blocks.count() as u64));
    put(&mut h, 388, &blocks.used().to_le_bytes());
    put(&mut h, 392, &new_id());
    put(&mut h, 408, &new_id());
    out.put(&h, 0)
}
