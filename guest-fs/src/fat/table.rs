//! The allocation table, read a page at a time: a table of 2 TiB has up to a gigabyte.

use super::{
    boot::Geometry,
    chain::{Chain, Link, Links, Wanted},
    notes::Notes,
};
use crate::{FsKind, exfat};
use disk_io::{Disk, DiskError, Result};
use quick_cache::sync::Cache;
use std::{ops::Range, sync::Arc};

/// Bytes read at once. FAT12's tables are shorter, so no entry of 12 bits lies across two.
const PAGE: u64 = 64 << 10;

/// Pages kept: 8 MiB.
const PAGES: usize = 128;

type Pages = Cache<(u8, u64), Arc<[u8]>>;

/// The table and its copies.
#[derive(Debug)]
pub struct FatTable {
    disk: Arc<dyn Disk>,
    kind: FsKind,
    start: u64,
    len: u64,
    copies: u8,
    first: u8,
    mirrored: bool,
    clusters: u32,
    pages: Pages,
    notes: Arc<Notes>,
}

impl FatTable {
    /// The table of a volume.
    pub fn new(disk: Arc<dyn Disk>, geometry: &Geometry, notes: Arc<Notes>) -> Self {
        if let Some(active) = geometry.active {
            notes.add(format!("allocation table {active} alone is in use"));
        }
        Self {
            disk,
            kind: geometry.kind,
            start: geometry.fat_start,
            len: geometry.fat_len,
            copies: geometry.copies,
            first: geometry.active.unwrap_or(0),
            mirrored: geometry.active.is_none(),
            clusters: geometry.clusters,
            pages: Cache::new(PAGES),
            notes,
        }
    }

    /// The table of an exFAT volume. TexFAT's second one is no mirror of the first.
    pub fn exfat(disk: Arc<dyn Disk>, geometry: &exfat::boot::Geometry, notes: Arc<Notes>) -> Self {
        Self {
            disk,
            kind: FsKind::ExFat,
            start: geometry.fat_start,
            len: geometry.fat_len,
            copies: geometry.copies,
            first: geometry.active,
            mirrored: false,
            clusters: geometry.clusters,
            pages: Cache::new(PAGES),
            notes,
        }
    }

    fn page(&self, copy: u8, page: u64) -> Result<Arc<[u8]>> {
        if let Some(found) = self.pages.get(&(copy, page)) {
            return Ok(found);
        }
        let inside = page.saturating_mul(PAGE);
        let n = self.len.saturating_sub(inside).min(PAGE);
        let at = self
            .len
            .saturating_mul(u64::from(copy))
            .saturating_add(self.start)
            .saturating_add(inside);
        let mut bytes = vec![0; usize::try_from(n).unwrap_or(0)];
        self.disk.read_exact_at(&mut bytes, at).map_err(|e| {
            e.offset(at)
                .context(format!("reading allocation table {copy}"))
        })?;
        let bytes: Arc<[u8]> = bytes.into();
        self.pages.insert((copy, page), bytes.clone());
        Ok(bytes)
    }

    /// Where the entry of a cluster begins in a table.
    fn place(&self, cluster: u32) -> u64 {
        let n = u64::from(cluster);
        match self.kind {
            FsKind::Fat12 => n.saturating_add(n >> 1),
            FsKind::Fat16 => n.saturating_mul(2),
            _ => n.saturating_mul(4),
        }
    }

    /// The raw entry of a cluster in one copy.
    fn raw(&self, copy: u8, cluster: u32) -> Result<u32> {
        let page = self.page(copy, self.place(cluster) / PAGE)?;
        self.entry(&page, cluster)
    }

    /// The raw entry of a cluster, in the page that holds it.
    fn entry(&self, page: &[u8], cluster: u32) -> Result<u32> {
        let from = usize::try_from(self.place(cluster) % PAGE).unwrap_or(0);
        let outside = || {
            DiskError::corrupt("reading the allocation table")
                .expected("an entry inside the table")
                .found(format!("cluster {cluster}"))
        };
        let bytes = page.get(from..).unwrap_or_default();
        let two = || {
            bytes
                .first_chunk()
                .map(|b| u32::from(u16::from_le_bytes(*b)))
        };
        let four = || bytes.first_chunk().map(|b| u32::from_le_bytes(*b));
        let raw = match self.kind {
            FsKind::Fat12 if cluster % 2 == 1 => two().map(|n| n >> 4),
            FsKind::Fat12 => two().map(|n| n & 0xfff),
            FsKind::Fat16 => two(),
            FsKind::ExFat => four(),
            _ => four().map(|n| n & 0x0fff_ffff),
        };
        raw.ok_or_else(outside)
    }

    /// Visits the pages of the table in order, each with the clusters whose entries are in it.
    fn each_page(&self, visit: &mut dyn FnMut(u64, Range<u32>) -> Result<()>) -> Result<()> {
        let end = self.clusters.saturating_add(2);
        let each = match self.kind {
            // One page has them all.
            FsKind::Fat12 => end,
            FsKind::Fat16 => (PAGE / 2) as u32,
            _ => (PAGE / 4) as u32,
        };
        let mut first = 0u32;
        while first < end {
            let next = first.saturating_add(each).min(end);
            visit(self.place(first) / PAGE, first.max(2)..next)?;
            first = next;
        }
        Ok(())
    }

    /// Visits the raw entries of all clusters, in the table that is in use or, where that cannot
    /// be read, in a copy.
    pub fn visit(&self, visit: &mut dyn FnMut(u32, u32)) -> Result<()> {
        self.each_page(&mut |number, clusters| {
            let Ok(page) = self.page(self.first, number) else {
                for cluster in clusters {
                    visit(cluster, self.readable(self.first, cluster)?);
                }
                return Ok(());
            };
            for cluster in clusters {
                visit(cluster, self.entry(&page, cluster)?);
            }
            Ok(())
        })
    }

    /// Visits clusters that are free in every copy in use: where they differ, one of them has a
    /// file there.
    pub fn visit_free(&self, visit: &mut dyn FnMut(u32)) -> Result<()> {
        let copies = match self.mirrored {
            true => 0..self.copies,
            false => self.first..self.first.saturating_add(1),
        };
        self.each_page(&mut |number, clusters| {
            let pages: Vec<Arc<[u8]>> = copies
                .clone()
                .map(|copy| self.page(copy, number))
                .collect::<Result<_>>()?;
            for cluster in clusters {
                let mut used = false;
                for page in &pages {
                    used |= self.entry(page, cluster)? != 0;
                }
                if !used {
                    visit(cluster);
                }
            }
            Ok(())
        })
    }

    /// Visits clusters of which the copies in use do not say the same.
    pub fn visit_differing(&self, visit: &mut dyn FnMut(u32)) -> Result<()> {
        if !self.mirrored {
            return Ok(());
        }
        self.each_page(&mut |number, clusters| {
            let first = self.page(0, number)?;
            let mut others = Vec::new();
            for copy in 1..self.copies {
                let page = self.page(copy, number)?;
                if page != first {
                    others.push(page);
                }
            }
            for cluster in clusters.filter(|_| !others.is_empty()) {
                let this = self.entry(&first, cluster)?;
                for page in &others {
                    if self.entry(page, cluster)? != this {
                        visit(cluster);
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    /// The raw entry in `copy`, or in another copy where that one cannot be read.
    fn readable(&self, copy: u8, cluster: u32) -> Result<u32> {
        let first = self.raw(copy, cluster);
        let Err(e) = first else { return first };
        if self.mirrored {
            for other in (0..self.copies).filter(|c| *c != copy) {
                if let Ok(found) = self.raw(other, cluster) {
                    self.notes.add(format!(
                        "part of allocation table {copy} cannot be read; table {other} is used there"
                    ));
                    return Ok(found);
                }
            }
        }
        Err(e)
    }

    fn link(&self, raw: u32) -> Link {
        let (bad, end) = match self.kind {
            FsKind::Fat12 => (0xff7, 0xff8),
            FsKind::Fat16 => (0xfff7, 0xfff8),
            FsKind::ExFat => (0xffff_fff7, 0xffff_ffff),
            _ => (0x0fff_fff7, 0x0fff_fff8),
        };
        match raw {
            0 => Link::Free,
            n if n >= end => Link::End,
            n if n == bad => Link::Bad,
            n if n >= 2 && n <= self.clusters.saturating_add(1) => Link::Next(n),
            n => Link::Outside(n),
        }
    }

    /// The chain from `first` on. Where the first copy's chain is broken and another copy
    /// agrees with it up to the break and goes on to the right end, the other is used; where
    /// both are whole and differ, nothing tells which is right.
    pub fn chain(&self, first: u32, wanted: Wanted) -> Chain {
        let mut chain = Chain::walk(&self.copy(self.first), first, wanted);
        if !self.mirrored {
            return chain;
        }
        if chain.broken().is_none() {
            if let Some(copy) = self.differing_copy(&chain) {
                let first = self.first;
                chain.differs(format!(
                    "allocation table {copy} leads to other clusters than table {first}, which is used"
                ));
            }
            return chain;
        }
        for copy in (0..self.copies).filter(|c| *c != self.first) {
            let mut other = Chain::walk(&self.copy(copy), first, wanted);
            if other.broken().is_none() && !other.is_odd() && other.begins_with(&chain) {
                other.remark(format!(
                    "its chain is broken in the first allocation table; table {copy} is used"
                ));
                return other;
            }
        }
        chain
    }

    /// A copy that says something else of a cluster of the chain.
    fn differing_copy(&self, chain: &Chain) -> Option<u8> {
        let mut others = (0..self.copies).filter(|c| *c != self.first);
        others.find(|copy| {
            chain.pieces().any(|(first, clusters)| {
                let end = first.saturating_add(clusters);
                self.pages_differ(*copy, first, end)
                    && (first..end).any(|cluster| {
                        match (self.raw(self.first, cluster), self.raw(*copy, cluster)) {
                            (Ok(this), Ok(other)) => self.link(this) != self.link(other),
                            _ => false,
                        }
                    })
            })
        })
    }

    /// Whether the pages with the entries of these clusters differ between a copy and the first.
    fn pages_differ(&self, copy: u8, first: u32, end: u32) -> bool {
        let page_of = |cluster: u32| self.place(cluster) / PAGE;
        (page_of(first)..=page_of(end.saturating_sub(1))).any(|page| {
            match (self.page(self.first, page), self.page(copy, page)) {
                (Ok(this), Ok(other)) => this != other,
                _ => false,
            }
        })
    }

    fn copy(&self, copy: u8) -> Copy<'_> {
        Copy { table: self, copy }
    }

    /// What follows a cluster, in the table that is in use.
    pub fn follows(&self, cluster: u32) -> Result<Link> {
        Ok(self.link(self.readable(self.first, cluster)?))
    }

    /// Whether a cluster is free in the first copy.
    pub fn is_free(&self, cluster: u32) -> Result<bool> {
        Ok(self.readable(self.first, cluster)? == 0)
    }

    /// How many clusters are in use.
    pub fn count_used(&self) -> Result<u64> {
        let mut used = 0u64;
        self.visit(&mut |_, raw| used = used.saturating_add(u64::from(raw != 0)))?;
        Ok(used)
    }

    /// What an entry says.
    pub fn link_of(&self, raw: u32) -> Link {
        self.link(raw)
    }

    /// Whether entry 1 says that the volume was not closed; `None` where nothing says it.
    pub fn dirty(&self) -> Option<bool> {
        let raw = self.readable(self.first, 1).ok()?;
        match self.kind {
            FsKind::Fat16 => Some(raw & 0x8000 == 0),
            FsKind::Fat32 => Some(raw & 0x0800_0000 == 0),
            _ => None,
        }
    }
}

/// One copy as something to walk.
struct Copy<'a> {
    table: &'a FatTable,
    copy: u8,
}

impl Links for Copy<'_> {
    fn next(&self, cluster: u32) -> Result<Link> {
        Ok(self.table.link(self.table.readable(self.copy, cluster)?))
    }

    fn clusters(&self) -> u32 {
        self.table.clusters
    }
}
