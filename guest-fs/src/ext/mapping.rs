//! From file blocks to volume blocks: extent trees (ext4) and block maps (ext2, ext3).

use super::{
    inode::Inode,
    layout::{BlockNumber, FileBlock, InodeFlags},
    superblock::Superblock,
};
use disk_io::{Disk, DiskError, Fields, Result};
use std::ops::Range;

/// Contiguous blocks of a file. What no run covers is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockRun {
    pub(super) first: FileBlock,
    /// In blocks, at least 1.
    pub(super) len: u64,
    /// `None`: allocated and never written, so it reads as zeros.
    pub(super) at: Option<BlockNumber>,
}

/// No file needs more: at 4 KiB a run this is 64 GiB in single scattered blocks.
const MAX_RUNS: usize = 16 << 20;
/// Nodes of a tree: at 340 extents each, more than files have runs.
const MAX_NODES: u64 = 1 << 22;
const EXTENT_MAGIC: u16 = 0xf30a;
const MAX_DEPTH: u16 = 5;
/// Lengths above this mark an extent that was never written.
const MAX_WRITTEN: u16 = 32_768;

/// The runs of a file, ascending and disjoint.
pub(super) fn runs(sb: &Superblock, disk: &dyn Disk, inode: &Inode) -> Result<Vec<BlockRun>> {
    let mut left = most_nodes(sb);
    runs_and_nodes(sb, disk, inode, &mut left, &mut |_| {})
}

/// A tree, and all trees of a volume together, have no more nodes than the volume has blocks: more
/// are visited only where nodes are shared, and then without end.
pub(super) fn most_nodes(sb: &Superblock) -> u64 {
    sb.blocks_count.min(MAX_NODES)
}

/// What a tree has besides runs that are read.
pub(super) enum Seen<'a> {
    /// A block of the tree: its number, its contents, whether it is one of an extent tree.
    Node(BlockNumber, &'a [u8], bool),
    /// Blocks that are allocated and were never written.
    Unwritten(Range<u64>),
    /// A pointer of a block map that lies behind the size of the file; not followed.
    Beyond,
}

/// The same; `node` is shown what else the tree has. At most `left` nodes are visited, and taken from it.
pub(super) fn runs_and_nodes(
    sb: &Superblock,
    disk: &dyn Disk,
    inode: &Inode,
    left: &mut u64,
    node: &mut dyn FnMut(Seen<'_>),
) -> Result<Vec<BlockRun>> {
    let mut walk = Walk {
        sb,
        disk,
        left,
        node,
        runs: Vec::new(),
        blocks: inode.size.div_ceil(sb.block_size.into()),
    };
    let place = inode.place.saturating_add(0x28);
    if inode.has(InodeFlags::EXTENTS) {
        walk.extent_node(&inode.block, place, None)?;
    } else {
        walk.block_map(&inode.block, place)?;
    }
    Ok(walk.runs)
}

struct Walk<'a> {
    sb: &'a Superblock,
    disk: &'a dyn Disk,
    left: &'a mut u64,
    node: &'a mut dyn FnMut(Seen<'_>),
    runs: Vec<BlockRun>,
    /// Length of the file in blocks: what lies beyond is not asked for.
    blocks: u64,
}

impl Walk<'_> {
    fn push(&mut self, run: BlockRun, place: u64) -> Result<()> {
        if let Some(at) = run.at {
            let end = at.0.saturating_add(run.len);
            if at.0 == 0 || end > self.sb.blocks_count {
                return Err(DiskError::corrupt("reading an extent")
                    .offset(place)
                    .expected(format!("blocks 1 to {}", self.sb.blocks_count))
                    .found(format!("{} blocks from {}", run.len, at.0)));
            }
        }
        if let Some(last) = self.runs.last_mut() {
            let end = last.first.0.saturating_add(last.len);
            if run.first.0 < end {
                return Err(DiskError::corrupt("reading an extent")
                    .offset(place)
                    .expected(format!("a file block from {end} on"))
                    .found(run.first.0.to_string()));
            }
            let next = last.at.map(|at| BlockNumber(at.0.saturating_add(last.len)));
            if run.first.0 == end && next == run.at {
                last.len = last.len.saturating_add(run.len);
                return Ok(());
            }
        }
        if self.runs.len() >= MAX_RUNS {
            return Err(DiskError::refused("reading the extents of a file")
                .expected(format!("at most {MAX_RUNS} of them")));
        }
        self.runs.push(run);
        Ok(())
    }

    /// One node of an extent tree. `depth` is what its parent promises.
    fn extent_node(&mut self, bytes: &[u8], place: u64, depth: Option<u16>) -> Result<()> {
        let f = Fields::new(bytes, place, "extent tree node");
        if f.u16_le(0)? != EXTENT_MAGIC {
            return Err(f
                .corrupt(0, "the magic")
                .expected("0xf30a")
                .found(format!("{:#06x}", f.u16_le(0)?)));
        }
        let (entries, own) = (f.u16_le(2)?, f.u16_le(6)?);
        if depth.map_or(own > MAX_DEPTH, |d| own != d) {
            return Err(f
                .corrupt(6, "the depth")
                .expected(depth.map_or(format!("at most {MAX_DEPTH}"), |d| d.to_string()))
                .found(own.to_string()));
        }
        for i in 0..usize::from(entries) {
            let at = i.saturating_add(1).saturating_mul(12);
            let first = FileBlock(f.u32_le(at)?.into());
            let field = |n: usize| at.saturating_add(n);
            if own == 0 {
                let len = f.u16_le(field(4))?;
                let start = u64::from(f.u32_le(field(8))?) | u64::from(f.u16_le(field(6))?) << 32;
                let written = len <= MAX_WRITTEN;
                let len = if written {
                    len
                } else {
                    len.saturating_sub(MAX_WRITTEN)
                };
                if len == 0 {
                    return Err(f.corrupt(field(4), "the length of an extent").found("0"));
                }
                let run = BlockRun {
                    first,
                    len: len.into(),
                    at: written.then_some(BlockNumber(start)),
                };
                if !written {
                    let end = start.saturating_add(run.len);
                    (self.node)(Seen::Unwritten(start..end));
                }
                self.push(run, f.place(at))?;
            } else {
                let child = u64::from(f.u32_le(field(4))?) | u64::from(f.u16_le(field(8))?) << 32;
                let (bytes, place) = self.block(BlockNumber(child))?;
                (self.node)(Seen::Node(BlockNumber(child), &bytes, true));
                self.extent_node(&bytes, place, own.checked_sub(1))?;
            }
        }
        Ok(())
    }

    fn block(&mut self, block: BlockNumber) -> Result<(Vec<u8>, u64)> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| {
            DiskError::corrupt("reading the extents of a file")
                .expected("no more nodes than the volume has blocks")
                .found("more: nodes that lead to each other, or have several parents")
        })?;
        let place = self.sb.offset(block)?;
        let mut bytes = vec![0; self.sb.block_size as usize];
        self.disk.read_exact_at(&mut bytes, place)?;
        Ok((bytes, place))
    }

    /// Twelve direct pointers, then one each of single, double and triple indirection.
    fn block_map(&mut self, pointers: &[u8; 60], place: u64) -> Result<()> {
        let f = Fields::new(pointers, place, "block map");
        let mut next = 0;
        for i in 0..15usize {
            let level = u32::try_from(i).unwrap_or(0).saturating_sub(11);
            let pointer = f.u32_le(i.saturating_mul(4))?;
            self.indirect(pointer, level, &mut next, place)?;
        }
        Ok(())
    }

    fn indirect(&mut self, pointer: u32, level: u32, next: &mut u64, place: u64) -> Result<()> {
        if *next >= self.blocks {
            if pointer != 0 {
                (self.node)(Seen::Beyond);
            }
            return Ok(());
        }
        let per_block = u64::from(self.sb.block_size / 4);
        if pointer == 0 {
            *next = next.saturating_add(per_block.saturating_pow(level));
            return Ok(());
        }
        if level == 0 {
            let run = BlockRun {
                first: FileBlock(*next),
                len: 1,
                at: Some(BlockNumber(pointer.into())),
            };
            *next = next.saturating_add(1);
            return self.push(run, place);
        }
        let (bytes, place) = self.block(BlockNumber(pointer.into()))?;
        (self.node)(Seen::Node(BlockNumber(pointer.into()), &bytes, false));
        for chunk in bytes.chunks_exact(4) {
            let pointer = Fields::new(chunk, place, "block map").u32_le(0)?;
            self.indirect(pointer, level.saturating_sub(1), next, place)?;
        }
        Ok(())
    }
}
