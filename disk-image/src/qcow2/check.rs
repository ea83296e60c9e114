//! Reference counts against references: what a writer would trust, and a reader never needs.

use super::{
    decode,
    header::Header,
    read_table,
    snapshots::{self, Snapshot},
};
use disk_io::{Disk, DiskError, Fields, Finding, Opened, Result, finding::Visit};
use std::collections::BTreeMap;

/// Bits 9 to 55: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Most clusters whose references are counted: 256 MiB of counters, 8 TiB of 64 KiB
/// clusters.
const MOST: u64 = 1 << 27;
/// Findings of one kind that are told one by one.
const TOLD: u64 = 32;

/// Visits what is wrong with the file's own bookkeeping.
pub(crate) fn check(source: &Opened, visit: Visit<'_>) -> Result<()> {
    let header = Header::read(&*source.disk)?;
    let name = source.path.display().to_string();
    let said = |found: &str| {
        DiskError::corrupt("reading the qcow2 header")
            .file(&name)
            .offset(72)
            .found(found)
    };
    if header.dirty {
        let e = said("the dirty bit: the image was not closed cleanly");
        visit(Finding::warning("unclean-shutdown", e));
    }
    if header.corrupt {
        let e = said("the corrupt bit: the program that wrote it found it damaged");
        visit(Finding::warning("marked-corrupt", e));
    }
    let mut raw = [0; 104];
    let len = raw
        .len()
        .min(usize::try_from(source.disk.len()).unwrap_or(0));
    source
        .disk
        .read_exact_at(raw.get_mut(..len).unwrap_or_default(), 0)?;
    let f = Fields::new(&raw, 0, "qcow2 header");
    let order = if header.version < 3 { 4 } else { f.u32_be(96)? };
    let clusters = source.disk.len().div_ceil(header.cluster_size());
    if clusters > MOST || order > 6 {
        let e = DiskError::refused("counting references")
            .file(&name)
            .expected(format!(
                "at most {MOST} clusters, counts of at most 64 bits"
            ))
            .found(format!("{clusters} clusters, 2^{order} bits"));
        visit(Finding::note("refcounts-unchecked", e));
        return Ok(());
    }
    let mut count = Count {
        disk: &*source.disk,
        name,
        bits: header.cluster_bits,
        entry_len: if header.extended_l2 { 16 } else { 8 },
        data_file: header.data_file.is_some(),
        used: vec![0; usize::try_from(clusters).unwrap_or(0)],
        outside: 0,
        copied: BTreeMap::new(),
        visit,
    };
    count.add(0, 1);
    count.tables(&header)?;
    count.compare(f.u64_be(48)?, f.u32_be(56)?, order)
}

struct Count<'a> {
    disk: &'a dyn Disk,
    name: String,
    bits: u32,
    entry_len: u64,
    data_file: bool,
    /// References to each cluster, as they are found.
    used: Vec<u16>,
    /// References that lead out of the file. The map says so of the guest's bytes.
    outside: u64,
    /// Cluster of an entry that says "referenced once" or not: (entry's place, says once).
    /// Only a sample is kept, the first of every table.
    copied: BTreeMap<u64, (u64, bool)>,
    visit: Visit<'a>,
}

impl Count<'_> {
    /// `len` bytes at `offset` are referenced once more.
    fn add(&mut self, offset: u64, len: u64) {
        let first = offset >> self.bits;
        let last = offset.saturating_add(len.max(1)).saturating_sub(1) >> self.bits;
        for cluster in first..=last {
            let place = usize::try_from(cluster).ok();
            match place.and_then(|n| self.used.get_mut(n)) {
                Some(n) => *n = n.saturating_add(1),
                None => {
                    self.outside = self.outside.saturating_add(1);
                    break;
                }
            }
        }
    }

    fn tables(&mut self, header: &Header) -> Result<()> {
        let l1 = (header.l1_table_offset, header.l1_size);
        self.l1(l1, true)?;
        let table = match snapshots::read(self.disk, header) {
            Ok(table) => table,
            Err(e) => {
                let e = e.file(&self.name);
                (self.visit)(Finding::warning("snapshots-unreadable", e));
                return Ok(());
            }
        };
        if let Some(len) = snapshots::table_len(self.disk, header)? {
            self.add(header.snapshots_offset, len);
        }
        for Snapshot {
            l1_table_offset,
            l1_size,
            ..
        } in table
        {
            self.l1((l1_table_offset, l1_size), false)?;
        }
        Ok(())
    }

    /// An L1 table, its L2 tables and what they lead to.
    fn l1(&mut self, (offset, entries): (u64, u32), active: bool) -> Result<()> {
        let len = u64::from(entries).saturating_mul(8);
        if len == 0 {
            return Ok(());
        }
        self.add(offset, len);
        let mut at = 0;
        while at < len {
            let n = len.saturating_sub(at).min(64 << 10);
            let mut part = vec![0; usize::try_from(n).unwrap_or(0)];
            let place = offset.saturating_add(at);
            if read_table(self.disk, &mut part, place, "the L1 table").is_err() {
                return Ok(());
            }
            for (i, entry) in (0u64..).zip(part.chunks_exact(8)) {
                let entry = be(entry);
                let table = entry & OFFSET;
                if table != 0 {
                    let whole = 1u64 << self.bits;
                    self.add(table, whole);
                    if active {
                        self.note(table, place.saturating_add(i.saturating_mul(8)), entry);
                    }
                    self.l2(table, active);
                }
            }
            at = at.saturating_add(n);
        }
        Ok(())
    }

    fn l2(&mut self, table: u64, active: bool) {
        let mut entries = vec![0; 1 << self.bits];
        if read_table(self.disk, &mut entries, table, "an L2 table").is_err() {
            return;
        }
        let step = usize::try_from(self.entry_len).unwrap_or(8);
        let mut noted = false;
        for (i, raw) in (0u64..).zip(entries.chunks_exact(step)) {
            let entry = be(raw);
            if entry & COMPRESSED != 0 {
                let (offset, len) = decode::place(entry & !(COPIED | COMPRESSED), self.bits);
                let left = self.disk.len().saturating_sub(offset);
                self.add(offset, len.min(left));
                continue;
            }
            let offset = entry & OFFSET;
            if offset == 0 || self.data_file {
                continue;
            }
            self.add(offset, 1 << self.bits);
            if active && !noted {
                noted = true;
                let place = table.saturating_add(i.saturating_mul(self.entry_len));
                self.note(offset, place, entry);
            }
        }
    }

    fn note(&mut self, offset: u64, place: u64, entry: u64) {
        if self.copied.len() < 1 << 20 {
            let cluster = offset >> self.bits;
            self.copied.insert(cluster, (place, entry & COPIED != 0));
        }
    }

    /// Reads the stored counts and compares.
    fn compare(&mut self, table: u64, table_clusters: u32, order: u32) -> Result<()> {
        let cluster = 1u64 << self.bits;
        let table_len = u64::from(table_clusters).saturating_mul(cluster);
        self.add(table, table_len);
        let per_block = (cluster.saturating_mul(8)) >> order;
        let blocks = table_len / 8;
        let needed = (self.used.len() as u64).div_ceil(per_block.max(1));
        let mut table_bytes =
            vec![0; usize::try_from(needed.min(blocks).saturating_mul(8)).unwrap_or(0)];
        read_table(self.disk, &mut table_bytes, table, "the refcount table")?;
        let places: Vec<u64> = table_bytes.chunks_exact(8).map(be).collect();
        for place in places.iter().filter(|p| **p != 0) {
            self.add(*place, cluster);
        }
        let (mut low, mut leaked) = (0u64, 0u64);
        for block in 0..needed {
            let at = usize::try_from(block)
                .ok()
                .and_then(|n| places.get(n))
                .copied();
            let at = at.unwrap_or(0);
            let mut counts = vec![0; 1 << self.bits];
            if at != 0
                && let Err(e) = read_table(self.disk, &mut counts, at, "a refcount block")
            {
                let e = e.file(&self.name);
                (self.visit)(Finding::warning("refcount-block-unreadable", e));
                continue;
            }
            let first = block.saturating_mul(per_block);
            for i in 0..per_block {
                let number = first.saturating_add(i);
                let index = usize::try_from(number).ok();
                let Some(used) = index.and_then(|n| self.used.get(n)).copied() else {
                    break;
                };
                let stored = refcount(&counts, i, order);
                if let Some((place, once)) = self.copied.get(&number)
                    && *once != (stored == 1)
                    && stored >= u64::from(used)
                {
                    let e = DiskError::corrupt("comparing an entry with the refcount")
                        .file(&self.name)
                        .offset(*place)
                        .expected(format!("the copied flag to be {}", stored == 1))
                        .found(once.to_string());
                    (self.visit)(Finding::warning("copied-flag-wrong", e));
                }
                if stored < u64::from(used) {
                    low = low.saturating_add(1);
                    if low <= TOLD {
                        let e = DiskError::corrupt("comparing references with refcounts")
                            .file(&self.name)
                            .offset(number << self.bits)
                            .expected(format!("a refcount of {used}"))
                            .found(stored.to_string())
                            .hint("a program that writes to this image would overwrite data");
                        (self.visit)(Finding::warning("refcount-too-low", e));
                    }
                } else if stored > u64::from(used) && used < u16::MAX {
                    leaked = leaked.saturating_add(1);
                }
            }
        }
        let name = self.name.clone();
        let total = |what: String| {
            DiskError::corrupt("counting references")
                .file(name)
                .found(what)
        };
        if low > TOLD {
            let e = total(format!("{} more clusters", low.saturating_sub(TOLD)));
            (self.visit)(Finding::warning("refcount-too-low", e));
        } else if leaked > 0 {
            let e = total(format!("{leaked} clusters that nothing refers to"));
            (self.visit)(Finding::note("space-unreferenced", e));
        }
        Ok(())
    }
}

fn be(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_be_bytes(*b))
}

/// Count `index` of a refcount block with counts of 2^order bits.
fn refcount(block: &[u8], index: u64, order: u32) -> u64 {
    let bits = 1u64 << order;
    let at = index.saturating_mul(bits);
    let byte = usize::try_from(at / 8).unwrap_or(usize::MAX);
    if bits < 8 {
        let value = block.get(byte).copied().unwrap_or(0);
        let mask = (1u64 << bits).wrapping_sub(1);
        return (u64::from(value) >> (at % 8)) & mask;
    }
    let len = usize::try_from(bits / 8).unwrap_or(0);
    let part = block.get(byte..).and_then(|b| b.get(..len));
    part.unwrap_or_default()
        .iter()
        .fold(0, |n, b| n << 8 | u64::from(*b))
}
