//! Directory blocks: a list of entries, with or without an index over them.
//!
//! The index of a hashed directory hides in entries that look unused, so reading every
//! block in order finds every name.

use super::layout::{IncompatFeatures, InodeNumber};
use crate::{Name, NodeKind};
use disk_io::{Fields, Result};
use std::ops::ControlFlow;

/// One entry in use.
pub(super) struct Entry {
    pub(super) inode: InodeNumber,
    pub(super) name: Name,
    pub(super) kind: Option<NodeKind>,
}

/// Visits the entries of one block (or of the inline part of a directory), `.` and `..`
/// left out. One without a name is visited as an error, and the rest goes on.
pub(super) fn entries(
    block: &[u8],
    place: u64,
    incompat: u32,
    visit: &mut dyn FnMut(Result<Entry>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let f = Fields::new(block, place, "directory block");
    let with_type = incompat & IncompatFeatures::FILETYPE != 0;
    let mut at = 0usize;
    // The last entry reaches to the end; a tail of fewer than 8 bytes holds nothing.
    while at.saturating_add(8) <= block.len() {
        let inode = f.u32_le(at)?;
        let stored = f.u16_le(at.saturating_add(4))?;
        // 64 KiB does not fit in 16 bits: 65535 and 0 stand for the whole block.
        let len = match stored {
            0 | 0xffff if at == 0 && block.len() == 0x1_0000 => block.len(),
            n => usize::from(n),
        };
        let (name_len, kind) = if with_type {
            let kind = match f.u8(at.saturating_add(7))? {
                1 => Some(NodeKind::File),
                2 => Some(NodeKind::Directory),
                7 => Some(NodeKind::Symlink),
                3..=6 => Some(NodeKind::Special),
                _ => None,
            };
            (usize::from(f.u8(at.saturating_add(6))?), kind)
        } else {
            (usize::from(f.u16_le(at.saturating_add(6))?), None)
        };
        let end = at.saturating_add(len);
        // An unused entry may hold something else: the checksum of the block hides in one.
        let fits = inode == 0 || name_len.saturating_add(8) <= len;
        if len < 8 || end > block.len() || !fits {
            return Err(f
                .corrupt(at, "an entry")
                .expected("a length inside the block")
                .found(format!("{len} bytes with a name of {name_len}")));
        }
        if inode != 0 {
            let name = f.bytes(at.saturating_add(8), name_len)?;
            let entry = match name {
                b"." | b".." => None,
                b"" => Some(Err(f
                    .corrupt(at, "an entry")
                    .expected("a name")
                    .found(format!("inode {inode} without one")))),
                name => Some(Ok(Entry {
                    inode: InodeNumber(inode),
                    name: Name::from_bytes(name),
                    kind,
                })),
            };
            if entry.is_some_and(|entry| visit(entry).is_break()) {
                return Ok(ControlFlow::Break(()));
            }
        }
        at = end;
    }
    Ok(ControlFlow::Continue(()))
}

/// Whether the first block of a directory is one: it begins with `.`, which is itself, and `..`.
pub(super) fn begins(block: &[u8], own: InodeNumber) -> Result<()> {
    let f = Fields::new(block, 0, "directory block");
    let entry = |at: usize, name: &[u8]| -> Result<bool> {
        let here = at.saturating_add(8);
        // The length of a name has 16 bits where the other eight are no kind.
        let len = usize::from(f.u8(at.saturating_add(6))?);
        Ok(len == name.len() && f.bytes(here, len)? == name)
    };
    let dot = f.u32_le(0)? == own.0 && f.u16_le(4)? == 12 && entry(0, b".")?;
    if dot && f.u32_le(12)? != 0 && entry(12, b"..")? {
        return Ok(());
    }
    Err(f
        .corrupt(0, "the beginning of a directory")
        .expected(format!("'.' of inode {} and '..'", own.0))
        .found("other entries"))
}
