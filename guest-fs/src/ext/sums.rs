//! CRC-32C sums of metadata (the feature metadata_csum).
//!
//! Each sum begins with a seed: of the volume, or of an inode by its number and generation. So a
//! block that is another one's does not pass.

use super::{
    layout::{BlockNumber, IncompatFeatures, InodeNumber, RoCompatFeatures},
    superblock::{Group, Superblock},
};

/// CRC-32C as ext4 has it: begun with any state, and without a last inversion.
pub(super) fn crc(state: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!state, bytes)
}

/// The sums of a volume that has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    seed: u32,
}

/// A sum that is not the one that is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrong {
    pub(super) stored: u32,
    pub(super) sum: u32,
}

pub(super) fn compare(stored: u32, sum: u32) -> Option<Wrong> {
    (stored != sum).then_some(Wrong { stored, sum })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let two = bytes.get(at..).and_then(|b| b.first_chunk());
    two.map_or(0, |b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|b| b.first_chunk());
    four.map_or(0, |b| u32::from_le_bytes(*b))
}

/// CRC-16 as descriptors have it on volumes without the other sums (the feature uninit_bg).
fn crc16(state: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(state, |state, byte| {
        (0..8).fold(state ^ u16::from(*byte), |state, _| {
            (state >> 1) ^ (0xa001 & 0u16.wrapping_sub(state & 1))
        })
    })
}

/// A group's descriptor, by the sum that the volume has; nothing is wrong where it has none.
pub(super) fn group(sb: &Superblock, number: u64, group: &Group) -> Option<Wrong> {
    match Sums::of(sb) {
        Some(sums) => sums.group(number, group),
        None if sb.ro_compat & RoCompatFeatures::GDT_CSUM != 0 => group_crc16(sb, number, group),
        None => None,
    }
}

/// A group's descriptor, by its CRC-16.
fn group_crc16(sb: &Superblock, number: u64, group: &Group) -> Option<Wrong> {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let mut state = crc16(!0, &sb.uuid);
    state = crc16(state, &number.to_le_bytes());
    state = crc16(state, group.bytes.get(..0x1e).unwrap_or_default());
    if sb.incompat & IncompatFeatures::BIT64 != 0 {
        state = crc16(state, group.bytes.get(0x20..).unwrap_or_default());
    }
    compare(u16_at(&group.bytes, 0x1e).into(), state.into())
}

impl Sums {
    pub(super) fn of(sb: &Superblock) -> Option<Self> {
        (sb.ro_compat & RoCompatFeatures::METADATA_CSUM != 0).then(|| Self {
            seed: sb.checksum_seed.unwrap_or_else(|| crc(!0, &sb.uuid)),
        })
    }

    /// The superblock, 1024 bytes of it.
    pub(super) fn superblock(bytes: &[u8]) -> Option<Wrong> {
        let sum = crc(!0, bytes.get(..0x3fc).unwrap_or_default());
        compare(u32_at(bytes, 0x3fc), sum)
    }

    /// A group's descriptor.
    fn group(self, number: u64, group: &Group) -> Option<Wrong> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut state = crc(self.seed, &number.to_le_bytes());
        state = crc(state, group.bytes.get(..0x1e).unwrap_or_default());
        state = crc(state, &[0, 0]);
        state = crc(state, group.bytes.get(0x20..).unwrap_or_default());
        compare(u16_at(&group.bytes, 0x1e).into(), state & 0xffff)
    }

    /// A bitmap of a group; its sum is in the descriptor, at `low` and, in long ones, `high`.
    pub(super) fn bitmap(
        self,
        bits: &[u8],
        group: &Group,
        low: usize,
        high: usize,
    ) -> Option<Wrong> {
        let sum = crc(self.seed, bits);
        let stored = u32::from(u16_at(&group.bytes, low));
        if group.bytes.len() <= high {
            return compare(stored, sum & 0xffff);
        }
        compare(stored | u32::from(u16_at(&group.bytes, high)) << 16, sum)
    }

    /// A block of attributes: its number is part of the sum.
    pub(super) fn attribute_block(self, block: BlockNumber, bytes: &[u8]) -> Option<Wrong> {
        let mut state = crc(self.seed, &block.0.to_le_bytes());
        state = crc(state, bytes.get(..0x10).unwrap_or_default());
        state = crc(state, &[0; 4]);
        state = crc(state, bytes.get(0x14..).unwrap_or_default());
        compare(u32_at(bytes, 0x10), state)
    }

    /// What the sums of an inode and of its blocks begin with.
    pub(super) fn of_inode(self, number: InodeNumber, bytes: &[u8]) -> InodeSums {
        let state = crc(self.seed, &number.0.to_le_bytes());
        InodeSums {
            seed: crc(state, bytes.get(0x64..0x68).unwrap_or_default()),
        }
    }
}

/// The sums of an inode and its blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct InodeSums {
    seed: u32,
}

impl InodeSums {
    /// The inode itself.
    pub(super) fn inode(self, bytes: &[u8]) -> Option<Wrong> {
        // The high half is there if the fields behind the first 128 bytes reach so far.
        let wide = bytes.len() > 128 && u16_at(bytes, 0x80) >= 4;
        let mut copy = bytes.to_vec();
        let mut stored = u32::from(u16_at(bytes, 0x7c));
        if let Some(low) = copy.get_mut(0x7c..0x7e) {
            low.fill(0);
        }
        if wide {
            stored |= u32::from(u16_at(bytes, 0x82)) << 16;
            if let Some(high) = copy.get_mut(0x82..0x84) {
                high.fill(0);
            }
        }
        let sum = crc(self.seed, &copy);
        compare(stored, if wide { sum } else { sum & 0xffff })
    }

    /// A block of the extent tree: the sum stands behind the room for entries.
    pub(super) fn extent_block(self, bytes: &[u8]) -> Option<Wrong> {
        let end = usize::from(u16_at(bytes, 4))
            .saturating_add(1)
            .saturating_mul(12);
        let sum = crc(self.seed, bytes.get(..end)?);
        compare(u32_at(bytes, end), sum)
    }

    /// A block of a directory, which is a list of entries or, where `indexed`, may be one of its
    /// index.
    pub(super) fn directory_block(self, bytes: &[u8], indexed: bool) -> Option<Wrong> {
        if indexed && let Some(at) = index_at(bytes) {
            let entries = usize::from(u16_at(bytes, at.saturating_add(2))).saturating_mul(8);
            let room = usize::from(u16_at(bytes, at)).saturating_mul(8);
            let tail = at.saturating_add(room);
            let mut state = crc(self.seed, bytes.get(..at.saturating_add(entries))?);
            state = crc(
                state,
                bytes.get(tail..tail.saturating_add(4)).unwrap_or_default(),
            );
            state = crc(state, &[0; 4]);
            return compare(u32_at(bytes, tail.saturating_add(4)), state);
        }
        let end = bytes.len().saturating_sub(12);
        let tail = bytes.get(end..)?;
        let sum = crc(self.seed, bytes.get(..end)?);
        // An entry without name of 12 bytes and an impossible kind holds it.
        if u32_at(tail, 0) != 0 || u16_at(tail, 4) != 12 || tail.get(6..8) != Some(&[0, 0xde]) {
            return Some(Wrong { stored: 0, sum });
        }
        compare(u32_at(tail, 8), sum)
    }
}

/// Where the counts of an index block stand, if it is one.
fn index_at(bytes: &[u8]) -> Option<usize> {
    // 64 KiB do not fit: the kernel writes 65535, others 0.
    let whole =
        |len: u16, of: usize| usize::from(len) == of || (of == 65_536 && matches!(len, 0 | 65_535));
    let first = u16_at(bytes, 4);
    if u32_at(bytes, 0) == 0 && whole(first, bytes.len()) {
        return Some(8);
    }
    // The root of the index begins with "." and "..", and eight bytes about itself.
    let rest = bytes.len().saturating_sub(12);
    let root = first == 12 && whole(u16_at(bytes, 16), rest) && bytes.get(29) == Some(&8);
    root.then_some(32)
}
