//! The map of an inode's blocks, held against what the inode says of it.
//!
//! An extent that was lost or cut leaves zeros in a file, and a size that was cut leaves its end
//! away; without checksums only these counts tell.

use super::super::{
    Ext,
    inode::Inode,
    layout::{IncompatFeatures, InodeFlags, RoCompatFeatures},
    mapping::{self, Seen},
    sums::InodeSums,
};
use disk_io::Result;

/// What the map has.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// Blocks of the tree with wrong checksums.
    pub(super) wrong: u64,
    /// Blocks, those of the tree and those never written included.
    blocks: u64,
    /// Whether something is written behind the end of the file.
    beyond: bool,
    /// Whether all of it was looked at.
    whole: bool,
}

impl Map {
    pub(super) fn read(fs: &Ext, inode: &Inode, sums: Option<InodeSums>) -> Result<Self> {
        let mut map = Self {
            whole: true,
            ..Self::default()
        };
        let mut left = mapping::most_nodes(&fs.sb);
        let runs =
            mapping::runs_and_nodes(
                &fs.sb,
                &*fs.volume,
                inode,
                &mut left,
                &mut |seen| match seen {
                    Seen::Node(_, bytes, extents) => {
                        map.blocks = map.blocks.saturating_add(1);
                        let bad = sums.filter(|_| extents).and_then(|s| s.extent_block(bytes));
                        map.wrong = map.wrong.saturating_add(bad.is_some().into());
                    }
                    Seen::Unwritten(_) => {}
                    Seen::Beyond => (map.beyond, map.whole) = (true, false),
                },
            )?;
        let end = inode.size.div_ceil(fs.sb.block_size.into());
        for run in runs {
            map.blocks = map.blocks.saturating_add(run.len);
            map.beyond |= run.at.is_some() && run.first.0.saturating_add(run.len) > end;
        }
        Ok(map)
    }

    /// What contradicts the inode.
    pub(super) fn against(&self, fs: &Ext, inode: &Inode, doubts: &mut Vec<String>) {
        // A volume that was not closed may be in the middle of cutting or growing files: those are
        // the orphans.
        let closed = fs.sb.state & 1 != 0 && !fs.sb.has_orphans;
        if self.beyond && closed && !inode.has(InodeFlags::BEYOND_SIZE) {
            doubts.push(format!(
                "blocks are written behind its size of {} bytes: its end may be missing",
                inode.size
            ));
        }
        // Clusters, shared blocks and attributes in inodes of their own are counted in other ways.
        let plain =
            fs.sb.ro_compat & (RoCompatFeatures::BIGALLOC | RoCompatFeatures::SHARED_BLOCKS) == 0
                && fs.sb.incompat & IncompatFeatures::EA_INODE == 0;
        if !plain || !self.whole {
            return;
        }
        let attributes = u64::from(inode.file_acl.0 != 0);
        let mapped = self
            .blocks
            .saturating_add(attributes)
            .saturating_mul(fs.sb.block_size.into());
        if mapped != inode.allocated {
            doubts.push(format!(
                "its inode counts {} bytes of blocks and {mapped} are found: parts of it may be missing",
                inode.allocated
            ));
        }
    }
}
