//! ext2, ext3 and ext4.
//!
//! | module | holds |
//! |---|---|
//! | `open` | opening: which superblock, and the journal |
//! | `superblock` | geometry, features, group descriptors |
//! | `groups` | where inode tables are, by descriptors that are right or by their copies |
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
mod groups;
mod inode;
mod journal;
mod layout;
mod mapping;
mod open;
mod sums;
mod superblock;
mod xattr;

use crate::{
    DirEntry, Extent, FileSystem, Link, Metadata, Name, NodeId, NodeKind, Visit, VolumeInfo,
};
use disk_io::{Disk, DiskError, MemDisk, Result, RunKind};
use file::FileDisk;
use inode::Inode;
use layout::{InodeFlags, InodeNumber, ROOT};
use std::{ops::ControlFlow, sync::Arc};
use superblock::Superblock;
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
    /// Why nothing of the volume may be as the guest left it.
    doubts: Vec<String>,
    replayed: Option<u32>,
}

impl Ext {
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
            if (data.len() as u64) < inode.size {
                let e = DiskError::corrupt("listing a directory kept in its inode")
                    .file(format!("directory inode {}", inode.number.0))
                    .offset(inode.place)
                    .expected(format!("{} bytes", inode.size))
                    .found(data.len().to_string());
                if visit(Err(e)).is_break() {
                    return Ok(());
                }
            }
            // The parent's number stands first; then entries in the inode, then the rest.
            let parts = [data.get(4..60), data.get(60..)];
            for part in parts.into_iter().flatten().filter(|p| !p.is_empty()) {
                let listed = directory::entries(part, inode.place, self.sb.incompat, visit);
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
        let named = |e: DiskError| e.file(format!("directory inode {}", inode.number.0));
        if inode.size == 0 {
            let e = DiskError::corrupt("listing a directory")
                .offset(inode.place)
                .expected("a block at least, with '.' and '..'")
                .found("a size of 0");
            let _ = visit(Err(named(e)));
            return Ok(());
        }
        let contents = self.contents(&inode)?;
        let mut block = vec![0; self.sb.block_size as usize];
        let mut at = 0;
        while at < contents.len() {
            let run = contents.run_at(at)?;
            if run.kind != RunKind::Data {
                let e = DiskError::corrupt("listing a directory")
                    .offset(at)
                    .expected("blocks of entries up to its size")
                    .found(format!("a hole of {} bytes", run.len));
                if visit(Err(named(e))).is_break() {
                    return Ok(());
                }
                at = at.saturating_add(run.len);
                continue;
            }
            let n = contents.len().saturating_sub(at).min(block.len() as u64);
            let Some(buf) = block.get_mut(..n as usize) else {
                break;
            };
            let mut told = |entry: Result<directory::Entry>| visit(entry.map_err(named));
            let listed = contents.read_exact_at(buf, at).and_then(|()| {
                if at == 0
                    && let Err(e) = directory::begins(buf, inode.number)
                    && told(Err(e)).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                directory::entries(buf, at, self.sb.incompat, &mut told)
            });
            let listed = listed.map_err(named);
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
        let target = if fast {
            inode.block.get(..size).unwrap_or_default().to_vec()
        } else {
            let contents = self.contents(inode)?;
            let mut target = vec![0; size];
            contents.read_exact_at(&mut target, 0)?;
            target
        };
        // Whether its length or its text is the wrong one nothing tells.
        match target.iter().position(|b| *b == 0) {
            None => Ok(target),
            Some(at) => Err(DiskError::corrupt("reading a symbolic link")
                .file(format!("inode {}", inode.number.0))
                .expected(format!("a target of {size} bytes"))
                .found(format!(
                    "a NUL behind {at} of them: {}",
                    Name::from_bytes(target.get(..at).unwrap_or_default().to_vec())
                ))),
        }
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
            unsettled: self.replayed.is_none() && self.sb.state & 1 == 0,
            remarks: [&self.remarks[..], &self.doubts].concat(),
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
            // Only the mode says what a special file is.
            mode: Some(match kind {
                NodeKind::Special => inode.mode.into(),
                _ => u32::from(inode.mode & 0o7777),
            }),
            owner: Some((inode.uid, inode.gid)),
            device: inode.device(),
            refusal: Self::refusal(&inode),
            ..Metadata::new(node, kind)
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
