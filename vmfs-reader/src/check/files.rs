//! Follows the addresses of files.

use super::{Check, Kind, Which, number};
use crate::{
    address::{Address, FdAddress},
    blocks::{BlockList, Mapping, Place},
    descriptor::Descriptor,
    superblock::LARGE_SHIFT,
};
use disk_io::{Disk, DiskError, ErrorKind, Finding};

/// A table of pointers, and what stands below each.
struct Table<'a> {
    pointers: &'a [u64],
    /// Levels of pointer blocks below it.
    depth: u32,
}

/// An error about contents, told at the descriptor that leads there.
fn at_descriptor(e: DiskError, place: u64) -> DiskError {
    if e.kind() != ErrorKind::Corrupt {
        return e;
    }
    let (expected, found) = e.difference();
    let mut told = DiskError::corrupt(e.doing()).offset(place);
    if let Some(expected) = expected {
        told = told.expected(expected);
    }
    if let Some(found) = found {
        told = told.found(found);
    }
    told
}

impl Check<'_> {
    /// What an address stands for: resources of a kind, from a number on, and how many.
    /// `None` where nothing is taken, or there are no such ones.
    pub(super) fn place_of(&self, address: Address) -> Option<(Kind, u64, u64)> {
        let core = self.core;
        let (kind, number) = match address {
            Address::File { block, .. } => {
                let end = block
                    .checked_add(1)?
                    .checked_mul(core.geometry.block_size)?;
                (end <= core.disk.len()).then_some((Kind::Block, block))?
            }
            Address::Large { block, .. } => {
                let count = 1u64 << LARGE_SHIFT;
                let first = block.checked_mul(count)?;
                let end = first.checked_mul(core.geometry.block_size)?;
                return (end < core.disk.len()).then_some((Kind::Block, first, count));
            }
            Address::Sub { item, .. } => (Kind::Sub, number(core.sbc(), item)?),
            Address::Pointer(item) => (Kind::Pointer, number(core.pbc(), item)?),
            Address::Pointer2(item) => (Kind::Pointer2, number(core.pb2(), item)?),
            Address::Null | Address::Descriptor(_) | Address::Journal(_) => return None,
        };
        Some((kind, number, 1))
    }

    /// The number of a descriptor.
    pub(super) fn number_of(&self, address: FdAddress) -> Option<u64> {
        number(self.core.fdc(), address.item())
    }

    /// Notes a descriptor as reached; false if it was before.
    pub(super) fn reach(&mut self, address: FdAddress) -> bool {
        let number = self.number_of(address);
        number.is_none_or(|n| self.used.of(Kind::Descriptor).insert(n))
    }

    /// Follows the addresses of a file that was reached.
    pub(super) fn file(&mut self, file: Which<'_>, descriptor: &Descriptor) {
        self.checked.files = self.checked.files.saturating_add(1);
        let list = &descriptor.blocks;
        let Mapping::Blocks { depth } = list.mapping else {
            return;
        };
        let per = self.core.geometry.per_block.max(1);
        let reach = (0..depth).fold(list.block_size, |r, _| r.saturating_mul(per));
        let most = reach.saturating_mul(list.pointers.len() as u64);
        if list.len > most {
            let e = DiskError::corrupt("reading a file descriptor")
                .offset(descriptor.stat.place)
                .expected(format!("at most {most} bytes, which its pointers reach"))
                .found(format!("a length of {}", list.len));
            self.found(Finding::damage("vmfs-descriptor-damaged", e), &[file]);
        }
        let table = Table {
            pointers: &list.pointers,
            depth,
        };
        let mut last = None;
        self.table(list, &table, &mut last, file, descriptor.stat.place);
    }

    fn table(
        &mut self,
        list: &BlockList,
        table: &Table<'_>,
        last: &mut Option<u64>,
        file: Which<'_>,
        place: u64,
    ) {
        let damaged = |e| Finding::damage("vmfs-descriptor-damaged", at_descriptor(e, place));
        for (index, raw) in table
            .pointers
            .iter()
            .enumerate()
            .filter(|(_, raw)| **raw != 0)
        {
            if self.failed.is_some() {
                return;
            }
            let address = match Address::parse(*raw, &self.core.geometry) {
                Ok(address) => address,
                Err(e) => {
                    self.found(damaged(e), &[file]);
                    continue;
                }
            };
            if let Address::Large { block, .. } = address {
                // One large block may take many pointers.
                if last.replace(block) == Some(block) {
                    continue;
                }
            }
            self.checked.addresses = self.checked.addresses.saturating_add(1);
            let below = table.depth.checked_sub(1);
            if below.is_none() {
                let extent = self
                    .core
                    .resolve(list, table.pointers, index, *raw, 0, 1, 0);
                if let Place::Bad(e) = extent.place {
                    self.found(damaged(e), &[file]);
                    continue;
                }
            }
            let fresh = self.take(address, *raw, file, place);
            // What was followed already is not followed again: it is told of, and hostile
            // tables would lead on without end.
            if let Some(depth) = below.filter(|_| fresh) {
                match self.core.pointer_block(*raw, 0) {
                    Ok(pointers) => {
                        let below = Table {
                            pointers: &pointers,
                            depth,
                        };
                        self.table(list, &below, last, file, place);
                    }
                    Err(e) => self.found(damaged(e), &[file]),
                }
            }
        }
    }

    /// Notes what an address stands for as used; false if it was.
    fn take(&mut self, address: Address, raw: u64, file: Which<'_>, place: u64) -> bool {
        let Some((kind, first, count)) = self.place_of(address) else {
            let e = DiskError::corrupt("following the addresses of a file")
                .offset(place)
                .expected("a block of the volume")
                .found(format!("{raw:#x}"));
            self.found(Finding::damage("vmfs-descriptor-damaged", e), &[file]);
            return false;
        };
        // Snapshots of files share blocks that are to be copied when one of them is written.
        let cow = matches!(
            address,
            Address::File { cow: true, .. }
                | Address::Large { cow: true, .. }
                | Address::Sub { cow: true, .. }
        );
        let mut fresh = true;
        for n in first..first.saturating_add(count) {
            if !self.used.of(kind).insert(n) {
                fresh = false;
                if !cow {
                    self.suspects.shared(kind, n);
                }
            }
        }
        fresh
    }
}
