//! One inode: what it is, how long, when, and where its contents begin.

use super::{
    layout::{BlockNumber, InodeFlags, InodeNumber, ROOT, RoCompatFeatures},
    superblock::Superblock,
};
use crate::{NodeKind, Timestamp};
use disk_io::{Disk, Fields, Result};

/// An inode as read.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: InodeNumber,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) links: u16,
    pub(super) flags: u32,
    /// Bytes allocated to it, its metadata included.
    pub(super) allocated: u64,
    pub(super) accessed: Timestamp,
    pub(super) changed: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) created: Option<Timestamp>,
    /// `i_block`: extent tree root, block map, inline data or a short link target.
    pub(super) block: [u8; 60],
    /// Block of extended attributes; 0 if none.
    pub(super) file_acl: BlockNumber,
    /// Bytes after the fixed fields: extended attributes kept inside the inode.
    pub(super) extra: Vec<u8>,
    /// Byte offset on the volume.
    pub(super) place: u64,
}

const S_IFMT: u16 = 0o170_000;

impl Inode {
    pub(super) fn read(sb: &Superblock, disk: &dyn Disk, number: InodeNumber) -> Result<Self> {
        let place = sb.inode_offset(disk, number)?;
        let mut bytes = vec![0; sb.inode_size.into()];
        disk.read_exact_at(&mut bytes, place)
            .map_err(|e| e.context(format!("reading inode {}", number.0)))?;
        Self::parse(sb, &bytes, place, number)
    }

    /// The inode in `bytes`, which are at `place` on the volume.
    pub(super) fn parse(
        sb: &Superblock,
        bytes: &[u8],
        place: u64,
        number: InodeNumber,
    ) -> Result<Self> {
        let f = Fields::new(bytes, place, "inode");
        // Fields beyond the first 128 bytes exist only as far as extra_isize says.
        let extra_len = if bytes.len() > 128 {
            usize::from(f.u16_le(0x80)?)
        } else {
            0
        };
        let has = |at: usize| at.saturating_add(4) <= extra_len.saturating_add(128);
        let time = |at: usize, extra: usize| -> Result<Timestamp> {
            let seconds = i64::from(f.i32_le(at)?);
            if !has(extra) {
                return Ok(Timestamp::from_unix(seconds, 0));
            }
            let more = f.u32_le(extra)?;
            let epoch = i64::from(more & 3) << 32;
            Ok(Timestamp::from_unix(
                seconds.saturating_add(epoch),
                more >> 2,
            ))
        };
        let flags = f.u32_le(0x20)?;
        let huge = sb.ro_compat & RoCompatFeatures::HUGE_FILE != 0;
        let blocks_high = if huge { f.u16_le(0x74)? } else { 0 };
        let blocks = u64::from(f.u32_le(0x1c)?) | u64::from(blocks_high) << 32;
        let unit = if huge && flags & InodeFlags::HUGE_FILE != 0 {
            u64::from(sb.block_size)
        } else {
            512
        };
        let mode = f.u16_le(0)?;
        // Directories had another field where the high half of the size is now.
        let size_high = u64::from(f.u32_le(0x6c)?) << 32;
        let mut block = [0; 60];
        block.copy_from_slice(f.bytes(0x28, 60)?);
        let after = extra_len.saturating_add(128);
        Ok(Self {
            number,
            mode,
            uid: u32::from(f.u16_le(2)?) | u32::from(f.u16_le(0x78)?) << 16,
            gid: u32::from(f.u16_le(0x18)?) | u32::from(f.u16_le(0x7a)?) << 16,
            size: u64::from(f.u32_le(4)?) | size_high,
            links: f.u16_le(0x1a)?,
            flags,
            allocated: blocks.saturating_mul(unit),
            accessed: time(0x8, 0x8c)?,
            changed: time(0xc, 0x84)?,
            modified: time(0x10, 0x88)?,
            created: if has(0x94) {
                Some(time(0x90, 0x94)?)
            } else {
                None
            },
            block,
            file_acl: BlockNumber(u64::from(f.u32_le(0x68)?) | u64::from(f.u16_le(0x76)?) << 32),
            extra: if extra_len == 0 {
                Vec::new()
            } else {
                bytes.get(after..).unwrap_or_default().to_vec()
            },
            place,
        })
    }

    /// File, directory, link or something else; `None` for a mode that says nothing. The root is a
    /// directory whatever its mode says: without it nothing can be read.
    pub(super) fn kind(&self) -> Option<NodeKind> {
        if self.number == ROOT {
            return Some(NodeKind::Directory);
        }
        match self.mode & S_IFMT {
            0o100_000 => Some(NodeKind::File),
            0o040_000 => Some(NodeKind::Directory),
            0o120_000 => Some(NodeKind::Symlink),
            0o010_000 | 0o020_000 | 0o060_000 | 0o140_000 => Some(NodeKind::Special),
            _ => None,
        }
    }

    /// Major and minor number, of a device: in `i_block`, the old form first, or the new one.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        if !matches!(self.mode & S_IFMT, 0o020_000 | 0o060_000) {
            return None;
        }
        let word = |at: usize| {
            let bytes = self.block.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(match (word(0)?, word(4)?) {
            (0, new) => (
                (new & 0xf_ff00) >> 8,
                (new & 0xff) | ((new >> 12) & 0xf_ff00),
            ),
            (old, _) => ((old >> 8) & 0xff, old & 0xff),
        })
    }

    /// Whether the inode of the root says that it is no directory, or was freed.
    pub(super) fn is_odd_root(&self) -> bool {
        let directory = self.mode & S_IFMT == 0o040_000;
        self.number == ROOT && !(directory && self.in_use())
    }

    /// Whether the inode holds anything: a freed one has no links or no mode.
    pub(super) fn in_use(&self) -> bool {
        self.mode != 0 && self.links != 0
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}
