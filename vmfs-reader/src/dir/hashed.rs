//! Directories of VMFS-6 (fact sheet, VMFS 10): a header with a hash table, and blocks of
//! entries, of chains, and of a map of these blocks.

use super::{Entry, Visit, entry, hash};
use crate::{address::FdAddress, blocks::BlockList, core::Core};
use disk_io::{DiskError, Fields, Result};
use std::ops::ControlFlow;

const VERSION: u32 = 0x00F5_0001;
const VERSION_DEBUG: u32 = 0x00FD_C001;
/// The blocks begin behind the header.
pub(crate) const BLOCKS_AT: u64 = 0x1_0000;
pub(crate) const BLOCK_HEADER: usize = 64;
pub(crate) const SLOT: usize = 288;
/// Where the hash table begins in the header.
pub(crate) const HASH_AT: u64 = 0x5F8;
/// Where the entries `.` and `..` lie in the header.
pub(crate) const ENTRIES_AT: [usize; 2] = [0x3B8, 0x4D8];
const MAPS: usize = 128;
const ENTRIES: u16 = 1;
const LINKS: u16 = 2;
const MAP: u16 = 3;
const LINK_GROUP: usize = 84;
/// Blocks that are read at once.
const AT_ONCE: usize = 64;

struct Header {
    entries: u64,
    maps: Vec<u32>,
}

fn at_block(core: &Core, block: u64) -> u64 {
    block
        .saturating_mul(core.geometry.align as u64)
        .saturating_add(BLOCKS_AT)
}

fn header(core: &Core, list: &BlockList) -> Result<Header> {
    let mut bytes = [0; HASH_AT as usize];
    core.read_list(list, &mut bytes, 0, 0)?;
    let f = Fields::new(&bytes, 0, "directory header");
    let version = f.u32_le(0)?;
    if version != VERSION && version != VERSION_DEBUG {
        return Err(f
            .corrupt(0, "the version")
            .expected(format!("{VERSION:#x}"))
            .found(format!("{version:#x}"))
            .file(format!("file {}", list.address)));
    }
    let count = f.u32_le(0xC)? as usize;
    if count > MAPS {
        return Err(f
            .corrupt(0xC, "the number of allocation maps")
            .expected(format!("at most {MAPS}"))
            .found(count.to_string()));
    }
    Ok(Header {
        entries: f.u32_le(4)?.into(),
        maps: (0..count)
            .map(|i| f.u32_le(i.saturating_mul(4).saturating_add(0x10)))
            .collect::<Result<_>>()?,
    })
}

/// Checks the header of a block and gives its number of slots.
fn block_header(f: &Fields<'_>, kind: u16) -> Result<usize> {
    let found = f.u16_le(2)?;
    if found != kind {
        return Err(f
            .corrupt(2, "the type")
            .expected(kind.to_string())
            .found(found.to_string()));
    }
    Ok(usize::from(f.u16_le(4)?))
}

/// Numbers of the blocks of entries that one map knows, in order.
fn entry_blocks(core: &Core, list: &BlockList, index: u64, map: u32) -> Result<Vec<u64>> {
    let at = at_block(core, map.into());
    let mut bytes = vec![0; core.geometry.align];
    core.read_list(list, &mut bytes, at, 0)?;
    let f = Fields::new(&bytes, at, "directory allocation map");
    block_header(&f, MAP)?;
    let payload = bytes.get(BLOCK_HEADER..).unwrap_or_default();
    let first = index.saturating_mul((payload.len() as u64).saturating_mul(2));
    let nibbles = payload.iter().flat_map(|b| [b >> 4, b & 15]);
    Ok((first..)
        .zip(nibbles)
        // Bit 3: never written.
        .filter(|(_, n)| n & 3 == ENTRIES as u8 && n & 8 == 0)
        .map(|(block, _)| block)
        .collect())
}

/// Takes slot `slot` of a block of entries apart; `None` if it is free.
fn slot_entry(f: &Fields<'_>, slot: usize) -> Result<Option<Entry>> {
    let mask = f.u8((slot / 8).saturating_add(8))?;
    if mask >> (slot % 8) & 1 != 0 {
        return Ok(None);
    }
    let from = slot.saturating_mul(SLOT).saturating_add(BLOCK_HEADER);
    let f = f.sub(from, SLOT, "directory entry")?;
    let own = f.u64_le(0x10)?;
    if own != f.place(0) {
        return Err(f
            .corrupt(0x10, "its own place")
            .expected(f.place(0).to_string())
            .found(own.to_string()));
    }
    let found = entry(&f, 0x18, 256)?;
    let stored = u64::from(f.u16_le(0xC)?) | u64::from(f.u16_le(0xE)?) << 16;
    let computed = hash::hash(&found.name) & 0xFFFF_FFFF;
    if stored != computed && !found.name.ends_with(b".sf") {
        return Err(f
            .corrupt(0xC, "the hash of the name")
            .expected(format!("{computed:#x}"))
            .found(format!("{stored:#x}")));
    }
    Ok(Some(found))
}

pub(super) fn read(core: &Core, list: &BlockList, visit: Visit<'_>) -> Result<()> {
    let header = header(core, list)?;
    let named = |e: DiskError| e.file(format!("file {}", list.address));
    let align = core.geometry.align;
    // `.` and `..` are in the header.
    let mut seen = 2u64;
    for (index, map) in (0..).zip(&header.maps) {
        let blocks = match entry_blocks(core, list, index, *map) {
            Ok(blocks) => blocks,
            Err(e) => {
                if visit(Err(named(e))).is_break() {
                    return Ok(());
                }
                continue;
            }
        };
        let adjacent = blocks.chunk_by(|a, b| a.checked_add(1) == Some(*b));
        for run in adjacent.flat_map(|r| r.chunks(AT_ONCE)) {
            let at = at_block(core, run.first().copied().unwrap_or(0));
            let mut bytes = vec![0; align.saturating_mul(run.len())];
            if let Err(e) = core.read_list(list, &mut bytes, at, 0) {
                if visit(Err(named(e))).is_break() {
                    return Ok(());
                }
                continue;
            }
            for (block, number) in bytes.chunks(align).zip(run) {
                let f = Fields::new(block, at_block(core, *number), "directory block");
                let slots = match block_header(&f, ENTRIES) {
                    Ok(slots) => slots.min((align.saturating_sub(BLOCK_HEADER)) / SLOT),
                    Err(e) => {
                        if visit(Err(named(e))).is_break() {
                            return Ok(());
                        }
                        continue;
                    }
                };
                for slot in 0..slots {
                    let found = match slot_entry(&f, slot) {
                        Ok(None) => continue,
                        Ok(Some(found)) => Ok(found),
                        Err(e) => Err(named(e)),
                    };
                    seen = seen.saturating_add(1);
                    if let ControlFlow::Break(()) = visit(found) {
                        return Ok(());
                    }
                }
            }
        }
    }
    if seen != header.entries {
        let e = DiskError::corrupt("listing a directory")
            .expected(format!("{} entries", header.entries))
            .found(format!("{seen}"));
        let _ = visit(Err(named(e)));
    }
    Ok(())
}

pub(super) fn parent(core: &Core, list: &BlockList) -> Result<FdAddress> {
    header(core, list)?;
    let [_, dotdot] = ENTRIES_AT;
    let mut bytes = [0; SLOT];
    core.read_list(list, &mut bytes, dotdot as u64, 0)?;
    let f = Fields::new(&bytes, dotdot as u64, "directory entry");
    let found = entry(&f, 0x18, 256)?;
    if found.name != b".." {
        return Err(f
            .corrupt(0x18, "the name")
            .expected("..")
            .found(String::from_utf8_lossy(&found.name).into_owned()));
    }
    Ok(found.address)
}

/// Finds a name through the hash table; `None` if the table does not lead to it, for
/// whatever reason.
pub(super) fn lookup(core: &Core, list: &BlockList, name: &[u8], root: bool) -> Option<Entry> {
    let number = hash::slot(hash::hash(name), root);
    let mut bytes = [0; 4];
    let at = HASH_AT.saturating_add(number.saturating_mul(4));
    core.read_list(list, &mut bytes, at, 0).ok()?;
    let mut location = u32::from_le_bytes(bytes);
    // A chain that does not end is damage.
    for _ in 0..1024 {
        match location & 3 {
            1 => return at_location(core, list, location, name),
            2 => {
                let (block, slot) = parts(location);
                let from = at_block(core, block);
                let mut bytes = vec![0; core.geometry.align];
                core.read_list(list, &mut bytes, from, 0).ok()?;
                let f = Fields::new(&bytes, from, "directory link block");
                block_header(&f, LINKS).ok()?;
                let start = slot.saturating_mul(LINK_GROUP).saturating_add(BLOCK_HEADER);
                let group = f.sub(start, LINK_GROUP, "directory link group").ok()?;
                for i in 0..12usize {
                    let link = group.u32_le(i.saturating_mul(6).saturating_add(6)).ok()?;
                    if link & 3 == 1
                        && let Some(found) = at_location(core, list, link, name)
                    {
                        return Some(found);
                    }
                }
                location = group.u32_le(78).ok()?;
            }
            _ => return None,
        }
    }
    None
}

fn parts(location: u32) -> (u64, usize) {
    (
        u64::from(location >> 2 & 0x3F_FFFF),
        (location >> 24) as usize,
    )
}

/// The entry at a location, if it has this name.
fn at_location(core: &Core, list: &BlockList, location: u32, name: &[u8]) -> Option<Entry> {
    let (block, slot) = parts(location);
    let at = at_block(core, block);
    let mut bytes = vec![0; core.geometry.align];
    core.read_list(list, &mut bytes, at, 0).ok()?;
    let f = Fields::new(&bytes, at, "directory block");
    if slot >= block_header(&f, ENTRIES).ok()? {
        return None;
    }
    slot_entry(&f, slot).ok()?.filter(|e| e.name == name)
}
