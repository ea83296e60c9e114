//! Address spaces and feature bits of ext2, ext3 and ext4.

/// A block of the volume, in units of the block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BlockNumber(pub(super) u64);

/// A block of a file, in units of the block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileBlock(pub(super) u64);

/// An inode, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InodeNumber(pub(super) u32);

/// Inode of the root directory.
pub(super) const ROOT: InodeNumber = InodeNumber(2);

/// Features that a reader may ignore.
pub(super) struct CompatFeatures;
impl CompatFeatures {
    pub(super) const HAS_JOURNAL: u32 = 0x4;
    /// Blocks are kept for more descriptors.
    pub(super) const RESIZE_INODE: u32 = 0x10;
    /// The copies of the superblock are in other places.
    pub(super) const SPARSE_SUPER2: u32 = 0x200;
}

/// Features that a writer must know.
pub(super) struct RoCompatFeatures;
impl RoCompatFeatures {
    pub(super) const SPARSE_SUPER: u32 = 0x1;
    pub(super) const HUGE_FILE: u32 = 0x8;
    /// Descriptors have CRC-16 sums.
    pub(super) const GDT_CSUM: u32 = 0x10;
    /// Bitmaps count clusters of several blocks.
    pub(super) const BIGALLOC: u32 = 0x200;
    /// Metadata has CRC-32C sums.
    pub(super) const METADATA_CSUM: u32 = 0x400;
    /// Files share blocks.
    pub(super) const SHARED_BLOCKS: u32 = 0x4000;
    /// Inodes are in the file of orphans.
    pub(super) const ORPHAN_PRESENT: u32 = 0x1_0000;
    /// What ext3 may have: sparse_super, large_file, btree_dir.
    pub(super) const EXT3: u32 = 0x7;
}

/// Features that a reader must know.
pub(super) struct IncompatFeatures;
impl IncompatFeatures {
    pub(super) const FILETYPE: u32 = 0x2;
    pub(super) const RECOVER: u32 = 0x4;
    pub(super) const META_BG: u32 = 0x10;
    const EXTENTS: u32 = 0x40;
    pub(super) const BIT64: u32 = 0x80;
    const MMP: u32 = 0x100;
    const FLEX_BG: u32 = 0x200;
    pub(super) const EA_INODE: u32 = 0x400;
    pub(super) const CSUM_SEED: u32 = 0x2000;
    const LARGEDIR: u32 = 0x4000;
    const INLINE_DATA: u32 = 0x8000;
    const ENCRYPT: u32 = 0x1_0000;
    const CASEFOLD: u32 = 0x2_0000;
    /// What ext3 may have: filetype, recover, meta_bg.
    pub(super) const EXT3: u32 = 0x16;
    /// What this reader knows. Encrypted files are refused one by one; names of
    /// case-folding directories are found exactly.
    pub(super) const READ: u32 = Self::FILETYPE
        | Self::RECOVER
        | Self::META_BG
        | Self::EXTENTS
        | Self::BIT64
        | Self::MMP
        | Self::FLEX_BG
        | Self::EA_INODE
        | Self::CSUM_SEED
        | Self::LARGEDIR
        | Self::INLINE_DATA
        | Self::ENCRYPT
        | Self::CASEFOLD;

    /// The first unknown feature by the name that `dumpe2fs` gives it.
    pub(super) fn name(bits: u32) -> String {
        match bits & bits.wrapping_neg() {
            0x1 => "compression".into(),
            0x8 => "journal_dev: this is an external journal, not a file system".into(),
            0x1000 => "dirdata".into(),
            bit => format!("FEATURE_I{}", bit.trailing_zeros()),
        }
    }
}

/// Inode flags.
pub(super) struct InodeFlags;
impl InodeFlags {
    pub(super) const COMPRESSED: u32 = 0x4;
    /// A directory with an index.
    pub(super) const INDEX: u32 = 0x1000;
    /// Holds an extended attribute of another inode.
    pub(super) const EA_INODE: u32 = 0x20_0000;
    pub(super) const ENCRYPTED: u32 = 0x800;
    /// Has more blocks than its size says: fs-verity's sums, or room that was asked for.
    pub(super) const BEYOND_SIZE: u32 = 0x10_0000 | 0x40_0000;
    pub(super) const HUGE_FILE: u32 = 0x4_0000;
    pub(super) const EXTENTS: u32 = 0x8_0000;
    pub(super) const INLINE_DATA: u32 = 0x1000_0000;
}
