//! Where the inode tables are.
//!
//! A group's descriptor with a wrong place of its table gives each of its inodes the name of
//! another one. So its checksum is looked at before it is believed; its copies, which no system
//! writes while it runs, still have the place as it was made.

use super::{
    layout::{BlockNumber, CompatFeatures, IncompatFeatures, RoCompatFeatures},
    sums,
    superblock::{Group, Superblock},
};
use disk_io::{Disk, Result};
use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

/// More groups than these, and all are looked up anew.
const KNOWN: usize = 1 << 16;
/// Copies that are asked.
const COPIES: usize = 16;

/// The inode table of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) first: BlockNumber,
    /// Nothing vouches for it, though there are checksums.
    pub(super) doubtful: bool,
}

/// Those that were looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables(Arc<RwLock<HashMap<u64, Table>>>);

impl Tables {
    fn get(&self, group: u64) -> Option<Table> {
        let known = self.0.read().unwrap_or_else(|e| e.into_inner());
        known.get(&group).copied()
    }

    fn put(&self, group: u64, table: Table) {
        let mut known = self.0.write().unwrap_or_else(|e| e.into_inner());
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(group, table);
    }
}

impl Superblock {
    /// The inode table of a group, by its descriptor or by the first good copy of that.
    pub(super) fn inode_table(&self, disk: &dyn Disk, group: u64) -> Result<Table> {
        if let Some(known) = self.tables.get(group) {
            return Ok(known);
        }
        let own = self.group(disk, group);
        if let Ok(own) = &own
            && self.is_good(group, own)
        {
            let table = Table {
                first: own.inode_table,
                doubtful: false,
            };
            self.tables.put(group, table);
            return Ok(table);
        }
        let copy = self
            .copies_of_descriptor(group)
            .into_iter()
            .filter_map(|place| self.group_at(disk, group, place).ok())
            .find(|copy| self.is_good(group, copy));
        let table = match (copy, own) {
            (Some(copy), _) => Table {
                first: copy.inode_table,
                // Without a checksum the copy is no better than what it replaces.
                doubtful: !self.has_group_sums(),
            },
            (None, own) => Table {
                first: own?.inode_table,
                doubtful: true,
            },
        };
        self.tables.put(group, table);
        Ok(table)
    }

    fn has_group_sums(&self) -> bool {
        let sums = RoCompatFeatures::METADATA_CSUM | RoCompatFeatures::GDT_CSUM;
        self.ro_compat & sums != 0
    }

    fn is_good(&self, number: u64, group: &Group) -> bool {
        let inside = group.inode_table.0 != 0 && group.inode_table.0 < self.blocks_count;
        inside && sums::group(self, number, group).is_none()
    }

    /// Byte offset of the descriptor of a group.
    pub(super) fn descriptor_offset(&self, group: u64) -> u64 {
        let (chunk, inside) = self.chunk(group);
        // The table follows the superblock, which stands in block 1 if blocks are of 1 KiB,
        // even where the first group begins at block 0 (bigalloc).
        let table = if self.block_size == 1024 { 2u64 } else { 1 };
        let at_block = if self.is_meta(chunk) {
            // Each meta group keeps its own descriptors, behind its superblock copy if any.
            let first = chunk.saturating_mul(self.descriptors_per_block());
            let behind = u64::from(self.has_superblock(first));
            self.first_block(first)
                .saturating_add(behind)
                .max(if first == 0 { table } else { 0 })
        } else {
            table.saturating_add(chunk)
        };
        self.in_block(at_block, inside)
    }

    /// Byte offsets of its copies.
    fn copies_of_descriptor(&self, group: u64) -> Vec<u64> {
        let (chunk, inside) = self.chunk(group);
        let behind = |group: u64| {
            let behind = u64::from(self.has_superblock(group));
            self.first_block(group).saturating_add(behind)
        };
        if self.is_meta(chunk) {
            // The second and the last group of those that share a block of them.
            let first = chunk.saturating_mul(self.descriptors_per_block());
            let last = first.saturating_add(self.descriptors_per_block().saturating_sub(1));
            let copies = [first.saturating_add(1), last].into_iter();
            let there = copies.filter(|g| *g < self.groups());
            return there.map(|g| self.in_block(behind(g), inside)).collect();
        }
        let at = |group: u64| {
            let block = self.first_block(group).saturating_add(1);
            self.in_block(block.saturating_add(chunk), inside)
        };
        if self.compat & CompatFeatures::SPARSE_SUPER2 != 0 {
            let two = self.two_copies.map(u64::from).into_iter();
            return two.filter(|g| *g != 0).map(at).collect();
        }
        let all = (1..self.groups()).filter(|g| self.has_superblock(*g));
        all.take(COPIES).map(at).collect()
    }

    fn descriptors_per_block(&self) -> u64 {
        u64::from(self.block_size)
            .checked_div(self.desc_size.into())
            .unwrap_or(1)
            .max(1)
    }

    /// Which block of descriptors has a group's, and which of them it is.
    fn chunk(&self, group: u64) -> (u64, u64) {
        let per_block = self.descriptors_per_block();
        (
            group.checked_div(per_block).unwrap_or(0),
            group.checked_rem(per_block).unwrap_or(0),
        )
    }

    fn is_meta(&self, chunk: u64) -> bool {
        self.incompat & IncompatFeatures::META_BG != 0 && chunk >= u64::from(self.first_meta_bg)
    }

    fn in_block(&self, block: u64, inside: u64) -> u64 {
        block
            .saturating_mul(self.block_size.into())
            .saturating_add(inside.saturating_mul(self.desc_size.into()))
    }
}
