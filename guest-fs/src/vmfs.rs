//! VMFS as a guest file system: the files of a datastore in the tree.
//!
//! Reading is done by the crate `vmfs_reader`; here its answers become those of
//! [`FileSystem`].

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

use crate::told::Told;
use crate::{
    DirEntry, Extent, FileSystem, FsKind, Link, Metadata, Name, NodeId, NodeKind, OpenOptions,
    Timestamp, Visit, VolumeInfo,
};
use disk_io::{Disk, DiskError, ErrorKind, Finding, Result};
use std::{
    ops::{ControlFlow, Range},
    sync::{Arc, OnceLock},
};
use vmfs_reader::{Entry, FdAddress, FileKind, Place, Stat, Volume, probe};

/// An open VMFS volume.
#[derive(Debug)]
pub struct Vmfs {
    volume: Volume,
    /// The device that was opened, of which places are told.
    device: Arc<dyn Disk>,
    root: NodeId,
    used: OnceLock<Option<u64>>,
}

/// Whether a disk or partition is VMFS or a device of a VMFS volume.
pub fn is_member(disk: &Arc<dyn Disk>) -> Result<bool> {
    Ok(probe::probe(disk)?.is_some())
}

impl Vmfs {
    /// Opens a volume that lies on one disk or partition.
    pub fn open(disk: Arc<dyn Disk>, _options: &OpenOptions) -> Result<Self> {
        Self::open_among(&disk, &[], false)
    }

    /// Opens the volume that `disk` is a device of, with those of its other devices that
    /// are among `others`, where `disk` itself may be too. Missing devices are
    /// [`ErrorKind::Refused`] unless `allow_missing`: then what lies on them fails to read.
    pub fn open_among(
        disk: &Arc<dyn Disk>,
        others: &[Arc<dyn Disk>],
        allow_missing: bool,
    ) -> Result<Self> {
        let mut disks = vec![disk.clone()];
        let mut options = vmfs_reader::OpenOptions {
            allow_missing,
            volume: None,
        };
        if let Some(own) = probe::probe(disk)?.and_then(|p| p.member) {
            options.volume = Some(own.volume.to_string());
            for other in others.iter().filter(|o| !Arc::ptr_eq(o, disk)) {
                // One that cannot be read is missing, and that is said below.
                if let Ok(Some(found)) = probe::probe(other)
                    && found
                        .member
                        .is_some_and(|m| (m.volume, m.snapshot) == (own.volume, own.snapshot))
                {
                    disks.push(other.clone());
                }
            }
        }
        let volume = Volume::open(&disks, &options).map_err(incomplete)?;
        let address = volume.root();
        let root = node(address, volume.stat(address)?.generation);
        Ok(Self {
            volume,
            device: disk.clone(),
            root,
            used: OnceLock::new(),
        })
    }

    /// The volume itself, for what only VMFS has.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The descriptor of a node, if it still is what the node was made from.
    fn stat(&self, node: NodeId) -> Result<Stat> {
        let unknown = || {
            DiskError::not_found("looking up a file")
                .found(format!("no descriptor {:#x}", node.record))
        };
        let address = u32::try_from(node.record).map_err(|_| unknown())?;
        let stat = self.volume.stat(FdAddress(address))?;
        if stat.generation as u16 != node.sequence {
            return Err(DiskError::corrupt("looking up a file")
                .expected(format!("generation {} (low 16 bits)", node.sequence))
                .found(format!(
                    "{} in descriptor {:#x}: it was given to another file",
                    stat.generation, node.record
                )));
        }
        Ok(stat)
    }

    fn entry(entry: Entry) -> DirEntry {
        DirEntry {
            node: node(entry.address, entry.generation),
            kind: kind(entry.kind),
            name: Name::from_bytes(entry.name),
            short_name: None,
        }
    }

    /// Which running hosts hold a file.
    fn in_use(&self, address: FdAddress) -> Vec<String> {
        // What is wrong with the heartbeats is a remark on the volume.
        if self.volume.heartbeats().map_or(true, |(b, _)| b.is_empty()) {
            return Vec::new();
        }
        match self.volume.lock_state(address) {
            Ok(state) => state
                .alive
                .iter()
                .map(|b| {
                    format!(
                        "in use by host {} ({}) when the volume was saved: as a power failure \
                         would have left it",
                        b.host, b.address
                    )
                })
                .collect(),
            Err(e) => vec![e.to_string()],
        }
    }

    /// Where bytes of the volume lie on the device: nowhere, if that is another one.
    fn on_device(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut out = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let Some((place, len)) = self.volume.place_on(&self.device, at) else {
                break;
            };
            let len = len.min(range.end.saturating_sub(at)).max(1);
            out.push(place..place.saturating_add(len));
            at = at.saturating_add(len);
        }
        out
    }

    fn used(&self) -> Option<u64> {
        *self.used.get_or_init(|| {
            let usage = self.volume.usage().ok().flatten()?;
            Some(usage.used)
        })
    }
}

/// Missing devices as a refusal that says what helps: `NotFound` would say that a path is
/// not there.
fn incomplete(e: DiskError) -> DiskError {
    if e.kind() != ErrorKind::NotFound {
        return e;
    }
    let (expected, found) = e.difference();
    DiskError::refused(e.doing())
        .expected(expected.unwrap_or("all devices of the volume"))
        .found(format!("only {}", found.unwrap_or("some")))
        .hint("give the others with --with DISK, or go on without them by --allow-missing")
}

fn node(address: FdAddress, generation: u32) -> NodeId {
    NodeId {
        record: address.0.into(),
        sequence: generation as u16,
    }
}

fn kind(kind: FileKind) -> NodeKind {
    match kind {
        FileKind::Directory => NodeKind::Directory,
        FileKind::Symlink => NodeKind::Symlink,
        FileKind::File | FileKind::System | FileKind::Rdm => NodeKind::File,
        _ => NodeKind::Special,
    }
}

impl FileSystem for Vmfs {
    fn check(&self, visit: disk_io::finding::Visit<'_>) -> Result<bool> {
        let mut told = Told::default();
        // What is wrong with resource files is found below.
        for text in self.volume.warnings() {
            if !text.starts_with("some files cannot be read") {
                let e = DiskError::corrupt("opening the datastore").found(text.clone());
                told.tell(Finding::warning("datastore-odd", e), visit);
            }
        }
        self.volume.check(&mut |found| {
            let mut finding = found.finding;
            let ranges = std::mem::take(&mut finding.ranges).into_iter();
            finding.ranges = ranges.flat_map(|r| self.on_device(r)).collect();
            told.tell(finding, visit);
        })?;
        told.finish(visit);
        Ok(true)
    }

    fn info(&self) -> VolumeInfo {
        let sb = self.volume.superblock();
        let mut remarks = self.volume.warnings().to_vec();
        let mut dirty = None;
        match self.volume.heartbeats() {
            Ok((beats, damage)) => {
                dirty = Some(!beats.is_empty());
                remarks.extend(beats.iter().map(|b| {
                    format!(
                        "mounted by host {} ({}, driver {}) when it was saved",
                        b.host, b.address, b.driver
                    )
                }));
                remarks.extend(damage.iter().map(|slot| slot.text.clone()));
            }
            Err(e) => remarks.push(format!("the heartbeats cannot be read: {e}")),
        }
        VolumeInfo {
            kind: FsKind::Vmfs,
            version: Some(match sb.local {
                true => format!("{} (VMFS-L)", sb.version()),
                false => sb.version(),
            }),
            label: Some(Name::from(sb.label.as_str())),
            uuid: Some(sb.uuid.to_string()),
            size: self.volume.size(),
            used: self.used(),
            cluster_size: u32::try_from(sb.block_size).unwrap_or(u32::MAX),
            dirty,
            unsettled: false,
            remarks,
        }
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        let address = self.stat(dir)?.address;
        let found = self.volume.lookup(address, name.as_bytes())?;
        Ok(found.map(|e| node(e.address, e.generation)))
    }

    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()> {
        let address = self.stat(dir)?.address;
        let root = address == self.volume.root();
        self.volume.read_dir(address, &mut |entry| match entry {
            Ok(e) if root && e.kind == FileKind::System => ControlFlow::Continue(()),
            entry => visit(entry.map(Self::entry)),
        })
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let stat = self.stat(node)?;
        let time = |seconds: u32| Some(Timestamp::from_unix(seconds.into(), 0));
        let refusal = match stat.kind {
            FileKind::Rdm => self.volume.open_file(stat.address).err(),
            _ => None,
        };
        Ok(Metadata {
            size: match stat.kind {
                FileKind::Directory => 0,
                _ => stat.size,
            },
            allocated: stat.allocated,
            links: stat.links.max(1),
            modified: time(stat.modified),
            accessed: time(stat.accessed),
            changed: time(stat.changed),
            mode: Some(stat.mode & 0o7777),
            owner: Some((stat.uid, stat.gid)),
            refusal,
            remarks: self.in_use(stat.address),
            ..Metadata::new(node, kind(stat.kind))
        })
    }

    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        let stat = self.stat(node)?;
        if let Some(stream) = stream {
            return Err(DiskError::not_found(format!(
                "opening the stream '{stream}'"
            )));
        }
        if stat.kind == FileKind::Directory {
            return Err(DiskError::unsupported("reading").found("a directory"));
        }
        Ok(Arc::new(self.volume.open_file(stat.address)?))
    }

    fn read_link(&self, node: NodeId) -> Result<Link> {
        let target = Name::from_bytes(self.volume.read_link(self.stat(node)?.address)?);
        Ok(Link {
            sort: "symlink",
            stored: target.clone(),
            target,
        })
    }

    fn metafiles(&self) -> Vec<DirEntry> {
        let mut found = Vec::new();
        // Damage is told by whoever lists the directory.
        let _ = self.volume.read_dir(self.volume.root(), &mut |entry| {
            if let Ok(entry) = entry
                && entry.kind == FileKind::System
            {
                // The directory calls `.sdd.sf` a system file; it is a directory.
                let stat = self.volume.stat(entry.address);
                let mut entry = Self::entry(entry);
                if let Ok(stat) = stat {
                    entry.kind = kind(stat.kind);
                }
                found.push(entry);
            }
            ControlFlow::Continue(())
        });
        found
    }

    fn extents(&self, node: NodeId, stream: Option<&Name>) -> Result<Vec<Extent>> {
        let stat = self.stat(node)?;
        if stream.is_some() {
            return Ok(Vec::new());
        }
        let file = self.volume.open_file(stat.address)?;
        let mut out: Vec<Extent> = Vec::new();
        let mut offset = 0u64;
        while offset < file.len() {
            let found = file.extent_at(offset)?;
            let (place, len) = match found.place {
                // On another device it is not on this disk.
                Place::Stored(place) => match self.volume.place_on(&self.device, place) {
                    Some((place, len)) => (Some(place), found.len.min(len)),
                    None => (None, found.len.min(self.volume.superblock().block_size)),
                },
                Place::Bad(e) => return Err(e),
                _ => (None, found.len),
            };
            let joins = |last: &Extent| match (last.place, place) {
                (Some(a), Some(b)) => a.checked_add(last.len) == Some(b),
                (None, None) => true,
                _ => false,
            };
            match out.last_mut() {
                Some(last) if joins(last) => last.len = last.len.saturating_add(len),
                _ => out.push(Extent { offset, len, place }),
            }
            offset = offset.saturating_add(len.max(1));
        }
        Ok(out)
    }
}
