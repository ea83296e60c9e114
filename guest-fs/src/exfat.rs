//! exFAT, read by position from any number of threads.
//!
//! | module | holds |
//! |---|---|
//! | [`boot`] | the boot region, its checksum and its backup |
//! | [`set`] | a file's entry set: checksum, sizes, times, name |
//! | [`dir`] | a directory as entry sets, and the root's special entries |
//! | `bitmap` | the map of clusters in use, paged |
//! | `check` | structures held against each other |
//! | [`upcase`] | the volume's own table of upper-case letters |

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

mod bitmap;
pub mod boot;
mod check;
pub mod dir;
pub mod set;
pub mod upcase;

use crate::{
    Extent, FileSystem, FsKind, Metadata, Name, NodeId, NodeKind, OpenOptions, Visit, VolumeInfo,
    fat::{
        ROOT,
        chain::{Chain, Link, Wanted},
        contents::{Area, Contents},
        no_streams,
        notes::Notes,
        table::FatTable,
    },
    fs::CLUSTER,
    volume::Recognised,
};
use bitmap::Bitmap;
use boot::Geometry;
use dir::Dir;
use disk_io::{Disk, DiskError, ErrorKind, Result};
use quick_cache::{Weighter, sync::Cache};
use set::Set;
use std::sync::{Arc, OnceLock};
use upcase::UpCase;

/// Bytes of parsed directories, of entry sets and of chains kept in memory, each.
const CACHE: u64 = 8 << 20;

/// Longest directory that is listed: some 700,000 names. The specification allows 256 MiB.
const MAX_DIR: u64 = 64 << 20;

/// Longest allocation bitmap that is counted: 1 TiB in clusters of 8 KiB.
const MAX_BITMAP: u64 = 16 << 20;

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<u64, Arc<Dir>> for ByWeight {
    fn weight(&self, _: &u64, dir: &Arc<Dir>) -> u64 {
        dir.weight()
    }
}

impl Weighter<u64, Arc<Set>> for ByWeight {
    fn weight(&self, _: &u64, set: &Arc<Set>) -> u64 {
        (set.name.len() as u64)
            .saturating_mul(2)
            .saturating_add(200)
    }
}

impl Weighter<(u64, u64), Arc<Chain>> for ByWeight {
    fn weight(&self, _: &(u64, u64), chain: &Arc<Chain>) -> u64 {
        chain.weight()
    }
}

/// An exFAT volume.
#[derive(Debug)]
pub struct ExFat {
    area: Arc<Area>,
    geometry: Geometry,
    table: FatTable,
    options: OpenOptions,
    dirs: Cache<u64, Arc<Dir>, ByWeight>,
    sets: Cache<u64, Arc<Set>, ByWeight>,
    chains: Cache<(u64, u64), Arc<Chain>, ByWeight>,
    notes: Arc<Notes>,
    upcase: OnceLock<UpCase>,
    used: OnceLock<Option<u64>>,
    in_use: OnceLock<Option<Bitmap>>,
}

impl ExFat {
    /// Opens the volume. Fails if neither the boot region nor its backup describes one.
    pub fn open(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Self> {
        let geometry = boot::read(&disk)?;
        Ok(Self::with(disk, geometry, options.clone()))
    }

    fn with(disk: Arc<dyn Disk>, geometry: Geometry, options: OpenOptions) -> Self {
        let notes = Arc::new(Notes::new(geometry.remarks.clone()));
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
                data_start: geometry.heap_start,
                cluster: u64::from(geometry.cluster),
            }),
            table: FatTable::exfat(disk, &geometry, notes.clone()),
            geometry,
            options,
            dirs: Cache::with_weighter(64, CACHE, ByWeight),
            sets: Cache::with_weighter(1024, CACHE, ByWeight),
            chains: Cache::with_weighter(1024, CACHE, ByWeight),
            notes,
            upcase: OnceLock::new(),
            used: OnceLock::new(),
            in_use: OnceLock::new(),
        }
    }

    fn disk(&self) -> &Arc<dyn Disk> {
        &self.area.disk
    }

    fn clusters_of(&self, len: u64) -> u32 {
        let n = len.div_ceil(self.area.cluster.max(1));
        u32::try_from(n).unwrap_or(u32::MAX)
    }

    fn walk(&self, first: u32, wanted: Wanted) -> Arc<Chain> {
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

    /// The clusters of something of `len` bytes.
    fn chain(&self, first: u32, len: u64, contiguous: bool) -> Arc<Chain> {
        let need = self.clusters_of(len);
        if contiguous {
            return Arc::new(Chain::contiguous(first, need, self.geometry.clusters));
        }
        self.walk(first, Wanted::Exactly(need))
    }

    fn missing(node: NodeId) -> DiskError {
        DiskError::not_found("opening an exFAT directory entry")
            .found(format!("no file entry with number {}", node.record))
    }

    /// The entry set of a node that is not the root.
    fn set(&self, node: NodeId) -> Result<Arc<Set>> {
        if let Some(set) = self.sets.get(&node.record) {
            return Ok(set);
        }
        let position = node
            .record
            .checked_mul(32)
            .filter(|p| node.record != ROOT && *p >= self.geometry.heap_start)
            .ok_or_else(|| Self::missing(node))?;
        let set = self.reread(position).ok_or_else(|| Self::missing(node))??;
        let set = Arc::new(set);
        self.sets.insert(node.record, set.clone());
        Ok(set)
    }

    /// Reads a set by its position alone. A set may go on in another cluster; which one
    /// depends on whether its directory uses the table, so both are tried and the set's
    /// checksum decides.
    fn reread(&self, position: u64) -> Option<Result<Set>> {
        let cluster_size = self.area.cluster.max(32);
        let inside = position.checked_sub(self.geometry.heap_start)?;
        let first = u32::try_from(inside.checked_div(cluster_size)?.checked_add(2)?).ok()?;
        let mut best = None;
        for by_table in [true, false] {
            let mut bytes = Vec::new();
            let (mut cluster, mut at) = (first, position);
            let mut need = 32usize;
            while bytes.len() < need {
                let start = self.area.position(cluster)?;
                let left = start.checked_add(cluster_size)?.checked_sub(at)?;
                let n = usize::try_from(left)
                    .ok()?
                    .min(need.saturating_sub(bytes.len()));
                let from = bytes.len();
                bytes.resize(from.saturating_add(n), 0);
                if let Err(e) = self.disk().read_exact_at(bytes.get_mut(from..)?, at) {
                    return Some(Err(e.context("reading an exFAT entry set")));
                }
                if from == 0 {
                    if bytes.first() != Some(&set::FILE) {
                        return None;
                    }
                    need = set::len(&bytes);
                }
                at = at.checked_add(n as u64)?;
                if bytes.len() < need && at >= start.checked_add(cluster_size)? {
                    cluster = match (by_table, self.table.follows(cluster)) {
                        (true, Ok(Link::Next(next))) => next,
                        (true, _) => break,
                        (false, _) => cluster.checked_add(1)?,
                    };
                    if cluster > self.geometry.clusters.saturating_add(1) {
                        break;
                    }
                    at = self.area.position(cluster)?;
                }
            }
            match Set::parse(&bytes, position) {
                Ok(set) if set.damage.is_none() => return Some(Ok(set)),
                other => best = best.or(Some(other)),
            }
        }
        best
    }

    /// The clusters of a directory, and why they are perhaps not all.
    fn dir_chain(&self, node: NodeId) -> Result<(Arc<Chain>, Option<DiskError>)> {
        if node.record == ROOT {
            let most = self.clusters_of(MAX_DIR);
            let chain = self.walk(self.geometry.root_cluster, Wanted::ToEnd(most));
            return Ok((chain, None));
        }
        let set = self.set(node)?;
        if !set.is_dir() {
            return Err(DiskError::not_found("listing a directory")
                .found(format!("node {} is a file", node.record)));
        }
        if set.len > MAX_DIR {
            return Err(DiskError::refused("listing a directory")
                .expected(format!("at most {MAX_DIR} bytes of entries"))
                .found(set.len.to_string()));
        }
        let chain = self.chain(set.first_cluster, set.len, set.contiguous);
        Ok((chain, set.damage.clone()))
    }

    fn dir(&self, node: NodeId) -> Result<Arc<Dir>> {
        if let Some(found) = self.dirs.get(&node.record) {
            return Ok(found);
        }
        let (chain, damage) = self.dir_chain(node)?;
        let mut dir = Dir::read(&self.area, &chain, node.record == ROOT)?;
        // What is in a directory has checksums of its own, so it is listed even where the
        // directory's own set is damaged; but some of it may be missing.
        if let Some(e) = damage {
            dir.distrust(e);
        }
        for set in &dir.sets {
            self.sets.insert(set.position / 32, set.clone());
        }
        let dir = Arc::new(dir);
        if !dir.device_failed() {
            self.dirs.insert(node.record, dir.clone());
        }
        Ok(dir)
    }

    /// A root directory's special entry as contents.
    fn special(&self, entry: &dir::Special) -> Contents {
        let chain = self.chain(entry.first_cluster, entry.len, false);
        Contents::new(self.area.clone(), chain, entry.len, entry.len)
    }

    fn upcase(&self) -> &UpCase {
        self.upcase.get_or_init(|| {
            let root = self.dir(NodeId::plain(ROOT));
            let read = root.and_then(|root| match &root.upcase {
                Some(entry) => UpCase::read(&self.special(entry), entry.checksum),
                None => Err(DiskError::corrupt("reading the up-case table")
                    .expected("an entry for it in the root directory")
                    .found("none")),
            });
            read.unwrap_or_else(|e| {
                self.notes
                    .add(format!("names are compared by Unicode's letters: {e}"));
                UpCase::unicode()
            })
        })
    }

    /// The bitmap of clusters in use; bit 0 is cluster 2.
    fn bitmap(&self) -> Option<Vec<u8>> {
        let root = self.dir(NodeId::plain(ROOT)).ok()?;
        let entry = root.bitmap(self.geometry.active)?;
        let need = u64::from(self.geometry.clusters).div_ceil(8);
        if entry.len < need || need > MAX_BITMAP {
            return None;
        }
        let mut bits = vec![0; usize::try_from(need).ok()?];
        self.special(entry).read_exact_at(&mut bits, 0).ok()?;
        Some(bits)
    }

    /// The same by pages, for a few clusters.
    fn in_use(&self) -> Option<&Bitmap> {
        let read = || {
            let root = self.dir(NodeId::plain(ROOT)).ok()?;
            let entry = root.bitmap(self.geometry.active)?;
            let need = u64::from(self.geometry.clusters).div_ceil(8);
            (entry.len >= need).then(|| Bitmap::new(self.special(entry)))
        };
        self.in_use.get_or_init(read).as_ref()
    }

    /// Why the clusters that the table gives may not be those of the file. A set without a chain
    /// has a sum over all that says where it is.
    fn chain_doubts(&self, chain: &Chain) -> Vec<String> {
        let mut doubts = chain.doubts(!self.geometry.dirty);
        if let Some(cluster) = self.in_use().and_then(|map| map.free_of(chain)) {
            doubts.push(format!(
                "its chain leads to cluster {cluster}, which the allocation bitmap calls free"
            ));
        }
        doubts
    }

    /// What is doubtful about an entry set itself.
    fn set_doubts(&self, set: &Set) -> Vec<String> {
        let mut doubts = set.remarks.clone();
        if set.is_dir() {
            doubts.extend(set.damage.as_ref().map(ToString::to_string));
        }
        if set.damage.is_none() && !set.name_hash_fits(self.upcase()) {
            doubts.push("the hash of its name does not fit its name".into());
        }
        doubts
    }

    fn count_used(&self) -> Option<u64> {
        let mut bits = self.bitmap()?;
        let need = bits.len() as u64;
        let over = need
            .saturating_mul(8)
            .saturating_sub(u64::from(self.geometry.clusters));
        if let Some(last) = bits.last_mut() {
            *last &= 0xffu8.checked_shr(u32::try_from(over).ok()?)?;
        }
        let used: u64 = bits.iter().map(|b| u64::from(b.count_ones())).sum();
        Some(used.saturating_mul(self.area.cluster))
    }

    fn contents(&self, node: NodeId) -> Result<Contents> {
        let set = self.set(node)?;
        if set.is_dir() {
            return Err(DiskError::not_found("opening a file")
                .found(format!("node {} is a directory", node.record)));
        }
        if let Some(e) = &set.damage {
            return Err(e.clone().context("opening a file"));
        }
        // Only what was written needs clusters to be there; the rest is zeros.
        let chain = self.chain(set.first_cluster, set.len, set.contiguous);
        Ok(Contents::new(self.area.clone(), chain, set.len, set.valid))
    }

    fn label(&self) -> Option<Name> {
        let label = self.dir(NodeId::plain(ROOT)).ok()?.label.clone();
        label.filter(|l| !l.as_bytes().is_empty())
    }
}

/// Recognises an exFAT volume by sector 0.
pub(crate) fn recognise(disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    let mut sector = [0; 512];
    if disk.len() < 512 {
        return Ok(None);
    }
    disk.read_exact_at(&mut sector, 0)?;
    Ok(Geometry::parse(&sector, 0)
        .ok()
        .map(|geometry| recognised(disk, geometry)))
}

/// Recognises an exFAT volume by its backup boot region.
pub(crate) fn recognise_backup(disk: &Arc<dyn Disk>) -> Result<Option<Recognised>> {
    Ok(boot::backup(disk).map(|geometry| recognised(disk, geometry)))
}

fn recognised(disk: &Arc<dyn Disk>, geometry: Geometry) -> Recognised {
    let fs = ExFat::with(disk.clone(), geometry, OpenOptions::default());
    Recognised {
        kind: FsKind::ExFat,
        label: fs.label(),
        uuid: Some(fs.geometry.uuid()),
        size: Some(fs.geometry.size),
        readable: true,
    }
}

impl FileSystem for ExFat {
    fn info(&self) -> VolumeInfo {
        self.upcase();
        let mut remarks = self.notes.all();
        if self.geometry.media_failure {
            remarks.push("the volume says that its medium has failed somewhere".into());
        }
        VolumeInfo {
            kind: FsKind::ExFat,
            version: Some(self.geometry.revision()),
            label: self.label(),
            uuid: Some(self.geometry.uuid()),
            size: self.geometry.size,
            used: *self.used.get_or_init(|| self.count_used()),
            cluster_size: self.geometry.cluster,
            dirty: Some(self.geometry.dirty),
            unsettled: self.geometry.dirty,
            remarks,
        }
    }

    fn root(&self) -> NodeId {
        NodeId::plain(ROOT)
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        Ok(self.dir(dir)?.find(name, self.upcase()))
    }

    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()> {
        self.dir(dir)?.visit(visit);
        Ok(())
    }

    /// By its first cluster, if it has one.
    fn directory(&self, node: NodeId) -> u64 {
        let first = match node.record {
            ROOT => Some(self.geometry.root_cluster),
            _ => self.set(node).ok().map(|set| set.first_cluster),
        };
        first
            .filter(|first| *first >= 2)
            .map_or(node.record, |first| CLUSTER | u64::from(first))
    }

    fn doubts(&self, node: NodeId) -> Vec<String> {
        if node.record == ROOT {
            let chain = self.dir_chain(node).ok();
            return chain.map_or_else(Vec::new, |(chain, _)| self.chain_doubts(&chain));
        }
        let Ok(set) = self.set(node) else {
            return Vec::new();
        };
        let mut doubts = self.set_doubts(&set);
        // A damaged file is not given out at all.
        if !set.contiguous && set.len > 0 && (set.is_dir() || set.damage.is_none()) {
            let chain = self.chain(set.first_cluster, set.len, false);
            doubts.extend(self.chain_doubts(&chain));
        }
        doubts
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let mut meta = Metadata {
            attributes: Some(0x10),
            ..Metadata::new(node, NodeKind::Directory)
        };
        if node.record == ROOT {
            return Ok(meta);
        }
        let set = self.set(node)?;
        let zone = self.options.zone_offset;
        let clusters = set.len.div_ceil(self.area.cluster.max(1));
        meta.kind = set.kind();
        meta.size = if set.is_dir() { 0 } else { set.len };
        meta.allocated = clusters.saturating_mul(self.area.cluster);
        meta.created = set.created.moment(zone);
        meta.modified = set.modified.moment(zone);
        meta.accessed = set.accessed.moment(zone);
        meta.attributes = Some(u32::from(set.attributes & 0x37));
        meta.refusal = set.damage.clone().filter(|_| !set.is_dir());
        meta.remarks = self.set_doubts(&set);
        let key = (
            u64::from(set.first_cluster),
            Wanted::Exactly(self.clusters_of(set.len)).key(),
        );
        if let Some(chain) = self.chains.get(&key).filter(|_| !set.contiguous) {
            meta.remarks.extend(chain.remarks());
        }
        Ok(meta)
    }

    fn free(&self, visit: crate::free::Visit<'_>) -> Result<bool> {
        if self.info().dirty == Some(true) {
            return Err(
                DiskError::refused("telling the free space of an exFAT volume")
                    .expected("a volume that was closed")
                    .found("one that is marked as dirty"),
            );
        }
        let Some(bits) = self.bitmap() else {
            return Ok(false);
        };
        let (base, cluster) = (self.area.data_start, self.area.cluster);
        let mut free = crate::free::Free::new(visit, base, cluster);
        free.bits(&bits, 0, self.geometry.clusters.into());
        free.close();
        Ok(true)
    }

    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        no_streams(stream)?;
        Ok(Arc::new(self.contents(node)?))
    }

    fn check(&self, visit: disk_io::finding::Visit<'_>) -> Result<bool> {
        self.check_volume(visit)?;
        Ok(true)
    }

    fn extents(&self, node: NodeId, stream: Option<&Name>) -> Result<Vec<Extent>> {
        no_streams(stream)?;
        Ok(self.contents(node)?.extents())
    }

    fn structure(&self, node: NodeId) -> Result<Vec<Extent>> {
        Ok(self.area.extents(&self.dir_chain(node)?.0))
    }
}
