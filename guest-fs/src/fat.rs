//! FAT12, FAT16 and FAT32, read by position from any number of threads.
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | the boot sector: geometry, and which of the three it is |
//! | `evidence` | whether the volume bears the boot sector out |
//! | [`table`] | the allocation table, paged |
//! | [`chain`] | a chain of clusters as runs, computed once per file |
//! | [`contents`] | a file's bytes |
//! | [`entry`] | one 32-byte directory entry, with its times and 8.3 name |
//! | [`long`] | long names, spread over entries before the short one |
//! | [`oem`] | code pages of 8.3 names |
//! | [`names`] | names that a Unix tree cannot carry, and folding |
//! | [`dir`] | a directory, read and indexed |
//! | `behind` | entries behind a directory's end |
//! | `check` | structures held against each other |
//! | [`deleted`] | entries marked as deleted |

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

mod behind;
pub mod boot;
pub mod chain;
pub(crate) mod check;
pub mod contents;
pub mod deleted;
pub mod dir;
pub mod entry;
mod evidence;
pub mod long;
pub mod names;
pub mod notes;
pub mod oem;
pub mod table;

use crate::{
    Extent, FileSystem, Found, FsKind, Metadata, Name, NodeId, NodeKind, OpenOptions, Visit,
    VolumeInfo,
    fs::{CLUSTER, DELETED},
    volume::Recognised,
};
use boot::Geometry;
use chain::{Chain, Wanted};
use contents::{Area, Contents};
use dir::{Dir, Volume};
use disk_io::{Disk, DiskError, ErrorKind, Result};
use entry::Entry;
use notes::Notes;
use quick_cache::{Weighter, sync::Cache};
use std::{
    ops::ControlFlow,
    sync::{Arc, OnceLock},
};
use table::FatTable;

/// Record number of the root directory, which has no entry. No entry lies in the boot sector.
pub const ROOT: u64 = 0;

/// Bytes of parsed directories and of chains kept in memory, each.
const CACHE: u64 = 8 << 20;

/// Twice the most that a directory may have by the specification.
pub(crate) const MAX_DIR: u64 = 4 << 20;

/// Where the allocation table is small, counting free clusters by reading it is cheap.
const CHEAP_TABLE: u64 = 1 << 20;

/// Weighs cached values by the memory they take.
#[derive(Clone, Debug)]
pub(crate) struct ByWeight;

impl Weighter<u64, Arc<Dir>> for ByWeight {
    fn weight(&self, _: &u64, dir: &Arc<Dir>) -> u64 {
        dir.weight()
    }
}

impl Weighter<(u64, u64), Arc<Chain>> for ByWeight {
    fn weight(&self, _: &(u64, u64), chain: &Arc<Chain>) -> u64 {
        chain.weight()
    }
}

/// A FAT volume.
#[derive(Debug)]
pub struct Fat {
    area: Arc<Area>,
    geometry: Geometry,
    table: FatTable,
    options: OpenOptions,
    dirs: Cache<u64, Arc<Dir>, ByWeight>,
    /// By first cluster and number of clusters wanted.
    chains: Cache<(u64, u64), Arc<Chain>, ByWeight>,
    notes: Arc<Notes>,
    used: OnceLock<Option<u64>>,
}

impl Fat {
    /// Opens the volume. Fails if neither the boot sector nor its backup describes one.
    pub fn open(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Self> {
        let geometry = boot::read(&disk)?;
        Ok(Self::with(disk, geometry, options.clone()))
    }

    fn with(disk: Arc<dyn Disk>, geometry: Geometry, options: OpenOptions) -> Self {
        let notes = Arc::new(Notes::new(geometry.remarks.clone()));
        if !oem::known(options.oem_code_page) {
            notes.add(format!(
                "code page {} is not known; 437 is used for 8.3 names",
                options.oem_code_page.unwrap_or_default()
            ));
        }
        if geometry.size > disk.len() {
            notes.add(format!(
                "the file system has {} bytes, the volume only {}",
                geometry.size,
                disk.len()
            ));
        }
        Self {
            area: Arc::new(Area {
                disk: disk.clone(),
                data_start: geometry.data_start,
                cluster: u64::from(geometry.cluster),
            }),
            table: FatTable::new(disk, &geometry, notes.clone()),
            geometry,
            options,
            dirs: Cache::with_weighter(64, CACHE, ByWeight),
            chains: Cache::with_weighter(1024, CACHE, ByWeight),
            notes,
            used: OnceLock::new(),
        }
    }

    /// The geometry that the boot sector gave.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn disk(&self) -> &Arc<dyn Disk> {
        &self.area.disk
    }

    /// The clusters from `first` on, computed once.
    fn chain(&self, first: u32, wanted: Wanted) -> Arc<Chain> {
        let key = (u64::from(first), wanted.key());
        if let Some(chain) = self.chains.get(&key) {
            return chain;
        }
        let chain = Arc::new(self.table.chain(first, wanted));
        // A device that failed may work again.
        if !chain.broken().is_some_and(|e| e.kind() == ErrorKind::Io) {
            self.chains.insert(key, chain.clone());
        }
        chain
    }

    /// The entry of a node that is not the root.
    fn entry(&self, node: NodeId) -> Result<Entry> {
        let missing = || {
            DiskError::not_found("opening a FAT directory entry")
                .found(format!("no entry with number {}", node.record))
        };
        let position = node.record.checked_mul(32).ok_or_else(missing)?;
        let first = match self.geometry.kind {
            FsKind::Fat32 => self.geometry.data_start,
            _ => self.geometry.root_start,
        };
        if node.record == ROOT || position < first {
            return Err(missing());
        }
        let mut raw = [0; 32];
        self.disk()
            .read_exact_at(&mut raw, position)
            .map_err(|e| e.context("reading a FAT directory entry"))?;
        let entry = Entry::parse(&raw, position)?;
        if entry.is_free() || entry.is_long() {
            return Err(missing());
        }
        Ok(entry)
    }

    /// Where a directory's entries lie.
    fn dir_chain(&self, dir: NodeId) -> Result<Option<Arc<Chain>>> {
        let first = if dir.record == ROOT {
            if self.geometry.kind != FsKind::Fat32 {
                return Ok(None);
            }
            self.geometry.root_cluster
        } else {
            let entry = self.entry(dir)?;
            if !entry.is_dir() {
                return Err(DiskError::not_found("listing a directory")
                    .found(format!("node {} is a file", dir.record)));
            }
            self.first_cluster(&entry)
        };
        let most = MAX_DIR.div_ceil(u64::from(self.geometry.cluster).max(1));
        Ok(Some(self.chain(
            first,
            Wanted::ToEnd(u32::try_from(most).unwrap_or(u32::MAX)),
        )))
    }

    fn first_cluster(&self, entry: &Entry) -> u32 {
        self.geometry.first_cluster(entry)
    }

    fn dir(&self, dir: NodeId) -> Result<Arc<Dir>> {
        if let Some(found) = self.dirs.get(&dir.record) {
            return Ok(found);
        }
        let chain = self.dir_chain(dir)?;
        let read = Arc::new(Dir::read(
            &self.area,
            chain.as_deref(),
            &Volume {
                geometry: &self.geometry,
                is_root: dir.record == ROOT,
                code_page: self.options.oem_code_page,
                used: &|cluster| self.table.is_free(cluster).is_ok_and(|free| !free),
                notes: &self.notes,
            },
        )?);
        if !read.device_failed() {
            self.dirs.insert(dir.record, read.clone());
        }
        Ok(read)
    }

    /// The volume label: an entry of the root directory, as `blkid` and Windows have it.
    fn label(&self) -> Option<Name> {
        let dir = self.dir(NodeId::plain(ROOT)).ok()?;
        dir.label.clone().filter(|l| !l.as_bytes().is_empty())
    }

    fn file_chain(&self, entry: &Entry) -> Arc<Chain> {
        let size = u64::from(entry.size);
        let need = size.div_ceil(u64::from(self.geometry.cluster).max(1));
        let need = u32::try_from(need).unwrap_or(u32::MAX);
        self.chain(self.first_cluster(entry), Wanted::Exactly(need))
    }

    fn contents(&self, node: NodeId) -> Result<Contents> {
        let entry = self.entry(node)?;
        if entry.is_dir() {
            return Err(DiskError::not_found("opening a file")
                .found(format!("node {} is a directory", node.record)));
        }
        if entry.is_deleted() {
            return Err(DiskError::refused("opening a deleted file")
                .hint("its clusters may belong to others now; ask for deleted files expressly"));
        }
        let size = u64::from(entry.size);
        Ok(Contents::new(
            self.area.clone(),
            self.file_chain(&entry),
            size,
            size,
        ))
    }

    fn dirty(&self) -> bool {
        self.geometry.dirty || self.table.dirty().unwrap_or(false)
    }

    fn count_used(&self) -> Option<u64> {
        let cluster = u64::from(self.geometry.cluster);
        let total = u64::from(self.geometry.clusters);
        if self.geometry.fat_len <= CHEAP_TABLE {
            return self
                .table
                .count_used()
                .ok()
                .map(|n| n.saturating_mul(cluster));
        }
        let free = self.geometry.free_hint(self.disk())?;
        Some(total.checked_sub(u64::from(free))?.saturating_mul(cluster))
    }
}

/// Recognises a FAT volume by sector 0.
pub(crate) fn recognise(disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    let mut sector = [0; 512];
    if disk.len() < 512 {
        return Ok(None);
    }
    disk.read_exact_at(&mut sector, 0)?;
    let Ok(geometry) = Geometry::parse(&sector, 0) else {
        return Ok(None);
    };
    if !geometry.convincing(&sector, disk) {
        return Ok(None);
    }
    Ok(Some(recognised(disk, geometry)))
}

/// Recognises a FAT32 volume by the copy of its boot sector.
pub(crate) fn recognise_backup(disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    Ok(boot::backup(disk).map(|geometry| recognised(disk, geometry)))
}

fn recognised(disk: &Arc<dyn Disk>, geometry: Geometry) -> Recognised {
    let fat = Fat::with(disk.clone(), geometry, OpenOptions::default());
    Recognised {
        kind: fat.geometry.kind,
        label: fat.label(),
        uuid: fat.geometry.uuid(),
        size: Some(fat.geometry.size),
        readable: true,
    }
}

impl FileSystem for Fat {
    fn info(&self) -> VolumeInfo {
        let label = self.label();
        let mut remarks = self.notes.all();
        remarks.extend(self.geometry.doubts.iter().cloned());
        if let Some(boot) = &self.geometry.label {
            let boot = Name::from(oem::decode(self.options.oem_code_page, boot).as_str());
            if label.as_ref() != Some(&boot) {
                remarks.push(format!(
                    "the boot sector has the label \"{boot}\", the root directory {}",
                    match &label {
                        Some(label) => format!("\"{label}\""),
                        None => "none".into(),
                    }
                ));
            }
        }
        VolumeInfo {
            kind: self.geometry.kind,
            version: None,
            label,
            uuid: self.geometry.uuid(),
            size: self.geometry.size,
            used: *self.used.get_or_init(|| self.count_used()),
            cluster_size: self.geometry.cluster,
            dirty: Some(self.dirty()),
            unsettled: self.dirty(),
            remarks,
        }
    }

    fn root(&self) -> NodeId {
        NodeId::plain(ROOT)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        Ok(self.dir(dir)?.find(name))
    }

    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()> {
        self.dir(dir)?.visit(visit);
        Ok(())
    }

    /// By its first cluster, if it has one.
    fn directory(&self, node: NodeId) -> u64 {
        let first = match (node.record, self.geometry.kind) {
            (ROOT, FsKind::Fat32) => Some(self.geometry.root_cluster),
            (ROOT, _) => None,
            _ => self.entry(node).ok().map(|e| self.first_cluster(&e)),
        };
        first
            .filter(|first| *first >= 2)
            .map_or(node.record, |first| CLUSTER | u64::from(first))
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let asked = node;
        let node = NodeId::plain(node.record & !DELETED);
        if node.record == ROOT {
            return Ok(Metadata {
                allocated: self.geometry.root_len,
                attributes: Some(0x10),
                ..Metadata::new(node, NodeKind::Directory)
            });
        }
        let entry = self.entry(node)?;
        let cluster = u64::from(self.geometry.cluster);
        let size = if entry.is_dir() {
            0
        } else {
            u64::from(entry.size)
        };
        let key = (
            u64::from(self.first_cluster(&entry)),
            Wanted::Exactly(u32::try_from(size.div_ceil(cluster)).unwrap_or(u32::MAX)).key(),
        );
        // The chain is not walked for a listing; what is known of it already is told.
        let mut remarks = match self.chains.get(&key) {
            Some(chain) if !entry.is_dir() => chain.remarks(),
            _ => Vec::new(),
        };
        remarks.extend(label_too(&entry));
        if asked.record & DELETED != 0 && size > cluster {
            remarks.push(
                "only its first cluster is known: the rest is taken from the free clusters after it"
                    .into(),
            );
        }
        let zone = self.options.zone_offset;
        Ok(Metadata {
            size,
            allocated: size.div_ceil(cluster).saturating_mul(cluster),
            created: entry.created(zone),
            modified: entry.modified(zone),
            accessed: entry.accessed(zone),
            attributes: Some(u32::from(entry.attributes & 0x37)),
            remarks,
            ..Metadata::new(asked, entry.kind())
        })
    }

    /// Computed where it is not kept: what a cache has room for must not decide.
    fn doubts(&self, node: NodeId) -> Vec<String> {
        if node.record & DELETED != 0 {
            return self
                .metadata(node)
                .map_or_else(|_| Vec::new(), |m| m.remarks);
        }
        let mut doubts = Vec::new();
        let entry = match node.record {
            ROOT => {
                doubts.extend(self.geometry.doubts.iter().cloned());
                None
            }
            _ => self.entry(node).ok(),
        };
        doubts.extend(entry.as_ref().and_then(label_too));
        let chain = match self.dir_chain(node) {
            Ok(chain) => {
                // What cannot be listed at all is an error where it is listed.
                if let Ok(dir) = self.dir(node) {
                    doubts.extend(dir.doubts.iter().chain(&dir.shared).cloned());
                }
                chain
            }
            Err(_) => entry.map(|e| self.file_chain(&e)),
        };
        doubts.extend(chain.map_or_else(Vec::new, |chain| chain.doubts(!self.dirty())));
        doubts
    }

    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        no_streams(stream)?;
        match node.record & DELETED {
            0 => Ok(Arc::new(self.contents(node)?)),
            _ => self.open_deleted(NodeId::plain(node.record & !DELETED)),
        }
    }

    fn check(&self, visit: disk_io::finding::Visit<'_>) -> Result<bool> {
        self.check_volume(visit)?;
        Ok(true)
    }

    fn free(&self, visit: crate::free::Visit<'_>) -> Result<bool> {
        let mut free = crate::free::Free::new(visit, self.area.data_start, self.area.cluster);
        // There is no journal: what the table calls free no file can have.
        self.table
            .visit_free(&mut |cluster| free.add(cluster.saturating_sub(2).into(), 1))?;
        free.close();
        Ok(true)
    }

    fn deleted(&self, visit: &mut dyn FnMut(Result<Found>) -> ControlFlow<()>) -> Result<bool> {
        self.visit_deleted(visit);
        Ok(true)
    }

    fn extents(&self, node: NodeId, stream: Option<&Name>) -> Result<Vec<Extent>> {
        no_streams(stream)?;
        Ok(self.contents(node)?.extents())
    }

    fn structure(&self, node: NodeId) -> Result<Vec<Extent>> {
        Ok(self
            .dir_chain(node)?
            .map_or_else(Vec::new, |chain| self.area.extents(&chain)))
    }
}

/// What to say of an entry that is shown although its attributes call it the volume's label.
fn label_too(entry: &Entry) -> Option<String> {
    entry.is_label().then(|| {
        "its attributes call it the volume label, which it is not: one bit of them is wrong".into()
    })
}

/// FAT and exFAT have no named streams.
pub(crate) fn no_streams(stream: Option<&Name>) -> Result<()> {
    match stream {
        None => Ok(()),
        Some(name) => Err(DiskError::not_found("opening a stream")
            .found(format!("\"{name}\" on a file system without named streams"))),
    }
}
