//! Nodes of an index, and the entries and names in them.

use super::super::{record::Reference, units};
use disk_io::{DiskError, Fields, Result};

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
            units: units(f.bytes(66, len)?).collect(),
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
    pub(super) plain: Option<Box<[u8]>>,
    last: bool,
    /// Block with the entries before this one.
    pub(super) child: Option<u64>,
}

/// A node: the root or an index block.
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) entries: Vec<Entry>,
    /// Damage behind the last entry.
    pub(super) damage: Option<DiskError>,
}

impl Node {
    /// Bytes it takes, about.
    pub(crate) fn weight(&self) -> u64 {
        (self.entries.len() as u64)
            .saturating_mul(112)
            .saturating_add(64)
    }
}

/// Parses the entries behind an index header, which `f` begins with.
pub(super) fn parse_node(f: &Fields<'_>, names: bool) -> Result<Node> {
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
                    break unlike(f, &entries, at.saturating_add(len), end);
                }
                at = at.saturating_add(len);
            }
            Err(e) => break Some(e),
        }
    };
    Ok(Node { entries, damage })
}

/// What is wrong about entries each of which could be read: one that calls itself the last hides
/// those behind it, one that leads to no block those below it. Every one of a node has a block
/// below it, or none has.
fn unlike(f: &Fields<'_>, entries: &[Entry], at: usize, end: usize) -> Option<DiskError> {
    if at != end {
        let error = f.corrupt(at, "an index node");
        return Some(
            error
                .expected(format!("a last entry that ends at {end}"))
                .found(format!("one that ends at {at}")),
        );
    }
    let below = entries.iter().filter(|e| e.child.is_some()).count();
    (below != 0 && below != entries.len()).then(|| {
        f.corrupt(0, "an index node")
            .expected("a block below each of its entries, or below none")
            .found(format!("{below} of {}", entries.len()))
    })
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
