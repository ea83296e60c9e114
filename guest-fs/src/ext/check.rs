//! Structures of an ext volume held against each other: checksums, blocks that two files have,
//! blocks and inodes that bitmaps call free, names that lead nowhere.

mod attributes;
mod names;

use super::{
    Ext,
    inode::Inode,
    layout::{BlockNumber, CompatFeatures, InodeFlags, InodeNumber, ROOT, RoCompatFeatures},
    mapping::{self, Seen},
    open::SUPERBLOCK_SUM,
    sums::{self, Sums, Wrong},
    superblock::{Group, SUPERBLOCK_OFFSET, Superblock},
};
use crate::{
    NodeKind,
    runs_held::{MOST, Runs, Sorted},
    told::{EACH, Told},
};
use attributes::Attributes;
use disk_io::{
    Disk, DiskError, ErrorKind, Finding, Result,
    finding::{Visit, join},
};
use names::Names;
use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

/// Groups that are looked at: of a volume of 512 TiB.
const MAX_GROUPS: u64 = 1 << 22;
/// The inode that stands for the volume's own structures.
const VOLUME: u32 = 0;
/// The inode of blocks kept for more group descriptors: its map is like no file's.
const RESIZE: u32 = 7;

struct Check<'a> {
    fs: &'a Ext,
    sums: Option<Sums>,
    runs: Runs,
    /// Blocks of attributes, which inodes share.
    attributes: HashMap<u64, Attributes>,
    names: Names,
    /// Nodes of trees that may still be visited, and bytes of directories that may be read: a
    /// sound volume has each block once.
    nodes_left: u64,
    directories_left: u64,
    told: Told,
    visit: Visit<'a>,
}

impl Ext {
    /// Visits what is not as it should be.
    pub(super) fn check_volume(&self, visit: Visit<'_>) -> Result<()> {
        let mut check = Check {
            fs: self,
            sums: Sums::of(&self.sb),
            runs: Runs::default(),
            attributes: HashMap::new(),
            names: Names::default(),
            nodes_left: mapping::most_nodes(&self.sb),
            directories_left: self.sb.size().min(self.volume.len()),
            told: Told::default(),
            visit,
        };
        check.superblock()?;
        check.journal();
        if self.sb.groups() > MAX_GROUPS {
            let e = DiskError::refused("checking an ext volume")
                .expected(format!("at most {MAX_GROUPS} block groups"))
                .found(self.sb.groups().to_string());
            check.tell(Finding::note("ext-too-large", e));
            return Ok(());
        }
        let groups = check.groups()?;
        for (number, group) in (0..).zip(&groups) {
            if let Some(group) = group {
                check.inodes(number, group)?;
            }
        }
        check.finish_attributes();
        check.finish_names();
        check.blocks(&groups)?;
        check.told.finish(check.visit);
        Ok(())
    }
}

/// A wrong sum as an error.
fn wrong(what: String, place: u64, wrong: Wrong) -> DiskError {
    DiskError::corrupt(format!("checking {what}"))
        .offset(place)
        .expected(format!("checksum {:#010x}", wrong.sum))
        .found(format!("{:#010x}", wrong.stored))
}

impl Check<'_> {
    fn sb(&self) -> &Superblock {
        &self.fs.sb
    }

    /// Whether descriptors say what was never written: only where they have sums themselves.
    fn is_lazy(&self) -> bool {
        self.sums.is_some() || self.sb().ro_compat & RoCompatFeatures::GDT_CSUM != 0
    }

    fn disk(&self) -> &dyn Disk {
        &*self.fs.volume
    }

    fn tell(&mut self, finding: Finding) {
        self.told.tell(finding, self.visit);
    }

    /// Tells of damage; a device that fails ends the check.
    fn tell_or_fail(&mut self, e: DiskError, finding: impl Fn(DiskError) -> Finding) -> Result<()> {
        if e.kind() == ErrorKind::Io {
            return Err(e);
        }
        self.tell(finding(e));
        Ok(())
    }

    /// The superblock and the first of its copies.
    fn superblock(&mut self) -> Result<()> {
        let warning = |e| Finding::warning("ext-superblock-damaged", e);
        match Superblock::read(self.disk(), SUPERBLOCK_OFFSET) {
            Err(e) => return self.tell_or_fail(e, warning),
            Ok(_) if self.sums.is_some() => {
                let mut bytes = vec![0; 1024];
                self.disk().read_exact_at(&mut bytes, SUPERBLOCK_OFFSET)?;
                if let Some(bad) = Sums::superblock(&bytes) {
                    let e = wrong("the superblock".into(), SUPERBLOCK_OFFSET, bad);
                    self.tell(warning(e));
                }
            }
            Ok(_) => {}
        }
        if self.sb().compat & CompatFeatures::SPARSE_SUPER2 == 0 {
            for group in 1..self.sb().groups().min(MAX_GROUPS) {
                if self.sb().has_superblock(group) {
                    self.superblock_copy(group)?;
                }
            }
        }
        Ok(())
    }

    /// What is in the journal, and not in what is read.
    fn journal(&mut self) {
        for why in self.fs.doubts.iter().filter(|why| *why != SUPERBLOCK_SUM) {
            let e = DiskError::corrupt("replaying the ext journal").found(why);
            self.tell(Finding::damage("ext-journal-lost", e));
        }
    }

    /// A copy of the superblock; what the system counts there is as old as the volume.
    fn superblock_copy(&mut self, group: u64) -> Result<()> {
        let place = self
            .sb()
            .offset(BlockNumber(self.sb().first_block(group)))?;
        let differs = |e| Finding::warning("ext-superblock-copy-differs", e);
        let copy = match Superblock::read(self.disk(), place) {
            Ok(copy) => copy,
            Err(e) => {
                let what = format!("reading the copy of the superblock in block group {group}");
                return self.tell_or_fail(e.context(what), differs);
            }
        };
        let shape = |sb: &Superblock| {
            let Superblock {
                block_size,
                blocks_per_group,
                inodes_per_group,
                ..
            } = sb;
            (
                [*block_size, *blocks_per_group, *inodes_per_group],
                [sb.inode_size, sb.desc_size],
                sb.blocks_count,
                sb.uuid,
            )
        };
        if shape(&copy) != shape(self.sb()) {
            let e = DiskError::corrupt("comparing the superblock with its copies")
                .offset(place)
                .expected("the same sizes and UUID")
                .found(format!("others in block group {group}"));
            self.tell(differs(e));
        }
        Ok(())
    }

    /// Every group's descriptor, and the blocks of the volume's own structures.
    fn groups(&mut self) -> Result<Vec<Option<Group>>> {
        let mut groups = Vec::new();
        let mut tables: BTreeMap<u64, u64> = BTreeMap::new();
        for number in 0..self.sb().groups() {
            let group = match self.sb().group(self.disk(), number) {
                Ok(group) => group,
                Err(e) => {
                    self.tell_or_fail(e, |e| Finding::damage("ext-group-damaged", e))?;
                    // What lies behind is behind the end of the volume too.
                    break;
                }
            };
            if let Some(bad) = sums::group(self.sb(), number, &group) {
                let what = format!("the descriptor of block group {number}");
                let e = wrong(what, group.place, bad);
                self.tell(Finding::damage("ext-group-damaged", e));
            }
            let table = self.table_blocks();
            let inside = |block: BlockNumber, count: u64| {
                block.0 != 0 && block.0.saturating_add(count) <= self.sb().blocks_count
            };
            let sound = inside(group.block_bitmap, 1)
                && inside(group.inode_bitmap, 1)
                && inside(group.inode_table, table);
            let (start, end) = (
                group.inode_table.0,
                group.inode_table.0.saturating_add(table),
            );
            let overlaps = tables
                .range(..end)
                .next_back()
                .is_some_and(|t| *t.1 > start);
            if sound && !overlaps {
                tables.insert(start, end);
            }
            if !sound || overlaps {
                let e =
                    DiskError::corrupt(format!("reading the descriptor of block group {number}"))
                        .offset(group.place)
                        .expected("bitmaps and an inode table of its own inside the volume")
                        .found(format!(
                            "bitmaps in blocks {} and {}, a table from block {} on",
                            group.block_bitmap.0, group.inode_bitmap.0, group.inode_table.0
                        ));
                self.tell(Finding::damage("ext-group-damaged", e));
                groups.push(None);
                continue;
            }
            self.claim(VOLUME, group.block_bitmap.0, 1);
            self.claim(VOLUME, group.inode_bitmap.0, 1);
            self.claim(VOLUME, group.inode_table.0, table);
            for (first, count) in self.sb().group_metadata(number) {
                self.claim(VOLUME, first, count);
            }
            groups.push(Some(group));
        }
        Ok(groups)
    }

    fn table_blocks(&self) -> u64 {
        let bytes =
            u64::from(self.sb().inodes_per_group).saturating_mul(self.sb().inode_size.into());
        bytes.div_ceil(self.sb().block_size.into())
    }

    fn claim(&mut self, inode: u32, first: u64, count: u64) {
        self.runs.add(inode, first..first.saturating_add(count));
    }

    /// The inodes of one group.
    fn inodes(&mut self, number: u64, group: &Group) -> Result<()> {
        let uninit = self.is_lazy() && group.flags & Group::INODE_UNINIT != 0;
        let per_group = self.sb().inodes_per_group;
        let first = number.saturating_mul(per_group.into()).saturating_add(1);
        let bits = self.inode_bitmap(number, group)?;
        if uninit {
            return Ok(());
        }
        let size = usize::from(self.sb().inode_size);
        let table = self.sb().offset(group.inode_table)?;
        let used = match self.is_lazy() {
            true => per_group.saturating_sub(group.unused_inodes),
            false => per_group,
        };
        let end = table.saturating_add(u64::from(used).saturating_mul(size as u64));
        let end = end.min(self.disk().len());
        let mut at = table;
        while at < end {
            let run = self.disk().run_at(at)?;
            let step = run.len.min(end.saturating_sub(at)).min(1 << 20);
            // Whole inodes: they begin at multiples of their size.
            let step = step
                .next_multiple_of(size as u64)
                .min(end.saturating_sub(at));
            if run.kind != disk_io::RunKind::Data && run.len >= step {
                at = at.saturating_add(step);
                continue;
            }
            let mut bytes = vec![0; step as usize];
            self.disk().read_exact_at(&mut bytes, at)?;
            for (place, bytes) in (at..).step_by(size).zip(bytes.chunks_exact(size)) {
                let index = place
                    .saturating_sub(table)
                    .checked_div(size as u64)
                    .unwrap_or(0);
                let Ok(inode) = u32::try_from(first.saturating_add(index)) else {
                    return Ok(());
                };
                if disk_io::zero::is_zero(bytes) {
                    continue;
                }
                let index = index as usize;
                let free = bits
                    .as_ref()
                    .and_then(|b| b.get(index / 8))
                    .is_some_and(|b| b >> (index % 8) & 1 == 0);
                self.inode(InodeNumber(inode), bytes, place, free)?;
            }
            at = at.saturating_add(step);
        }
        Ok(())
    }

    /// The bitmap of a group's inodes, if it can be believed.
    fn inode_bitmap(&mut self, number: u64, group: &Group) -> Result<Option<Vec<u8>>> {
        if self.is_lazy() && group.flags & Group::INODE_UNINIT != 0 {
            return Ok(None);
        }
        let place = self.sb().offset(group.inode_bitmap)?;
        let mut bits = vec![0; (self.sb().inodes_per_group / 8) as usize];
        if let Err(e) = self.disk().read_exact_at(&mut bits, place) {
            self.tell_or_fail(e, |e| Finding::warning("ext-bitmap-damaged", e))?;
            return Ok(None);
        }
        if let Some(bad) = self.sums.and_then(|s| s.bitmap(&bits, group, 0x1a, 0x3a)) {
            let what = format!("the inode bitmap of block group {number}");
            self.tell(Finding::warning(
                "ext-bitmap-damaged",
                wrong(what, place, bad),
            ));
            return Ok(None);
        }
        Ok(Some(bits))
    }

    fn inode(&mut self, number: InodeNumber, bytes: &[u8], place: u64, free: bool) -> Result<()> {
        let record = u64::from(number.0);
        let damaged = |e| Finding::damage("ext-inode-damaged", e).about(record);
        let inode = match Inode::parse(self.sb(), bytes, place, number) {
            Ok(inode) => inode,
            Err(e) => return self.tell_or_fail(e, damaged),
        };
        if inode.is_odd_root() {
            let e = DiskError::corrupt("reading the inode of the root directory")
                .offset(place)
                .expected("a directory in use")
                .found("a mode or a number of links that says otherwise");
            self.tell(damaged(e));
        }
        if !inode.in_use() && number != ROOT {
            return Ok(());
        }
        let sums = self.sums.map(|s| s.of_inode(number, bytes));
        if let Some(bad) = sums.and_then(|s| s.inode(bytes)) {
            self.tell(damaged(wrong(format!("inode {}", number.0), place, bad)));
        }
        if free {
            let e = DiskError::corrupt("holding the inode bitmap against inodes")
                .expected(format!("inode {} to be in use", number.0))
                .found("one that is called free");
            self.tell(Finding::warning("ext-inode-called-free", e).about(record));
        }
        // The first ten are the volume's own.
        let user = number.0 == super::ROOT.0 || number.0 > 10;
        if user && !self.sb().nameless.contains(&number) && !inode.has(InodeFlags::EA_INODE) {
            self.names.inode(
                number.0,
                inode.links,
                inode.kind() == Some(NodeKind::Directory),
            );
        }
        self.attributes(&inode)?;
        let directory = inode.kind() == Some(NodeKind::Directory);
        if !self.has_blocks(&inode) || number.0 == RESIZE {
            return match directory {
                true => self.directory(&inode, None),
                false => Ok(()),
            };
        }
        let mut nodes: Vec<(BlockNumber, Option<Wrong>)> = Vec::new();
        let mut unwritten: Vec<Range<u64>> = Vec::new();
        let runs = mapping::runs_and_nodes(
            &self.fs.sb,
            &*self.fs.volume,
            &inode,
            &mut self.nodes_left,
            &mut |seen| match seen {
                Seen::Node(block, bytes, extents) => {
                    let bad = sums.filter(|_| extents).and_then(|s| s.extent_block(bytes));
                    nodes.push((block, bad));
                }
                Seen::Unwritten(blocks) => join(&mut unwritten, blocks),
                Seen::Beyond => {}
            },
        );
        for blocks in unwritten {
            if blocks.start == 0 || blocks.end > self.sb().blocks_count {
                let e = DiskError::corrupt(format!("reading the extents of inode {}", number.0))
                    .offset(place)
                    .expected(format!("blocks 1 to {}", self.sb().blocks_count))
                    .found(format!("blocks {} to {}", blocks.start, blocks.end));
                self.tell(damaged(e));
            } else {
                self.runs.add(number.0, blocks);
            }
        }
        for (block, bad) in nodes {
            self.claim(number.0, block.0, 1);
            if let Some(bad) = bad {
                let what = format!("an extent block of inode {}", number.0);
                let place = self.sb().offset(block)?;
                self.tell(damaged(wrong(what, place, bad)));
            }
        }
        let runs = match runs {
            Ok(runs) => runs,
            Err(e) => {
                let e = e.context(format!("reading the extents of inode {}", number.0));
                return self.tell_or_fail(e, damaged);
            }
        };
        for run in &runs {
            if let Some(at) = run.at {
                self.claim(number.0, at.0, run.len);
            }
        }
        match directory {
            true => self.directory(&inode, sums),
            false => Ok(()),
        }
    }

    /// Whether blocks are mapped by the inode, and not its own bytes used.
    fn has_blocks(&self, inode: &Inode) -> bool {
        match inode.kind() {
            Some(NodeKind::Special) => false,
            _ if inode.has(InodeFlags::INLINE_DATA) => false,
            Some(NodeKind::Symlink) => inode.has(InodeFlags::EXTENTS) || inode.size >= 60,
            _ => true,
        }
    }

    /// Blocks that two have, and blocks in use that the bitmaps call free.
    fn blocks(&mut self, groups: &[Option<Group>]) -> Result<()> {
        let Some(runs) = std::mem::take(&mut self.runs).sorted() else {
            let e = DiskError::refused("holding files' blocks against each other")
                .expected(format!("at most {MOST} runs"));
            self.tell(Finding::note("ext-too-large", e));
            return Ok(());
        };
        if self.sb().ro_compat & RoCompatFeatures::SHARED_BLOCKS == 0 {
            self.shared(&runs);
        }
        if self.sb().ro_compat & RoCompatFeatures::BIGALLOC == 0 {
            self.bitmaps(groups, &runs)?;
        }
        Ok(())
    }

    fn bytes(&self, blocks: &Range<u64>) -> Range<u64> {
        let byte = |n: u64| n.saturating_mul(self.sb().block_size.into());
        byte(blocks.start)..byte(blocks.end)
    }

    fn shared(&mut self, runs: &Sorted) {
        runs.shared(&mut |both, one, other| {
            let name = |inode| match inode {
                VOLUME => "in the volume's own structures".to_owned(),
                inode => format!("in inode {inode}"),
            };
            let e = DiskError::corrupt("holding files' blocks against each other")
                .expected("each block in one file")
                .found(format!(
                    "blocks {} to {} {} and {}",
                    both.start,
                    both.end.saturating_sub(1),
                    name(one),
                    name(other)
                ));
            let ranges = [self.bytes(&both)];
            let mut finding = Finding::damage("ext-blocks-shared", e).touching(ranges);
            let files = [one, other].into_iter().filter(|i| *i != VOLUME);
            finding.nodes.extend(files.map(u64::from));
            self.tell(finding);
        });
    }

    fn bitmaps(&mut self, groups: &[Option<Group>], runs: &Sorted) -> Result<()> {
        let mut wrong_blocks: Vec<Range<u64>> = Vec::new();
        let mut first = None;
        let mut runs = runs.once().peekable();
        for (number, group) in (0u64..).zip(groups) {
            let start = self.sb().first_block(number);
            let count = u64::from(self.sb().blocks_per_group);
            let count = count.min(self.sb().blocks_count.saturating_sub(start));
            let Some(bits) = group
                .as_ref()
                .map(|group| self.block_bitmap(number, group))
                .transpose()?
                .flatten()
            else {
                continue;
            };
            let end = start.saturating_add(count);
            while runs.next_if(|(run, _)| run.end <= start).is_some() {}
            // The last may go on in the next group.
            while let Some((run, inode)) = runs.peek().filter(|(run, _)| run.start < end) {
                for block in run.start.max(start)..run.end.min(end) {
                    let index = block.saturating_sub(start);
                    let byte = bits.get((index / 8) as usize).copied().unwrap_or(0xff);
                    if byte >> (index % 8) & 1 == 0 {
                        first.get_or_insert(*inode);
                        join(&mut wrong_blocks, block..block.saturating_add(1));
                    }
                }
                if run.end > end {
                    break;
                }
                runs.next();
            }
        }
        let Some(inode) = first else {
            return Ok(());
        };
        let lost: u64 = wrong_blocks
            .iter()
            .map(|r| r.end.saturating_sub(r.start))
            .sum();
        let e = DiskError::corrupt("holding the block bitmaps against files")
            .expected("every file's blocks to be in use")
            .found(format!(
                "{lost} blocks that are called free, the first of inode {inode}"
            ));
        wrong_blocks.truncate(EACH);
        let ranges: Vec<_> = wrong_blocks.iter().map(|b| self.bytes(b)).collect();
        self.tell(Finding::warning("ext-bitmap-free", e).touching(ranges));
        Ok(())
    }

    /// The bitmap of a group's blocks, if it can be believed.
    fn block_bitmap(&mut self, number: u64, group: &Group) -> Result<Option<Vec<u8>>> {
        if group.flags & Group::BLOCK_UNINIT != 0 {
            return Ok(None);
        }
        let place = self.sb().offset(group.block_bitmap)?;
        let mut bits = vec![0; self.sb().block_size as usize];
        if let Err(e) = self.disk().read_exact_at(&mut bits, place) {
            self.tell_or_fail(e, |e| Finding::warning("ext-bitmap-damaged", e))?;
            return Ok(None);
        }
        let summed = bits.get(..(self.sb().blocks_per_group / 8) as usize);
        let bad = |s: Sums| s.bitmap(summed.unwrap_or(&bits), group, 0x18, 0x38);
        if let Some(bad) = self.sums.and_then(bad) {
            let what = format!("the block bitmap of block group {number}");
            self.tell(Finding::warning(
                "ext-bitmap-damaged",
                wrong(what, place, bad),
            ));
            return Ok(None);
        }
        Ok(Some(bits))
    }
}
