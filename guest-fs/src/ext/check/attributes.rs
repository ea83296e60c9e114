//! Blocks of attributes, which inodes share: their header, their checksum, and whether they count
//! as many inodes as have them.

use super::{
    super::{inode::Inode, layout::BlockNumber},
    Check, wrong,
};
use disk_io::{DiskError, Fields, Finding, Result};

const MAGIC: u32 = 0xea02_0000;

/// What is known of a block of attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    /// The first inode that has it.
    inode: u32,
    /// How many have it.
    users: u32,
    /// How many it counts itself.
    counts: u32,
    place: u64,
}

fn damaged(e: DiskError, inode: u32) -> Finding {
    Finding::damage("ext-attributes-damaged", e).about(inode.into())
}

impl Check<'_> {
    /// Takes the attribute block of an inode; the first that has it has the block.
    pub(super) fn attributes(&mut self, inode: &Inode) -> Result<()> {
        let (block, number) = (inode.file_acl, inode.number.0);
        if block.0 == 0 {
            return Ok(());
        }
        if block.0 >= self.sb().blocks_count {
            let e = DiskError::corrupt(format!("reading the attributes of inode {number}"))
                .offset(inode.place)
                .expected(format!("a block below {}", self.sb().blocks_count))
                .found(block.0.to_string());
            self.tell(Finding::damage("ext-inode-damaged", e).about(number.into()));
            return Ok(());
        }
        if let Some(known) = self.attributes.get_mut(&block.0) {
            known.users = known.users.saturating_add(1);
            return Ok(());
        }
        self.claim(number, block.0, 1);
        let place = self.sb().offset(block)?;
        let known = Attributes {
            inode: number,
            users: 1,
            counts: u32::MAX,
            place,
        };
        self.attributes.insert(block.0, known);
        match self.attribute_block(block, place, number) {
            Ok(counts) => {
                if let Some(known) = self.attributes.get_mut(&block.0) {
                    known.counts = counts;
                }
                Ok(())
            }
            Err(e) => self.tell_or_fail(e, |e| damaged(e, number)),
        }
    }

    /// How many inodes a block of attributes counts.
    fn attribute_block(&mut self, block: BlockNumber, place: u64, inode: u32) -> Result<u32> {
        let mut bytes = vec![0; self.sb().block_size as usize];
        self.disk().read_exact_at(&mut bytes, place)?;
        let f = Fields::new(&bytes, place, "extended attribute block");
        let (magic, counts, blocks) = (f.u32_le(0)?, f.u32_le(4)?, f.u32_le(8)?);
        if magic != MAGIC || blocks != 1 {
            return Err(f
                .corrupt(0, "the header")
                .expected(format!("{MAGIC:#010x}, of one block"))
                .found(format!("{magic:#010x}, of {blocks}")));
        }
        if let Some(bad) = self.sums.and_then(|s| s.attribute_block(block, &bytes)) {
            let what = format!("the attribute block of inode {inode}");
            self.tell(damaged(wrong(what, place, bad), inode));
        }
        Ok(counts)
    }

    /// A block that counts fewer inodes than have it is given away while it is in use. One that
    /// counts more is lost at worst: files that were deleted while they were open are counted.
    pub(super) fn finish_attributes(&mut self) {
        let mut few: Vec<Attributes> = std::mem::take(&mut self.attributes)
            .into_values()
            .filter(|a| a.users > a.counts)
            .collect();
        few.sort_unstable_by_key(|a| a.place);
        for one in few {
            let e = DiskError::corrupt("holding attribute blocks against inodes")
                .offset(one.place)
                .expected(format!("{} inodes, the first is {}", one.users, one.inode))
                .found(format!("a count of {}", one.counts));
            let finding = Finding::warning("ext-attributes-damaged", e);
            self.tell(finding.about(one.inode.into()));
        }
    }
}
