//! Directories: B-trees of file names.

mod lookup;
mod parse;
mod walk;

pub(crate) use parse::{Entry, FileName, Node, namespace};

use super::{
    file::{Clusters, Content, File},
    record::{self, Reference, kind},
    volume::Volume,
};
use crate::NodeId;
use disk_io::{DiskError, Fields, Result};
use parse::parse_node;
use std::{
    cmp::Ordering,
    sync::{Arc, atomic::AtomicBool},
};

/// "$I30" in UTF-16LE: the name of every directory's index.
pub(crate) const I30: &[u8] = b"$\0I\x003\x000\0";
/// The longest $BITMAP of an index that we read: some 128 million blocks.
const MAX_BITMAP: u64 = 16 << 20;

/// A directory's index.
#[derive(Debug)]
pub(crate) struct Directory {
    number: u64,
    /// What files in it call it; nobody is in a deleted one any more.
    pub(crate) own: Option<Reference>,
    /// Whether a walk has met damage.
    damaged: AtomicBool,
    /// Whether it holds file names; other indexes hold plain keys.
    names: bool,
    root: Arc<Node>,
    blocks: Option<Clusters>,
    block_size: u32,
    /// $BITMAP, read only when damage makes it needed.
    bitmap: Result<Vec<u8>>,
}

impl Directory {
    /// Opens the index of a directory.
    pub(crate) fn open(file: &File<'_>) -> Result<Self> {
        Self::open_named(file, I30)
    }

    /// Opens an index by its name, as UTF-16LE.
    pub(crate) fn open_named(file: &File<'_>, name: &[u8]) -> Result<Self> {
        let names = name == I30;
        let number = file.base.number;
        let own = own_of(file);
        let damaged = AtomicBool::new(false);
        let doing = format!("reading directory {number}");
        let Some(Content::Resident(root)) = file.content(kind::INDEX_ROOT, name)? else {
            return Err(DiskError::corrupt(doing).expected("an index root").found(
                if file.base.is_directory() {
                    "a directory without one"
                } else {
                    "a file that is not a directory"
                },
            ));
        };
        let f = Fields::new(&root, 0, "index root");
        let block_size = f.u32_le(8)?;
        let header = f.sub(16, root.len().saturating_sub(16), "index root")?;
        let mut root = parse_node(&header, names)?;
        let large = root.entries.iter().any(|e| e.child.is_some());
        let blocks = file
            .content(kind::INDEX_ALLOCATION, name)?
            .and_then(Content::into_runs);
        if large && blocks.is_none() {
            // The entries in the root can still be told.
            return Ok(Self {
                number,
                own,
                damaged,
                names,
                root: Arc::new(root),
                blocks: None,
                block_size: 0,
                bitmap: Ok(Vec::new()),
            });
        }
        if blocks.is_some()
            && (!block_size.is_power_of_two() || !(512..=65_536).contains(&block_size))
        {
            return Err(f
                .corrupt(8, "the index block size")
                .found(block_size.to_string()));
        }
        let bitmap = match &blocks {
            Some(_) => file
                .value(kind::BITMAP, name, MAX_BITMAP)
                .map(Option::unwrap_or_default),
            None => Ok(Vec::new()),
        };
        let used = |bitmap: &Vec<u8>| bitmap.iter().any(|byte| *byte != 0);
        if !large && names && bitmap.as_ref().is_ok_and(used) {
            root.damage.get_or_insert_with(|| {
                let found = "a root that leads to none of its blocks in use";
                f.corrupt(16, "an index root").found(found)
            });
        }
        Ok(Self {
            number,
            own,
            damaged,
            names,
            root: Arc::new(root),
            blocks,
            block_size,
            bitmap,
        })
    }

    /// Bytes it takes in memory, about.
    pub(crate) fn weight(&self) -> u64 {
        let runs = self.blocks.as_ref().map_or(0, |b| b.runs.pieces().len());
        let bitmap = self.bitmap.as_ref().map_or(0, Vec::len);
        self.root
            .weight()
            .saturating_add((runs as u64).saturating_mul(40))
            .saturating_add(bitmap as u64)
    }

    fn fail(&self) -> DiskError {
        DiskError::corrupt(format!("reading directory {}", self.number))
    }

    /// Bytes of index blocks that were ever written.
    fn valid(&self) -> u64 {
        self.blocks
            .as_ref()
            .map_or(0, |b| b.size.min(b.initialized))
    }

    /// Byte offset of the block with this VCN in the index allocation.
    fn offset_of(&self, volume: &Volume, vcn: u64) -> Result<u64> {
        let offset = vcn.checked_mul(volume.boot.index_unit(self.block_size));
        let end = offset.and_then(|o| o.checked_add(u64::from(self.block_size)));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= self.valid() => Ok(offset),
            _ => Err(self
                .fail()
                .expected(format!("an index block inside {} bytes", self.valid()))
                .found(format!("block {vcn}"))),
        }
    }

    /// Parses the block found in `bytes`, which was read for `vcn`.
    fn parse_block(&self, bytes: &mut [u8], vcn: u64) -> Result<Node> {
        let context = |e: DiskError| {
            e.context(format!(
                "reading directory {}, index block {vcn}",
                self.number
            ))
        };
        if bytes.first_chunk() != Some(b"INDX") {
            return Err(context(
                DiskError::corrupt("checking its signature")
                    .expected("\"INDX\"")
                    .found(format!("{:02x?}", bytes.get(..4).unwrap_or_default())),
            ));
        }
        record::fix_up(bytes, 0, "index block").map_err(context)?;
        let f = Fields::new(bytes, 0, "index block");
        let own = f.u64_le(16)?;
        if own != vcn {
            return Err(context(
                DiskError::corrupt("checking its number")
                    .expected(vcn.to_string())
                    .found(own.to_string()),
            ));
        }
        let header = f.sub(24, bytes.len().saturating_sub(24), "index block")?;
        parse_node(&header, self.names).map_err(context)
    }

    fn read_block(&self, volume: &Volume, vcn: u64) -> Result<Node> {
        let offset = self.offset_of(volume, vcn)?;
        let Some(blocks) = &self.blocks else {
            return Err(self.fail().found("no index allocation"));
        };
        let mut bytes = vec![0; self.block_size as usize];
        let what = || format!("directory {}", self.number);
        volume.read_runs(&blocks.runs, &mut bytes, offset, &what)?;
        self.parse_block(&mut bytes, vcn)
    }

    /// The node of a block, through the cache.
    fn node(&self, volume: &Volume, vcn: u64) -> Result<Arc<Node>> {
        let key = (self.number, vcn);
        if let Some(node) = volume.nodes.get(&key) {
            return Ok(node);
        }
        let node = Arc::new(self.read_block(volume, vcn)?);
        volume.nodes.insert(key, node.clone());
        Ok(node)
    }

    /// Finds the value for a number in an index by numbers ($SII).
    pub(crate) fn find_u32(&self, volume: &Volume, wanted: u32) -> Result<Option<Vec<u8>>> {
        let mut node = self.root.clone();
        // No real tree is deeper: each level has many entries.
        for _ in 0..64 {
            let mut child = None;
            for entry in &node.entries {
                let key = entry
                    .plain
                    .as_deref()
                    .and_then(|p| p.first_chunk())
                    .map(|b| u32::from_le_bytes(*b));
                match key.map(|key| key.cmp(&wanted)) {
                    Some(Ordering::Less) => {}
                    // The value follows the key and the hash: 4 + 4 + 4 + 8 + 4 bytes.
                    Some(Ordering::Equal) => {
                        return Ok(entry
                            .plain
                            .as_deref()
                            .map(|p| p.get(4..).unwrap_or_default().to_vec()));
                    }
                    Some(Ordering::Greater) | None => {
                        child = entry.child;
                        break;
                    }
                }
            }
            match child {
                Some(vcn) => node = Arc::new(self.read_block(volume, vcn)?),
                None => return Ok(None),
            }
        }
        Err(self.fail().found("an index that is too deep"))
    }
}

/// What files in a directory call it, unless it is deleted or no directory.
pub(crate) fn own_of(file: &File<'_>) -> Option<Reference> {
    (file.base.in_use() && file.base.is_directory()).then(|| Reference {
        record: file.base.number,
        sequence: file.base.sequence(),
    })
}

impl From<Reference> for NodeId {
    fn from(r: Reference) -> Self {
        Self {
            record: r.record,
            sequence: r.sequence,
        }
    }
}
