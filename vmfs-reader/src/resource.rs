//! Resource files (fact sheet, VMFS 6): bitmaps of descriptors, sub-blocks, pointer blocks,
//! file blocks, and for all but file blocks the resources themselves.

use crate::{
    address::Item,
    blocks::BlockList,
    superblock::{Geometry, Layout},
};
use disk_io::{DiskError, Fields, Result};

/// A resource file: its header, and where it lies.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) name: &'static str,
    pub(crate) blocks: BlockList,
    pub(crate) per_cluster: u64,
    pub(crate) clusters_per_group: u64,
    pub(crate) first: u64,
    pub(crate) size: u64,
    pub(crate) group_size: u64,
    pub(crate) total: u64,
    pub(crate) header: u64,
    /// VMFS-6: where the header of a resource inside this one lies, 0 if there is none.
    pub(crate) child: u32,
}

/// Length of the file's header that is looked at.
pub(crate) const HEADER: usize = 0x58;
const SIGNATURE: u32 = 0x7266_6D64;

impl Resource {
    /// Takes the header apart, which lies at the begin of the file.
    pub(crate) fn read(
        f: &Fields<'_>,
        name: &'static str,
        blocks: BlockList,
        g: &Geometry,
    ) -> Result<Self> {
        let total = u64::from(f.u32_le(0x14)?) | u64::from(f.u32_le(0x1C)?) << 32;
        let resource = Self {
            name,
            blocks,
            per_cluster: f.u32_le(0)?.into(),
            clusters_per_group: f.u32_le(4)?.into(),
            first: f.u32_le(8)?.into(),
            size: f.u32_le(0xC)?.into(),
            group_size: f.u32_le(0x10)?.into(),
            total,
            header: g.cluster_header,
            child: match g.layout {
                Layout::Five => 0,
                Layout::Six => f.u32_le(0x34)?,
            },
        };
        if g.layout == Layout::Six && f.u32_le(0x20)? != SIGNATURE {
            return Err(f
                .corrupt(0x20, "the signature")
                .expected(format!("{SIGNATURE:#x}"))
                .found(format!("{:#x}", f.u32_le(0x20)?)));
        }
        let least = resource.clusters_per_group.saturating_mul(
            resource
                .header
                .saturating_add(resource.per_cluster.saturating_mul(resource.size)),
        );
        if total > 0
            && (resource.per_cluster == 0
                || resource.clusters_per_group == 0
                || resource.per_cluster > 1 << 20
                || resource.clusters_per_group > 1 << 20
                || (resource.group_size < least && resource.size != 0))
        {
            return Err(f.corrupt(0, "the geometry").found(format!(
                "{total} resources of {} bytes, {} in a cluster, {} clusters in a group of {}",
                resource.size,
                resource.per_cluster,
                resource.clusters_per_group,
                resource.group_size
            )));
        }
        Ok(resource)
    }

    pub(crate) fn clusters(&self) -> u64 {
        self.total.div_ceil(self.per_cluster.max(1))
    }

    /// Offset in the resource file of a resource.
    pub(crate) fn position(&self, at: Item) -> Result<u64> {
        let number = at
            .cluster
            .checked_mul(self.per_cluster)
            .and_then(|n| n.checked_add(at.item))
            .filter(|n| at.item < self.per_cluster && *n < self.total);
        let inside = || {
            let group = at.cluster.checked_div(self.clusters_per_group)?;
            let index = at.cluster.checked_rem(self.clusters_per_group)?;
            let resources = index.checked_mul(self.per_cluster)?.checked_add(at.item)?;
            self.first
                .checked_add(group.checked_mul(self.group_size)?)?
                .checked_add(self.clusters_per_group.checked_mul(self.header)?)?
                .checked_add(resources.checked_mul(self.size)?)
        };
        match (number, inside()) {
            (Some(_), Some(position)) if self.size > 0 => Ok(position),
            _ => Err(
                DiskError::corrupt(format!("finding a resource of {}", self.name))
                    .expected(format!(
                        "one of {}, {} in a cluster",
                        self.total, self.per_cluster
                    ))
                    .found(format!("cluster {}, item {}", at.cluster, at.item)),
            ),
        }
    }

    /// Offset in the resource file of the header of a cluster.
    pub(crate) fn cluster_header(&self, cluster: u64) -> Option<u64> {
        let group = cluster.checked_div(self.clusters_per_group)?;
        let index = cluster.checked_rem(self.clusters_per_group)?;
        self.first
            .checked_add(group.checked_mul(self.group_size)?)?
            .checked_add(index.checked_mul(self.header)?)
    }
}
