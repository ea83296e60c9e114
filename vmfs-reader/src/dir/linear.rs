//! Directories of VMFS-3 and VMFS-5: an array of entries (fact sheet, VMFS 10).

use super::{Entry, Visit, entry};
use crate::{blocks::BlockList, core::Core};
use disk_io::{DiskError, Fields, Result};
use std::ops::ControlFlow;

/// Length of an entry in bytes.
pub(crate) const ENTRY: u64 = 140;
/// Entries that are read at once.
const AT_ONCE: u64 = 1024;

/// Finds a name, without looking at the other entries; `None` if anything is amiss.
pub(super) fn lookup(core: &Core, list: &BlockList, name: &[u8]) -> Option<Entry> {
    let count = list.len / ENTRY;
    let mut index = 0;
    while index < count {
        let n = count.saturating_sub(index).min(AT_ONCE);
        let at = index.saturating_mul(ENTRY);
        let mut bytes = vec![0; n.saturating_mul(ENTRY) as usize];
        core.read_list(list, &mut bytes, at, 0).ok()?;
        let same = |e: &&[u8]| {
            let stored = e.get(12..).and_then(|e| e.strip_prefix(name));
            stored.is_some_and(|rest| rest.first().is_none_or(|b| *b == 0))
        };
        for found in bytes.chunks(ENTRY as usize).filter(same) {
            let f = Fields::new(found, at, "directory entry");
            if f.u32_le(4).ok()? != 0 {
                return entry(&f, 12, 128).ok().filter(|e| e.name == name);
            }
        }
        index = index.saturating_add(n);
    }
    None
}

pub(super) fn read(core: &Core, list: &BlockList, visit: Visit<'_>) -> Result<()> {
    let count = list.len / ENTRY;
    if !list.len.is_multiple_of(ENTRY) {
        let e = DiskError::corrupt("listing a directory")
            .file(format!("file {}", list.address))
            .expected("a length of whole entries of 140 bytes")
            .found(list.len.to_string());
        if visit(Err(e)).is_break() {
            return Ok(());
        }
    }
    let mut index = 0;
    while index < count {
        let n = count.saturating_sub(index).min(AT_ONCE);
        let at = index.saturating_mul(ENTRY);
        let mut bytes = vec![0; n.saturating_mul(ENTRY) as usize];
        if let Err(e) = core.read_list(list, &mut bytes, at, 0) {
            if index == 0 {
                return Err(e);
            }
            // Where one part cannot be read the parts behind it are not looked for: a
            // hostile length could name millions of them.
            let _ = visit(Err(e));
            return Ok(());
        }
        for (i, bytes) in bytes.chunks(ENTRY as usize).enumerate() {
            let place = at.saturating_add((i as u64).saturating_mul(ENTRY));
            let f = Fields::new(bytes, place, "directory entry");
            if f.u32_le(4)? == 0 {
                continue;
            }
            let found = entry(&f, 12, 128).map_err(|e| e.file(format!("file {}", list.address)));
            if let ControlFlow::Break(()) = visit(found) {
                return Ok(());
            }
        }
        index = index.saturating_add(n);
    }
    Ok(())
}
