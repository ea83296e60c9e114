//! The superblock and the group descriptors: where the inode tables are.

use super::groups::Tables;
use super::layout::{BlockNumber, CompatFeatures, IncompatFeatures, InodeNumber, RoCompatFeatures};
use crate::{FsKind, Name};
use disk_io::{Disk, DiskError, Fields, Result};

/// Byte offset of the superblock on the volume.
pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
const SUPERBLOCK_LEN: usize = 1024;
const MAGIC: u16 = 0xef53;

/// What the reader needs of the superblock.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    pub(super) inodes_count: u32,
    pub(super) blocks_count: u64,
    pub(super) free_blocks: u64,
    pub(super) first_data_block: u32,
    /// Bytes: 1 KiB to 64 KiB.
    pub(super) block_size: u32,
    pub(super) blocks_per_group: u32,
    pub(super) inodes_per_group: u32,
    pub(super) inode_size: u16,
    pub(super) desc_size: u16,
    pub(super) state: u16,
    pub(super) compat: u32,
    pub(super) incompat: u32,
    pub(super) ro_compat: u32,
    pub(super) uuid: [u8; 16],
    pub(super) label: Name,
    pub(super) journal_inode: InodeNumber,
    pub(super) first_meta_bg: u32,
    /// Blocks behind the descriptors that are kept for more of them.
    pub(super) reserved_descriptors: u16,
    /// Inodes of files that have no name: of project quotas and of orphans.
    pub(super) nameless: [InodeNumber; 2],
    /// What every checksum of the volume begins with, if it is stored.
    pub(super) checksum_seed: Option<u32>,
    /// Whether inodes are being deleted or cut: they may have blocks behind their size.
    pub(super) has_orphans: bool,
    /// The groups that have copies of the superblock, where they are two (sparse_super2).
    pub(super) two_copies: [u32; 2],
    pub(super) tables: Tables,
}

/// A block group's descriptor.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) block_bitmap: BlockNumber,
    pub(super) inode_bitmap: BlockNumber,
    pub(super) inode_table: BlockNumber,
    pub(super) flags: u16,
    /// Inodes at the end of the table that were never used.
    pub(super) unused_inodes: u32,
    /// The descriptor itself, and where it is on the volume.
    pub(super) bytes: Vec<u8>,
    pub(super) place: u64,
}

impl Group {
    /// The inode table and its bitmap were never written.
    pub(super) const INODE_UNINIT: u16 = 1;
    /// The block bitmap was never written.
    pub(super) const BLOCK_UNINIT: u16 = 2;
}

impl Superblock {
    /// Reads and validates the superblock at `offset` (bytes).
    pub(super) fn read(disk: &dyn Disk, offset: u64) -> Result<Self> {
        let mut bytes = vec![0; SUPERBLOCK_LEN];
        disk.read_exact_at(&mut bytes, offset)
            .map_err(|e| e.context("reading the ext superblock"))?;
        let f = Fields::new(&bytes, offset, "ext superblock");
        if f.u16_le(0x38)? != MAGIC {
            return Err(f
                .corrupt(0x38, "the magic")
                .expected("0xef53")
                .found(format!("{:#06x}", f.u16_le(0x38)?)));
        }
        let log_block_size = f.u32_le(0x18)?;
        if log_block_size > 6 {
            return Err(f
                .corrupt(0x18, "the block size")
                .expected("1 KiB to 64 KiB")
                .found(format!("1024 << {log_block_size}")));
        }
        let (compat, incompat) = (f.u32_le(0x5c)?, f.u32_le(0x60)?);
        let wide = incompat & IncompatFeatures::BIT64 != 0;
        let dynamic = f.u32_le(0x4c)? >= 1;
        let join = |low: usize, high: usize| -> Result<u64> {
            let high = if wide { f.u32_le(high)? } else { 0 };
            Ok(u64::from(f.u32_le(low)?) | u64::from(high) << 32)
        };
        let mut uuid = [0; 16];
        uuid.copy_from_slice(f.bytes(0x68, 16)?);
        let label = f.bytes(0x78, 16)?;
        let label = label.split(|b| *b == 0).next().unwrap_or_default();
        let sb = Self {
            inodes_count: f.u32_le(0)?,
            blocks_count: join(0x4, 0x150)?,
            free_blocks: join(0xc, 0x158)?,
            first_data_block: f.u32_le(0x14)?,
            block_size: 1024 << log_block_size,
            blocks_per_group: f.u32_le(0x20)?,
            inodes_per_group: f.u32_le(0x28)?,
            inode_size: if dynamic { f.u16_le(0x58)? } else { 128 },
            desc_size: if wide { f.u16_le(0xfe)? } else { 32 },
            state: f.u16_le(0x3a)?,
            compat,
            incompat,
            ro_compat: f.u32_le(0x64)?,
            uuid,
            label: Name::from_bytes(label),
            journal_inode: InodeNumber(f.u32_le(0xe0)?),
            first_meta_bg: f.u32_le(0x104)?,
            reserved_descriptors: match compat & CompatFeatures::RESIZE_INODE {
                0 => 0,
                _ => f.u16_le(0xce)?,
            },
            nameless: [InodeNumber(f.u32_le(0x26c)?), InodeNumber(f.u32_le(0x280)?)],
            checksum_seed: match incompat & IncompatFeatures::CSUM_SEED {
                0 => None,
                _ => Some(f.u32_le(0x270)?),
            },
            has_orphans: f.u32_le(0xe8)? != 0
                || f.u32_le(0x64)? & RoCompatFeatures::ORPHAN_PRESENT != 0,
            two_copies: [f.u32_le(0x24c)?, f.u32_le(0x250)?],
            tables: Tables::default(),
        };
        sb.validate(&f)?;
        Ok(sb)
    }

    fn validate(&self, f: &Fields<'_>) -> Result<()> {
        let unknown = self.incompat & !IncompatFeatures::READ;
        if unknown != 0 {
            return Err(DiskError::unsupported("opening the ext file system")
                .offset(f.place(0x60))
                .found(format!("the feature {}", IncompatFeatures::name(unknown))));
        }
        let bad = |at, field: &str, found: u64| {
            Err(f
                .corrupt(at, field)
                .expected("a sound geometry")
                .found(found.to_string()))
        };
        let block_bits = self.block_size.saturating_mul(8);
        // A bit of a bitmap is a cluster; its length counts only with the feature bigalloc.
        let shift = match self.ro_compat & RoCompatFeatures::BIGALLOC {
            0 => 0,
            _ => f.u32_le(0x1c)?.saturating_sub(f.u32_le(0x18)?).min(16),
        };
        let most = u64::from(block_bits) << shift;
        if self.blocks_per_group == 0 || u64::from(self.blocks_per_group) > most {
            return bad(0x20, "blocks per group", self.blocks_per_group.into());
        }
        if self.inodes_per_group == 0 || self.inodes_per_group > block_bits {
            return bad(0x28, "inodes per group", self.inodes_per_group.into());
        }
        let inode_size = u32::from(self.inode_size);
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > self.block_size {
            return bad(0x58, "the inode size", inode_size.into());
        }
        let desc_size = u32::from(self.desc_size);
        if !(32..=1024).contains(&desc_size) || !desc_size.is_power_of_two() {
            return bad(0xfe, "the descriptor size", desc_size.into());
        }
        if self.blocks_count == 0 || self.blocks_count >= 1 << 48 {
            return bad(0x4, "the number of blocks", self.blocks_count);
        }
        Ok(())
    }

    /// ext2, ext3 or ext4, as `blkid` tells them apart.
    pub(super) fn kind(&self) -> FsKind {
        let ext4 = self.incompat & !IncompatFeatures::EXT3 != 0
            || self.ro_compat & !RoCompatFeatures::EXT3 != 0;
        if ext4 {
            FsKind::Ext4
        } else if self.compat & CompatFeatures::HAS_JOURNAL != 0 {
            FsKind::Ext3
        } else {
            FsKind::Ext2
        }
    }

    /// Size of the file system in bytes.
    pub(super) fn size(&self) -> u64 {
        self.blocks_count.saturating_mul(self.block_size.into())
    }

    /// Byte offset of a block.
    pub(super) fn offset(&self, block: BlockNumber) -> Result<u64> {
        if block.0 >= self.blocks_count {
            return Err(DiskError::corrupt("following a block number")
                .expected(format!("below {}", self.blocks_count))
                .found(block.0.to_string()));
        }
        Ok(block.0.saturating_mul(self.block_size.into()))
    }

    /// Number of block groups.
    pub(super) fn groups(&self) -> u64 {
        self.blocks_count
            .saturating_sub(self.first_data_block.into())
            .div_ceil(self.blocks_per_group.into())
    }

    /// First block of a group.
    pub(super) fn first_block(&self, group: u64) -> u64 {
        group
            .saturating_mul(self.blocks_per_group.into())
            .saturating_add(self.first_data_block.into())
    }

    /// The descriptor of a group.
    pub(super) fn group(&self, disk: &dyn Disk, group: u64) -> Result<Group> {
        self.group_at(disk, group, self.descriptor_offset(group))
    }

    /// The descriptor of a group that is at `place`: it, or a copy.
    pub(super) fn group_at(&self, disk: &dyn Disk, group: u64, place: u64) -> Result<Group> {
        let mut bytes = vec![0; self.desc_size.into()];
        disk.read_exact_at(&mut bytes, place)
            .map_err(|e| e.context(format!("reading the descriptor of block group {group}")))?;
        let f = Fields::new(&bytes, place, "block group descriptor");
        let wide = self.desc_size >= 64;
        let join = |low: usize, high: usize| -> Result<BlockNumber> {
            let high = if wide { f.u32_le(high)? } else { 0 };
            Ok(BlockNumber(
                u64::from(f.u32_le(low)?) | u64::from(high) << 32,
            ))
        };
        let unused = if wide { f.u16_le(0x32)? } else { 0 };
        Ok(Group {
            block_bitmap: join(0, 0x20)?,
            inode_bitmap: join(4, 0x24)?,
            inode_table: join(8, 0x28)?,
            flags: f.u16_le(0x12)?,
            unused_inodes: u32::from(f.u16_le(0x1c)?) | u32::from(unused) << 16,
            place,
            bytes,
        })
    }

    /// Blocks at the beginning of a group that are the volume's own: its copy of the superblock and
    /// of descriptors, each as its first block and how many. Where the copies are in other places
    /// (sparse_super2) only those of the first group are told.
    pub(super) fn group_metadata(&self, group: u64) -> Vec<(u64, u64)> {
        let elsewhere = self.compat & CompatFeatures::SPARSE_SUPER2 != 0;
        if elsewhere && group != 0 {
            return Vec::new();
        }
        // The first superblock is 1024 bytes into the volume, whatever the first group's block is.
        let first = match group {
            0 => u64::from(self.block_size == 1024),
            n => self.first_block(n),
        };
        let copy = u64::from(self.has_superblock(group));
        let block = u64::from(self.block_size);
        let per_block = block.checked_div(self.desc_size.into()).unwrap_or(1).max(1);
        let chunk = group.checked_div(per_block).unwrap_or(0);
        let meta = self.incompat & IncompatFeatures::META_BG != 0;
        let mut all = Vec::new();
        if copy == 1 {
            all.push((first, 1));
        }
        let first = first.saturating_add(copy);
        if meta && chunk >= u64::from(self.first_meta_bg) {
            // In the first, the second and the last group of each that share a block of them.
            let inside = group.checked_rem(per_block).unwrap_or(0);
            if inside < 2 || inside.saturating_add(1) == per_block {
                all.push((first, 1));
            }
        } else if copy == 1 {
            let all_of_them = self.groups().div_ceil(per_block);
            let count = match meta {
                true => u64::from(self.first_meta_bg),
                false => all_of_them.saturating_add(self.reserved_descriptors.into()),
            };
            all.push((first, count));
        }
        all
    }

    /// Whether a group begins with a copy of the superblock.
    pub(super) fn has_superblock(&self, group: u64) -> bool {
        if group == 0 || self.ro_compat & RoCompatFeatures::SPARSE_SUPER == 0 {
            return true;
        }
        let power_of = |base: u64| {
            let mut n = base;
            while n < group {
                n = n.saturating_mul(base);
            }
            n == group
        };
        group == 1 || power_of(3) || power_of(5) || power_of(7)
    }

    /// Visits the blocks that the groups' bitmaps mark as free; `false` where bitmaps count
    /// clusters of several blocks (bigalloc).
    pub(super) fn free(&self, disk: &dyn Disk, visit: crate::free::Visit<'_>) -> Result<bool> {
        const BLOCK_UNINIT: u16 = 2;
        const CLEANLY_UNMOUNTED: u16 = 1;
        const HAS_ERRORS: u16 = 2;
        if self.ro_compat & RoCompatFeatures::BIGALLOC != 0 {
            return Ok(false);
        }
        // The bitmaps of a volume that was not closed may call a file's blocks free. A journal's
        // were replayed before this is asked.
        let journal = self.compat & CompatFeatures::HAS_JOURNAL != 0;
        let why = match self.state {
            s if s & HAS_ERRORS != 0 => Some("it is marked as having errors"),
            s if s & CLEANLY_UNMOUNTED == 0 && !journal => Some("it was not unmounted"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(
                DiskError::refused("telling the free space of an ext volume")
                    .expected("a volume that was closed")
                    .found(why),
            );
        }
        let block = u64::from(self.block_size);
        let mut free = crate::free::Free::new(visit, 0, block);
        let mut descriptor = vec![0; self.desc_size.into()];
        let mut bits = vec![0; self.block_size as usize];
        for group in 0..self.groups() {
            let at = self.descriptor_offset(group);
            disk.read_exact_at(&mut descriptor, at)
                .map_err(|e| e.context(format!("reading the descriptor of block group {group}")))?;
            let f = Fields::new(&descriptor, at, "block group descriptor");
            // What an uninitialised group has is its own and others' metadata: left as it is.
            if f.u16_le(0x12)? & BLOCK_UNINIT != 0 {
                continue;
            }
            let high = if self.desc_size >= 64 {
                f.u32_le(0x20)?
            } else {
                0
            };
            let map = BlockNumber(u64::from(f.u32_le(0)?) | u64::from(high) << 32);
            disk.read_exact_at(&mut bits, self.offset(map)?)
                .map_err(|e| e.context(format!("reading the bitmap of block group {group}")))?;
            let first = group
                .saturating_mul(self.blocks_per_group.into())
                .saturating_add(self.first_data_block.into());
            let count = self.blocks_count.saturating_sub(first);
            free.bits(&bits, first, count.min(self.blocks_per_group.into()));
        }
        free.close();
        Ok(true)
    }

    /// Byte offset of an inode on the volume.
    pub(super) fn inode_offset(&self, disk: &dyn Disk, inode: InodeNumber) -> Result<u64> {
        let fail = || {
            DiskError::corrupt("finding an inode")
                .expected(format!("1 to {}", self.inodes_count))
                .found(inode.0.to_string())
        };
        let index = inode.0.checked_sub(1).ok_or_else(fail)?;
        if inode.0 > self.inodes_count {
            return Err(fail());
        }
        let group = u64::from(index.checked_div(self.inodes_per_group).unwrap_or(0));
        let inside = u64::from(index.checked_rem(self.inodes_per_group).unwrap_or(0));
        if group >= self.groups() {
            return Err(fail());
        }
        let table = self.inode_table(disk, group)?;
        Ok(self
            .offset(table.first)?
            .saturating_add(inside.saturating_mul(self.inode_size.into())))
    }

    /// Whether nothing vouches for the place of the table that an inode is in.
    pub(super) fn is_table_doubtful(&self, disk: &dyn Disk, inode: InodeNumber) -> Result<bool> {
        let index = inode.0.saturating_sub(1);
        let group = u64::from(index.checked_div(self.inodes_per_group).unwrap_or(0));
        Ok(self.inode_table(disk, group)?.doubtful)
    }
}
