//! Descriptors of deleted files (fact sheet, VMFS 8): a free descriptor keeps its address,
//! length, times, and contents if they were inside it, but neither name nor pointers.

use crate::{
    address::{FdAddress, Item},
    core::Core,
    descriptor::{Descriptor, Stat},
    superblock::Layout,
    volume::Volume,
};
use disk_io::{DiskError, Fields, Result};
use std::ops::ControlFlow;

/// A descriptor that is free and still describes a file.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// What it still says. The name is lost.
    pub stat: Stat,
    /// The contents, if they were inside the descriptor and are not empty.
    pub contents: Option<Vec<u8>>,
}

impl Volume {
    /// Visits the free descriptors that were in use before. Damaged clusters are visited as
    /// errors. Costs reading the bitmaps of all descriptors.
    pub fn deleted(&self, visit: &mut dyn FnMut(Result<Deleted>) -> ControlFlow<()>) -> Result<()> {
        let core = &self.core;
        let fdc = core.fdc()?;
        for cluster in 0..fdc.clusters().min(1 << 16) {
            let free = match core.free_descriptors(cluster) {
                Ok(Some(free)) => free,
                // The file may end before the clusters that it counts.
                Ok(None) => return Ok(()),
                Err(e) => {
                    if visit(Err(e)).is_break() {
                        return Ok(());
                    }
                    continue;
                }
            };
            for item in free {
                let address = u32::try_from(cluster)
                    .ok()
                    .and_then(|cluster| FdAddress::new(cluster, item));
                let Some(address) = address else { continue };
                // Descriptors that were never used are zero or hold no magic.
                let Ok(found) = core.descriptor(address) else {
                    continue;
                };
                if visit(Ok(deleted(found))).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Core {
    /// Numbers of the free items of a cluster of descriptors; `None` past the end.
    pub(crate) fn free_descriptors(&self, cluster: u64) -> Result<Option<Vec<u32>>> {
        let core = self;
        let fdc = core.fdc()?;
        let g = &core.geometry;
        let at = fdc
            .cluster_header(cluster)
            .and_then(|p| p.checked_add(g.align as u64))
            .ok_or_else(|| DiskError::corrupt("finding a cluster of descriptors"))?;
        let mut bytes = [0; 512];
        if at.saturating_add(512) > fdc.blocks.len {
            return Ok(None);
        }
        core.read_list(&fdc.blocks, &mut bytes, at, 0)?;
        let f = Fields::new(&bytes, at, "cluster of descriptors");
        let (number, total, map) = match g.layout {
            Layout::Five => (u64::from(f.u32_le(0)?), f.u32_le(4)?, 0x10),
            Layout::Six => (f.u64_le(0x18)?, u32::from(f.u16_le(0x20)?), 0x80),
        };
        if number != cluster || u64::from(total) > fdc.per_cluster {
            return Err(f
                .corrupt(0, "its own number")
                .expected(cluster.to_string())
                .found(format!("{number}, with {total} descriptors")));
        }
        let mut free = Vec::new();
        for item in 0..total {
            let byte = (item / 8) as usize;
            let bits = f.u8(byte.saturating_add(map))?;
            let last = Item {
                cluster,
                item: item.into(),
            };
            let inside = fdc
                .position(last)?
                .checked_add(g.descriptor as u64)
                .is_some_and(|end| end <= fdc.blocks.len);
            if bits >> (item % 8) & 1 == 1 && inside {
                free.push(item);
            }
        }
        Ok(Some(free))
    }
}

fn deleted(found: Descriptor) -> Deleted {
    let contents = match &found.blocks.mapping {
        crate::blocks::Mapping::Resident(bytes) if !bytes.is_empty() => Some(bytes.to_vec()),
        _ => None,
    };
    Deleted {
        stat: found.stat,
        contents,
    }
}
