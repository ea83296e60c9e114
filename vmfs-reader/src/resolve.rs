//! From the pointer of one block of a file to the place where its bytes lie (fact sheet,
//! VMFS 7 and 9).

use crate::{
    address::{Address, Item},
    blocks::{BlockList, Extent, MAX_DEPTH, Place},
    core::Core,
    resource::Resource,
    superblock::LARGE_SHIFT,
};
use disk_io::{Disk, DiskError, Result};

impl Core {
    /// What the pointer `raw`, at `index` of `table`, says of the bytes at `at`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn resolve(
        &self,
        list: &BlockList,
        table: &[u64],
        index: usize,
        raw: u64,
        at: u64,
        room: u64,
        depth: u32,
    ) -> Extent {
        let hole = Extent {
            len: room,
            place: Place::Hole,
        };
        if raw == 0 && !list.large {
            return hole;
        }
        match self.resolve_or_fail(list, (table, index), raw, at, room, depth) {
            Ok(extent) => extent,
            Err(e) => self.bad(list, room, e.offset(at)),
        }
    }

    fn resolve_or_fail(
        &self,
        list: &BlockList,
        (table, index): (&[u64], usize),
        raw: u64,
        at: u64,
        room: u64,
        depth: u32,
    ) -> Result<Extent> {
        let g = &self.geometry;
        let large = g.block_size.checked_shl(LARGE_SHIFT).unwrap_or(u64::MAX);
        let address = Address::parse(raw, g)?;
        if list.large || matches!(address, Address::Large { .. }) {
            self.check_large(list, (table, index), address, large)?;
        }
        let (start, size, zero) = match address {
            Address::Null => {
                return Ok(Extent {
                    len: room,
                    place: Place::Hole,
                });
            }
            Address::File { block, zero, .. } => {
                (block.checked_mul(g.block_size), g.block_size, zero)
            }
            Address::Large { block, zero, .. } => (block.checked_mul(large), large, zero),
            Address::Sub { item, .. } => {
                return self.sub_block(list, item, at, room, depth);
            }
            _ => {
                return Err(DiskError::corrupt("reading a block address")
                    .expected("a file block or a sub-block")
                    .found(format!("{raw:#x}")));
            }
        };
        // A slot of a file stands for `list.block_size` bytes; another size of the block
        // would leave open which part is meant.
        if list.block_size != size && (size != large || list.block_size > large) {
            return Err(DiskError::corrupt("reading a block address")
                .expected(format!("blocks of {}", list.block_size))
                .found(format!("a block of {size}, {raw:#x}")));
        }
        if zero {
            return Ok(Extent {
                len: room,
                place: Place::Zero,
            });
        }
        let inside = at.checked_rem(size).unwrap_or(0);
        let place = start.and_then(|s| s.checked_add(inside));
        let end = place.and_then(|p| p.checked_add(room));
        match (place, end) {
            (Some(place), Some(end)) if end <= self.disk.len() => Ok(Extent {
                len: room,
                place: Place::Stored(place),
            }),
            _ => Err(DiskError::corrupt("reading a block address")
                .expected(format!(
                    "a block inside the volume's {} bytes",
                    self.disk.len()
                ))
                .found(format!("{raw:#x}"))),
        }
    }

    /// No volume with large blocks was seen, and so it is not known whether a slot stands for
    /// a large or a small block (fact sheet, VMFS 9). What both readings agree on is read;
    /// the rest is an error.
    fn check_large(
        &self,
        list: &BlockList,
        (table, index): (&[u64], usize),
        address: Address,
        large: u64,
    ) -> Result<()> {
        let slots = large.checked_div(list.block_size).unwrap_or(1).max(1);
        let Ok(slots) = usize::try_from(slots) else {
            return Ok(());
        };
        let first = index.saturating_sub(index.checked_rem(slots).unwrap_or(0));
        let head = table.get(first).copied().unwrap_or(0);
        let head = Address::parse(head, &self.geometry)?;
        let number = |a: &Address| match a {
            Address::Large { block, .. } => Some(*block),
            _ => None,
        };
        if number(&head) != number(&address) {
            return Err(DiskError::unsupported("reading a file with large blocks")
                .expected("all slots of a large block to say the same")
                .found(format!("{address:?} after {head:?}")));
        }
        Ok(())
    }

    fn sub_block(
        &self,
        list: &BlockList,
        item: Item,
        at: u64,
        room: u64,
        depth: u32,
    ) -> Result<Extent> {
        let sbc = self.sbc()?;
        let inside = at.checked_rem(list.block_size).unwrap_or(0);
        let left = sbc.size.saturating_sub(inside);
        if left == 0 {
            return Err(DiskError::corrupt("reading a sub-block")
                .expected(format!("at most {} bytes", sbc.size))
                .found(format!("byte {inside} of a block")));
        }
        let position = sbc
            .position(item)?
            .checked_add(inside)
            .ok_or_else(|| DiskError::corrupt("finding a sub-block"))?;
        self.resource_extent(sbc, position, room.min(left), depth)
    }

    /// Where a part of a resource file lies. It must lie somewhere.
    fn resource_extent(
        &self,
        resource: &Resource,
        at: u64,
        len: u64,
        depth: u32,
    ) -> Result<Extent> {
        if depth >= MAX_DEPTH || at >= resource.blocks.len {
            return Err(DiskError::corrupt(format!("reading {}", resource.name))
                .offset(at)
                .expected(format!(
                    "an offset inside its {} bytes",
                    resource.blocks.len
                )));
        }
        let extent = self.extent_at_depth(&resource.blocks, at, len, depth.saturating_add(1));
        match extent.place {
            Place::Stored(_) => Ok(extent),
            Place::Bad(e) => Err(e),
            _ => Err(DiskError::corrupt(format!("reading {}", resource.name))
                .offset(at)
                .expected("a block of the volume")
                .found("a hole")),
        }
    }
}
