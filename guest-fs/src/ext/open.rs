//! Opening: which superblock counts, and what the journal adds to the volume.

use super::{
    Ext,
    file::FileDisk,
    groups::Tables,
    inode::Inode,
    journal::{self, JournalSuperblock},
    layout::{CompatFeatures, IncompatFeatures},
    mapping,
    sums::Sums,
    superblock::{SUPERBLOCK_OFFSET, Superblock},
};
use crate::OpenOptions;
use disk_io::{Disk, DiskError, Result};
use std::sync::Arc;

/// The doubt that is not about the journal.
pub(super) const SUPERBLOCK_SUM: &str = "the checksum of the superblock is wrong";

impl Ext {
    /// Opens the file system on `disk`, which begins with it. A journal that holds committed
    /// transactions is replayed in memory.
    pub fn open(disk: Arc<dyn Disk>, options: &OpenOptions) -> Result<Self> {
        let _ = options;
        let mut remarks = Vec::new();
        let (sb, is_copy) = match Superblock::read(&disk, SUPERBLOCK_OFFSET) {
            Ok(sb) => (sb, false),
            Err(first) => (Self::backup_superblock(&disk, &first, &mut remarks)?, true),
        };
        if sb.size() > disk.len() {
            remarks.push(format!(
                "the file system says {} bytes and the volume has {}",
                sb.size(),
                disk.len()
            ));
        }
        let mut fs = Self {
            sb,
            volume: disk,
            remarks,
            doubts: Vec::new(),
            replayed: None,
        };
        if fs.sb.incompat & IncompatFeatures::RECOVER != 0 {
            fs.replay()?;
        } else {
            fs.look_at_journal(is_copy);
        }
        if !is_copy {
            fs.look_at_superblock()?;
        }
        Ok(fs)
    }

    /// Copies of the superblock stand in block groups 1, 3, 5, 7 …; the block size is not
    /// known yet, so the usual places for each size are tried.
    fn backup_superblock(
        disk: &dyn Disk,
        first: &DiskError,
        remarks: &mut Vec<String>,
    ) -> Result<Superblock> {
        for block_size in [1024u64, 4096, 2048, 65_536] {
            let group = block_size.saturating_mul(8).saturating_mul(block_size);
            let offset = group.saturating_add(if block_size == 1024 { 1024 } else { 0 });
            if let Ok(sb) = Superblock::read(disk, offset)
                && u64::from(sb.block_size) == block_size
            {
                remarks.push(format!(
                    "the superblock is damaged ({first}); the copy at {offset} is used"
                ));
                return Ok(sb);
            }
        }
        Err(first.clone())
    }

    /// Any field of a superblock with a wrong checksum may be the one that changed: where tables
    /// are, or whether the journal is to be replayed.
    fn look_at_superblock(&mut self) -> Result<()> {
        if Sums::of(&self.sb).is_none() {
            return Ok(());
        }
        let mut bytes = vec![0; 1024];
        self.volume.read_exact_at(&mut bytes, SUPERBLOCK_OFFSET)?;
        if Sums::superblock(&bytes).is_some() {
            self.doubts.push(SUPERBLOCK_SUM.into());
        }
        Ok(())
    }

    /// Whether a journal that is not to be replayed holds something all the same.
    fn look_at_journal(&mut self, is_copy: bool) {
        let has_journal = self.sb.compat & CompatFeatures::HAS_JOURNAL != 0;
        if !has_journal || self.sb.journal_inode.0 == 0 {
            return;
        }
        let journal = self.journal().and_then(|j| JournalSuperblock::read(&j));
        match journal {
            Err(e) => self.remarks.push(format!(
                "its journal cannot be read, and is not needed: {e}"
            )),
            // Copies of the superblock are written once, and do not say what the journal holds.
            Ok(journal) if journal.start != 0 && is_copy => {
                if let Err(e) = self.replay() {
                    let why = format!("its journal holds changes, and they are missing: {e}");
                    self.doubts.push(why);
                }
            }
            Ok(journal) if journal.start != 0 => self.doubts.push(
                "it says that it was closed cleanly, and its journal holds changes: they are \
                 missing"
                    .into(),
            ),
            Ok(journal) if journal.wrong_sum.is_some() => self
                .remarks
                .push("the checksum of its journal's superblock is wrong".into()),
            Ok(_) => {}
        }
    }

    fn journal(&self) -> Result<FileDisk> {
        let inode = Inode::read(&self.sb, &self.volume, self.sb.journal_inode)?;
        let runs = mapping::runs(&self.sb, &self.volume, &inode)?;
        let name = "the journal".into();
        let volume = self.volume.clone();
        Ok(FileDisk::new(volume, &self.sb, runs, inode.size, name))
    }

    fn replay(&mut self) -> Result<()> {
        if self.sb.journal_inode.0 == 0 {
            self.doubts.push(
                "not closed cleanly, and its journal is on another device: what was only \
                 in the journal is missing"
                    .into(),
            );
            return Ok(());
        }
        let outcome = journal::replay(self.volume.clone(), self.journal()?, self.sb.block_size)
            .map_err(|e| e.context("replaying the ext journal"))?;
        self.remarks.push(format!(
            "not closed cleanly: {} committed transactions ({} blocks) are read from the journal",
            outcome.transactions,
            outcome.disk.blocks()
        ));
        self.doubts.extend(outcome.doubts);
        self.replayed = Some(outcome.transactions);
        self.volume = Arc::new(outcome.disk);
        // The superblock and the descriptors may have been in the journal too.
        match Superblock::read(&self.volume, SUPERBLOCK_OFFSET) {
            Ok(sb) => self.sb = sb,
            Err(_) => self.sb.tables = Tables::default(),
        }
        Ok(())
    }
}
