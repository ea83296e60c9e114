//! How full a volume is, from the bitmaps of its file blocks (fact sheet, VMFS 6).

use crate::{resource::Resource, superblock::Layout, volume::Volume};
use disk_io::{DiskError, Fields, Result};

/// What is in use of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// File blocks that are allocated, in bytes.
    pub used: u64,
    /// File blocks that are free, in bytes.
    pub free: u64,
}

impl Volume {
    /// How full the volume is. `None` if that cannot be told without reading more than
    /// 64 MiB, or at all: of VMFS-6 volumes whose large blocks are in use.
    pub fn usage(&self) -> Result<Option<Usage>> {
        let core = &self.core;
        let fbb = core.fbb()?;
        let g = &core.geometry;
        let small = core.small_blocks()?;
        let clusters = small.as_ref().map_or(fbb.clusters(), Resource::clusters);
        let total = small.as_ref().map_or(fbb.total, |s| s.total);
        if clusters.saturating_mul(g.align as u64) > 64 << 20 {
            return Ok(None);
        }
        if small.is_some() {
            // Only where every large block was converted to small ones does it tell all.
            let mut converted = [0; 4];
            let at = u64::from(fbb.child).saturating_add(0x54);
            core.read_list(&fbb.blocks, &mut converted, at, 0)?;
            if u64::from(u32::from_le_bytes(converted)) < clusters {
                return Ok(None);
            }
        }
        let mut free = 0u64;
        for cluster in 0..clusters {
            let mut bytes = [0; 64];
            let place = match &small {
                None => fbb.cluster_header(cluster),
                Some(_) => small_header(fbb, cluster),
            };
            let at = place
                .and_then(|p| p.checked_add(g.align as u64))
                .ok_or_else(|| DiskError::corrupt("counting free blocks"))?;
            core.read_list(&fbb.blocks, &mut bytes, at, 0)?;
            let f = Fields::new(&bytes, at, "cluster header");
            let (number, here) = match g.layout {
                Layout::Five => (u64::from(f.u32_le(0)?), u64::from(f.u32_le(8)?)),
                Layout::Six => (f.u64_le(0x18)?, u64::from(f.u16_le(0x22)?)),
            };
            if number != cluster {
                return Err(f
                    .corrupt(0, "its own number")
                    .expected(cluster.to_string())
                    .found(number.to_string()));
            }
            free = free.saturating_add(here);
        }
        let blocks = |n: u64| n.saturating_mul(g.block_size);
        Ok(Some(Usage {
            used: blocks(total.saturating_sub(free)),
            free: blocks(free),
        }))
    }
}

/// Clusters of small blocks lie inside the groups of large ones (fact sheet, VMFS 6.2).
pub(crate) fn small_header(fbb: &Resource, cluster: u64) -> Option<u64> {
    let in_group = fbb.clusters_per_group.checked_mul(fbb.per_cluster)?;
    let group = cluster.checked_div(in_group)?;
    let index = cluster.checked_rem(in_group)?;
    fbb.first
        .checked_add(group.checked_mul(fbb.group_size)?)?
        .checked_add(fbb.clusters_per_group.checked_mul(fbb.header)?)?
        .checked_add(index.checked_mul(fbb.header)?)
}
