//! Where the bytes of a file lie (fact sheet, VMFS 9).
//!
//! A file's map is never held: pointer blocks are read as they are needed and kept in a
//! cache of fixed size that all files of a volume share.

use crate::{
    address::{Address, FdAddress},
    core::Core,
    superblock::Geometry,
};
use byteorder::{ByteOrder, LittleEndian};
use disk_io::{Disk, DiskError, Result};
use std::sync::Arc;

/// How the offsets of a file lead to addresses.
#[derive(Clone, Debug)]
pub(crate) enum Mapping {
    /// The contents are inside the descriptor.
    Resident(Arc<[u8]>),
    /// Through `depth` levels of pointer blocks.
    Blocks { depth: u32 },
    /// There are no contents.
    None,
}

/// What a descriptor says of a file's contents.
#[derive(Clone, Debug)]
pub(crate) struct BlockList {
    pub(crate) address: FdAddress,
    pub(crate) len: u64,
    pub(crate) block_size: u64,
    pub(crate) mapping: Mapping,
    pub(crate) pointers: Arc<[u64]>,
    /// The file has large blocks.
    pub(crate) large: bool,
    /// The descriptor counts a block for every byte: there is no hole (fact sheet, VMFS 8).
    pub(crate) full: bool,
    /// The descriptor counts blocks that are still to be zeroed.
    pub(crate) zeroing: bool,
}

/// Where a part of a file lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// On the volume, from this offset on, in bytes.
    Stored(u64),
    /// Inside the file's descriptor, from this offset of the file on.
    Resident(u64),
    /// Nowhere: a hole.
    Hole,
    /// Allocated and not yet written: reads as zeros.
    Zero,
    /// It cannot be read, and this is why.
    Bad(DiskError),
}

/// A part of a file.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Length in bytes, at least 1.
    pub len: u64,
    /// Where it lies.
    pub place: Place,
}

impl Extent {
    /// Appends `next`, if it continues this one.
    fn join(&mut self, next: &Extent) -> bool {
        let joins = match (&self.place, &next.place) {
            (Place::Stored(a), Place::Stored(b)) => a.checked_add(self.len) == Some(*b),
            (Place::Hole, Place::Hole) | (Place::Zero, Place::Zero) => true,
            _ => false,
        };
        if joins {
            self.len = self.len.saturating_add(next.len);
        }
        joins
    }
}

/// Pointers as stored, whatever their width.
pub(crate) fn pointers(bytes: &[u8], g: &Geometry) -> Vec<u64> {
    let wide = g.pointer == 8;
    bytes
        .chunks_exact(g.pointer)
        .map(|p| match wide {
            true => LittleEndian::read_u64(p),
            false => LittleEndian::read_u32(p).into(),
        })
        .collect()
}

/// Resource files may be mapped through others, but not without end.
pub(crate) const MAX_DEPTH: u32 = 4;

/// Pointers of consecutive blocks of a file, or the lack of any.
enum Span {
    /// The pointer of the block is at `index`.
    Table { table: Arc<[u64]>, index: usize },
    /// This many blocks from here on have no pointers.
    Null(u64),
}

impl Core {
    /// Where the byte at `offset` lies and how many bytes from there on, up to `limit`, lie
    /// contiguously. `offset` must be inside the file.
    pub(crate) fn extent(&self, list: &BlockList, offset: u64, limit: u64) -> Extent {
        let extent = self.extent_at_depth(list, offset, limit, 0);
        let contradiction = match extent.place {
            Place::Hole if list.full => "every block in use",
            Place::Zero if !list.zeroing => "no block that is to be zeroed",
            _ => return extent,
        };
        let found = match extent.place {
            Place::Hole => "a pointer to none",
            _ => "a pointer to one",
        };
        let e = DiskError::corrupt("reading a block address")
            .offset(offset)
            .expected(format!("{contradiction}, as the descriptor counts"))
            .found(found);
        self.bad(list, extent.len, e)
    }

    pub(crate) fn extent_at_depth(
        &self,
        list: &BlockList,
        offset: u64,
        limit: u64,
        depth: u32,
    ) -> Extent {
        let left = list.len.saturating_sub(offset).min(limit).max(1);
        let depth_of_pointers = match &list.mapping {
            Mapping::Resident(_) => {
                return Extent {
                    len: left,
                    place: Place::Resident(offset),
                };
            }
            Mapping::None => {
                let e = DiskError::unsupported("reading a file without contents");
                return self.bad(list, left, e.offset(offset));
            }
            Mapping::Blocks { depth } => *depth,
        };
        let size = list.block_size.max(1);
        let mut at = offset;
        let end = offset.saturating_add(left);
        let mut found: Option<Extent> = None;
        // Tables are read from disk, so one call looks at few of them.
        for _ in 0..64 {
            if at >= end {
                break;
            }
            let block = at.checked_div(size).unwrap_or(0);
            let (table, mut index) = match self.span(list, block, depth_of_pointers, depth) {
                Ok(Span::Table { table, index }) => (table, index),
                Ok(Span::Null(blocks)) => {
                    let to = block.saturating_add(blocks).saturating_mul(size).min(end);
                    let hole = Extent {
                        len: to.saturating_sub(at).max(1),
                        place: Place::Hole,
                    };
                    at = to;
                    match &mut found {
                        Some(extent) => {
                            if !extent.join(&hole) {
                                break;
                            }
                        }
                        None => found = Some(hole),
                    }
                    continue;
                }
                Err(e) => {
                    // The whole reach of the table that cannot be read, or the rest.
                    if found.is_none() {
                        let reach = match depth_of_pointers {
                            0 => u64::MAX,
                            _ => self.geometry.per_block,
                        };
                        let next = block
                            .checked_div(reach.max(1))
                            .unwrap_or(0)
                            .saturating_add(1)
                            .saturating_mul(reach);
                        let to = next.saturating_mul(size).min(end).max(at.saturating_add(1));
                        return self.bad(list, to.saturating_sub(at), e.offset(at));
                    }
                    break;
                }
            };
            let mut whole = true;
            while at < end {
                let Some(raw) = table.get(index) else {
                    break;
                };
                let inside = at.checked_rem(size).unwrap_or(0);
                let room = size.saturating_sub(inside).min(end.saturating_sub(at));
                let next = self.resolve(list, &table, index, *raw, at, room, depth);
                let len = next.len;
                let joined = match &mut found {
                    Some(extent) => extent.join(&next),
                    None => {
                        found = Some(next);
                        true
                    }
                };
                if !joined {
                    whole = false;
                    break;
                }
                at = at.saturating_add(len);
                if len == room {
                    index = index.saturating_add(1);
                }
                if matches!(
                    found,
                    Some(Extent {
                        place: Place::Bad(_),
                        ..
                    })
                ) {
                    whole = false;
                    break;
                }
            }
            if !whole {
                break;
            }
        }
        found.unwrap_or_else(|| {
            let e = DiskError::corrupt("mapping a file").offset(offset);
            self.bad(list, left, e)
        })
    }

    pub(crate) fn bad(&self, list: &BlockList, len: u64, e: DiskError) -> Extent {
        Extent {
            len,
            place: Place::Bad(e.file(format!("[{}] file {}", self.superblock.label, list.address))),
        }
    }

    /// The table that holds the pointer of a block.
    fn span(&self, list: &BlockList, block: u64, levels: u32, depth: u32) -> Result<Span> {
        let per = self.geometry.per_block.max(1);
        // Blocks below one pointer of the descriptor.
        let reach = (0..levels).fold(1u64, |r, _| r.saturating_mul(per));
        let index = block.checked_div(reach).unwrap_or(0);
        let Some(raw) = usize::try_from(index)
            .ok()
            .and_then(|i| list.pointers.get(i))
        else {
            return Err(DiskError::corrupt("mapping a file")
                .expected(format!("at most {} pointers", list.pointers.len()))
                .found(format!("a length of {} bytes", list.len)));
        };
        if levels == 0 {
            return Ok(Span::Table {
                table: list.pointers.clone(),
                index: index as usize,
            });
        }
        let mut raw = *raw;
        let mut below = reach;
        loop {
            if raw == 0 {
                let inside = block.checked_rem(below).unwrap_or(0);
                return Ok(Span::Null(below.saturating_sub(inside).max(1)));
            }
            let table = self.pointer_block(raw, depth)?;
            below = below.checked_div(per).unwrap_or(1).max(1);
            let index = block.checked_div(below).and_then(|b| b.checked_rem(per));
            let index = index.unwrap_or(0) as usize;
            if below == 1 {
                return Ok(Span::Table { table, index });
            }
            raw = table.get(index).copied().unwrap_or(0);
        }
    }

    /// Reads a pointer block, or finds it in the cache.
    pub(crate) fn pointer_block(&self, raw: u64, depth: u32) -> Result<Arc<[u64]>> {
        if let Some(table) = self.tables.get(&raw) {
            return Ok(table);
        }
        let (resource, item) = match Address::parse(raw, &self.geometry)? {
            Address::Pointer(item) => (self.pbc(), item),
            Address::Pointer2(item) => (self.pb2(), item),
            // VMFS-6 keeps the pointer blocks of files as sub-blocks.
            Address::Sub { item, .. } if self.geometry.pointer == 8 => (self.sbc(), item),
            _ => {
                return Err(DiskError::corrupt("reading a pointer to a pointer block")
                    .expected("the address of a pointer block")
                    .found(format!("{raw:#x}")));
            }
        };
        let resource = resource?;
        let len = self
            .geometry
            .per_block
            .saturating_mul(self.geometry.pointer as u64);
        if resource.size < len {
            return Err(DiskError::unsupported(format!(
                "reading a pointer block of {}",
                resource.name
            ))
            .expected(format!("{len} bytes"))
            .found(format!("{}", resource.size)));
        }
        let mut bytes = vec![0; len as usize];
        let at = resource.position(item)?;
        self.read_list(&resource.blocks, &mut bytes, at, depth.saturating_add(1))
            .map_err(|e| e.context(format!("reading the pointer block {raw:#x}")))?;
        let table: Arc<[u64]> = pointers(&bytes, &self.geometry).into();
        self.tables.insert(raw, table.clone());
        Ok(table)
    }

    /// Reads metadata through a file's map. A hole in metadata is damage.
    pub(crate) fn read_list(
        &self,
        list: &BlockList,
        buf: &mut [u8],
        offset: u64,
        depth: u32,
    ) -> Result<()> {
        let fits = offset
            .checked_add(buf.len() as u64)
            .is_some_and(|end| end <= list.len);
        if !fits || depth > MAX_DEPTH {
            return Err(DiskError::corrupt("reading metadata")
                .file(format!("file {}", list.address))
                .offset(offset)
                .expected(format!("{} bytes inside its {}", buf.len(), list.len)));
        }
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let extent = self.extent_at_depth(list, at, rest.len() as u64, depth);
            let n = (extent.len as usize).min(rest.len());
            let (now, later) = rest.split_at_mut(n);
            match extent.place {
                Place::Stored(place) => self.disk.read_exact_at(now, place)?,
                Place::Resident(from) => copy_resident(list, now, from)?,
                Place::Bad(e) => return Err(e),
                Place::Zero => now.fill(0),
                Place::Hole => {
                    return Err(DiskError::corrupt("reading metadata")
                        .file(format!("file {}", list.address))
                        .offset(at)
                        .expected("a block of the volume")
                        .found("a hole"));
                }
            }
            rest = later;
            at = at.saturating_add(n as u64);
        }
        Ok(())
    }
}

/// Copies from contents inside a descriptor.
pub(crate) fn copy_resident(list: &BlockList, out: &mut [u8], from: u64) -> Result<()> {
    let part = match &list.mapping {
        Mapping::Resident(bytes) => usize::try_from(from)
            .ok()
            .and_then(|from| bytes.get(from..from.checked_add(out.len())?)),
        _ => None,
    };
    match part {
        Some(part) => {
            out.copy_from_slice(part);
            Ok(())
        }
        None => Err(DiskError::corrupt("reading contents inside a descriptor").offset(from)),
    }
}
