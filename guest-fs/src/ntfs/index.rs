//! Directories: B-trees of file names.

mod lookup;

use super::{
    file::{Clusters, Content, File},
    record::{self, Reference, kind},
    volume::Volume,
};
use crate::NodeId;
use disk_io::{DiskError, Fields, Result};
use std::{
    cmp::Ordering,
    collections::HashSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// "$I30" in UTF-16LE: the name of every directory's index.
pub(crate) const I30: &[u8] = b"$\0I\x003\x000\0";
/// The longest $BITMAP of an index that we read: some 128 million blocks.
const MAX_BITMAP: u64 = 16 << 20;
/// Listings read index allocations up to this length in one go.
const WHOLE: u64 = 8 << 20;

/// Namespaces of file names.
pub(crate) mod namespace {
    /// A long name that has an 8.3 name beside it.
    pub(crate) const WIN32: u8 = 1;
    /// An 8.3 name.
    pub(crate) const DOS: u8 = 2;
}

/// A $FILE_NAME value.
#[derive(Clone, Debug)]
pub(crate) struct FileName {
    pub(crate) parent: Reference,
    pub(crate) namespace: u8,
    pub(crate) units: Box<[u16]>,
    /// DOS attributes and NTFS' own bits; a copy that may be stale in directories.
    pub(crate) attributes: u32,
    /// The reparse tag, where the attributes say that there is one; likewise.
    pub(crate) tag: u32,
    /// The size, likewise.
    pub(crate) size: u64,
}

impl FileName {
    /// Bit of `attributes`: has a directory index.
    pub(crate) const DIRECTORY: u32 = 0x1000_0000;

    /// Parses a value.
    pub(crate) fn parse(f: &Fields<'_>) -> Result<Self> {
        let len = usize::from(f.u8(64)?).saturating_mul(2);
        Ok(Self {
            parent: Reference::new(f.u64_le(0)?),
            namespace: f.u8(65)?,
            units: super::units(f.bytes(66, len)?).collect(),
            attributes: f.u32_le(56)?,
            tag: f.u32_le(60)?,
            size: f.u64_le(48)?,
        })
    }
}

/// One entry of an index node.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) target: Reference,
    /// `None` in the last entry of a node, and in indexes of something else.
    pub(crate) key: Option<FileName>,
    /// Key and value in an index of something else than names, from the entry's offset 16
    /// on.
    plain: Option<Box<[u8]>>,
    last: bool,
    /// Block with the entries before this one.
    child: Option<u64>,
}

/// A node: the root or an index block.
#[derive(Debug)]
pub(crate) struct Node {
    entries: Vec<Entry>,
    /// Damage behind the last entry.
    damage: Option<DiskError>,
}

impl Node {
    /// Bytes it takes, about.
    pub(crate) fn weight(&self) -> u64 {
        (self.entries.len() as u64)
            .saturating_mul(112)
            .saturating_add(64)
    }
}

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
        let node = parse_node(&header, names)?;
        let large = node.entries.iter().any(|e| e.child.is_some());
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
                root: Arc::new(node),
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
        Ok(Self {
            number,
            own,
            damaged,
            names,
            root: Arc::new(node),
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

    /// Visits every entry in the order of the index, damage as errors. After damage the
    /// blocks that the tree does not lead to any more follow, by the $BITMAP.
    pub(crate) fn walk(
        &self,
        volume: &Volume,
        visit: &mut dyn FnMut(Result<&Entry, DiskError>) -> ControlFlow<()>,
    ) {
        let whole = self.read_whole(volume);
        let load = |vcn: u64| -> Result<Arc<Node>> {
            let offset = self.offset_of(volume, vcn)?;
            let end = offset.saturating_add(u64::from(self.block_size));
            match whole
                .as_ref()
                .and_then(|w| w.get(offset as usize..end as usize))
            {
                Some(bytes) => self.parse_block(&mut bytes.to_vec(), vcn).map(Arc::new),
                None => self.read_block(volume, vcn).map(Arc::new),
            }
        };
        let mut visited: HashSet<u64> = HashSet::new();
        let mut damaged = false;
        let mut stack = vec![(self.root.clone(), 0usize, false)];
        while let Some((node, at, below)) = stack.last_mut() {
            let Some(entry) = node.entries.get(*at) else {
                let damage = node.damage.clone();
                stack.pop();
                if let Some(e) = damage {
                    damaged = true;
                    if visit(Err(e)).is_break() {
                        return;
                    }
                }
                continue;
            };
            if let Some(vcn) = entry.child
                && !*below
            {
                *below = true;
                let loaded = if visited.insert(vcn) {
                    load(vcn)
                } else {
                    Err(self.fail().found(format!("a loop through block {vcn}")))
                };
                match loaded {
                    Ok(child) => stack.push((child, 0, false)),
                    Err(e) => {
                        damaged = true;
                        if visit(Err(e)).is_break() {
                            return;
                        }
                    }
                }
                continue;
            }
            let flow = if entry.key.is_some() {
                visit(Ok(entry))
            } else {
                ControlFlow::Continue(())
            };
            if flow.is_break() {
                return;
            }
            *at = at.saturating_add(1);
            *below = false;
        }
        if damaged {
            self.damaged.store(true, Relaxed);
            self.sweep(volume, &visited, &load, visit);
        }
    }

    /// Visits allocated blocks that the tree did not lead to.
    fn sweep(
        &self,
        volume: &Volume,
        visited: &HashSet<u64>,
        load: &dyn Fn(u64) -> Result<Arc<Node>>,
        visit: &mut dyn FnMut(Result<&Entry, DiskError>) -> ControlFlow<()>,
    ) {
        let bitmap = match &self.bitmap {
            Ok(bitmap) => bitmap,
            Err(e) => {
                let _ = visit(Err(e.clone()));
                return;
            }
        };
        let unit = volume.boot.index_unit(self.block_size);
        let step = u64::from(self.block_size).checked_div(unit).unwrap_or(1);
        for (i, byte) in bitmap.iter().enumerate().filter(|(_, b)| **b != 0) {
            for bit in 0..8u64 {
                if byte >> bit & 1 == 0 {
                    continue;
                }
                let block = (i as u64).saturating_mul(8).saturating_add(bit);
                let vcn = block.saturating_mul(step);
                if visited.contains(&vcn) {
                    continue;
                }
                // A block that is no node of this tree says nothing: its loss, if it was
                // one, has been told where the tree led to it.
                let Ok(node) = load(vcn) else { continue };
                for entry in node.entries.iter().filter(|e| e.key.is_some()) {
                    if visit(Ok(entry)).is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// All index blocks, where they are few enough.
    fn read_whole(&self, volume: &Volume) -> Option<Vec<u8>> {
        let blocks = self.blocks.as_ref()?;
        let len = self.valid();
        if len > WHOLE {
            return None;
        }
        let mut bytes = vec![0; len as usize];
        let what = || format!("directory {}", self.number);
        volume
            .read_runs(&blocks.runs, &mut bytes, 0, &what)
            .ok()
            .map(|()| bytes)
    }
}

/// What files in a directory call it, unless it is deleted or no directory.
pub(crate) fn own_of(file: &File<'_>) -> Option<Reference> {
    (file.base.in_use() && file.base.is_directory()).then(|| Reference {
        record: file.base.number,
        sequence: file.base.sequence(),
    })
}

/// Parses the entries behind an index header, which `f` begins with.
fn parse_node(f: &Fields<'_>, names: bool) -> Result<Node> {
    let first = f.u32_le(0)? as usize;
    let end = (f.u32_le(4)? as usize).min(f.len());
    let mut entries = Vec::new();
    let mut at = first;
    let damage = loop {
        match parse_entry(f, at, end, names) {
            Ok((entry, len)) => {
                let last = entry.last;
                entries.push(entry);
                if last {
                    break None;
                }
                at = at.saturating_add(len);
            }
            Err(e) => break Some(e),
        }
    };
    Ok(Node { entries, damage })
}

fn parse_entry(f: &Fields<'_>, at: usize, end: usize, names: bool) -> Result<(Entry, usize)> {
    let len = usize::from(f.u16_le(at.saturating_add(8))?);
    if len < 16 || at.saturating_add(len) > end {
        return Err(f
            .corrupt(at, "an index entry")
            .expected(format!("a length of 16 to {}", end.saturating_sub(at)))
            .found(len.to_string()));
    }
    let e = f.sub(at, len, "index entry")?;
    let flags = e.u16_le(12)?;
    let child = if flags & 1 != 0 {
        Some(e.u64_le(len.saturating_sub(8))?)
    } else {
        None
    };
    let last = flags & 2 != 0;
    // Other indexes keep key and value behind the header; so do their entries here.
    let plain = if names || last {
        None
    } else {
        Some(e.bytes(16, len.saturating_sub(16))?.into())
    };
    let key = if last || !names {
        None
    } else {
        let key = e.sub(16, usize::from(e.u16_le(10)?), "file name")?;
        Some(FileName::parse(&key)?)
    };
    Ok((
        Entry {
            target: Reference::new(e.u64_le(0)?),
            key,
            plain,
            last,
            child,
        },
        len,
    ))
}

impl From<Reference> for NodeId {
    fn from(r: Reference) -> Self {
        Self {
            record: r.record,
            sequence: r.sequence,
        }
    }
}
