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
/// left out.
pub(super) fn entries(
    block: &[u8],
    place: u64,
    incompat: u32,
    visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
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
        if inode != 0 && name_len != 0 {
            let name = f.bytes(at.saturating_add(8), name_len)?;
            if !matches!(name, b"." | b"..") {
                let entry = Entry {
                    inode: InodeNumber(inode),
                    name: Name::from_bytes(name),
                    kind,
                };
                if visit(entry).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        at = end;
    }
    Ok(ControlFlow::Continue(()))
}
