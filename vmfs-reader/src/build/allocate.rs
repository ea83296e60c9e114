//! Gives out blocks, sub-blocks and pointer blocks, and writes what they hold.

use super::{
    Builder, FileSpec, Provision,
    metadata::{Inode, Shape},
    store::Store,
};
use disk_io::{Disk, RunKind};
use std::{collections::BTreeMap, sync::Arc};

/// Blocks without data that are to be zeroed hold this on the disk.
const GARBAGE: u8 = 0xEE;

pub(super) struct Plan<'a> {
    pub(super) b: &'a Builder,
    pub(super) six: bool,
    pub(super) block: u64,
    pub(super) next: u64,
    /// Free blocks that are kept for the system's files: ESX puts them on the head.
    pub(super) kept: (u64, u64),
    pub(super) used: BTreeMap<u64, u64>,
    pub(super) subs: Vec<Vec<u8>>,
    pub(super) pointer_blocks: Vec<Vec<u64>>,
    pub(super) store: Store,
}

/// Which pointer blocks a file uses.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Through {
    /// `.pbc.sf`, or the sub-blocks of VMFS-6.
    Usual,
    /// `.pb2.sf`: the system files of VMFS-6.
    Second,
}

impl Plan<'_> {
    pub(super) fn direct(&self) -> u64 {
        if self.six { 320 } else { 256 }
    }

    pub(super) fn per_table(&self) -> u64 {
        if self.six { 8192 } else { 1024 }
    }

    pub(super) fn sub_block(&self) -> u64 {
        if self.six { 65536 } else { 8192 }
    }

    pub(super) fn take(&mut self, count: u64) -> u64 {
        let start = self.next;
        self.next += count;
        self.mark(start, count);
        start
    }

    /// Blocks for a file of the system.
    pub(super) fn take_kept(&mut self, count: u64) -> u64 {
        let (start, end) = self.kept;
        if count > end - start {
            return self.take(count);
        }
        self.kept.0 += count;
        self.mark(start, count);
        start
    }

    pub(super) fn mark(&mut self, start: u64, count: u64) {
        match self.used.range_mut(..=start).next_back() {
            Some((_, end)) if *end == start => *end += count,
            _ => _ = self.used.insert(start, start + count),
        }
    }

    pub(super) fn is_used(&self, block: u64) -> bool {
        let before = self.used.range(..=block).next_back();
        before.is_some_and(|(_, end)| block < *end)
    }

    pub(super) fn block_address(&self, block: u64, zero: bool) -> u64 {
        if self.six {
            (block % 512) << 51 | (block / 512) << 15 | 1 | if zero { 0xFF << 7 } else { 0 }
        } else {
            block << 6 | 1 | if zero { 0x20 } else { 0 }
        }
    }

    pub(super) fn sub_address(&self, n: u64) -> u64 {
        if self.six {
            (n % 256) << 56 | (n / 256) << 6 | 2
        } else {
            let item = n % 64;
            (item & 15) << 28 | (item >> 4) << 3 | (n / 64) << 6 | 2
        }
    }

    pub(super) fn put_sub(&mut self, bytes: Vec<u8>) -> u64 {
        self.subs.push(bytes);
        self.sub_address(self.subs.len() as u64 - 1)
    }

    pub(super) fn table(&mut self, through: Through, table: Vec<u64>) -> u64 {
        if self.six && through == Through::Usual {
            return self.put_sub(table.iter().flat_map(|p| p.to_le_bytes()).collect());
        }
        self.pointer_blocks.push(table);
        let n = self.pointer_blocks.len() as u64 - 1;
        if self.six {
            (n % 32) << 56 | (n / 32) << 6 | 5
        } else {
            (n % 16) << 28 | (n / 16) << 6 | 3
        }
    }

    /// Fills in how `blocks` (index in the file to address) of `count` are addressed.
    pub(super) fn point(
        &mut self,
        inode: &mut Inode,
        blocks: BTreeMap<u64, u64>,
        count: u64,
        t: Through,
    ) {
        let per = self.per_table();
        let levels = match count {
            n if n <= self.direct() => 0,
            n if n <= self.direct() * per => 1,
            _ => 2,
        };
        inode.addressing = match (levels, t) {
            (0, _) => 1,
            (1, Through::Usual) => 3,
            (1, Through::Second) => 5,
            _ => 0x10D0,
        };
        let mut level = blocks;
        for _ in 0..levels {
            let mut tables: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for (index, address) in level {
                let table = tables.entry(index / per);
                table.or_insert_with(|| vec![0; per as usize])[(index % per) as usize] = address;
            }
            inode.pointer_blocks += tables.len() as u64;
            level = tables
                .into_iter()
                .map(|(index, table)| (index, self.table(t, table)))
                .collect();
        }
        inode.pointers = vec![0; self.direct() as usize];
        for (index, address) in level {
            inode.pointers[index as usize] = address;
        }
    }

    pub(super) fn contiguous(&mut self, inode: &mut Inode, start: u64, count: u64, t: Through) {
        let blocks = (0..count).map(|i| (i, self.block_address(start + i, false)));
        let blocks = blocks.collect();
        inode.blocks = count;
        inode.block_size = self.block;
        self.point(inode, blocks, count, t);
    }

    /// Contents that are metadata: inside, in sub-blocks, or in blocks.
    pub(super) fn small(&mut self, inode: &mut Inode, bytes: Vec<u8>, subs: u64, resident: bool) {
        inode.len = bytes.len() as u64;
        let sub = self.sub_block();
        let inside = if self.six { 3584 } else { 1024 };
        if resident && bytes.len() <= inside {
            inode.addressing = 0x10D1;
            inode.block_size = sub;
            inode.resident = bytes;
        } else if inode.len <= sub * subs {
            inode.addressing = 2;
            inode.block_size = sub;
            let chunks: Vec<Vec<u8>> = bytes.chunks(sub as usize).map(<[u8]>::to_vec).collect();
            inode.blocks = chunks.len() as u64;
            inode.pointers = chunks.into_iter().map(|c| self.put_sub(c)).collect();
        } else {
            let count = inode.len.div_ceil(self.block);
            let start = self.take(count);
            self.store.put(start * self.block, bytes);
            self.contiguous(inode, start, count, Through::Usual);
        }
    }

    pub(super) fn file(&mut self, inode: &mut Inode, disk: &Arc<dyn Disk>, spec: &FileSpec) {
        let len = disk.len();
        inode.len = len;
        if spec.provision == Provision::Small && len <= self.sub_block() {
            let mut bytes = vec![0; len as usize];
            disk.read_exact_at(&mut bytes, 0).unwrap();
            return self.small(inode, bytes, 1, true);
        }
        inode.block_size = self.block;
        let count = len.div_ceil(self.block);
        // Ranges of blocks with data.
        let mut data: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        while at < len {
            let run = disk.run_at(at).unwrap();
            if run.kind == RunKind::Data {
                let (from, to) = (at / self.block, (at + run.len).div_ceil(self.block));
                match data.last_mut() {
                    Some(last) if last.1 >= from => last.1 = last.1.max(to),
                    _ => data.push((from, to)),
                }
            }
            at += run.len;
        }
        let thin = matches!(spec.provision, Provision::Small | Provision::Thin);
        let wanted = if thin { data.clone() } else { vec![(0, count)] };
        let mut blocks = BTreeMap::new();
        for (from, to) in wanted {
            let step = if spec.gap == 0 { to - from } else { 1 };
            let mut at = from;
            while at < to {
                let start = self.take(step);
                self.next += spec.gap;
                for i in 0..step {
                    let index = at + i;
                    let after = data.partition_point(|r| r.0 <= index);
                    let has = after > 0 && index < data[after - 1].1;
                    let zero = !has && spec.provision == Provision::LazyZeroed;
                    blocks.insert(index, self.block_address(start + i, zero));
                    if zero {
                        inode.zeroing += 1;
                        let garbage = vec![GARBAGE; 4096];
                        self.store.put((start + i) * self.block, garbage);
                    } else if has && spec.provision == Provision::LazyZeroed {
                        let from = index * self.block;
                        let n = self.block.min(len - from);
                        self.store.put_disk((start + i) * self.block, disk, from, n);
                    }
                }
                if spec.provision != Provision::LazyZeroed {
                    let from = at * self.block;
                    let n = (step * self.block).min(len - from);
                    self.store.put_disk(start * self.block, disk, from, n);
                }
                at += step;
            }
        }
        inode.blocks = blocks.len() as u64;
        self.point(inode, blocks, count, Through::Usual);
    }

    /// Headers of clusters; of huge volumes only those that are in use.
    pub(super) fn clusters(&mut self, shape: &Shape, start: u64, used: &dyn Fn(u64) -> bool) {
        let clusters = shape.total.div_ceil(shape.per_cluster.max(1));
        for cluster in 0..clusters {
            let range = cluster * shape.per_cluster..(cluster + 1) * shape.per_cluster;
            if clusters > 4096 && !range.clone().any(used) {
                continue;
            }
            let place = start * self.block + shape.cluster(cluster);
            let header = shape.cluster_header(self.six, cluster, place, used);
            self.store.put(place, header.0);
        }
    }
}
