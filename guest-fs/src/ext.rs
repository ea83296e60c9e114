//! ext2, ext3 and ext4.
//!
//! | module | holds |
//! |---|---|
//! | `superblock` | geometry, features, group descriptors |
//! | `inode` | one inode |
//! | `mapping` | extent trees and block maps, as runs |
//! | `file` | runs as a disk |
//! | `directory`, `xattr` | their blocks |
//! | `journal` | committed transactions of a volume not closed cleanly, laid over it |
//! | `check` | structures and checksums held against each other |
//! | `sums`, `doubts` | checksums of metadata, and what they say against one inode |
//!
//! A block that a checksum would reject is caught by its structure or read as it is; what is
//! restored from it is called doubtful.
#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

mod check;
mod directory;
mod doubts;
mod file;
mod inode;
mod journal;
mod layout;
mod mapping;
mod sums;
mod superblock;
mod xattr;

use crate::{
    DirEntry, Extent, FileSystem, Link, Metadata, Name, NodeId, NodeKind, OpenOptions, Visit,
    VolumeInfo,
};
use disk_io::{Disk, DiskError, MemDisk, Result, RunKind};
use file::FileDisk;
use inode::Inode;
use layout::{IncompatFeatures, InodeFlags, InodeNumber, ROOT};
use std::{ops::ControlFlow, sync::Arc};
use superblock::{SUPERBLOCK_OFFSET, Superblock};
use xattr::Value;

/// No directory is larger than this (feature largedir allows 2 GiB and more in theory).
const MAX_DIRECTORY: u64 = 4 << 30;
/// A link's target is at most a block.
const MAX_LINK: u64 = 65_536;

/// An open ext2, ext3 or ext4 file system.
#[derive(Debug)]
pub struct Ext {
    sb: Superblock,
    volume: Arc<dyn Disk>,
    remarks: Vec<String>,
    replayed: Option<u32>,
}

impl Ext {
    /// Opens the file system on `disk`, which begins with it. A journal that holds committed
    /// transactions is replayed in memory.
    pub fn open(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Self> {
        let _ = options;
        let mut remarks = Vec::new();
        let sb = match Superblock::read(&disk, SUPERBLOCK_OFFSET) {
            Ok(sb) => sb,
            Err(first) => Self::backup_superblock(&disk, &first, &mut remarks)?,
        };
        if sb.size() > disk.len() {
            remarks.push(format!(
                "the file system says {} bytes and the volume has {}",
                sb.size(),
                disk.len()
            ));
        }
        let mut fs = Self {
            sb,
            volume: disk,
            remarks,
            replayed: None,
        };
        if fs.sb.incompat & IncompatFeatures::RECOVER != 0 {
            fs.replay()?;
        }
        Ok(fs)
    }

    /// Copies of the superblock stand in block groups 1, 3, 5, 7 …; the block size is not
    /// known yet, so the usual places for each size are tried.
    fn backup_superblock(
        disk: &dyn Disk,
        first: &DiskError,
        remarks: &mut Vec<String>,
    ) -> Result<Superblock> {
        for block_size in [1024u64, 4096, 2048, 65_536] {
            let group = block_size.saturating_mul(8).saturating_mul(block_size);
            let offset = group.saturating_add(if block_size == 1024 { 1024 } else { 0 });
            if let Ok(sb) = Superblock::read(disk, offset)
                && u64::from(sb.block_size) == block_size
            {
                remarks.push(format!(
                    "the superblock is damaged ({first}); the copy at {offset} is used"
                ));
                return Ok(sb);
            }
        }
        Err(first.clone())
    }

    fn replay(&mut self) -> Result<()> {
        if self.sb.journal_inode.0 == 0 {
            self.remarks.push(
                "not closed cleanly, and its journal is on another device: what was only \
                 in the journal is missing"
                    .into(),
            );
            return Ok(());
        }
        let inode = Inode::read(&self.sb, &self.volume, self.sb.journal_inode)?;
        let runs = mapping::runs(&self.sb, &self.volume, &inode)?;
        let journal = FileDisk::new(
            self.volume.clone(),
            &self.sb,
            runs,
            inode.size,
            "the journal".into(),
        );
        let outcome = journal::replay(self.volume.clone(), journal, self.sb.block_size)
            .map_err(|e| e.context("replaying the ext journal"))?;
        self.remarks.push(format!(
            "not closed cleanly: {} committed transactions ({} blocks) are read from the journal",
            outcome.transactions,
            outcome.disk.blocks()
        ));
        self.remarks.extend(outcome.remarks);
        self.replayed = Some(outcome.transactions);
        self.volume = Arc::new(outcome.disk);
        // The superblock and the descriptors may have been in the journal too.
        if let Ok(sb) = Superblock::read(&self.volume, SUPERBLOCK_OFFSET) {
            self.sb = sb;
        }
        Ok(())
    }

    fn inode(&self, node: NodeId) -> Result<Inode> {
        let number = u32::try_from(node.record)
            .map_err(|_| DiskError::corrupt("finding an inode").found(node.record.to_string()))?;
        Inode::read(&self.sb, &self.volume, InodeNumber(number))
    }

    /// Attributes of an inode, from inside it and from its block.
    fn attributes(&self, inode: &Inode) -> Result<Vec<xattr::Attribute>> {
        let place = inode.place;
        let mut all = xattr::in_inode(&inode.extra, place)?;
        if inode.file_acl.0 != 0 {
            let place = self.sb.offset(inode.file_acl)?;
            let mut block = vec![0; self.sb.block_size as usize];
            self.volume.read_exact_at(&mut block, place)?;
            all.extend(xattr::in_block(&self.sb, &block, place)?);
        }
        Ok(all)
    }

    /// Contents kept inside the inode: 60 bytes, and the rest as an attribute.
    fn inline_data(&self, inode: &Inode) -> Result<Vec<u8>> {
        let mut data = inode.block.to_vec();
        for attribute in xattr::in_inode(&inode.extra, inode.place)? {
            if attribute.name == b"system.data"
                && let Value::Here(value) = attribute.value
            {
                data.extend_from_slice(&value);
            }
        }
        Ok(data)
    }

    /// Where the blocks of an inode lie.
    fn places(&self, inode: &Inode) -> Result<Vec<Extent>> {
        let runs = mapping::runs(&self.sb, &self.volume, inode)?;
        let name = format!("inode {}", inode.number.0);
        Ok(FileDisk::new(self.volume.clone(), &self.sb, runs, inode.size, name).extents())
    }

    fn refusal(inode: &Inode) -> Option<DiskError> {
        let what = if inode.has(InodeFlags::ENCRYPTED) {
            "a file encrypted by the guest (fscrypt)"
        } else if inode.has(InodeFlags::COMPRESSED) {
            "a file compressed by an ext2 extension (e2compr)"
        } else {
            return None;
        };
        Some(
            DiskError::unsupported("reading the contents")
                .file(format!("inode {}", inode.number.0))
                .found(what),
        )
    }

    fn contents(&self, inode: &Inode) -> Result<Arc<dyn Disk>> {
        if let Some(refusal) = Self::refusal(inode) {
            return Err(refusal);
        }
        let name = format!("inode {}", inode.number.0);
        if inode.has(InodeFlags::INLINE_DATA) {
            let mut data = self.inline_data(inode)?;
            let size = usize::try_from(inode.size).unwrap_or(usize::MAX);
            if data.len() < size {
                return Err(DiskError::corrupt("reading inline contents")
                    .file(name)
                    .offset(inode.place)
                    .expected(format!("{size} bytes"))
                    .found(data.len().to_string()));
            }
            data.truncate(size);
            return Ok(Arc::new(MemDisk::new(data)));
        }
        let runs = mapping::runs(&self.sb, &self.volume, inode)
            .map_err(|e| e.context(format!("reading the extents of {name}")))?;
        Ok(Arc::new(FileDisk::new(
            self.volume.clone(),
            &self.sb,
            runs,
            inode.size,
            name,
        )))
    }

    /// Visits the entries of a directory; damage in one block is visited and the rest goes on.
    fn visit_entries(
        &self,
        dir: NodeId,
        visit: &mut dyn FnMut(Result<directory::Entry>) -> ControlFlow<()>,
    ) -> Result<()> {
        let inode = self.inode(dir)?;
        if inode.kind() != Some(NodeKind::Directory) {
            return Err(DiskError::corrupt("listing a directory")
                .file(format!("inode {}", inode.number.0))
                .expected("a directory")
                .found(format!("mode {:o}", inode.mode)));
        }
        if inode.has(InodeFlags::INLINE_DATA) {
            let data = self.inline_data(&inode)?;
            // The parent's number stands first; then entries in the inode, then the rest.
            let parts = [data.get(4..60), data.get(60..)];
            for part in parts.into_iter().flatten().filter(|p| !p.is_empty()) {
                let listed =
                    directory::entries(part, inode.place, self.sb.incompat, &mut |e| visit(Ok(e)));
                if listed.unwrap_or_else(|e| visit(Err(e))).is_break() {
                    return Ok(());
                }
            }
            return Ok(());
        }
        if inode.size > MAX_DIRECTORY {
            return Err(DiskError::refused("listing a directory")
                .file(format!("inode {}", inode.number.0))
                .expected(format!("at most {MAX_DIRECTORY} bytes"))
                .found(inode.size.to_string()));
        }
        let contents = self.contents(&inode)?;
        let mut block = vec![0; self.sb.block_size as usize];
        let mut at = 0;
        while at < contents.len() {
            let run = contents.run_at(at)?;
            if run.kind != RunKind::Data {
                at = at.saturating_add(run.len);
                continue;
            }
            let n = contents.len().saturating_sub(at).min(block.len() as u64);
            let Some(buf) = block.get_mut(..n as usize) else {
                break;
            };
            let listed = contents
                .read_exact_at(buf, at)
                .and_then(|()| directory::entries(buf, at, self.sb.incompat, &mut |e| visit(Ok(e))))
                .map_err(|e| e.file(format!("directory inode {}", inode.number.0)));
            if listed.unwrap_or_else(|e| visit(Err(e))).is_break() {
                return Ok(());
            }
            at = at.saturating_add(n);
        }
        Ok(())
    }

    fn link_target(&self, inode: &Inode) -> Result<Vec<u8>> {
        if inode.size > MAX_LINK {
            return Err(DiskError::corrupt("reading a symbolic link")
                .file(format!("inode {}", inode.number.0))
                .expected(format!("at most {MAX_LINK} bytes"))
                .found(inode.size.to_string()));
        }
        let size = usize::try_from(inode.size).unwrap_or(0);
        // Short targets stand where the block pointers would be.
        let fast = size < 60
            && !inode.has(InodeFlags::EXTENTS | InodeFlags::INLINE_DATA | InodeFlags::ENCRYPTED);
        if fast {
            return Ok(inode.block.get(..size).unwrap_or_default().to_vec());
        }
        let contents = self.contents(inode)?;
        let mut target = vec![0; size];
        contents.read_exact_at(&mut target, 0)?;
        Ok(target)
    }

    /// Extended attributes of an object: full names (`user.x`, `security.selinux`) and values.
    pub fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let inode = self.inode(node)?;
        let mut out = Vec::new();
        for attribute in self.attributes(&inode)? {
            if attribute.name == b"system.data" {
                continue;
            }
            let value = match attribute.value {
                Value::Here(value) => value,
                Value::Inode(number, size) => {
                    let holder = Inode::read(&self.sb, &self.volume, number)?;
                    let disk = self.contents(&holder)?;
                    let size = u64::from(size).min(disk.len()).min(1 << 20);
                    let mut value = vec![0; size as usize];
                    disk.read_exact_at(&mut value, 0)?;
                    value
                }
            };
            out.push((attribute.name, value));
        }
        Ok(out)
    }
}

impl FileSystem for Ext {
    fn xattrs(&self, node: NodeId) -> Result<Vec<(Name, Vec<u8>)>> {
        let all = Self::xattrs(self, node)?.into_iter();
        Ok(all
            .map(|(name, value)| {
                let value = match name.starts_with(b"system.posix_acl_") {
                    true => xattr::acl(&value).unwrap_or(value),
                    false => value,
                };
                (Name::from_bytes(name), value)
            })
            .collect())
    }

    fn check(&self, visit: disk_io::finding::Visit<'_>) -> Result<bool> {
        self.check_volume(visit)?;
        Ok(true)
    }

    fn free(&self, visit: crate::free::Visit<'_>) -> Result<bool> {
        self.sb.free(&*self.volume, visit)
    }

    fn info(&self) -> VolumeInfo {
        let used = self.sb.blocks_count.saturating_sub(self.sb.free_blocks);
        let u = self.sb.uuid.map(|b| format!("{b:02x}"));
        let part = |range: std::ops::Range<usize>| u.get(range).unwrap_or_default().concat();
        let uuid = [
            part(0..4),
            part(4..6),
            part(6..8),
            part(8..10),
            part(10..16),
        ]
        .join("-");
        VolumeInfo {
            kind: self.sb.kind(),
            version: None,
            label: (!self.sb.label.as_bytes().is_empty()).then(|| self.sb.label.clone()),
            uuid: self.sb.uuid.iter().any(|b| *b != 0).then_some(uuid),
            size: self.sb.size(),
            used: Some(used.saturating_mul(self.sb.block_size.into())),
            cluster_size: self.sb.block_size,
            dirty: Some(self.replayed.is_some() || self.sb.state & 1 == 0),
            remarks: self.remarks.clone(),
        }
    }

    fn root(&self) -> NodeId {
        NodeId::plain(ROOT.0.into())
    }

    fn lookup(&self, dir: NodeId, name: &Name) -> Result<Option<NodeId>> {
        let (mut found, mut damage) = (None, None);
        self.visit_entries(dir, &mut |entry| {
            match entry {
                Ok(e) if e.name == *name => {
                    found = Some(NodeId::plain(e.inode.0.into()));
                    return ControlFlow::Break(());
                }
                Ok(_) => {}
                Err(e) => damage = Some(e),
            }
            ControlFlow::Continue(())
        })?;
        match (found, damage) {
            (None, Some(e)) => Err(e),
            (found, _) => Ok(found),
        }
    }

    fn read_dir(&self, dir: NodeId, visit: Visit<'_>) -> Result<()> {
        self.visit_entries(dir, &mut |entry| match entry {
            Err(e) => visit(Err(e)),
            Ok(e) => {
                let node = NodeId::plain(e.inode.0.into());
                // Without the filetype feature the inode itself says what it is.
                let kind = match e.kind {
                    Some(kind) => Ok(kind),
                    None => self
                        .inode(node)
                        .map(|i| i.kind().unwrap_or(NodeKind::Special)),
                };
                visit(kind.map(|kind| DirEntry {
                    name: e.name,
                    node,
                    kind,
                    short_name: None,
                }))
            }
        })
    }

    fn metadata(&self, node: NodeId) -> Result<Metadata> {
        let inode = self.inode(node)?;
        // The root is there whatever its inode says: without it nothing can be read.
        if !inode.in_use() && inode.number != ROOT {
            return Err(DiskError::corrupt("reading an inode")
                .file(format!("inode {}", inode.number.0))
                .offset(inode.place)
                .expected("an inode in use")
                .found("a freed one"));
        }
        let kind = inode.kind().unwrap_or(NodeKind::Special);
        Ok(Metadata {
            node,
            kind,
            size: match kind {
                NodeKind::File | NodeKind::Symlink => inode.size,
                _ => 0,
            },
            allocated: inode.allocated,
            links: inode.links.into(),
            created: inode.created,
            modified: Some(inode.modified),
            accessed: Some(inode.accessed),
            changed: Some(inode.changed),
            attributes: None,
            // Only the mode says what a special file is.
            mode: Some(match kind {
                NodeKind::Special => inode.mode.into(),
                _ => u32::from(inode.mode & 0o7777),
            }),
            owner: Some((inode.uid, inode.gid)),
            reparse_tag: None,
            refusal: Self::refusal(&inode),
            remarks: Vec::new(),
        })
    }

    fn doubts(&self, node: NodeId) -> Vec<String> {
        doubts::doubts(self, node)
    }

    fn open(&self, node: NodeId, stream: Option<&Name>) -> Result<Arc<dyn Disk>> {
        let inode = self.inode(node)?;
        if let Some(stream) = stream {
            return Err(DiskError::not_found("opening a stream")
                .file(format!("inode {}", inode.number.0))
                .found(format!("{stream}: ext has no named streams")));
        }
        match inode.kind() {
            Some(NodeKind::File) if inode.in_use() => self.contents(&inode),
            Some(NodeKind::Symlink) => Ok(Arc::new(MemDisk::new(self.link_target(&inode)?))),
            _ => Err(DiskError::unsupported("opening")
                .file(format!("inode {}", inode.number.0))
                .expected("a file")
                .found(format!("mode {:o}", inode.mode))),
        }
    }

    fn read_link(&self, node: NodeId) -> Result<Link> {
        let inode = self.inode(node)?;
        let target = Name::from_bytes(self.link_target(&inode)?);
        Ok(Link {
            sort: "symlink",
            stored: target.clone(),
            target,
        })
    }

    fn extents(&self, node: NodeId, stream: Option<&Name>) -> Result<Vec<Extent>> {
        let inode = self.inode(node)?;
        if stream.is_some() || inode.kind() != Some(NodeKind::File) {
            return Ok(Vec::new());
        }
        if inode.has(InodeFlags::INLINE_DATA) {
            return Ok(vec![Extent {
                offset: 0,
                len: inode.size,
                place: None,
            }]);
        }
        self.places(&inode)
    }

    fn structure(&self, node: NodeId) -> Result<Vec<Extent>> {
        let inode = self.inode(node)?;
        if inode.kind() != Some(NodeKind::Directory) || inode.has(InodeFlags::INLINE_DATA) {
            return Ok(Vec::new());
        }
        self.places(&inode)
    }
}
