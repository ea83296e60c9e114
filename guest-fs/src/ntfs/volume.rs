//! The shared state of a volume, and what `info` tells of it.

use super::{
    boot::Boot,
    by_parent::ByParent,
    file::File,
    index::{Directory, Node},
    mft::Mft,
    record::{Chunk, kind},
    upcase::UpCase,
};
use crate::{FsKind, Name, NodeId, OpenOptions, VolumeInfo, fs::DELETED};
use disk_io::{Disk, DiskError, Fields, Result};
use quick_cache::{Weighter, sync::Cache};
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// An NTFS volume.
#[derive(Clone)]
pub struct Ntfs {
    pub(crate) volume: Arc<Volume>,
}

impl fmt::Debug for Ntfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ntfs({:?})", self.volume.boot)
    }
}

/// What all files of a volume share.
pub(crate) struct Volume {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) boot: Boot,
    pub(crate) mft: Mft,
    /// File records by the number of a chunk's first.
    pub(crate) chunks: Cache<u64, Arc<Chunk>, ByBytes>,
    /// Index nodes by directory and VCN.
    pub(crate) nodes: Cache<(u64, u64), Arc<Node>, ByBytes>,
    /// Open directories.
    directories: Cache<NodeId, Arc<Directory>, ByBytes>,
    /// Decoded units by stream and place.
    pub(crate) units: Cache<(u64, u64), Arc<[u8]>, ByBytes>,
    next: AtomicU64,
    upcase: OnceLock<UpCase>,
    /// Made when damage makes it needed.
    pub(crate) by_parent: OnceLock<ByParent>,
    used: OnceLock<Option<u64>>,
    pub(crate) root_sequence: OnceLock<u16>,
    remarks: Vec<String>,
    pub(crate) options: OpenOptions,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volume({:?})", self.boot)
    }
}

/// Weighs what the caches hold.
#[derive(Clone, Debug)]
pub(crate) struct ByBytes;

impl Weighter<u64, Arc<Chunk>> for ByBytes {
    fn weight(&self, _: &u64, chunk: &Arc<Chunk>) -> u64 {
        (chunk.bytes.len() as u64).saturating_add(2048)
    }
}

impl Weighter<(u64, u64), Arc<Node>> for ByBytes {
    fn weight(&self, _: &(u64, u64), node: &Arc<Node>) -> u64 {
        node.weight()
    }
}

impl Weighter<(u64, u64), Arc<[u8]>> for ByBytes {
    fn weight(&self, _: &(u64, u64), unit: &Arc<[u8]>) -> u64 {
        (unit.len() as u64).saturating_add(64)
    }
}

impl Weighter<NodeId, Arc<Directory>> for ByBytes {
    fn weight(&self, _: &NodeId, directory: &Arc<Directory>) -> u64 {
        directory.weight()
    }
}

/// Budgets of the caches in bytes.
const CHUNKS: u64 = 8 << 20;
const NODES: u64 = 4 << 20;
const DIRECTORIES: u64 = 4 << 20;
const UNITS: u64 = 8 << 20;

/// The root directory's record.
pub(crate) const ROOT: u64 = 5;
/// The first record that is not a metafile's.
pub(crate) const FIRST_USER: u64 = 16;

impl Ntfs {
    /// Opens the volume on `disk`. Damage that can be worked around is told by
    /// [`crate::FileSystem::info`].
    ///
    /// # Errors
    /// `Corrupt` where neither the boot sector nor its backup, or neither the $MFT's record
    /// nor its copy, can be used.
    pub fn open(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Self> {
        let (boot, remark) = Boot::read(&*disk)?;
        let mut volume = Volume {
            chunks: Cache::with_weighter(128, CHUNKS, ByBytes),
            nodes: Cache::with_weighter(1024, NODES, ByBytes),
            directories: Cache::with_weighter(1024, DIRECTORIES, ByBytes),
            units: Cache::with_weighter(256, UNITS, ByBytes),
            next: AtomicU64::new(0),
            upcase: OnceLock::new(),
            by_parent: OnceLock::new(),
            used: OnceLock::new(),
            root_sequence: OnceLock::new(),
            mft: Mft::default(),
            remarks: Vec::from_iter(remark),
            disk,
            boot,
            options: options.clone(),
        };
        if boot.size() > volume.disk.len() {
            volume.remarks.push(format!(
                "the file system is {} bytes long, but the volume holds {} bytes only: what lies behind cannot be read",
                boot.size(),
                volume.disk.len()
            ));
        }
        let found = volume.find_mft()?;
        volume.remarks.extend(found);
        Ok(Self {
            volume: Arc::new(volume),
        })
    }
}

impl Volume {
    /// A number that names one opened stream in the cache of units.
    pub(crate) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A file by its node.
    pub(crate) fn file(&self, node: NodeId) -> Result<File<'_>> {
        let deleted = node.record & DELETED != 0;
        File::open(self, node.record & !DELETED, node.sequence, deleted)
    }

    /// A directory's index, through the cache.
    pub(crate) fn directory(&self, node: NodeId) -> Result<Arc<Directory>> {
        if let Some(directory) = self.directories.get(&node) {
            return Ok(directory);
        }
        let directory = Arc::new(Directory::open(&self.file(node)?)?);
        self.directories.insert(node, directory.clone());
        Ok(directory)
    }

    /// The table that folds case.
    pub(crate) fn upcase(&self) -> &UpCase {
        self.upcase
            .get_or_init(|| UpCase::read(self).unwrap_or_else(|_| UpCase::standard()))
    }

    /// Bytes in use by $Bitmap; `None` where that cannot be read, or is so long that
    /// reading it is not cheap.
    fn used(&self) -> Option<u64> {
        *self.used.get_or_init(|| {
            const CHEAP: u64 = 64 << 20;
            let content = File::open(self, 6, 0, false).ok()?.content(kind::DATA, &[]);
            let clusters = content.ok()??.into_runs()?;
            let bits = self.boot.clusters();
            let len = bits.div_ceil(8);
            if len > clusters.size || len > CHEAP {
                return None;
            }
            let mut used = 0u64;
            let mut at = 0u64;
            let mut buf = vec![0u8; 1 << 20];
            while at < len {
                let n = len.saturating_sub(at).min(buf.len() as u64);
                let part = buf.get_mut(..n as usize)?;
                self.read_runs(&clusters.runs, part, at, &|| "$Bitmap".into())
                    .ok()?;
                at = at.saturating_add(n);
                if at == len
                    && let Some(last) = part.last_mut()
                    && !bits.is_multiple_of(8)
                {
                    // Bits behind the last cluster are set.
                    *last &= u8::MAX
                        .checked_shr(8u32.saturating_sub((bits % 8) as u32))
                        .unwrap_or(0);
                }
                let (words, rest) = part.as_chunks::<8>();
                let ones = words
                    .iter()
                    .map(|w| u64::from(u64::from_ne_bytes(*w).count_ones()));
                let more = rest.iter().map(|b| u64::from(b.count_ones()));
                used = ones.chain(more).fold(used, u64::saturating_add);
            }
            used.checked_mul(self.boot.cluster())
        })
    }

    /// Visits free clusters, where $Bitmap can be believed: on a volume that was not closed,
    /// files may have clusters that it does not know of yet.
    pub(crate) fn free(&self, visit: crate::free::Visit<'_>) -> Result<()> {
        let doing = "telling the free space of an NTFS volume";
        if let Some(why) = self.why_open()? {
            return Err(DiskError::refused(doing)
                .expected("a volume that was closed")
                .found(why));
        }
        let ranges = self.free_in_bitmap()?;
        // A map can be wrong on a volume that was closed: what it calls free is nobody's only if
        // no record has it.
        self.visit_claims(&mut |claim| {
            let claim = claim?;
            let [start, end] = [claim.clusters.start, claim.clusters.end]
                .map(|at| at.saturating_mul(self.boot.cluster()));
            let next = ranges.partition_point(|r: &Range<u64>| r.end <= start);
            match ranges.get(next) {
                Some(range) if range.start < end => Err(DiskError::corrupt(doing)
                    .expected("every file's clusters to be in use in $Bitmap")
                    .found(format!(
                        "clusters of record {} that $Bitmap calls free",
                        claim.record
                    ))),
                _ => Ok(()),
            }
        })?;
        ranges.into_iter().for_each(visit);
        Ok(())
    }

    /// Why what the volume says of itself may be out of date; `None` if it was closed.
    pub(crate) fn why_open(&self) -> Result<Option<String>> {
        Ok(match self.log_state()? {
            Some(state) => Some(state),
            None if self.info().dirty == Some(true) => Some("it is marked as dirty".to_owned()),
            None => self.hibernation(),
        })
    }

    /// Ranges of bytes that $Bitmap calls free, in order.
    pub(crate) fn free_in_bitmap(&self) -> Result<Vec<Range<u64>>> {
        let doing = "reading $Bitmap";
        let clusters = File::open(self, 6, 0, false)?
            .content(kind::DATA, &[])?
            .and_then(|c| c.into_runs())
            .ok_or_else(|| DiskError::corrupt(doing).found("a $Bitmap without clusters"))?;
        let bits = self.boot.clusters();
        if clusters.size < bits.div_ceil(8) {
            return Err(DiskError::corrupt(doing)
                .expected(format!("{bits} bits in $Bitmap"))
                .found(format!("{} bytes", clusters.size)));
        }
        let mut ranges = Vec::new();
        let mut keep = |range| ranges.push(range);
        let mut free = crate::free::Free::new(&mut keep, 0, self.boot.cluster());
        let mut buf = vec![0u8; 1 << 20];
        let mut at = 0u64;
        while at < bits.div_ceil(8) {
            let n = bits.div_ceil(8).saturating_sub(at).min(buf.len() as u64);
            let part = buf.get_mut(..n as usize).unwrap_or_default();
            self.read_runs(&clusters.runs, part, at, &|| "$Bitmap".into())?;
            let first = at.saturating_mul(8);
            free.bits(part, first, bits.saturating_sub(first));
            at = at.saturating_add(n);
        }
        free.close();
        Ok(ranges)
    }

    /// What `info` tells.
    pub(crate) fn info(&self) -> VolumeInfo {
        let mut remarks = self.remarks.clone();
        let mut info = VolumeInfo {
            kind: FsKind::Ntfs,
            version: None,
            label: None,
            uuid: Some(format!("{:016X}", self.boot.serial)),
            size: self.boot.size(),
            used: self.used(),
            cluster_size: self.boot.cluster_size,
            dirty: None,
            unsettled: false,
            remarks: Vec::new(),
        };
        if let Err(e) = self.volume_file(&mut info) {
            remarks.push(format!("$Volume cannot be read: {e}"));
        }
        if let Err(e) = UpCase::read(self) {
            remarks.push(format!(
                "$UpCase cannot be read, Unicode's own folding is used: {e}"
            ));
        }
        let mut open = info.dirty == Some(true);
        match self.log_state() {
            Ok(None) => {}
            Ok(Some(text)) => {
                open = true;
                remarks.push(text);
            }
            Err(e) => remarks.push(format!("$LogFile cannot be read: {e}")),
        }
        let hibernation = self.hibernation();
        info.unsettled = open || hibernation.is_some();
        remarks.extend(hibernation);
        info.remarks = remarks;
        info
    }

    /// Label, version and flags.
    fn volume_file(&self, info: &mut VolumeInfo) -> Result<()> {
        let file = File::open(self, 3, 0, false)?;
        info.label = file
            .value(kind::VOLUME_NAME, &[], 4096)?
            .map(|bytes| Name::from_utf16(super::units(&bytes)))
            .filter(|name| !name.as_bytes().is_empty());
        if let Some(value) = file.value(kind::VOLUME_INFORMATION, &[], 4096)? {
            let f = Fields::new(&value, 0, "volume information");
            info.version = Some(format!("{}.{}", f.u8(8)?, f.u8(9)?));
            info.dirty = Some(f.u16_le(10)? & 1 != 0);
        }
        Ok(())
    }

    /// Whether the journal was closed: a sentence if not.
    fn log_state(&self) -> Result<Option<String>> {
        let content = File::open(self, 2, 0, false)?.content(kind::DATA, &[])?;
        let Some(clusters) = content.and_then(|c| c.into_runs()) else {
            return Ok(Some("$LogFile has no contents".into()));
        };
        let mut page = vec![0; (clusters.size.min(clusters.initialized)).min(4096) as usize];
        self.read_runs(&clusters.runs, &mut page, 0, &|| "$LogFile".into())?;
        let f = Fields::new(&page, 0, "$LogFile restart page");
        match page.first_chunk::<4>() {
            // An emptied journal: nothing to replay.
            Some([0xff, 0xff, 0xff, 0xff]) | None => Ok(None),
            Some(b"RSTR") => {
                let area = usize::from(f.u16_le(24)?);
                let in_use = f.u16_le(area.saturating_add(12))?;
                let flags = f.u16_le(area.saturating_add(14))?;
                // No client in use, or the flag that the volume was dismounted.
                Ok((in_use != u16::MAX && flags & 2 == 0).then(|| {
                    "$LogFile was not closed: the guest was running or crashed; its last changes of names and sizes may be missing or half done".to_string()
                }))
            }
            Some(b"CHKD") => Ok(Some("$LogFile was reset by chkdsk".into())),
            Some(other) => Ok(Some(format!(
                "$LogFile begins with {other:02x?}, not a restart page"
            ))),
        }
    }

    /// Whether Windows sleeps on this volume.
    fn hibernation(&self) -> Option<String> {
        let root = NodeId::plain(ROOT);
        let name: Vec<u16> = "hiberfil.sys".encode_utf16().collect();
        let target = self.directory(root).ok()?.lookup(self, &name).ok()??;
        let file = self.file(target.into()).ok()?;
        let clusters = file.content(kind::DATA, &[]).ok()??.into_runs()?;
        let mut magic = [0; 4];
        if clusters.size < 4096 || clusters.initialized < 4 {
            return None;
        }
        self.read_runs(&clusters.runs, &mut magic, 0, &|| "hiberfil.sys".into())
            .ok()?;
        magic.eq_ignore_ascii_case(b"hibr").then(|| {
            "Windows is hibernated or was shut down by fast startup: files that were open may be older here than in the guest".to_string()
        })
    }

    /// An error for what is asked of a file of the wrong kind.
    pub(crate) fn not_a(&self, node: NodeId, what: &str) -> DiskError {
        DiskError::corrupt(format!("reading file record {}", node.record))
            .expected(what)
            .found("another kind of file")
    }
}
